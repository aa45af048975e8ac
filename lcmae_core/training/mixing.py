"""Mixed images and soft targets, as fine-tuning and the supervised reference have them; timm's, made resumable.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels.
"""

from typing import NamedTuple

from jaxtyping import Float
from timm.data.mixup import Mixup, mixup_target
from torch import Tensor

from lcmae_core.config import LcmaeError, Supervision
from lcmae_core.config.downstream import FineTune
from lcmae_core.data.loader import Batch
from lcmae_core.data.randaugment import lent_randomness, seed_of
from lcmae_core.training.distributed import batch_of_all, ranks


class Mixed(NamedTuple):
    """Images and the share of every class in each."""

    images: Float[Tensor, "B C H W"]
    targets: Float[Tensor, "B classes"]


def mix_batch(
    batch: Batch, recipe: FineTune | Supervision, classes: int, seed: int, place: int | None = None, index: int = 0
) -> Mixed:
    """timm's mixup or CutMix of a batch with itself reversed, a pure function of (seed, place, index), by default the
    place of its first image. Of several ranks each gets its rows of the mixed batch of all: images pair as they would
    in one process.

    One of the two at even odds where both are on. A label smoothed by s is 1 - s + s / classes for its class
    and s / classes for the others.

    Raises:
        LcmaeError: an odd number of images, which cannot be paired.
    """
    assert batch.labels is not None
    if not recipe.mixup and not recipe.cutmix:
        return Mixed(batch.images, mixup_target(batch.labels, classes, 1.0, recipe.smoothing))
    whole = batch_of_all(batch)
    if len(whole.images) % 2:
        raise LcmaeError(f"batch_size: got {len(whole.images)}, expected an even number (mixup pairs the images)")
    mixer = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.smoothing, num_classes=classes)
    with lent_randomness(seed_of(seed, "mixup", *(whole.first if place is None else (place, index)))):
        mixed = mixer(whole.images.clone(), whole.labels)  # timm mixes in place
    return Mixed(*(rows.chunk(ranks().of)[ranks().number] for rows in mixed))
