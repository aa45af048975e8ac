"""What is measured of a checkpoint, how many passes of an image that takes, and how long by the speed of this machine.

Letters (CONTRIBUTING.md): M images, Q queries, h x w pixels.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcmae_core.analysis.blocks import geometry
from lcmae_core.analysis.neighbours import Features, alone_right
from lcmae_core.analysis.receptive import fixed_queries, gradient_energy
from lcmae_core.analysis.reconstruction import as_pictures, reconstruct
from lcmae_core.analysis.streams import attention_profile, decoder_looks, for_batch, semantic_profiles
from lcmae_core.data.augment import denormalize
from lcmae_core.models.encoder import Encoder
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask
from lcmae_core.models.patches import patchify
from lcmae_core.store.progress import Silent
from lcmae_core.store.records import Values, packed, rounded
from lcmae_core.studies import measures, measures_attention, measures_vectors
from lcmae_core.studies.checkpoints.meter import Meter
from lcmae_core.studies.checkpoints.specimen import CheckpointSpecimen
from lcmae_core.studies.specimen import blocked
from lcmae_core.training.held_out import known_labels
from lcmae_core.training.masked import view_masks
from lcmae_core.viewer.figures import Picture, image_rows

Measure = Callable[[CheckpointSpecimen], Values]
NO_DECODER = "no decoder of attention blocks in it"
NO_DINO = "no DINO with the same grid of patches among the models"
NO_LABELS = "the images have no labels"
DOUBLE = 4
"""Passes in float32 that one in float64 takes the time of."""


def reconstruction(specimen: CheckpointSpecimen) -> Values:
    """PSNR over hidden patches, dB, (M,), each image under its own mask: psnr_<what made it>, the model beside its
    rivals (`analysis.reconstruction.reconstruct`)."""
    model, by_batch = specimen.model(), []
    for batch in specimen.parts():
        (mask,) = view_masks(specimen.settings, batch, 1)
        made = reconstruct(model, batch.images, mask, norm_pix=specimen.settings.loss.norm_pix)
        by_batch.append({name: each.psnr for name, each in made.items()})
    psnr = {name: torch.cat([part[name] for part in by_batch]) for name in by_batch[0]}
    return {f"psnr_{name.replace(' ', '_').replace('-', '_')}": rounded(blocked(v), 3) for name, v in psnr.items()}


def rebuilt(specimen: CheckpointSpecimen, count: int = 6) -> Picture:
    """Some of the images as the model sees them, as colours of the visible neighbours, as it makes them, and as they
    are."""
    batch, patch, grid = specimen.few(count), specimen.settings.model.patch_size, specimen.settings.grid
    (mask,) = view_masks(specimen.settings, batch, 1)
    norm_pix = specimen.settings.loss.norm_pix
    made = reconstruct(specimen.model(), batch.images, mask, norm_pix=norm_pix)
    truth = patchify(denormalize(batch.images), patch)
    return image_rows({
        "what it sees": as_pictures(truth, patch, grid, mask.hidden),
        "neighbours": as_pictures(made["neighbours"].pixels, patch, grid),
        "the model": as_pictures(made["norm-pix" if norm_pix else "pixel"].pixels, patch, grid),
        "photograph": as_pictures(truth, patch, grid),
    })  # fmt: skip


@torch.no_grad()
def knn(specimen: CheckpointSpecimen) -> Values:
    """Weighted kNN of the mean patch token, every image judged by all others: right (M,), their mean accuracy, and the
    number of classes among them.

    Raises:
        NoLabelsError: the images have no labels.
    """
    labels, encoder = known_labels(specimen.pictures.labels), specimen.encoder()
    tokens = partial(measures_attention.patch_tokens, encoder, geometry(encoder).prefix)
    means = torch.cat([tokens(part).mean(1) for part in specimen.split(specimen.pictures.images)])
    right = alone_right(Features(means, labels))
    return {"accuracy": float(right.mean()), "right": packed(right), "classes": len(labels.unique())}


OF_ENCODERS: dict[str, Measure] = {
    "distance": measures_attention.distance,
    "invariance": measures_vectors.invariance,
    "receptive": measures_attention.receptive,
    "knn": knn,
}
OF_DECODERS: dict[str, Measure] = {
    "similarity": measures_attention.similarity,
    "terms": measures_vectors.terms,
    "semantic": measures.semantic,
    "reconstruction": reconstruction,
}
EVERY: dict[str, Measure] = OF_ENCODERS | OF_DECODERS
"""What is measured of a checkpoint, in this order; of one without a decoder the first of them."""


class Work(NamedTuple):
    """passes: of an image through an encoder (with what follows it), forward or backward. seconds: what they take.
    plain: what they would take if nothing were looked at on the way."""

    passes: int
    seconds: float
    plain: float


class Speed:
    """Seconds an image of every kind of pass on this machine, each timed once on a batch when it is asked for."""

    def __init__(self, specimen: CheckpointSpecimen) -> None:
        self._specimen = replace(specimen, meter=Meter(Silent()))
        began = time.perf_counter()
        self._model = self._specimen.model()
        self.loading = time.perf_counter() - began
        self._encoder = getattr(self._model, "encoder", self._model)
        self._images = specimen.split(specimen.pictures.images)[0]
        self._mask = specimen.mask()
        self._run(self._encoder, self._images[:1])  # the first pass of a process is slower

    @cached_property
    def full(self) -> float:
        """Forward, all patches."""
        return _timed(lambda: self._run(self._encoder, self._images), self._images)

    @cached_property
    def masked(self) -> float:
        """Forward, visible patches of the encoder alone."""
        profile = partial(measures_vectors.mean_tokens, self._encoder, mask=self._mask)
        return _timed(lambda: profile(self._images), self._images)

    @cached_property
    def decoded(self) -> float:
        """Forward, masked encoder and decoder."""
        return _timed(lambda: self._run(self._model, self._images, self._shared), self._images)

    @cached_property
    def looked(self) -> float:
        """The first, with every measure of every map."""
        return _timed(lambda: attention_profile(self._encoder, [self._images], radii=(1, 2, 3)), self._images)

    @cached_property
    def looked_decoded(self) -> float:
        """The third, with the decoder's maps."""
        return _timed(lambda: decoder_looks(self._model, [self._images], self._mask), self._images)

    @cached_property
    def alike(self) -> float:
        """The third and the first of the reference, with S_sim in four ways."""
        reference, ways = self._specimen.reference(), tuple((c, s) for c in (False, True) for s in (False, True))
        run = partial(semantic_profiles, self._model, reference, [self._images], self._mask, ways=ways)
        return _timed(run, self._images)

    @cached_property
    def back(self) -> float:
        """Backward from a token to the pixels, and its share of the forward pass that keeps a graph."""
        place, images = geometry(self._encoder), self._specimen.split(self._images, small=True)[0]
        tokens = partial(measures_attention.patch_tokens, self._encoder, place.prefix)
        probes, queries = torch.ones(1, len(images), self._encoder.embed_dim), fixed_queries(place.grid)
        patch = self._specimen.settings.model.patch_size
        return _timed(lambda: gradient_energy(tokens, images, patch, queries, probes), images) / (1 + len(queries))

    @property
    def _shared(self) -> Mask:
        return for_batch(self._mask, len(self._images))

    @torch.no_grad()
    def _run(self, model: Any, *given: Any) -> None:
        model(*given) if isinstance(model, MAE | Encoder) else model.forward_features(*given)


