"""Claims: augmented batches are a pure function of (seed, epoch, index), in this process or in two others, from held
pictures or streamed ones, and leave the global generators alone; the strongest posterizing keeps a bit; grey pictures
work; a wrong policy is one line.
"""

import random

import numpy as np
import pytest
import torch
from made_pictures import picture
from PIL import Image

from lcmae_core.config import LcmaeError
from lcmae_core.config.downstream import FineTune, vary
from lcmae_core.data.randaugment import AugmentedLoader, Pictures, lent_randomness, rand_augment, seed_of
from lcmae_core.data.splits import Split
from lcmae_core.data.views import Views

RECIPE = FineTune(batch_size=4)
STRONGEST = "rand-m10-n2-inc1"
PICTURES = [picture(i, 48 + i, 40) for i in range(6)]
GREY = [p.convert("L") for p in PICTURES]


def batches(start=0, stop=3, *, seed=0, workers=0, channels=3, device_cache_gb=0.0, **changes):
    pictures = PICTURES if channels == 3 else GREY
    split = Split("train", len(pictures), np.arange(len(pictures)), pictures.__getitem__, str)
    recipe = vary(RECIPE, changes)
    views = Views(seed, (32, 24), recipe.crop_scale, recipe.crop_ratio, recipe.flip)
    made = Pictures(split, views, channels, recipe.rand_augment, recipe.erase)
    loader = AugmentedLoader(
        made, recipe.batch_size, device=torch.device("cpu"), workers=workers, device_cache_gb=device_cache_gb
    )
    return list(loader.batches(start, stop))


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for m, n in zip(a, b) for x, y in zip(m[:4], n[:4]))


def test_batches_are_a_function_of_the_seed_whatever_the_workers():
    alone = batches()
    assert same(alone, batches(workers=2))
    assert same(alone[1:], batches(1, 3))
    assert not torch.equal(alone[0].images, batches(seed=1)[0].images)
    assert all(torch.equal(batch.labels, batch.index) for batch in alone)


def test_held_pictures_are_those_that_are_read_at_each_visit():
    for channels in (3, 1):
        alone = batches(channels=channels)
        assert same(alone, batches(channels=channels, device_cache_gb=1.0))
        assert same(alone, batches(channels=channels, device_cache_gb=1.0, workers=2))
        assert same(alone, batches(channels=channels, device_cache_gb=1e-6))  # too little to hold them


def test_a_picture_does_not_depend_on_its_batch_and_changes_with_the_epoch():
    by_four, by_six = batches(), batches(0, 2, batch_size=6)
    assert torch.equal(by_four[0].images, by_six[0].images[:4])
    zero, one = by_six
    for i in range(6):
        assert not torch.equal(zero.images[zero.index == i], one.images[one.index == i])


def test_the_global_generators_stand_where_they_stood():
    def drawn():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    before = drawn()
    batches(0, 1)
    with lent_randomness(3):
        assert drawn() != before
        random.random()
        torch.rand(1)
    assert drawn() == before


def test_seeds_differ_by_stream_epoch_and_index():
    seeds = {seed_of(s, n, e, i) for s in (0, 1) for n in ("a", "b") for e in (0, 1, 2) for i in (0, 1, 2)}
    assert len(seeds) == 36


@pytest.mark.parametrize("change", [{"rand_augment": None}, {"erase": 0.0}, {"flip": False}, {"crop_scale": (0.9, 1)}])
def test_every_setting_of_the_pictures_has_an_effect(change):
    plain, changed = batches(0, 4, erase=1.0), batches(0, 4, **({"erase": 1.0} | change))
    assert any(not torch.equal(a.images, b.images) for a, b in zip(plain, changed))


def test_erasing_alone_replaces_one_rectangle_by_noise():
    plain = batches(0, 1, rand_augment=None, erase=0.0)[0].images
    erased = batches(0, 1, rand_augment=None, erase=1.0)[0].images
    for before, after in zip(plain, erased):
        touched = (before != after).any(dim=0)  # (h, w)
        rows, columns = touched.any(dim=1).nonzero(), touched.any(dim=0).nonzero()
        area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert touched.sum() == area
        assert 0 < area <= touched.numel() / 3 + 24 + 32  # timm erases 2 to 33 %, rounded to pixels


def test_posterizing_at_its_strongest_keeps_one_bit():
    operations = [op for op in rand_augment(STRONGEST, (32, 24), 3).ops if op.name == "PosterizeIncreasing"]
    (strongest,) = operations
    strongest.prob = 1.0
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    assert np.unique(np.asarray(strongest(ramp))).tolist() == [0, 128]


def test_grey_pictures_stay_grey():
    found = batches(channels=1, rand_augment=STRONGEST)
    assert all(batch.images.shape == (4, 1, 32, 24) and batch.images.isfinite().all() for batch in found)


def test_an_unknown_policy_is_one_line():
    with pytest.raises(LcmaeError, match="rand_augment: got 'rand-q9', expected timm's form, such as 'rand-m9"):
        rand_augment("rand-q9", (32, 24), 3)
