"""Files of any kind to upright 8-bit pictures: RGB or grey, on white, with one-line errors that name the file."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, TiffTags

from ..config import LcmaeError
from .decoders import Decoding, TooLargeError, load
from .metadata import without_metadata

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what brings the picture upright."""
_QUIET = threading.Lock()
PROGRAMS = ("EPS",)
"""Formats that Pillow has another program decode: never, whatever a file is called."""
BAND = 2**20
"""Pixels that are converted at a time, where a conversion needs the picture several times over."""
SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


PLAIN = Decoding()


class UnreadableImage(LcmaeError):  # noqa: N818 (the name says it)
    """A file that is no image, or a broken one."""


@contextmanager
def quietly() -> Iterator[None]:
    """Pillow's warnings about damaged metadata are not heard: they do not concern the picture. Nor is its limit on
    pixels: `decoders.load` has its own, below which a large JPEG can come reduced.

    Both are the process's, so threads take turns here: for headers, not for pixels.
    """
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = most


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What brings a picture upright, as its EXIF says, where that can be read.

    Not `ImageOps.exif_transpose`: it writes all tags anew, and fails on one that it cannot write.
    """
    try:
        with quietly():
            return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # whatever damaged bytes lead to: SyntaxError, struct.error, ValueError, TypeError...
        return None


def _in_bands(image: Image.Image, mode: str, function: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """`function` of bands of rows, put together, so that a large picture is never there three times."""
    first, *more = bands_of(image)
    if not more:
        return function(image)
    out = Image.new(mode, image.size)
    for box in (first, *more):
        out.paste(function(image.crop(box)), box[:2])
    return out


def bands_of(image: Image.Image) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of at most `BAND` pixels, from the top down, that cover a picture."""
    rows = max(1, BAND // max(1, image.width))
    tops = range(0, max(1, image.height), rows)
    return [(0, top, image.width, min(top + rows, image.height)) for top in tops]


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Deeper grey: 16 bits by 1/257 (65535 -> 255); floats as [0, 1] if they all lie there, else as [0, 255]."""
    deep = image.mode in SIXTEEN_BIT
    scale = 255 if not deep and _lies_in_unit(image) else 1

    def shallow(band: Image.Image) -> Image.Image:
        values = np.nan_to_num(np.asarray(band).astype(np.float64))
        values = values / 257 if deep else values * scale
        return Image.fromarray(np.floor(values.clip(0, 255) + 0.5).astype(np.uint8))

    return _in_bands(image, "L", shallow)


def _lies_in_unit(image: Image.Image) -> bool:
    values = (np.nan_to_num(np.asarray(image.crop(box))) for box in bands_of(image))
    return all(band.min(initial=0) >= 0 and band.max(initial=0) <= 1 for band in values)


def _on_white(image: Image.Image) -> Image.Image:
    mode = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)

    def laid(band: Image.Image) -> Image.Image:
        band = band.convert(mode).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert("RGB")

    return _in_bands(image, "RGB", laid)


def to_rgb(image: Image.Image, channels: int = 3) -> Image.Image:
    """The picture as a person sees it, in mode RGB (channels 3) or L (channels 1).

    First frame of animations, turned as its EXIF says, transparency on white, 16-bit grey scaled to 8 bits.
    """
    if getattr(image, "is_animated", False):
        image.seek(0)
    return _turned_to_rgb(image, _turn(image), channels)


def _turned_to_rgb(image: Image.Image, turn: Image.Transpose | None, channels: int) -> Image.Image:
    image = image if turn is None else image.transpose(turn)
    if image.mode in SIXTEEN_BIT or image.mode == "F":
        image = _to_8_bit(image)
    elif image.has_transparency_data or image.mode in ("La", "RGBa"):
        image = _on_white(image)
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)


def _reason(head: bytes, error: Exception) -> str:
    if not head:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        text = head.lstrip().startswith((b"<", b"{"))
        return "the content is text (a web page?), not an image" if text else "the content is no known image format"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _opened(content: bytes) -> Image.Image:
    """The picture with its header read, nothing decoded."""
    with quietly():
        image = Image.open(BytesIO(content))
        if image.format in PROGRAMS:
            raise Image.UnidentifiedImageError
        if image.format == "TIFF":  # else read while decoding, and warned of
            exif = image.getexif()
            for key in TiffTags.TAGS_V2_GROUPS:
                if key in exif:
                    exif.get_ifd(key)
    return image


def is_plain_jpeg(content: bytes, side: int) -> bool:
    """Whether it is a JPEG in colour or grey, not turned, with a short side of at most `side`: any reader sees in it
    what we see."""
    try:
        with quietly(), Image.open(BytesIO(content)) as image:
            upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            small = min(image.size) <= side
            return image.format == "JPEG" and image.mode in ("RGB", "L") and upright and small
    except Exception:  # whatever damaged EXIF leads to
        return False


def _decoded(content: bytes, channels: int, how: Decoding) -> Image.Image:
    with _opened(content) as image:
        loaded = load(image, content, how)
        if loaded is image:
            return to_rgb(image, channels)
        return _turned_to_rgb(loaded, _turn(image), channels)


def decode(data: bytes | str | Path, name: str, channels: int = 3, how: Decoding = PLAIN) -> Image.Image:
    """The picture in a file, or in its bytes, decoded to the last line and converted by `to_rgb`.

    Metadata that Pillow refuses (`without_metadata`) is left aside. A picture of more than `how.most` pixels is refused
    before it is decoded, but for a JPEG that can come reduced.

    Raises:
        UnreadableImage: one line with the file's name and the reason (empty, truncated, not an image, too large...).
    """
    if not isinstance(data, bytes) and not Path(data).is_file():
        raise UnreadableImage(f"cannot read {name}: there is no such file")
    content = b""
    try:
        content = data if isinstance(data, bytes) else Path(data).read_bytes()
        return _decoded(content, channels, how)
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, zlib.error...
        bare = None if isinstance(error, TooLargeError) else without_metadata(content)
        if bare:
            with suppress(Exception):
                return _decoded(bare, channels, how)
        raise UnreadableImage(f"cannot read {name}: {_reason(content[:64], error)}") from error
