"""Batches for fine-tuning: RandAugment and random erasing by timm, image by image in worker processes.

Both draw from Python's, NumPy's and PyTorch's global generators; here these are lent to them under a seed that is a
function of (seed, epoch, index), and handed back untouched: a picture is the same in whatever process it is made.
Letters: B images, C channels, h w crop.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from timm.data.auto_augment import posterize, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import Dataset

from ..config import Data, LcmaeError
from ..config.downstream import FineTune
from .augment import IMAGENET_MEAN, normalize
from .counter import Positions, mix, positions, stream_key
from .loader import Batch, cut_resize, pixels_of, read_ahead, shrink
from .splits import Split
from .views import Views


def seed_of(seed: int, stream: str, epoch: int, index: int = 0) -> int:
    """A 63-bit seed of a named stream at one place: the same in every process."""
    key = mix(torch.tensor([stream_key(seed, stream)]) + epoch)
    return int(mix(key + index)[0]) & (2**63 - 1)


@contextmanager
def lent_randomness(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, every global generator starts at `seed`; afterwards it stands where it stood before."""
    device = torch.device(device)
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def rand_augment(policy: str, size: tuple[int, int], channels: int) -> Any:
    """timm's RandAugment of a policy string, with the gaps it opens filled by ImageNet's mean colour.

    Posterizing keeps at least one bit: timm asks for none at its strongest (a black picture), which Pillow now refuses.

    Raises:
        LcmaeError: a policy that timm does not know.
    """
    grey = [round(255 * value) for value in IMAGENET_MEAN]
    fill = {"img_mean": tuple(grey) if channels == 3 else round(sum(grey) / 3)}
    try:
        found = rand_augment_transform(policy, {"translate_const": int(min(size) * 0.45), **fill})
    except (AssertionError, ValueError, KeyError):
        raise LcmaeError(
            f"rand_augment: got {policy!r}, expected timm's form, such as 'rand-m9-mstd0.5-inc1'"
        ) from None
    for operation in found.ops:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    return found


def _posterize(picture: Image.Image, bits: int, **more: Any) -> Image.Image:
    return posterize(picture, max(1, bits), **more)


class _Augmented(Dataset[Tensor]):
    """(epoch, index) -> the crop, augmented, normalised, partly erased; what a worker runs."""

    def __init__(self, split: Split, views: Views, data: Data, recipe: FineTune) -> None:
        self.split, self.views = split, views
        policy = recipe.rand_augment
        self.augment = rand_augment(policy, data.image_size, data.channels) if policy else None
        self.erase = RandomErasing(recipe.erase, mode="pixel", device="cpu")

    def __getitem__(self, place: tuple[int, int]) -> Float[Tensor, "C h w"]:
        picture = shrink(self.split.read(place[1]), self.views.size)
        epoch, index, width, height = (torch.tensor([n]) for n in (*place, *picture.size))
        box = self.views.boxes(epoch, index, height, width)[0].tolist()
        picture = cut_resize(picture, box, self.views.size)
        if bool(self.views.flips(epoch, index)):
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        with lent_randomness(seed_of(self.views.seed, "randaugment", *place)):
            picture = self.augment(picture) if self.augment else picture
            return self.erase(normalize(pixels_of(picture).float()))


class AugmentedLoader:
    """Training batches of a split under a fine-tuning recipe: a pure function of (seed, step), on the device.

    Crops, mirroring and order are those of `Loader`; `workers` processes decode and augment (0: this one does).
    """

    def __init__(
        self, split: Split, data: Data, recipe: FineTune, *, seed: int, device: torch.device, workers: int = 2
    ) -> None:
        views = Views(seed, data.image_size, recipe.crop_scale, recipe.crop_ratio, recipe.flip)
        self._pictures, self._device, self._workers = _Augmented(split, views, data, recipe), device, workers
        self._seed, self._batch_size = seed, recipe.batch_size
        self._labels = None if split.labels is None else torch.tensor(split.labels)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches start, ..., stop - 1, read ahead by the workers."""
        size = len(self._pictures.split)

        def places() -> Iterator[Positions]:
            return (positions(self._seed, step, self._batch_size, size) for step in range(start, stop))

        pin = self._device.type == "cuda"
        for (epoch, index), images in read_ahead(self._pictures, stop - start, places, self._workers, pin=pin):
            labels = None if self._labels is None else self._labels[index].to(self._device)
            sent = images.to(self._device, non_blocking=True)
            yield Batch(sent, epoch.to(self._device), index.to(self._device), labels)
