"""Cue-conflict images: pairs never share a class and are drawn evenly; the picture is what a slow loop over its
description makes; a texture that fits is given back, a flat one is flat, and no colour comes from elsewhere; images of
a batch do not mix; errors are one line. Shape bias by hand."""

import math

import numpy as np
import pytest
import torch

from lcmae_core.analysis.cues import conflicting_pairs, cue_conflict, shape_bias
from lcmae_core.config import LabelsError, LcmaeError
from tests.loops import over

# ---- pairs


def test_pairs_never_share_a_class_and_every_photograph_gives_its_shape_once(generator):
    labels = torch.tensor([0, 0, 0, 2, 2, 5])
    for _ in range(50):
        pairs = conflicting_pairs(labels, generator)
        assert pairs.shape.tolist() == [*range(6)]
        assert (labels[pairs.shape] != labels[pairs.texture]).all()


def test_every_photograph_of_another_class_is_drawn_as_often(generator):
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    draws, count = 3000, np.zeros((6, 6))
    for _ in range(draws):
        for shape, texture in zip(*(part.tolist() for part in conflicting_pairs(labels, generator))):
            count[shape, texture] += 1
    for shape in range(6):
        others = (labels != labels[shape]).sum().item()
        expected = draws / others
        for texture in range(6):
            wanted = 0 if labels[texture] == labels[shape] else expected
            assert abs(count[shape, texture] - wanted) <= (5 * math.sqrt(expected) if wanted else 0)


