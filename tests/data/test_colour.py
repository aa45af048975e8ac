"""Claims: hue, blur, solarisation and greyscale are torchvision's to rounding (bounds below, in grey levels of 255);
every image keeps its own strength in whatever batch; each change comes as often as said; old streams and jitter alone
stay as they were; DINO's two global crops and its local ones are changed differently, as published.
"""

import math

import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from lcmae_core.config import Data, Dino
from lcmae_core.config.profiles import PUBLISHED_COLOURS
from lcmae_core.data.augment import jitter
from lcmae_core.data.colour import SHADE_DRAWS, Colours, blur, shade, solarise, turn_hue
from lcmae_core.data.counter import counter_uniform
from lcmae_core.data.views import multi_crop

COUNT = 4000


@pytest.fixture
def images(generator):
    whole = (torch.rand(6, 3, 24, 17, generator=generator) * 255).round()
    whole[0, :, :6] = whole[0, :1, :6]  # grey, where hue means nothing
    whole[1, 0], whole[1, 1] = 255, 0
    return whole


def uniform(count=COUNT, stream="jitter"):
    index = torch.arange(count)
    return counter_uniform(0, stream, torch.zeros_like(index), index, SHADE_DRAWS)


def test_hue_is_torchvisions(images):
    turns = torch.tensor([-0.5, -0.31, -0.1, 0.0, 0.07, 0.5])
    found = turn_hue(images, turns)
    for image, turn, got in zip(images, turns.tolist(), found):
        assert (got - 255 * TF.adjust_hue(image / 255, turn)).abs().max() < 0.02
    assert (turn_hue(images, torch.full((6,), 1 / 3)) - images.roll(1, dims=1)).abs().max() < 0.02  # red to green
    assert torch.equal(turn_hue(images[:, :1], turns), images[:, :1])  # a picture of one channel has none


def test_blur_is_torchvisions_of_each_images_own_deviation(images):
    sigmas = torch.tensor([0.03, 0.1, 0.4, 1.0, 1.7, 2.0])
    found = blur(images, sigmas)
    for image, sigma, got in zip(images, sigmas.tolist(), found):
        size = 2 * max(1, math.ceil(4 * sigma)) + 1
        assert (got - TF.gaussian_blur(image, [size, size], [sigma, sigma])).abs().max() < 0.02
    assert torch.allclose(found[3:4], blur(images[3:4], sigmas[3:4]), atol=1e-4)
    flat = torch.full((6, 3, 24, 17), 77.0)
    assert torch.allclose(blur(flat, sigmas), flat, atol=1e-3)
    assert (blur(images, torch.full((6,), 0.03)) - images).abs().max() < 1e-3  # a desk crop's least blur is none


def test_solarise_and_grey_are_torchvisions(images):
    theirs = torch.stack([TF.solarize(image.to(torch.uint8), 128).float() for image in images])
    assert torch.equal(solarise(images), theirs)
    always = torch.zeros(6, SHADE_DRAWS)
    theirs = 255 * TF.rgb_to_grayscale(images / 255, num_output_channels=3)
    assert (shade(images, always, Colours(grey_prob=1.0)) - theirs).abs().max() < 0.05  # 0.2989 there, 0.299 here
    assert torch.equal(shade(images[:, :1], always, Colours(grey_prob=1.0)), images[:, :1])


def test_each_change_comes_as_often_as_said():
    drawn, probe = uniform(), torch.full((COUNT, 3, 2, 2), 100.0)
    probe[:, 0], probe[:, 1, 0] = 200, 30
    for part, prob in (("grey_prob", 0.2), ("blur_prob", 0.5), ("blur_prob", 0.1), ("solarise_prob", 0.2)):
        changed = (shade(probe, drawn, Colours(**{part: prob})) != probe).flatten(1).any(dim=1)
        assert changed.float().mean().item() == pytest.approx(prob, abs=0.025), part  # three deviations of 4 000
    some = (shade(probe, drawn, Colours(0.4, 0.1, jitter_prob=0.8)) != probe).flatten(1).any(dim=1)
    assert some.float().mean().item() == pytest.approx(0.8, abs=0.025)
    assert torch.equal(shade(probe, drawn, Colours()), probe)


def test_the_order_is_the_published_one(images):
    """All at once is one after the other: jitter, hue, greyscale, blur, solarisation."""
    drawn = uniform(6)
    colours = Colours(0.4, 0.1, 1.0, 1.0, 1.0, 0.5, 1.0)
    x = turn_hue(jitter(images, drawn[:, :3], 0.4), (2 * drawn[:, 3] - 1) * 0.1)
    x = blur(shade(x, drawn, Colours(grey_prob=1.0)), 0.5 * (0.1 + 1.9 * drawn[:, 7]))
    assert torch.allclose(shade(images, drawn, colours), solarise(x), atol=1e-3)
    alone = shade(images[2:3], drawn[2:3], colours)
    assert torch.allclose(alone, shade(images, drawn, colours)[2:3], atol=1e-3)


def test_jitter_alone_is_what_it_was(images):
    drawn = uniform(6)
    index = torch.arange(6)
    assert torch.equal(drawn[:, :3], counter_uniform(0, "jitter", torch.zeros_like(index), index, 3))
    assert torch.equal(shade(images, drawn, Colours(jitter=0.4)), jitter(images, drawn[:, :3], 0.4))


def test_the_crops_of_dino_are_coloured_as_published():
    plain = multi_crop(Data(), Dino(), 0)
    assert {view.colours for view in plain} == {Colours(jitter=0.4, blur_scale=64 / 224)}  # as it was
    first, second, *local = (v.colours for v in multi_crop(Data(), Dino(local_crops=2, **PUBLISHED_COLOURS), 0))
    shared = {"jitter": 0.4, "hue": 0.1, "jitter_prob": 0.8, "grey_prob": 0.2, "blur_scale": 64 / 224}
    assert first == Colours(**shared, blur_prob=1.0)
    assert second == Colours(**shared, blur_prob=0.1, solarise_prob=0.2)
    assert local == [Colours(**shared, blur_prob=0.5)] * 2
    paper = multi_crop(Data(image_size=(224, 224)), Dino(local_size=(96, 96), **PUBLISHED_COLOURS), 0)
    assert {view.colours.blur_scale for view in paper} == {1.0}  # the same in pixels for crops of both sizes
