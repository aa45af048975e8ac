"""Files of any kind to upright 8-bit pictures: RGB or grey, on white, with one-line errors that name the file."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..config import LcmaeError

SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class UnreadableImage(LcmaeError):  # noqa: N818 (the name says it)
    """A file that is no image, or a broken one."""


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Deeper grey: 16 bits by 1/257 (65535 -> 255); floats as [0, 1] if they all lie there, else as [0, 255]."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    if image.mode in SIXTEEN_BIT:
        values = values / 257
    elif values.min(initial=0) >= 0 and values.max(initial=0) <= 1:
        values = values * 255
    return Image.fromarray(np.floor(values.clip(0, 255) + 0.5).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def to_rgb(image: Image.Image, channels: int = 3) -> Image.Image:
    """The picture as a person sees it, in mode RGB (channels 3) or L (channels 1).

    First frame of animations, turned as its EXIF says, transparency on white, 16-bit grey scaled to 8 bits.
    """
    if getattr(image, "is_animated", False):
        image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode in SIXTEEN_BIT or image.mode == "F":
        image = _to_8_bit(image)
    elif image.has_transparency_data or image.mode in ("La", "RGBa"):
        image = _on_white(image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)))
    return image.convert("RGB" if channels == 3 else "L")


def _reason(head: bytes, error: Exception) -> str:
    if not head:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        text = head.lstrip().startswith((b"<", b"{"))
        return "the content is text (a web page?), not an image" if text else "the content is no known image format"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _head(data: bytes | str | Path) -> bytes:
    if isinstance(data, bytes):
        return data[:64]
    with open(data, "rb") as file:
        return file.read(64)


def decode(data: bytes | str | Path, name: str, channels: int = 3) -> Image.Image:
    """The picture in a file, or in its bytes, decoded to the last line and converted by `to_rgb`.

    Raises:
        UnreadableImage: one line with the file's name and the reason (empty, truncated, not an image...).
    """
    if not isinstance(data, bytes) and not Path(data).is_file():
        raise UnreadableImage(f"cannot read {name}: there is no such file")
    try:
        with Image.open(BytesIO(data) if isinstance(data, bytes) else data) as image:
            image.load()
            return to_rgb(image, channels)
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, zlib.error...
        raise UnreadableImage(f"cannot read {name}: {_reason(_head(data), error)}") from error
