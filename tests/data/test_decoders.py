"""Claims: the settings of `image_decoder` agree: where a JPEG is less than 8/3 times the shrunk picture all are equal
bit for bit; beyond that a reduced one has the same size, lies at the same place and differs by a few grey levels;
what is held, cached and streamed is equal bit for bit under each; a package that is not there is named in one line.
"""

import importlib.machinery
import io
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import decoders, open_source
from lcmae_core.data.cache import Cache
from lcmae_core.data.convert import decode
from lcmae_core.data.decoders import Decoding
from lcmae_core.data.loader import Loader, shrink
from lcmae_core.data.photos import photographs
from tests.loops import over

MEAN, WORST = 2.7, 4.5
"""Grey levels by which reduced and whole pictures may differ: on average over the photographs, and on any of them."""


def jpeg(image, **more):
    image.save(buffer := io.BytesIO(), "JPEG", quality=92, **more)
    return buffer.getvalue()


def shrunken(content, side, decoder):
    found = decode(content, "x", how=Decoding(decoder, least=2 * side))
    return np.asarray(shrink(found, (side, side)), float)


@pytest.fixture
def stand_in(monkeypatch):
    """`simplejpeg` as its documentation has it, by Pillow and for halves alone; what is asked of it."""
    asked = []

    def decode_jpeg(data, colorspace="RGB", min_width=0, min_height=0):
        image = Image.open(io.BytesIO(data))
        asked.append((colorspace, min_width, min_height))
        if image.width // 2 >= min_width and image.height // 2 >= min_height:
            image.draft(None, (image.width // 2, image.height // 2))
        found = np.asarray(image)
        return found[..., None] if found.ndim == 2 else found

    module = types.ModuleType("simplejpeg")
    module.decode_jpeg = decode_jpeg
    module.__spec__ = importlib.machinery.ModuleSpec("simplejpeg", None)
    monkeypatch.setitem(sys.modules, "simplejpeg", module)
    return asked


def differences(decoder, ratio):
    """Mean difference from whole pictures, by photograph, where these have so many times the pixels needed."""
    found = {}
    for name, image in photographs().items():
        side, content = int(min(image.size) / ratio / 2), jpeg(image.convert("RGB"))
        whole, reduced = (shrunken(content, side, d) for d in ("exact", decoder))
        assert whole.shape == reduced.shape, name
        found[name] = np.abs(whole - reduced).mean()
    return found


@over("ratio", [2.7, 4.1, 5.4, 9])
def test_reduced_pictures_differ_by_a_few_grey_levels(ratio):
    found = differences("pil", ratio)
    assert 0 < np.mean([*found.values()]) < MEAN
    assert max(found.values()) < WORST, found


def test_small_pictures_are_equal_bit_for_bit():
    assert set(differences("pil", 2.6).values()) == {0}


def test_a_reduced_picture_is_not_moved():
    """A wedge of grey, 427 px high: an eighth of it is 53 and 3/8 px, of which libjpeg makes 54."""
    wedge = Image.linear_gradient("L").resize((611, 427))
    for side in (18, 20, 39, 79):
        whole, reduced = (shrunken(jpeg(wedge), side, d) for d in ("exact", "pil"))
        assert whole.shape == reduced.shape
        assert np.abs(whole - reduced).max() <= 3
        assert np.abs((whole - reduced).mean()) < 0.2  # moved by 5/16 of a pixel of 54, this would be 1.5


@over("turn", [1, 3, 6, 8])
def test_turned_pictures_are_reduced_and_turned(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    content = jpeg(photographs()["retina"].convert("RGB").resize((900, 700)), exif=exif)
    whole, reduced = (shrunken(content, 60, d) for d in ("exact", "pil"))
    assert whole.shape == reduced.shape == ((120, 154, 3) if turn < 5 else (154, 120, 3))
    assert np.abs(whole - reduced).mean() < WORST


def test_simplejpeg_agrees_where_it_is_installed():
    pytest.importorskip("simplejpeg")
    for ratio in (1, 2.7, 5.4):
        found = differences("simplejpeg", ratio)
        assert np.mean([*found.values()]) < MEAN
        assert max(found.values()) < WORST, found


def test_simplejpeg_is_asked_for_what_is_needed(stand_in):
    photograph = photographs()["retina"].convert("RGB").resize((901, 701))
    for image, turn in ((photograph, 1), (photograph.convert("L"), 6)):
        exif = Image.Exif()
        exif[0x0112] = turn
        content = jpeg(image, exif=exif)
        whole, reduced = (shrunken(content, 60, d) for d in ("exact", "simplejpeg"))
        assert whole.shape == reduced.shape
        assert 0 < np.abs(whole - reduced).mean() < WORST
        assert np.abs((whole - reduced).mean()) < 0.3, "neither moved nor left as it lies"
    assert stand_in == [("RGB", 160, 160), ("GRAY", 160, 160)]
    decode(jpeg(photograph), "x", how=Decoding("simplejpeg"))
    assert stand_in[-1] == ("RGB", 901, 701)
    decode(jpeg(photograph), "x", how=Decoding("simplejpeg", most=2e5))
    assert stand_in[-1] == ("RGB", 450, 350)
    photograph.save(buffer := io.BytesIO(), "PNG")
    for content in (buffer.getvalue(), jpeg(photograph.convert("CMYK"))):
        assert np.array_equal(shrunken(content, 400, "simplejpeg"), shrunken(content, 400, "exact"))
    assert len(stand_in) == 4, "other formats and inks are Pillow's"


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(decoders, "find_spec", lambda name: None)
    with pytest.raises(LcmaeError, match=r"^image_decoder: got 'simplejpeg', .* \(pip install simplejpeg\) or 'pil'$"):
        open_source(Data(source="photos", image_decoder="simplejpeg"))


@pytest.fixture
def large(tmp_path):
    """Three JPEGs of which a crop of 32 px needs an eighth."""
    for k, name in enumerate(("a", "b", "c")):
        photograph = photographs()[("retina", "hubble", "coffee")[k]].convert("RGB").resize((800 + k, 703))
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(photograph))
    return tmp_path


def batches(folder, decoder, **more):
    data = Data(source=f"folder:{folder}", image_size=(32, 32), image_decoder=decoder, validation_fraction=0.3)
    loader = Loader(open_source(data).train, data, seed=0, batch_size=2, device="cpu", progress=False, **more)
    return loader.held, torch.cat([b.images for b in loader.batches(0, 3)])


@over("decoder", ["pil", "exact", "simplejpeg"])
def test_held_cached_and_streamed_are_equal(decoder, large, tmp_path_factory, stand_in):
    cache = Cache(tmp_path_factory.mktemp("cache"), 1e9)
    held, plain = batches(large, decoder)
    assert held
    for more in (
        {"cache": cache},
        {"cache": cache},
        {"device_cache_gb": 0, "workers": 0},
        {"device_cache_gb": 0, "workers": 1},
    ):
        assert torch.equal(batches(large, decoder, **more)[1], plain), more
    assert len([*cache.folder.glob("*.npy")]) == 1


def test_each_setting_has_pictures_of_its_own_in_the_cache(large, tmp_path_factory, stand_in):
    cache = Cache(tmp_path_factory.mktemp("cache"), 1e9)
    found = [batches(large, decoder, cache=cache)[1] for decoder in ("pil", "exact", "simplejpeg")]
    assert len([*cache.folder.glob("*.npy")]) == 3
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(found[one], found[other])
        assert (found[one] - found[other]).abs().mean() < WORST / 255 / 0.22


def test_a_picture_that_is_too_small_is_not_reduced_below_the_limit(large):
    data = Data(source=f"folder:{large}", image_size=(32, 32), min_side=250)
    split = open_source(data).train.at_least(64)
    assert all(min(split.read(i).size) == 250 for i in range(len(split)))
