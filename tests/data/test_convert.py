"""Claims: every Pillow mode becomes the 8-bit picture a person sees, by pixel values; broken files are named."""

from io import BytesIO

import numpy as np
import pytest
from made_pictures import encoded
from PIL import Image

from lcmae_core.config import LcmaeError
from lcmae_core.data.convert import UnreadableImage, decode, to_rgb


def pixels(image: Image.Image, channels: int = 3) -> list:
    out = to_rgb(image, channels)
    assert out.mode == ("RGB" if channels == 3 else "L")
    return np.asarray(out).reshape(-1, *([3] if channels == 3 else [])).tolist()


def test_rgb_passes_unchanged_and_grey_uses_luma():
    image = Image.new("RGB", (2, 1), (10, 200, 30))
    assert pixels(image) == [[10, 200, 30]] * 2
    assert pixels(image, 1) == [round(0.299 * 10 + 0.587 * 200 + 0.114 * 30)] * 2


def test_grey_and_bilevel():
    assert pixels(Image.new("L", (1, 1), 77)) == [[77] * 3]
    assert pixels(Image.new("L", (1, 1), 77), 1) == [77]
    assert pixels(Image.new("1", (1, 1), 1)) == [[255] * 3]


def test_alpha_is_laid_on_white():
    assert pixels(Image.new("RGBA", (1, 1), (255, 0, 0, 0))) == [[255, 255, 255]]
    assert pixels(Image.new("RGBA", (1, 1), (255, 0, 0, 255))) == [[255, 0, 0]]
    half = np.array(pixels(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))
    assert np.abs(half - 127).max() <= 1
    assert pixels(Image.new("RGBA", (1, 1), (0, 0, 0, 0)), 1) == [255]


def test_grey_with_alpha():
    assert pixels(Image.new("LA", (1, 1), (0, 0))) == [[255] * 3]
    assert pixels(Image.new("LA", (1, 1), (40, 255)), 1) == [40]
    half = np.array(pixels(Image.new("LA", (1, 1), (0, 128))))
    assert np.abs(half - 127).max() <= 1


def test_premultiplied_alpha():
    image = Image.new("RGBA", (1, 1), (200, 0, 0, 128)).convert("RGBa")
    assert np.abs(np.array(pixels(image)) - [227, 127, 127]).max() <= 2


def palette(**more) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    return Image.open(BytesIO(encoded(image, "PNG", **more)))


def test_palette():
    assert pixels(palette()) == [[255, 0, 0], [0, 0, 255]]


def test_palette_with_transparency():
    assert pixels(palette(transparency=0)) == [[255, 255, 255], [0, 0, 255]]
    assert pixels(palette(transparency=bytes([0, 255]))) == [[255, 255, 255], [0, 0, 255]]


def test_transparent_colour_of_an_rgb_png():
    data = encoded(Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8)), "PNG", transparency=(9, 9, 9))
    assert pixels(Image.open(BytesIO(data))) == [[255, 255, 255], [1, 2, 3]]


def test_cmyk_and_adobe_inverted_jpeg():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert pixels(red)[0] == [255, 0, 0]
    data = encoded(red, "JPEG", quality=95)
    assert b"Adobe" in data  # Pillow writes, as Photoshop does, inverted inks under this marker
    assert np.abs(np.array(decode(data, "x.jpg")).astype(int) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("mode", ["<u2", ">u2"])
def test_sixteen_bit_grey(mode):
    values = np.array([[0, 257, 257 * 128, 65535, 300]])
    name = {"<u2": "I;16", ">u2": "I;16B"}[mode]
    image = Image.frombytes(name, (5, 1), values.astype(mode).tobytes())
    assert image.mode == name
    assert pixels(image, 1) == [0, 1, 128, 255, 1]
    assert pixels(image)[2] == [128] * 3


def test_sixteen_bit_files():
    values = np.array([[0, 257 * 100, 65535]], np.uint16)
    for form in ("PNG", "TIFF"):
        assert np.asarray(decode(encoded(Image.fromarray(values), form), "x", 1)).tolist() == [[0, 100, 255]]


def test_thirty_two_bit_integers_are_read_as_sixteen():
    assert pixels(Image.fromarray(np.array([[-5, 257 * 9, 70_000]], np.int32)), 1) == [0, 9, 255]


def test_floats():
    assert pixels(Image.fromarray(np.array([[0, 0.5, 1.0]], np.float32)), 1) == [0, 128, 255]
    assert pixels(Image.fromarray(np.array([[0, 100, 300, np.nan]], np.float32)), 1) == [0, 100, 255, 0]


def test_exif_rotation():
    image = Image.fromarray(np.array([[10, 20, 30]], np.uint8))  # lies on its side
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it
    upright = decode(encoded(image, "PNG", exif=exif), "x", 1)
    assert np.asarray(upright).tolist() == [[10], [20], [30]]
    exif[0x0112] = 8
    assert np.asarray(decode(encoded(image, "PNG", exif=exif), "x", 1)).tolist() == [[30], [20], [10]]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.asarray(decode(data, "x.gif"))[0, 0].tolist() == [255, 0, 0]
    moved = Image.open(BytesIO(data))
    moved.seek(1)
    assert pixels(moved)[0] == [255, 0, 0]


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_other_colour_spaces(mode):
    got = np.array(pixels(Image.new("RGB", (1, 1), (200, 50, 50)).convert(mode)))
    assert np.abs(got - [200, 50, 50]).max() <= 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\x00\x01\x02 nothing known" * 9, "no known image format"),
        (encoded(Image.effect_noise((64, 64), 50), "JPEG")[:700], "truncated"),
        (encoded(Image.effect_noise((64, 64), 50), "PNG")[:900], "truncated"),
    ],
)
def test_broken_files_are_named_with_a_reason(data, reason, tmp_path):
    path = tmp_path / "cat.jpg"
    path.write_bytes(data)
    for given in (data, path):
        with pytest.raises(UnreadableImage, match=reason) as caught:
            decode(given, "pets/cat.jpg")
        assert "pets/cat.jpg" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, LcmaeError)


def test_missing_file(tmp_path):
    with pytest.raises(UnreadableImage, match=r"a\.png: there is no such file"):
        decode(tmp_path / "a.png", "a.png")
