"""Patches are cut row by row and channel-last, as a slow loop and nn.Unfold do; `unpatchify` is the inverse; the target
is normalised with the unbiased variance plus 1e-6; images may be non-square and have any number of channels."""

import math

import pytest
import torch
from torch import nn

from lcmae_core.config import LcmaeError
from lcmae_core.models.patches import normalize_patches, patch_statistics, patchify, unpatchify

SHAPES = [(2, 3, 8, 8, 4), (1, 1, 6, 9, 3), (2, 4, 4, 10, 2), (1, 3, 28, 14, 14)]


@pytest.mark.parametrize(("b", "c", "h", "w", "p"), SHAPES)
def test_patchify_equals_a_slow_loop(b, c, h, w, p, generator):
    images = torch.randn(b, c, h, w, generator=generator)
    slow = [
        [
            [images[i, k, top + y, left + x].item() for y in range(p) for x in range(p) for k in range(c)]
            for top in range(0, h, p) for left in range(0, w, p)
        ]
        for i in range(b)
    ]  # fmt: skip
    assert torch.equal(patchify(images, p), torch.tensor(slow))


@pytest.mark.parametrize(("b", "c", "h", "w", "p"), SHAPES)
def test_patchify_is_unfold_with_the_channel_last(b, c, h, w, p, generator):
    images = torch.randn(b, c, h, w, generator=generator)
    unfolded = nn.Unfold(p, stride=p)(images).reshape(b, c, p * p, -1)  # channel first
    assert torch.equal(patchify(images, p), unfolded.permute(0, 3, 2, 1).flatten(2))


@pytest.mark.parametrize(("b", "c", "h", "w", "p"), SHAPES)
def test_unpatchify_is_the_inverse(b, c, h, w, p, generator):
    images = torch.randn(b, c, h, w, generator=generator)
    assert torch.equal(unpatchify(patchify(images, p), p, (h // p, w // p)), images)


def test_normalisation_by_hand():
    # Values 1, 2, 3, 6: mean 3, unbiased variance 14/3 (biased: 14/4).
    got = normalize_patches(torch.tensor([[[1.0, 2.0, 3.0, 6.0]]], dtype=torch.float64))
    root = math.sqrt(14 / 3 + 1e-6)
    assert torch.allclose(got, torch.tensor([[[-2, -1, 0, 3]]], dtype=torch.float64) / root, atol=1e-15, rtol=0)


def test_a_flat_patch_becomes_zero_and_statistics_undo_the_normalisation(generator):
    patches = torch.randn(2, 5, 12, generator=generator, dtype=torch.float64)
    patches[0, 0] = 7.0
    mean, std = patch_statistics(patches)
    assert normalize_patches(patches)[0, 0].abs().max() == 0
    assert std[0, 0].item() == pytest.approx(1e-3)  # sqrt(1e-6)
    assert torch.allclose(normalize_patches(patches) * std + mean, patches, atol=1e-14)


def test_all_channels_of_a_patch_share_one_mean():
    image = torch.zeros(1, 3, 2, 2)
    image[:, 0] = 3.0
    assert patch_statistics(patchify(image, 2)).mean.item() == 1.0


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: patchify(torch.zeros(1, 3, 10, 8), 4), "patch size: got 4 for 10x8 images"),
        (lambda: unpatchify(torch.zeros(1, 4, 12), 2, (2, 3)), r"got shape \(1, 4, 12\), expected \(B, 6, 4 \* C\)"),
        (lambda: unpatchify(torch.zeros(1, 4, 13), 2, (2, 2)), r"got shape \(1, 4, 13\)"),
    ],
)
def test_bad_input_is_named_in_one_line(call, line):
    with pytest.raises(LcmaeError, match=line):
        call()
