"""Claims: ten photographs, balanced, read without network; training and validation crops share no pixel."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import pytest
from PIL import Image

from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import denormalize, open_source, photos


@pytest.fixture(scope="module")
def source():
    return open_source(Data())


def test_shape_labels_and_names(source):
    assert (len(source.train), len(source.validation)) == (photos.TRAIN, photos.VALIDATION)
    assert source.classes == photos.NAMES
    assert source.identity == photos.IDENTITY
    for split in (source.train, source.validation):
        counts = np.bincount(split.labels, minlength=10)
        assert counts.max() - counts.min() <= 1
        assert split.read(17).size == (96, 96)
        assert split.file_name(17).startswith(photos.NAMES[split.labels[17]])
    assert open_source(Data(channels=1)).train.read(0).mode == "L"


def test_some_are_the_first_of_all(source):
    some = open_source(Data(source="photos:40"))
    assert (len(some.train), len(some.validation)) == (40, 10)
    for few, all_ in ((some.train, source.train), (some.validation, source.validation)):
        assert np.array_equal(few.labels, all_.labels[: len(few)])
        for i in (0, 9, len(few) - 1):
            assert np.array_equal(np.asarray(few.read(i)), np.asarray(all_.read(i)))
    assert some.identity == "photos-v1:40"
    assert open_source(Data(source="photos:1024")).identity == source.identity


@pytest.mark.parametrize("number", ["39", "1025", "-40", "all", "4e1", "٤٠"])
def test_other_numbers_are_refused(number):
    with pytest.raises(LcmaeError, match=f"got 'photos:{number}', expected a number of training crops from 40 to 1024"):
        open_source(Data(source=f"photos:{number}"))


def test_train_and_validation_boxes_share_no_column():
    for k, photograph in enumerate(photos.photographs().values()):
        width, height = photograph.size
        train = np.array(photos.crop_boxes(width, height, "train", k, 103))
        validation = np.array(photos.crop_boxes(width, height, "validation", k, 26))
        assert train[:, 2].max() <= int(0.7 * width) <= validation[:, 0].min()
        for boxes in (train, validation):
            assert boxes.min() >= 0
            assert (boxes[:, 2] <= width).all()
            assert (boxes[:, 3] <= height).all()
            sides = boxes[:, 2] - boxes[:, 0]
            assert np.array_equal(sides, boxes[:, 3] - boxes[:, 1])
            assert sides.min() >= 96


def test_crops_come_from_their_photograph(source):
    for i in (0, 13, 1023):
        photograph = photos.photographs()[photos.NAMES[i % 10]]
        box = photos.crop_boxes(*photograph.size, "train", i % 10, 103)[i // 10]
        expected = photograph.crop(box).resize((96, 96), Image.Resampling.LANCZOS)
        gap = np.abs(np.asarray(expected, int) - np.asarray(source.train.read(i), int))
        assert gap.mean() < 1.5  # the stored crop was shrunk in two stages


def test_crops_differ_and_are_what_version_1_names(source):
    flat = photos.crops("train", photos.TRAIN).reshape(photos.TRAIN, -1)
    assert len(np.unique(flat[:, ::97], axis=0)) == photos.TRAIN
    # coarse, so that another Pillow's rounding passes and another choice of crops does not
    assert np.abs(photos.crops("train", photos.TRAIN)[:3].mean(axis=(1, 2)) - V1).max() < 1.5


def test_no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the embedded source went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    photos.photographs.cache_clear()
    assert len(photos.photographs()) == 10


V1 = [[144, 120, 111], [78, 66, 49], [112, 51, 32]]
"""Mean colours of the first three training crops."""


def test_whole_photographs_are_centred_and_normalised():
    found = photos.whole_photographs((40, 60), ("cat", "rocket"))
    assert found.shape == (2, 3, 40, 60)
    back = denormalize(found)
    assert back.min() >= -1e-5
    assert back.max() <= 1 + 1e-5
    picture = photos.photographs()["rocket"]
    width, height = picture.size
    wide = height * 60 / 40  # as many columns of all rows
    left = (width - wide) / 2
    mean = np.asarray(picture.crop((round(left), 0, round(left + wide), height))).mean((0, 1)) / 255
    assert back[1].mean((1, 2)).numpy() == pytest.approx(mean, abs=0.01)
    assert photos.whole_photographs((8, 8), ("cat",), channels=1).shape == (1, 1, 8, 8)
    with pytest.raises(LcmaeError, match="unknown photograph 'catt': did you mean 'cat'"):
        photos.whole_photographs((8, 8), ("catt",))


def test_threads_that_read_cut_the_photographs_once(monkeypatch):
    cuts = []

    def cut(split, count):
        cuts.append(split)
        time.sleep(0.05)
        return np.zeros((count, photos.SIDE, photos.SIDE, 3), np.uint8)

    monkeypatch.setattr(photos, "crops", lru_cache(cut))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(photos.open_photos("", Data()).train.read, range(8)))
    assert cuts == ["train"]