def test_pairs_are_those_of_the_generator():
    labels = torch.arange(40) % 4
    first, again, other = (conflicting_pairs(labels, torch.Generator().manual_seed(s)).texture for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@over("count", [1, 3])
def test_one_class_is_one_line(count, generator):
    with pytest.raises(LabelsError, match=r"^labels: got one class, expected at least two: shape and texture must"):
        conflicting_pairs(torch.zeros(count, dtype=torch.int64), generator)


def test_shape_bias_by_hand():
    assert shape_bias(0.3, 0.1) == pytest.approx(0.75)
    assert (shape_bias(0.2, 0.0), shape_bias(0.0, 0.2)) == (1, 0)
    assert math.isnan(shape_bias(0.0, 0.0))
    assert shape_bias(np.float64(0.1), np.float64(0.3)) == pytest.approx(0.25)


# ---- pictures


def pictures(generator, count=2, channels=3, height=24, width=24):
    """Smooth colours with noise on top: brightness without ties."""
    coarse = torch.rand(count, channels, 3, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    noise = torch.rand(count, channels, height, width, generator=generator)
    return (0.8 * smooth + 0.2 * noise).double()


def brightness(image):
    """(H, W) of an image (C, H, W)."""
    return image[0] if len(image) == 1 else 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]


def quarters(light, top, left, p):
    """Mean brightness of top left, top right, bottom left, bottom right."""
    h = p // 2
    return [light[top + i : top + i + h, left + j : left + j + h].mean() for i in (0, h) for j in (0, h)]


def slow_conflict(shape, texture, p):
    """What the docstring says, block by block, for two images (C, H, W) as arrays."""
    height, width = shape.shape[1:]
    light, offered = brightness(shape), brightness(texture)
    ranked, values = np.empty(light.size), np.sort(offered.ravel())
    for place, value in enumerate(light.ravel()):
        first, count = (light < value).sum(), (light == value).sum()
        ranked[place] = values[first : first + count].mean()
    half = p // 2
    rows, columns = (math.ceil(n / half) for n in (height, width))
    padded = np.pad(ranked.reshape(height, width), ((0, rows * half - height), (0, columns * half - width)), "edge")
    window = np.sin(np.pi * np.arange(1, p + 1) / (p + 1)) ** 2  # Hann, without its two zeros
    weight = np.outer(window, window)
    total, mixed = np.zeros(padded.shape), np.zeros((len(shape), *padded.shape))
    for top in range(0, padded.shape[0] - p + 1, half):
        for left in range(0, padded.shape[1] - p + 1, half):
            wanted, best, chosen = quarters(padded, top, left, p), math.inf, None
            for y in range(height - p + 1):
                for x in range(width - p + 1):
                    apart = sum((a - b) ** 2 for a, b in zip(wanted, quarters(offered, y, x, p)))
                    if apart < best:
                        best, chosen = apart, texture[:, y : y + p, x : x + p]
            mixed[:, top : top + p, left : left + p] += weight * chosen
            total[top : top + p, left : left + p] += weight
    return (mixed / total)[:, :height, :width]


@over(
    ("channels", "height", "width", "block"),
    [(3, 16, 16, 4), (3, 17, 13, 4), (1, 15, 18, 6), (3, 12, 20, None), (3, 13, 11, 10), (1, 16, 16, 16)],
)
def test_pictures_are_those_of_a_slow_loop(channels, height, width, block, generator):
    shape, texture = (pictures(generator, 2, channels, height, width) for _ in range(2))
    found = cue_conflict(shape, texture, block)
    assert found.shape == shape.shape
    for image in range(2):
        expected = slow_conflict(shape[image].numpy(), texture[image].numpy(), block or 2)
        assert np.abs(found[image].numpy() - expected).max() < 1e-9


@over(("side", "block"), [(15, 2), (32, 4), (47, 4), (64, 8), (128, 16)])
def test_a_block_is_an_eighth_of_the_shorter_side(side, block, generator):
    shape, texture = (pictures(generator, 1, 1, side, side + 9) for _ in range(2))
    assert torch.equal(cue_conflict(shape, texture), cue_conflict(shape, texture, block))


def test_a_picture_in_its_own_texture_is_itself(generator):
    """Every block is nearest to itself, and blending equal blocks changes nothing: exact but for rounding, where no
    block hangs over the edge."""
    image = pictures(generator, 2, 3, 24, 32)
    assert (cue_conflict(image, image, 4) - image).abs().max() < 1e-12
    assert (cue_conflict(image.float(), image.float(), 8) - image).abs().max() < 1e-5


def test_the_layout_is_of_the_shape_and_the_colours_are_of_the_texture():
    """A blue disc on black from one, red and yellow from the other: the disc becomes yellow, the rest red."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    disc = ((y - 15.5) ** 2 + (x - 15.5) ** 2 < 100).double()
    shape = disc.expand(1, 3, 32, 32) * torch.tensor([0.0, 0.0, 1.0])[None, :, None, None]  # a blue disc
    texture = torch.zeros(1, 3, 32, 32).double()
    texture[:, 0] = 1.0
    texture[:, 1, :, 22:] = 1.0  # red, and on the right yellow: as much of it as the disc covers
    found = cue_conflict(shape, texture, 4)[0]
    assert (found[0] - 1).abs().max() < 1e-9
    assert found[2].abs().max() == 0, "no blue of the shape"
    assert found[1][disc.bool()].mean() > found[1][~disc.bool()].mean() + 0.8
    away = (y - 15.5) ** 2 + (x - 15.5) ** 2
    assert found[1][away < 36].min() > 0.95
    assert found[1][away > 196].mean() < 0.02  # the disc covers four pixels less than the yellow


def test_only_what_is_brighter_counts_of_the_shape(generator):
    """Any growing function of the shape's brightness gives the same picture; the negative does not."""
    shape, texture = (pictures(generator, 1, 1) for _ in range(2))
    plain = cue_conflict(shape, texture, 4)
    assert torch.equal(cue_conflict(0.1 + 0.5 * shape**3, texture, 4), plain)
    assert (cue_conflict(1 - shape, texture, 4) - plain).abs().max() > 0.1


def test_no_value_lies_beyond_the_textures(generator):
    shape = pictures(generator, 3, 3, 25, 31)
    texture = 0.4 + 0.2 * pictures(generator, 3, 3, 25, 31)
    found = cue_conflict(shape, texture, 6)
    for image in range(3):
        for channel in range(3):
            low, high = texture[image, channel].aminmax()
            assert low - 1e-12 <= found[image, channel].min() <= found[image, channel].max() <= high + 1e-12


def test_one_block_alone_is_cut_out_of_the_texture(generator):
    """A block as large as the picture: the texture itself, whatever the shape."""
    shape, texture = (pictures(generator, 2, 3, 16, 16) for _ in range(2))
    assert (cue_conflict(shape, texture, 16) - texture).abs().max() < 1e-12


def test_a_flat_texture_is_flat_and_so_is_the_layout_of_a_flat_shape(generator):
    image = pictures(generator)
    flat = torch.tensor([0.2, 0.5, 0.9]).double()[None, :, None, None].expand(2, 3, 24, 24)
    assert (cue_conflict(image, flat, 4) - flat).abs().max() < 1e-12
    assert cue_conflict(flat, image, 4).isfinite().all()


def test_images_of_a_batch_do_not_mix(generator):
    shape, texture = (pictures(generator, 4) for _ in range(2))
    together = cue_conflict(shape, texture, 4)
    for image in range(4):
        part = slice(image, image + 1)
        assert torch.allclose(cue_conflict(shape[part], texture[part], 4), together[part], atol=1e-12)


@over("dtype", [torch.float32, torch.float64])
@over("channels", [1, 3])
def test_kind_and_channels_are_kept(dtype, channels, generator):
    shape, texture = (pictures(generator, 2, channels).to(dtype) for _ in range(2))
    before = shape.clone(), texture.clone()
    found = cue_conflict(shape, texture)
    assert (found.dtype, found.shape, found.device) == (dtype, shape.shape, shape.device)
    assert torch.equal(shape, before[0])
    assert torch.equal(texture, before[1])


@over("block", [3, 25, 26, -2])
def test_a_block_that_does_not_fit_is_one_line(block, generator):
    image = pictures(generator, 1, 1, 25, 40)
    with pytest.raises(LcmaeError, match=rf"^block: got {block} px, expected an even number up to 24$"):
        cue_conflict(image, image, block)
