"""The measures of HLV: how much structure a reconstruction keeps, which cue decides, and what corruptions do.

Letters (CONTRIBUTING.md): M images, C channels, H x W pixels, h x w pixels.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lcmae_core.analysis import fidelity as reconstruction_fidelity
from lcmae_core.analysis.cues import Pairs, conflicting_pairs, cue_conflict
from lcmae_core.analysis.reconstruction import rebuild_whole
from lcmae_core.config import PROFILES
from lcmae_core.data.augment import denormalize, normalize
from lcmae_core.data.corruptions import SMALLEST, corrupted, corruption_names
from lcmae_core.data.loader import Batch
from lcmae_core.store.records import Values, packed, rounded
from lcmae_core.studies.specimen import IMAGES, Specimen, blocked
from lcmae_core.training.held_out import examples, known_labels
from lcmae_core.training.probe import classifier

CONFLICTS = {name: one.conflicts for name, one in PROFILES.items()}
"""Cue-conflict images, at most: one for each held-out photograph."""
PART = 64
"""Images rebuilt at once."""
SEVERITIES = {name: one.severities for name, one in PROFILES.items()}


def fidelity(specimen: Specimen) -> Values:
    """SSIM, FSIM, PSNR (dB) and MSE of what the decoder makes of whole images, (M,) each; named colour_, the same of
    the images in which every patch has its mean colour: the structure that is kept without any pixel."""
    held, patch, norm_pix = specimen.held, specimen.settings.model.patch_size, specimen.settings.loss.norm_pix
    model = specimen.model().to(held.images.device)
    by_name: dict[str, list[Tensor]] = {}
    for images in held.images.split(PART):
        truth = denormalize(images)
        guesses = {"": rebuild_whole(model, images, norm_pix=norm_pix), "colour_": mosaic(truth, patch)}
        for kind, guess in guesses.items():
            for name, values in reconstruction_fidelity.fidelity(guess, truth)._asdict().items():
                by_name.setdefault(kind + name, []).append(values)
    return {name: rounded(blocked(torch.cat(parts)), 6) for name, parts in by_name.items()}


def mosaic(images: Tensor, patch: int) -> Tensor:
    """Images (M, C, h, w) in which every patch of that side has its mean colour."""
    means = torch.nn.functional.avg_pool2d(images, patch)
    return means.repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)


def conflicts(batch: Batch, seed: int) -> tuple[Tensor, Pairs]:
    """A cue-conflict image (in [0, 1]) for every photograph of a batch, and which photographs gave shape and texture.

    Raises:
        LabelsError: the source has no labels, or the photographs are of one class.
    """
    pairs = conflicting_pairs(known_labels(batch.labels).cpu(), torch.Generator().manual_seed(seed))
    pixels = denormalize(batch.images)
    made = [cue_conflict(pixels[a], pixels[b]) for a, b in zip(pairs.shape.split(4), pairs.texture.split(4))]
    return torch.cat(made), pairs


def cues(specimen: Specimen) -> Values:
    """What the linear probe sees in cue-conflict images: shape (M,), the class of the photograph that gave the shape,
    or texture (M,), that of the other; often neither. Shape bias is shape / (shape + texture) of their means. Left out
    where all held-out photographs are of one class."""
    batch = examples(specimen.labelled, CONFLICTS[specimen.profile])
    labels = known_labels(batch.labels).cpu()
    if len(labels.unique()) < 2:
        return {"left_out": "the held-out photographs are of one class"}
    images, pairs = conflicts(batch, seed=0)  # the same for every run
    classes = _reader(specimen, images.device)(255 * images)
    return {name: packed((classes == labels[getattr(pairs, name)]).numpy()) for name in Pairs._fields}


def corruptions(specimen: Specimen) -> Values:
    """The linear probe under the common corruptions: accuracy (corruptions, severities) of `names` at `severities`,
    share (M,) of right answers over all of them, clean (M,) without any. Left out where images are too small."""
    if min(specimen.settings.data.image_size) < SMALLEST:
        return {"left_out": f"images under {SMALLEST} px"}
    batch = examples(specimen.labelled, IMAGES[specimen.profile])
    labels = known_labels(batch.labels).cpu()
    pixels = (denormalize(batch.images) * 255).round().to(torch.uint8)  # (M, C, H, W)
    severities = SEVERITIES[specimen.profile]
    spoiled = corrupted(pixels.permute(0, 2, 3, 1).cpu().numpy(), severities)  # (corruptions, severities, M, H, W, C)
    every, read = torch.tensor(spoiled), _reader(specimen, batch.images.device)
    classes = read(every.flatten(0, 2).permute(0, 3, 1, 2)).view(every.shape[:3])
    right = (classes == labels).numpy()  # (corruptions, severities, M)
    clean = (read(pixels) == labels).numpy()  # (M,)
    accuracy, share = right.mean(axis=2), right.mean(axis=(0, 1))
    return {
        "names": list(corruption_names()), "severities": list(severities), "clean": packed(clean),
        "accuracy": np.round(accuracy, 4).tolist(), "share": rounded(blocked(torch.from_numpy(share)), 4),
    }  # fmt: skip


def _reader(specimen: Specimen, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Pixels in [0, 255], (M, C, H, W), to the classes that the run's linear probe reads from them, (M,) on the CPU."""
    scores = classifier(specimen.probe(), specimen.origin.load().to(device).eval())
    size = specimen.settings.optim.batch_size

    def read(pixels: Tensor) -> Tensor:
        parts = [scores(normalize(part.to(device).float())).argmax(dim=1).cpu() for part in pixels.split(size)]
        return torch.cat(parts)

    return read