def _timed(run: Callable[[], Any], images: Tensor) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) / len(images)


def planned(measure: str, specimen: CheckpointSpecimen, speed: Speed) -> Work:
    """The passes of a measure and the time that they take."""
    count = len(specimen.pictures.images)
    few = min(count, len(specimen.few().images))
    return _PLANS[measure](specimen, speed, count, few)


def _distance(specimen: CheckpointSpecimen, speed: Speed, count: int, few: int) -> Work:
    look, plain = speed.looked, speed.full
    if not specimen.hides or specimen.mask().keep.shape[1] < 2:
        return Work(count, count * look + speed.loading, count * plain)
    share = speed.masked / plain
    return Work(2 * count, count * look * (1 + share) + 2 * speed.loading, count * (plain + speed.masked))


def _invariance(specimen: CheckpointSpecimen, speed: Speed, count: int, few: int) -> Work:
    seconds = 4 * count * speed.masked
    return Work(4 * count, seconds + 3 * speed.loading, seconds)


def _receptive(specimen: CheckpointSpecimen, speed: Speed, count: int, few: int) -> Work:
    passes = few * (1 + len(fixed_queries(specimen.settings.grid)))
    return Work(passes, passes * speed.back + speed.loading, passes * speed.back)


def _knn(specimen: CheckpointSpecimen, speed: Speed, count: int, few: int) -> Work:
    return Work(count, count * speed.full + speed.loading, count * speed.full)


def _similarity(specimen: CheckpointSpecimen, speed: Speed, count: int, few: int) -> Work:
    size = min(measures_attention.LARGEST, max(2, count // measures_attention.GROUPS))
    used = count - 1 if count % size == 1 else count  # one image makes no pair
    return Work(2 * used, 2 * used * speed.looked_decoded + 3 * speed.loading, 2 * used * speed.decoded)


def _terms(specimen: CheckpointSpecimen, speed: Speed, count: int, few: int) -> Work:
    exact = 2 * min(measures_vectors.GROUP, count)
    passes = 6 * count
    seconds = (passes + DOUBLE * exact) * speed.decoded
    return Work(passes + exact, seconds + 4 * speed.loading, seconds)


def _semantic(specimen: CheckpointSpecimen, speed: Speed, count: int, few: int) -> Work:
    return Work(2 * count, count * speed.alike + 2 * speed.loading, count * (speed.decoded + speed.full))


def _reconstruction(specimen: CheckpointSpecimen, speed: Speed, count: int, few: int) -> Work:
    return Work(count, count * speed.decoded + speed.loading, count * speed.decoded)


_PLANS: dict[str, Callable[[CheckpointSpecimen, Speed, int, int], Work]] = {
    "distance": _distance, "invariance": _invariance, "receptive": _receptive, "knn": _knn, "similarity": _similarity,
    "terms": _terms, "semantic": _semantic, "reconstruction": _reconstruction,
}  # fmt: skip
