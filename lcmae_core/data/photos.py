"""The embedded source: crops of the colour photographs that scikit-image and scikit-learn ship in their wheels.

`photos` holds all of them; `photos:160` the first 160 training crops, and a quarter as many validation crops.

Train crops come from the left 70 % of each photograph, validation crops from the right 30 %: no pixel is shared.

Letters (CONTRIBUTING.md): M images of a split, C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import RLock

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from ..config import Data, LcmaeError, nearest
from .augment import normalize
from .counter import counter_uniform
from .splits import Found, Reader, Split

IDENTITY = "photos-v1"
"""Names the crops below: any change to them needs a new number."""
NAMES = ("astronaut", "china", "coffee", "cat", "flower", "hubble", "tissue", "motorcycle", "retina", "rocket")
"""Class names: a label is the photograph that a crop comes from."""
TRAIN, VALIDATION = 1024, 256
TRAIN_SHARE = 0.7
SIDE = 96
"""Side of the stored crops, and the smallest side cut from a photograph, in pixels."""
_once = RLock()  # or every thread that reads before the first has finished would cut all crops itself


@lru_cache(maxsize=1)
def photographs() -> dict[str, Image.Image]:
    """Name -> the whole photograph, read from the installed wheels.

    Of the stereo pair `motorcycle` only the left view: the right one shows the same scene up to 60 pixels further left,
    so validation pixels of one view would be training pixels of the other.
    """
    try:
        from skimage import data as skimage
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise LcmaeError(f"source 'photos' needs `{error.name}`: pip install scikit-image scikit-learn") from error
    arrays = {
        "astronaut": skimage.astronaut(),
        "china": load_sample_image("china.jpg"),
        "coffee": skimage.coffee(),
        "cat": skimage.cat(),
        "flower": load_sample_image("flower.jpg"),
        "hubble": skimage.hubble_deep_field(),
        "tissue": skimage.immunohistochemistry(),
        "motorcycle": skimage.stereo_motorcycle()[0],
        "retina": skimage.retina(),
        "rocket": skimage.rocket(),
    }
    return {name: Image.fromarray(arrays[name]) for name in NAMES}


def whole_photographs(
    size: tuple[int, int], names: Sequence[str] = NAMES, channels: int = 3
) -> Float[Tensor, "M C H W"]:
    """The largest centred part of each photograph in the proportions of `size` (rows, columns), resized to it and
    normalised: to look at, not to measure on, since a model trained on `photos` has seen most of them.

    Raises:
        LcmaeError: there is no such photograph.
    """
    for name in names:
        if name not in NAMES:
            raise LcmaeError(f"unknown photograph {name!r}: {nearest(name, NAMES)}")
    chosen = [ImageOps.fit(photographs()[name], (size[1], size[0]), Image.Resampling.LANCZOS) for name in names]
    mode = "L" if channels == 1 else "RGB"
    arrays = np.stack([np.atleast_3d(np.asarray(picture.convert(mode))) for picture in chosen])
    return normalize(torch.from_numpy(arrays).permute(0, 3, 1, 2).float())


def crop_boxes(width: int, height: int, split: str, photo: int, count: int) -> list[tuple[int, int, int, int]]:
    """Square boxes (left, top, right, bottom) in a split's part of a photograph: side and place uniform."""
    border = int(TRAIN_SHARE * width)
    start, stop = (0, border) if split == "train" else (border, width)
    number = torch.arange(count)
    uniform = counter_uniform(1, f"photos/{split}", torch.full_like(number, photo), number, 3).double().numpy()
    short = min(stop - start, height)
    boxes = []
    for u in uniform:
        side = SIDE + int(u[0] * (short - SIDE + 1))
        left, top = start + int(u[1] * (stop - start - side + 1)), int(u[2] * (height - side + 1))
        boxes.append((left, top, left + side, top + side))
    return boxes


@lru_cache(maxsize=4)
def crops(split: str, count: int) -> np.ndarray:
    """(count, 96, 96, 3) uint8; picture i belongs to photograph i mod 10 and is the same for any `count` above it."""
    out = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for k, photograph in enumerate(photographs().values()):
        places = range(k, count, len(NAMES))
        for place, box in zip(places, crop_boxes(*photograph.size, split, k, len(places))):
            # cut first: resize(box=...) would look beyond the box, across the border between the splits
            cut = photograph.crop(box)
            out[place] = np.asarray(cut.resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0))
    return out


@dataclass(frozen=True)
class _Fetch:
    split: str
    count: int

    def __call__(self, i: int) -> Image.Image:
        with _once:
            return Image.fromarray(crops(self.split, self.count)[i])


def _name(i: int) -> str:
    return f"{NAMES[i % len(NAMES)]}-{i // len(NAMES):03d}"


def _training_crops(rest: str) -> int:
    """How many a source string asks for, after its `photos:`; each class has one of each split at least."""
    if not rest:
        return TRAIN
    least = len(NAMES) * TRAIN // VALIDATION
    if not (rest.isascii() and rest.isdigit()) or not least <= int(rest) <= TRAIN:
        raise LcmaeError(f"source: got 'photos:{rest}', expected a number of training crops from {least} to {TRAIN}")
    return int(rest)


def identify(rest: str) -> str:
    """What `photos` with `rest` after it holds, in a few characters.

    Raises:
        LcmaeError: `rest` is no such number.
    """
    count = _training_crops(rest)
    return IDENTITY if count == TRAIN else f"{IDENTITY}:{count}"


@lru_cache(maxsize=4)
def _splits(count: int, channels: int) -> Found:
    splits = []
    for name, size in (("train", count), ("validation", count * VALIDATION // TRAIN)):
        # cut when the first is read, if not kept from before
        reader = Reader(_Fetch(name, size), _name, channels)
        splits.append(Split(name, size, np.arange(size) % len(NAMES), reader, _name))
    return Found(splits[0], splits[1], NAMES)


def open_photos(rest: str, data: Data) -> Found:
    """`photos`: 1024 training and 256 validation crops, ten classes; `photos:160`: 160 of them and 40.

    Raises:
        LcmaeError: `rest` is neither empty nor a number of training crops that there are.
    """
    return _splits(_training_crops(rest), data.channels)
