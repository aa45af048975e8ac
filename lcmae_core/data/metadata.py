"""Encoded pictures without what describes them, for when a large or damaged profile or text would cost the picture.

Pillow refuses a whole PNG for a text or profile above 1 MB, or for a wrong checksum of either, and a whole JPEG for a
profile that is cut off. Its limits are the process's; a picture without these parts needs no other limits.
"""

import zlib
from collections.abc import Iterator

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PNG_KEPT = (b"tRNS", b"eXIf")
"""Ancillary chunks that say how the picture looks: its transparent colour, and which way is up."""
_JPEG_KEPT = (0xE0, 0xE1, 0xEE)
"""Segments of applications that do: JFIF, EXIF, and Adobe's, which says what the channels are."""


def without_metadata(content: bytes) -> bytes | None:
    """The same picture, its pixels untouched; None for other formats than PNG and JPEG.

    A file that breaks off breaks off at the same place.
    """
    if content.startswith(PNG):
        return PNG + b"".join(_png_parts(content))
    if content.startswith(JPEG):
        return JPEG + b"".join(_jpeg_parts(content))
    return None


def is_read_whole(content: bytes) -> bool:
    """Whether a JPEG comes in several scans (progressive, or colour by colour): then all of it is held at once, two
    bytes a coefficient, however small the picture is to become."""
    components = 0
    for marker, data in _segments(content):
        if marker == 0xC2:
            return True
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            components = data[5] if len(data) > 5 else 0
        elif marker == 0xDA:
            return not data or data[0] < components
    return True


def _png_parts(content: bytes) -> Iterator[bytes]:
    """Chunks (length, kind, data, checksum) that matter; of the optional ones those with a right checksum."""
    place = len(PNG)
    while place < len(content):
        length, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        chunk = content[place : place + 12 + length]
        whole = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or (kind in _PNG_KEPT and whole):
            yield chunk
        place += 12 + length


def _jpeg_parts(content: bytes) -> Iterator[bytes]:
    """Segments (FF, marker, length, data) up to the first scan, then all the rest."""
    place = len(JPEG)
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] not in (b"\xda", b""):
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if marker in _JPEG_KEPT or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            yield content[place : place + 2 + length]
        place += 2 + length
    yield content[place:]


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, data) of a JPEG's segments up to its first scan and with it."""
    place, marker = len(JPEG), 0
    while marker != 0xDA and content[place : place + 1] == b"\xff" and place + 4 <= len(content):
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        yield marker, content[place + 4 : place + 2 + length]
        place += 2 + length
