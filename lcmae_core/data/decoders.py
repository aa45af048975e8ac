"""How much of a picture is decoded, and by which library: JPEGs come reduced, and no file unfolds beyond a limit."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

import numpy as np
from PIL import Image

from ..config import LcmaeError
from .metadata import is_read_whole

Decoder = Literal["pil", "exact", "simplejpeg"]
SCALES = (8, 4, 2)
"""By which libjpeg reduces while it decodes, at a fraction of the work."""


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
        return _by_simplejpeg(image, content, (how.least, how.least) if how.least else size)
    if scale > 1:
        image.draft(None, size)
    image.load()
    return image


def _scale(image: Image.Image, content: bytes, how: Decoding) -> int:
    """By how much a JPEG is reduced while it is decoded: as far as `least` allows, and until it is below `most`."""
    if image.format not in ("JPEG", "MPO") or how.decoder == "exact":
        return 1
    pixels = image.width * image.height
    if pixels > how.most:  # where all coefficients are held before the first pixel, nothing is gained
        return 1 if is_read_whole(content) else next((s for s in SCALES[::-1] if pixels / s**2 <= how.most), SCALES[0])
    least = how.least or max(image.size)
    return next((s for s in SCALES if min(image.size) // s >= least), 1)


def _by_simplejpeg(image: Image.Image, content: bytes, least: tuple[int, int]) -> Image.Image:
    colours = {"RGB": "RGB", "L": "GRAY"}[image.mode]
    pixels = import_module("simplejpeg").decode_jpeg(content, colours, min_width=least[0], min_height=least[1])
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if image.mode == "L" else pixels))
