"""Pictures as people's folders have them: broken in every way, odd but good, and larger than memory."""

import struct
import zlib

import numpy as np
from made_pictures import encoded, picture
from PIL import Image


def turned(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int, colours: int = 0) -> bytes:
    """A PNG of zeros (grey, or colours 2: RGB), a two-hundredth of its size on the disk.

    Its rows are packed a hundred at a time, every hundred alike: `height` divides by 100.
    """
    packer, rows = zlib.compressobj(1, wbits=-zlib.MAX_WBITS), bytes(100 * (1 + width * (3 if colours == 2 else 1)))
    packed = packer.compress(rows) + packer.flush(zlib.Z_FULL_FLUSH)
    last, adler = b"\x03\x00", (len(rows) * height // 100 % 65521 << 16) + 1  # an empty block; the sum over zeros
    data = b"\x78\x01" + packed * (height // 100) + last + struct.pack(">I", adler)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_bomb(side: int) -> bytes:
    """A grey JPEG of side x side px, all mid grey: six bits a block (no difference, end of block), four blocks in three
    bytes. `side` divides by 16."""
    small = encoded(Image.new("L", (16, 16), 128), "JPEG")
    frame, scan = small.index(b"\xff\xc0"), small.index(b"\xff\xda")
    sized = small[: frame + 5] + struct.pack(">HH", side, side) + small[frame + 9 : scan + 2 + 8]
    return sized + b"\x28\xa2\x8a" * ((side // 8) ** 2 // 4) + b"\xff\xd9"


def progressive_bomb(side: int) -> bytes:
    """The header alone of a progressive JPEG: enough to be refused."""
    small = encoded(picture(0), "JPEG", progressive=True)
    frame = small.index(b"\xff\xc2")
    return small[: frame + 5] + struct.pack(">HH", side, side) + small[frame + 9 :]


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 16
    return bytes(changed)


DEEP = Image.fromarray((np.arange(48 * 60).reshape(48, 60) * 22).astype(np.uint16))
FRAMES = [picture(k).quantize(32) for k in (1, 2)]
JPEG, PNG = encoded(picture(1), "JPEG", quality=95), encoded(picture(1), "PNG")

BROKEN = {
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "cut.png": (PNG[: len(PNG) // 2], "truncated|broken"),
    "flipped.png": (flipped(PNG, len(PNG) // 2), "broken|checksum|decompressing|truncated"),
    "empty.jpg": (b"", "the file is empty"),
    "zeros.jpg": (bytes(5000), "no known image format"),
    "text.jpg": (b"just some words, saved under a wrong name" * 9, "no known image format"),
    "page.jpg": (b"<!DOCTYPE html><html>404</html>", "text"),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n", "no known image"),
    "bomb.png": (png_bomb(13000, 13000), r"13000x13000 px, 169 megapixels, expected at most 50 \(max_megapixels\)"),
    "bomb-400.png": (png_bomb(20000, 20000), "20000x20000 px, 400 megapixels, expected at most 50"),
    "progressive-400.jpg": (progressive_bomb(20000), "20000x20000 px, 400 megapixels, expected at most 50"),
}
"""Name -> bytes, and the reason for which they are refused."""

ODD = {
    "cmyk.jpg": (encoded(picture(1, mode="CMYK"), "JPEG", quality=95), lambda: picture(1), 12),
    "deep.png": (encoded(DEEP, "PNG"), lambda: Image.fromarray((np.asarray(DEEP) / 257).round().astype(np.uint8)), 0),
    "palette.png": (encoded(FRAMES[0], "PNG", transparency=0), None, 0),
    "moving.gif": (encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), lambda: FRAMES[0], 0),
    "turned.png": (
        encoded(picture(1), "PNG", exif=turned(6)),
        lambda: picture(1).transpose(Image.Transpose.ROTATE_270),
        0,
    ),
    "wrong-turn.png": (encoded(picture(1), "PNG", exif=turned(99)), lambda: picture(1), 0),
    "grey-alpha.png": (encoded(picture(1).convert("LA"), "PNG"), lambda: picture(1).convert("L"), 0),
}
"""Name -> bytes, what is to be seen, and the mean difference that its format brings; None: looked at by the test."""
