"""Batches for training on labels: RandAugment and random erasing by timm, image by image in worker processes.

Both draw from Python's, NumPy's and PyTorch's global generators; here these are lent to them under a seed that is a
function of (seed, epoch, index), and handed back untouched: a picture is the same in whatever process it is made.
Letters (CONTRIBUTING.md): B images, C channels, h x w pixels of a crop.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from timm.data.auto_augment import posterize, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.utils.data import Dataset

from ..config import LcmaeError
from ..store.accelerator import kept_randomness
from .ahead import read_ahead
from .augment import IMAGENET_MEAN, normalize
from .cache import Cache
from .counter import WHOLE, Positions, Share, mix, positions, stream_key
from .loader import Batch, Canvas, cut_resize, hold, pixels_of, shrink
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
    with kept_randomness(device):
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
        transform = rand_augment_transform(policy, {"translate_const": int(min(size) * 0.45), **fill})
    except (AssertionError, ValueError, KeyError):
        raise LcmaeError(
            f"rand_augment: got {policy!r}, expected timm's form, such as 'rand-m9-mstd0.5-inc1'"
        ) from None
    for operation in transform.ops:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    return transform


def _posterize(picture: Image.Image, bits: int, **more: Any) -> Image.Image:
    return posterize(picture, max(1, bits), **more)


class Pictures(Dataset[Tensor]):
    """(epoch, index) -> the crop, augmented by a policy, normalised, partly erased; what a worker runs.

    `canvas`: pictures read before, which every worker shares; without it they are decoded at each visit. What comes out
    is the same, because both are shrunk alike and cut by Pillow.
    """

    def __init__(
        self, split: Split, views: Views, channels: Literal[1, 3], policy: str | None, erase: float,
        canvas: Canvas | None = None,
    ) -> None:  # fmt: skip
        self.split, self.views, self.channels, self.canvas = split, views, channels, canvas
        self._shown = split.at_least(2 * max(views.size))
        self.augment = rand_augment(policy, views.size, channels) if policy else None
        self.erase = RandomErasing(erase, mode="pixel", device="cpu")

    def __getitem__(self, place: tuple[int, int]) -> Float[Tensor, "C h w"]:
        picture = self.picture(place[1])
        epoch, index, width, height = (torch.tensor([n]) for n in (*place, *picture.size))
        box = self.views.boxes(epoch, index, height, width)[0].tolist()
        picture = cut_resize(picture, box, self.views.size)
        if bool(self.views.flips(epoch, index)):
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        with lent_randomness(seed_of(self.views.seed, "randaugment", *place)):
            picture = self.augment(picture) if self.augment else picture
            return self.erase(normalize(pixels_of(picture).float()))

    def picture(self, index: int) -> Image.Image:
        """Shrunk, before it is cut."""
        if self.canvas is None:
            return shrink(self._shown.read(index), self.views.size)
        place = index % len(self.canvas.pixels)  # pictures may repeat, their numbers do not
        pixels = self.canvas.pixels[place, :, : self.canvas.heights[place], : self.canvas.widths[place]]
        array = pixels[0] if self.channels == 1 else pixels.permute(1, 2, 0)
        return Image.fromarray(array.contiguous().numpy())

    def held(self, device_cache_gb: float, cache: Cache | None = None) -> "Pictures":
        """The same with all pictures read at once, if they take no more than `device_cache_gb` (10^9 bytes); else with
        a copy of them in the cache, if their source is slow in random order."""
        distinct = self.split if self.split.period is None else self.split.subset(range(self.split.period))
        self.canvas = hold(distinct, self.views.size, self.channels, device_cache_gb)
        if self.canvas is None:
            self._shown = self._shown.copied(cache)
        return self


class AugmentedLoader:
    """Training batches of `Pictures`: a pure function of (seed, step), on the device.

    Crops, mirroring and order are those of `Loader`; `workers` processes augment `share` (0: this one does). Sources up
    to `device_cache_gb` (10^9 bytes of uint8) are read once, into memory; larger ones are decoded at each visit.
    """

    def __init__(
        self, pictures: Pictures, batch_size: int, *, device: torch.device, workers: int = 2,
        device_cache_gb: float = 0.0, share: Share = WHOLE, cache: Cache | None = None,
    ) -> None:  # fmt: skip
        self._share = share
        self._pictures, self._device, self._workers = pictures.held(device_cache_gb, cache), device, workers
        self._batch_size, labels = batch_size, pictures.split.labels
        self._labels = None if labels is None else torch.tensor(labels)

    @property
    def size(self) -> int:
        """Images of the split."""
        return len(self._pictures.split)

    @property
    def held(self) -> bool:
        """Whether the pictures lie in memory (else they are decoded at each visit)."""
        return self._pictures.canvas is not None

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches start, ..., stop - 1, read ahead by the workers."""
        seed = self._pictures.views.seed

        def places() -> Iterator[Positions]:
            return (positions(seed, step, self._batch_size, self.size, self._share) for step in range(start, stop))

        pin = self._device.type == "cuda"
        for (epoch, index), images in read_ahead(self._pictures, stop - start, places, self._workers, pin=pin):
            labels = None if self._labels is None else self._send(self._labels[index])
            sent = self._send(images), self._send(epoch), self._send(index)
            yield Batch(*sent, labels, at=Positions(epoch, index))

    def _send(self, tensor: Tensor) -> Tensor:
        """To the device without waiting for it."""
        return tensor.to(self._device, non_blocking=True)
