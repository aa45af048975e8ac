"""How much of a picture is decoded, and by which library: JPEGs come reduced, and no file unfolds beyond a limit."""

import math
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ..config import LcmaeError
from .metadata import is_read_whole

Decoder = Literal["pil", "exact", "simplejpeg"]
SCALES = (8, 4, 2)
"""By which libjpeg reduces while it decodes, at a fraction of the work."""
MARGIN = 4 / 3
"""What must be left of `least`: libjpeg's reduction is coarse, and the rest of the way is filtered."""


class TooLargeError(ValueError):
    """A picture of more pixels than may be decoded; the message is a reason, to which a name belongs."""


@dataclass(frozen=True)
class Decoding:
    """pil: Pillow, JPEGs reduced by 2, 4 or 8 where that leaves enough. exact: Pillow, every pixel. simplejpeg: JPEGs
    by libjpeg-turbo, reduced by eighths."""

    decoder: Decoder = "pil"
    least: int | None = None
    """Short side that must be left when a JPEG is reduced; None: it is reduced only if it is beyond `most`."""
    most: float = 50e6
    """Pixels. Eight bytes of each are needed at once."""


def check_decoder(decoder: str) -> None:
    """Raises:
    LcmaeError: it needs a package that is not installed.
    """
    if decoder == "simplejpeg" and find_spec("simplejpeg") is None:
        raise LcmaeError("image_decoder: got 'simplejpeg', expected that package (pip install simplejpeg) or 'pil'")


def load(image: Image.Image, content: bytes, how: Decoding) -> Image.Image:
    """Decode a picture of which `content` is the file, opened by Pillow; the same, or another one without its EXIF.

    Raises:
        TooLargeError: before anything is decoded.
    """
    scale = _scale(image, content, how)
    size = (image.width // scale, image.height // scale)
    if size[0] * size[1] > how.most:
        pixels, most = (f"{count / 1e6:.4g}" for count in (image.width * image.height, how.most))
        raise TooLargeError(
            f"it has {image.width}x{image.height} px, {pixels} megapixels, expected at most {most} (max_megapixels)"
        )
    if how.decoder == "simplejpeg" and image.format == "JPEG" and image.mode in ("RGB", "L"):
        return _by_simplejpeg(image, content, size if how.least is None else (math.ceil(MARGIN * how.least),) * 2, how)
    if scale == 1:
        image.load()
        return image
    whole = image.size
    image.draft(None, size)
    image.load()
    return _fitted(image, whole, scale, how.least)


def _scale(image: Image.Image, content: bytes, how: Decoding) -> int:
    """By how much a JPEG is reduced while it is decoded: as far as `least` allows, or more if it must be to be below
    `most`."""
    if image.format not in ("JPEG", "MPO") or how.decoder == "exact":
        return 1
    least, pixels = how.least or max(image.size), image.width * image.height
    wanted = next((s for s in SCALES if min(image.size) // s >= MARGIN * least), 1)
    if pixels <= how.most:
        return wanted
    if is_read_whole(content):  # all coefficients are held before the first pixel: nothing is gained
        return 1
    return max(wanted, next((s for s in reversed(SCALES) if pixels / s**2 <= how.most), SCALES[0]))


def _fitted(image: Image.Image, whole: tuple[int, int], scale: float, least: int | None) -> Image.Image:
    """A reduced picture at the very size that the whole one has when it is shrunk to a short side of `least`.

    By torch's cubic kernel for bytes, a fifth of Pillow's time, which would be most of what is left. Reducing rounds
    sides up to a whole pixel, of which a part lies beyond the picture: the ratio of sides counts from the picture's
    own, or all would be moved.
    """
    size = (round(whole[0] / scale), round(whole[1] / scale))
    if least and least < min(size):
        size = shrunk(whole, least)
    across, down = (to * scale / of for to, of in zip(size, whole))
    pixels = torch.from_numpy(np.array(image)).reshape(1, image.height, image.width, -1).permute(0, 3, 1, 2)
    resized = torch.ops.aten._upsample_bicubic2d_aa(pixels, size[::-1], False, down, across)
    return Image.fromarray(resized[0, 0].numpy() if image.mode == "L" else resized[0].permute(1, 2, 0).numpy())


def shrunk(size: tuple[int, int], short: int) -> tuple[int, int]:
    """Width and height in proportion, the short side so many pixels."""
    width, height = (max(short, round(side * short / min(size))) for side in size)
    return width, height


def _by_simplejpeg(image: Image.Image, content: bytes, enough: tuple[int, int], how: Decoding) -> Image.Image:
    """Reduced by eighths to the least size of which both sides are `enough`."""
    colours = {"RGB": "RGB", "L": "GRAY"}[image.mode]
    pixels = import_module("simplejpeg").decode_jpeg(content, colours, min_width=enough[0], min_height=enough[1])
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if image.mode == "L" else pixels))
    if picture.size == image.size:
        return picture
    eighths = (n for n in range(1, 8) if tuple(-(-side * n // 8) for side in image.size) == picture.size)
    return _fitted(picture, image.size, 8 / next(eighths), how.least)
