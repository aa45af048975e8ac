"""One picture resized by two sparse products: only the few pixels under each kernel are touched, and sums are exact.

A decoding process has no use for dense matrices (100 times the work), nor for MKL, whose products can spin for ever in
a process that was forked while the first one multiplied.
Letters (CONTRIBUTING.md): B images, C channels, H x W pixels of a canvas, h x w pixels of the result.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from scipy.sparse import csr_matrix
from torch import Tensor

from .augment import FINE, SHARES, crop_resize

DENSE = 20e6
"""Products of dense matrices below which one batch of them is faster than pictures one by one."""
_TURNED = Image.Transpose.TRANSPOSE


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, as `augment` has it for tensors."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@lru_cache(maxsize=2**10)
def shares(length: int, out: int) -> csr_matrix:
    """(out, length): `augment.resize_weights` of one crop, by the same operations in the same order.

    They are multiples of 2^-15, so that every sum of grey levels is exact in float32.
    """
    step = length / out
    scale = max(step, 1.0)
    centre = (np.arange(out)[:, None] + 0.5) * step  # (out, 1)
    reach = 4 * math.ceil(scale) + 1
    offset = np.floor(centre - 2 * scale).astype(np.int64) + np.arange(reach)  # (out, taps)
    raw = _cubic((offset + 0.5 - centre) / scale) * ((offset >= 0) & (offset < length))
    so_far = np.round(raw * FINE).cumsum(axis=1)  # whole numbers: exact, however many zeros stand before them
    border = np.round(so_far / so_far[:, -1:] * SHARES) / SHARES
    weights = np.diff(border, axis=1, prepend=0.0).astype(np.float32)
    place = offset.clip(0, length - 1).astype(np.int32)  # shares beyond are zeros
    every = csr_matrix((weights.ravel(), place.ravel(), np.arange(0, out * reach + 1, reach)), shape=(out, length))
    every.eliminate_zeros()  # a third of them or more, which would be multiplied like the others
    return every


def resized(picture: Image.Image, across: csr_matrix, down: csr_matrix) -> UInt8[Tensor, "C h w"]:
    """A picture in mode RGB or L, first across, then down, rounded to whole grey levels between and after."""
    return _resized(np.asarray(picture.transpose(_TURNED)), across, down)


def _resized(turned: np.ndarray, across: csr_matrix, down: csr_matrix) -> UInt8[Tensor, "C h w"]:
    """Of a picture that lies on its side, (W, H, C) or (W, H): rows are what a product sums."""
    upright = Image.fromarray(_sums(turned, across)).transpose(_TURNED)  # by Pillow, which moves whole pixels
    return pixels_of(_sums(np.asarray(upright), down))


def _sums(pixels: np.ndarray, weights: csr_matrix) -> np.ndarray:
    """New rows as sums of rows, in whole grey levels."""
    rows = weights @ pixels.reshape(len(pixels), -1).astype(np.float32)
    np.clip(np.add(rows, np.float32(0.5), out=rows), 0, 255, out=rows)
    return rows.astype(np.uint8).reshape(-1, *pixels.shape[1:])  # which rounds down


def cut_one(picture: Image.Image, box: Sequence[int], size: tuple[int, int]) -> UInt8[Tensor, "C h w"]:
    """`augment.crop_resize` of one picture, to the last bit."""
    top, left, height, width = box
    cut = picture.crop((left, top, left + width, top + height))
    return resized(cut, shares(width, size[1]), shares(height, size[0]))


def cut_many(
    images: UInt8[Tensor, "B C H W"], boxes: Int64[Tensor, "B 4"], size: tuple[int, int]
) -> UInt8[Tensor, "B C h w"]:
    """`augment.crop_resize` on a CPU: of large pictures by sparse products one by one, of small ones as a batch; equal
    to the last bit."""
    _, channels, height, width = images.shape
    if channels * size[1] * height * (width + size[0]) < DENSE:
        return crop_resize(images, boxes, size).byte()
    cuts = []
    for image, (top, left, high, wide) in zip(images, boxes.tolist()):
        turned = image[:, top : top + high, left : left + wide].permute(2, 1, 0).contiguous().numpy()
        turned = turned[..., 0] if channels == 1 else turned
        cuts.append(_resized(turned, shares(wide, size[1]), shares(high, size[0])))
    return torch.stack(cuts)


def pixels_of(image: Image.Image | np.ndarray) -> UInt8[Tensor, "C H W"]:
    """A picture as a tensor of its own; grey pictures have one channel."""
    array = np.array(image)  # (H, W) or (H, W, C)
    return torch.from_numpy(array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1)))


def cut_resize(picture: Image.Image, box: Sequence[int], size: tuple[int, int]) -> Image.Image:
    """`augment.crop_resize` of one picture, by Pillow.

    Cut first, because resize(box=...) would mix in pixels from beyond the box. Across and down are two calls, because
    Pillow 13 goes down first where that is cheaper, which changes what is clamped in between (by up to 27 grey levels).
    """
    top, left, height, width = box
    cut = picture.crop((left, top, left + width, top + height))
    across = cut.resize((size[1], height), Image.Resampling.BICUBIC)
    return across.resize((size[1], size[0]), Image.Resampling.BICUBIC)
