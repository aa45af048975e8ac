"""Collapse, reconstruction and kNN: values worked out by hand, limits, invariances, and errors."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from lcmae_core.analysis import reconstruction as rec
from lcmae_core.analysis.collapse import collapse, effective_rank, hidden_vectors, mean_cosine, spread
from lcmae_core.analysis.neighbours import Features, knn_accuracy
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalize
from lcmae_core.models.build import build_model
from lcmae_core.models.masking import no_mask, random_mask
from lcmae_core.models.patches import patch_statistics, patchify
from tests.loops import over


def test_collapse_by_hand():
    constant = torch.ones(6, 4)
    assert effective_rank(constant) == pytest.approx(1)
    assert mean_cosine(constant) == pytest.approx(1)
    assert spread(constant) == pytest.approx(0, abs=1e-12)
    identity = torch.eye(4)
    assert effective_rank(identity) == pytest.approx(4)
    assert mean_cosine(identity) == pytest.approx(0)
    assert spread(identity) == pytest.approx(math.sqrt(3 / 16) * 2)  # one 1 in four: variance 1/4 - 1/16
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )


def test_mean_cosine_equals_the_slow_mean_over_pairs(generator):
    v = torch.randn(7, 3, generator=generator) + 1
    pairs = [torch.cosine_similarity(v[i], v[j], dim=0) for i in range(7) for j in range(7) if i != j]
    assert mean_cosine(v) == pytest.approx(torch.stack(pairs).mean().item(), abs=1e-6)


def test_effective_rank_is_the_same_from_either_gram_matrix(generator):
    tall = torch.randn(40, 6, generator=generator)
    singular = torch.linalg.svdvals(tall.double())
    p = singular / singular.sum()
    expected = (-(p * p.log()).sum()).exp().item()
    assert effective_rank(tall) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(tall.T) == pytest.approx(expected, rel=1e-6)


def test_isotropic_directions_have_spread_near_one(generator):
    assert spread(torch.randn(4000, 32, generator=generator)) == pytest.approx(1, abs=0.02)


def test_collapse_needs_two_vectors():
    with pytest.raises(LcmaeError, match="vectors: got 1, expected at least 2"):
        collapse(torch.ones(1, 3))


def test_hidden_vectors_are_those_of_hidden_patches(generator):
    settings = replace(profile("smoke"), cross_view=1.0)
    model, mask = build_model(settings), random_mask(2, 64, 0.75, generator=generator)
    images = torch.randn(2, 3, 64, 64, generator=generator)
    with torch.no_grad():
        expected = model(images, mask).projected
    found = hidden_vectors(model, images, mask)
    assert found.shape == (2 * 48, 256)
    assert torch.equal(found[0], expected[0, mask.hidden[0].nonzero()[0, 0]])


@pytest.fixture
def pixels(generator):
    return torch.rand(2, 16, 12, generator=generator)  # 4x4 patches of 2x2 px


@pytest.fixture
def hidden(generator):
    return random_mask(2, 16, 0.5, generator=generator).hidden


def test_oracle_statistics_undo_the_normalisation(pixels):
    mean, std = patch_statistics(pixels)
    assert torch.allclose(rec.denormalize_patches((pixels - mean) / std, patch_statistics(pixels)), pixels, atol=1e-6)


def test_neighbour_statistics_never_look_at_hidden_patches(pixels, hidden):
    leaked = torch.where(hidden[:, :, None], 99.0, pixels)
    for clean, spoiled in zip(
        rec.neighbour_statistics(pixels, hidden, (4, 4)), rec.neighbour_statistics(leaked, hidden, (4, 4))
    ):
        assert torch.equal(clean, spoiled)
    for fill in (
        lambda p: rec.mean_colour_fill(p, hidden, 3),
        lambda p: rec.neighbour_colour_fill(p, hidden, (4, 4), 3),
    ):
        assert torch.allclose(fill(pixels), fill(leaked), atol=1e-6)


def test_neighbour_weights_by_hand():
    hidden = torch.tensor([[False, True, False, True]])  # a row of four patches
    near, far = math.exp(-0.5), math.exp(-0.5)
    weights = rec.neighbour_weights(hidden, (1, 4))[0]
    assert weights[1].tolist() == pytest.approx([near / (near + far), 0, far / (near + far), 0])
    one, nine = math.exp(-0.5), math.exp(-4.5)
    assert weights[3].tolist() == pytest.approx([nine / (one + nine), 0, one / (one + nine), 0])


def test_mean_colour_is_that_of_visible_pixels(pixels, hidden):
    fill = rec.mean_colour_fill(pixels, hidden, 3)
    expected = pixels[0][~hidden[0]].reshape(-1, 3).mean(0)
    assert torch.allclose(fill[0, 5].reshape(4, 3), expected.expand(4, 3), atol=1e-6)


def test_psnr_by_hand(pixels, hidden):
    assert rec.psnr(torch.where(hidden[:, :, None], (pixels - 0.1).abs(), 0.0), pixels, hidden).shape == (2,)
    grey = torch.full_like(pixels, 0.5)
    assert rec.psnr(grey + 0.1, grey, hidden).tolist() == pytest.approx([20, 20], abs=1e-4)  # -10 log10(0.01)


@over("norm_pix", [True, False])
def test_reconstructions_keep_visible_patches_and_name_their_rivals(norm_pix, generator):
    settings = profile("smoke")
    model, mask = build_model(settings), random_mask(2, 64, 0.75, generator=generator)
    photo = torch.rand(2, 3, 64, 64, generator=generator) * 255
    found = rec.reconstruct(model, normalize(photo), mask, norm_pix=norm_pix)
    names = {"mean colour", "neighbours"} | ({"norm-pix", "norm-pix oracle"} if norm_pix else {"pixel"})
    assert set(found) == names
    truth = patchify(photo / 255, 8)
    for guess in found.values():
        assert torch.allclose(guess.pixels[~mask.hidden], truth[~mask.hidden], atol=1e-5)
        assert not torch.allclose(guess.pixels[mask.hidden], truth[mask.hidden], atol=1e-2)


@over("norm_pix", [True, False])
@over("channels", [1, 3])
def test_whole_images_are_rebuilt_patch_by_patch(norm_pix, channels, generator):
    """Nothing is hidden; each patch's prediction goes to its place, value by value, on the scale of pixels. A norm-pix
    model's are given mean and deviation (with n - 1) of the true patch."""
    settings = replace(profile("smoke"), channels=channels, image_size=(16, 24))
    model = build_model(settings).eval()
    photo = torch.rand(2, channels, 16, 24, generator=generator)
    photo[:, :, :8, :8] *= 0.2
    images = normalize(255 * photo)
    with torch.no_grad():
        pred = model(images, no_mask(2, 6, images.device)).pred
    grey = channels == 1
    mean, std = ([sum(m) / 3] if grey else m for m in (IMAGENET_MEAN, IMAGENET_STD))
    expected = torch.empty(2, channels, 16, 24)
    for image in range(2):
        for place in range(6):
            top, left = 8 * (place // 3), 8 * (place % 3)
            true = images[image, :, top : top + 8, left : left + 8]  # in the space of the target, then de-normalised
            centre, spread = true.mean(), (true.var() + 1e-6).sqrt()
            for value in range(64 * channels):
                pixel, channel = divmod(value, channels)
                y, x, said = top + pixel // 8, left + pixel % 8, pred[image, place, value]
                scaled = (said * spread + centre if norm_pix else said) * std[channel] + mean[channel]
                expected[image, channel, y, x] = min(1.0, max(0.0, float(scaled)))
    found = rec.rebuild_whole(model, images, norm_pix=norm_pix)
    assert (found - expected).abs().max() < 1e-5
    assert not found.requires_grad
    assert not torch.allclose(found, rec.rebuild_whole(model, images, norm_pix=not norm_pix), atol=1e-2)


def test_larger_blocks_are_not_rebuilt():
    model = build_model(replace(profile("smoke"), method="ae", block=3))
    with pytest.raises(LcmaeError, match=r"^block: got 3 patches a token, expected 1: larger predictions overlap$"):
        rec.rebuild_whole(model, torch.zeros(1, 3, 64, 64), norm_pix=False)


def test_pictures_have_grey_hidden_patches(pixels, hidden):
    pictures = rec.as_pictures(pixels, 2, (4, 4), hidden)
    assert pictures.shape == (2, 8, 8, 3)
    row, col = divmod(int(hidden[0].nonzero()[0, 0]), 4)
    assert (pictures[0, 2 * row, 2 * col] == 0.5).all()
    assert rec.as_pictures(torch.rand(1, 16, 4), 2, (4, 4)).shape == (1, 8, 8, 3)  # grey images are drawn as colour


def test_knn_equals_scikit_learn(generator):
    x, q = torch.randn(60, 8, generator=generator), torch.randn(25, 8, generator=generator)
    y, z = torch.randint(4, (60,), generator=generator), torch.randint(4, (25,), generator=generator)
    reference = KNeighborsClassifier(9, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    expected = reference.fit(x.numpy(), y.numpy()).score(q.numpy(), z.numpy())
    assert knn_accuracy(Features(x, y), Features(q, z), k=9) == pytest.approx(expected)
    assert knn_accuracy(Features(x, y), Features(x, y), k=1) == 1


def test_knn_needs_labels_and_enough_images(generator):
    x = torch.randn(5, 3, generator=generator)
    with pytest.raises(LcmaeError, match="labels: got a source without labels, expected one class a photograph"):
        knn_accuracy(Features(x, None), Features(x, None))
    with pytest.raises(LcmaeError, match="k: got 20, expected 1 to 5 training images"):
        knn_accuracy(Features(x, torch.arange(5)), Features(x, torch.arange(5)))
