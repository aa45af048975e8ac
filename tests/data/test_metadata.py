"""Claims: what describes a picture never costs it: large, damaged or wrongly summed profiles, texts and EXIF in PNG,
JPEG, TIFF and WebP leave pixels and orientation as they are, in silence; a broken picture stays broken.
"""

import struct
import time
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from made_pictures import encoded, picture
from PIL import Image, ImageOps, TiffImagePlugin

from lcmae_core.data import convert
from lcmae_core.data.convert import UnreadableImage, decode
from lcmae_core.data.metadata import without_metadata

LARGE = np.random.default_rng(0).integers(0, 4, 3_000_000, dtype=np.uint8).tobytes()
"""3 MB that compress to less than 1 MB: more than Pillow reads of a text or profile."""


def chunk(kind: bytes, data: bytes, *, checksum: int | None = None) -> bytes:
    total = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", total)


def png_with(*chunks: bytes, late: bool = False, **more) -> bytes:
    data = encoded(picture(1), "PNG", **more)
    place = len(data) - 12 if late else 33  # before the end, or after the header
    return data[:place] + b"".join(chunks) + data[place:]


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_with(*segments: bytes, image: Image.Image | None = None, **more) -> bytes:
    data = encoded(image or picture(1), "JPEG", quality=90, **more)
    return data[:2] + b"".join(segments) + data[2:]


def exif(turn: int, *damage: bytes) -> bytes:
    """EXIF of one entry, the orientation, then entries of 12 bytes as they are given."""
    entries = struct.pack(">HHIHH", 0x0112, 3, 1, turn, 0) + b"".join(damage)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 1 + len(damage)) + entries


def pixels(data: bytes, name: str = "x") -> np.ndarray:
    return np.asarray(decode(data, name))


def png_cases() -> Iterator[tuple[str, bytes]]:
    for late in (False, True):
        yield "text", png_with(chunk(b"zTXt", b"history\0\0" + zlib.compress(LARGE)), late=late)
        yield "unicode text", png_with(chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"a" * 3_000_000)), late=late)
        yield "plain text", png_with(chunk(b"tEXt", b"prompt\0" + LARGE), late=late)
        yield "checksum of a text", png_with(chunk(b"tEXt", b"a\0b", checksum=7), late=late)
    yield "profile", png_with(chunk(b"iCCP", b"scanner\0\0" + zlib.compress(LARGE)))
    yield "truncated profile", png_with(chunk(b"iCCP", b"scanner\0\0" + zlib.compress(LARGE)[:900]))
    yield "unknown compression", png_with(chunk(b"iCCP", b"scanner\0\7" + zlib.compress(b"profile")))
    yield "70 MB of texts", png_with(*[chunk(b"zTXt", b"h\0\0" + zlib.compress(b"a" * 1_000_000))] * 70)
    yield "short numbers", png_with(chunk(b"pHYs", b"\0\0"), chunk(b"gAMA", b"\1"), chunk(b"cHRM", b"\0\0\0"))
    yield "EXIF that is none", png_with(chunk(b"eXIf", b"no TIFF"))


def test_png_metadata_costs_no_picture():
    for what, data in png_cases():
        assert np.array_equal(pixels(data), np.asarray(picture(1))), what


def test_what_says_how_a_png_looks_is_kept():
    text = chunk(b"zTXt", b"history\0\0" + zlib.compress(LARGE))
    turned = png_with(chunk(b"eXIf", exif(6)[6:]), text)
    assert np.array_equal(pixels(turned), np.rot90(np.asarray(picture(1)), -1))
    colours = Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8))
    clear = encoded(colours, "PNG", transparency=(9, 9, 9))
    assert pixels(clear[:33] + text + clear[33:]).tolist() == [[[255, 255, 255], [1, 2, 3]]]


def jpeg_cases() -> Iterator[tuple[str, bytes]]:
    beyond = struct.pack(">HHII", 0x010F, 2, 400, 9_000_000)  # a text of 400 letters behind the end
    yield "EXIF that is none", jpeg_with(segment(0xE1, b"Exif\0\0nothing at all"))
    yield "EXIF cut off", jpeg_with(segment(0xE1, exif(1)[:13]))
    yield "EXIF with a tag beyond its end", jpeg_with(segment(0xE1, exif(1, beyond)))
    yield "orientation 77", jpeg_with(segment(0xE1, exif(77)))
    yield "one part of a profile in two", jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\2" + b"p" * 900))
    yield "profile cut off", jpeg_with(segment(0xE2, b"ICC_PROFILE\0"))
    yield "index of pictures", jpeg_with(segment(0xE2, b"MPF\0II*\0\x08\0\0\0\x01\0"))
    yield "index that is none", jpeg_with(segment(0xE2, b"MPF\0nothing at all"))
    yield "index of no pictures", jpeg_with(segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\0\0\0\0\0"))
    yield "Photoshop's notes", jpeg_with(segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x90short"))
    yield "comment", jpeg_with(segment(0xFE, b"\xff" * 60_000))


def test_jpeg_metadata_costs_no_picture():
    plain = pixels(encoded(picture(1), "JPEG", quality=90))
    for what, data in jpeg_cases():
        assert np.array_equal(pixels(data), plain), what


def test_damage_beside_the_orientation_turns_all_the_same():
    beyond = struct.pack(">HHII", 0x8769, 4, 1, 9_000_000)  # further tags behind the end
    nowhere = struct.pack(">HHII", 0x010F, 2, 400, 9_000_000)
    plain = pixels(encoded(picture(1), "JPEG", quality=90))
    for damage in ((), (beyond,), (nowhere,), (nowhere, beyond)):
        assert np.array_equal(pixels(jpeg_with(segment(0xE1, exif(8, *damage)))), np.rot90(plain))


def test_every_orientation_in_every_format():
    image = picture(1)
    for turn in range(1, 9):
        tags = Image.Exif()
        tags[0x0112] = turn
        for form, more in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
            data = encoded(image, form, exif=tags, **more)
            expected = ImageOps.exif_transpose(Image.open(BytesIO(data)))
            assert np.array_equal(pixels(data), np.asarray(expected.convert("RGB"))), (form, turn)
            assert (pixels(data).shape[0] == image.width) == (turn >= 5)


def test_damaged_tiff_and_webp_tags():
    tags = Image.Exif()
    tags[0x0112], tags[0x010F] = 6, "maker" * 20
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[0x0112], info[0x010F], info[0x8769] = 6, "maker" * 20, {0x9286: b"comment" * 20}
    tiff = encoded(picture(1), "TIFF", tiffinfo=info)
    assert Image.open(BytesIO(tiff)).getexif().get_ifd(0x8769)
    place = tiff.index(struct.pack("<HHI", 0x8769, 4, 1)) + 8
    turned = np.rot90(np.asarray(picture(1)), -1)
    for where in (len(tiff) - 3, len(tiff) + 9):  # further tags that break off, or lie nowhere
        assert np.array_equal(pixels(tiff[:place] + struct.pack("<I", where) + tiff[place + 4 :]), turned)
    webp = encoded(picture(1), "WEBP", lossless=True, exif=tags)
    inside = webp.index(b"EXIF") + 8  # behind the chunk's name and length
    assert np.array_equal(pixels(webp[:inside] + b"nothing at" + webp[inside + 10 :]), np.asarray(picture(1)))


def test_nobody_hears_of_damaged_metadata():
    nowhere = struct.pack(">HHII", 0x010F, 2, 400, 9_000_000)
    data = jpeg_with(segment(0xE1, exif(6, nowhere)))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(pixels, [data] * 64))
            inside = list(pool.map(lambda _: _others_inside(), range(8)))
        assert warnings.filters == filters
    assert heard == []
    assert max(inside) == 1, "threads that overlap here leave the process's filters changed"


QUIET: list[int] = []


def _others_inside() -> int:
    with convert.quietly():
        QUIET.append(1)
        time.sleep(0.005)
        count = len(QUIET)
        QUIET.pop()
    return count


def test_broken_pictures_stay_broken_and_are_named():
    text = chunk(b"zTXt", b"history\0\0" + zlib.compress(LARGE))
    wrong = bytearray(png_with(text))
    wrong[-40] ^= 255
    half = jpeg_with(segment(0xE2, b"MPF\0nothing at all"))
    for data in (
        png_with(text)[:-200],
        half[: len(half) // 2],
        bytes(wrong),
        png_with(text)[:45],
        half[:6],
        b"\xff\xd8",
    ):
        with pytest.raises(UnreadableImage, match=r"cannot read pets/cat: .") as caught:
            decode(data, "pets/cat")
        assert "\n" not in str(caught.value)


def test_only_pngs_and_jpegs_have_a_bare_form_which_holds_the_same_pixels():
    for form in ("GIF", "BMP", "TIFF", "WEBP"):
        assert without_metadata(encoded(picture(1), form)) is None
    for form, more in (("PNG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"comment": b"hello"})):
        data = encoded(picture(1), form, **more)
        assert np.array_equal(pixels(without_metadata(data) or b""), pixels(data))
    image = Image.new("RGB", (8, 8), (250, 10, 90))
    data = encoded(image, "JPEG", quality=100, keep_rgb=True)
    for letters in (b"R\x11\0G\x11\0B\x11\0", b"R\0G\0B\0"):  # names of channels, in the frame and in the scan
        assert letters in data
        data = data.replace(letters, letters.translate(bytes.maketrans(b"RGB", b"\1\2\3")))
    # now Adobe's segment alone says that these are not luma and chroma
    assert np.abs(pixels(without_metadata(data) or b"").astype(int) - np.asarray(image)).max() <= 2


def test_the_bare_form_is_tried_only_where_it_must_be(monkeypatch):
    monkeypatch.setattr(convert, "without_metadata", lambda content: pytest.fail("not needed"))
    assert np.array_equal(pixels(png_with(chunk(b"tEXt", b"author\0me"))), np.asarray(picture(1)))
