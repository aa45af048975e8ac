"""Claims: CKA equals a reference worked out from its definition (the U-statistic over four different examples), is 1
for equal features, invariant to rotation, isotropic scale and shift, near 0 for independent ones where the biased one
is not; its terms average to it and are the jackknife's; layers of a network are compared image by image."""

from itertools import permutations

import numpy as np
import pytest
import torch

from lcmae_core.analysis.cka import cka, cka_of_grams, cka_terms, gram, layer_grams, unbiased_hsic
from lcmae_core.analysis.features import patch_features
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.models.build import build_model
from tests.loops import over


def features(seed, shape=(7, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic_of_fours(first, second):
    """The unbiased HSIC as it is defined: E[k l] + E[k] E[l] - 2 E[k l'], each expectation over different examples."""
    k, el = (first @ first.T).numpy(), (second @ second.T).numpy()
    m = len(k)
    pairs = [k[i, j] * el[i, j] for i, j in permutations(range(m), 2)]
    fours = [k[i, j] * el[q, r] for i, j, q, r in permutations(range(m), 4)]
    threes = [k[i, j] * el[i, q] for i, j, q in permutations(range(m), 3)]
    return np.mean(pairs) + np.mean(fours) - 2 * np.mean(threes)


def reference(first, second):
    spread = hsic_of_fours(first, first) * hsic_of_fours(second, second)
    return hsic_of_fours(first, second) / np.sqrt(spread)


def test_equals_the_definition():
    x = features(0)
    y = x @ features(1, (3, 4)) + 0.5 * features(2, (7, 4))
    assert unbiased_hsic(gram(x), gram(y)).item() == pytest.approx(hsic_of_fours(x, y), rel=1e-10)
    assert cka(x, y) == pytest.approx(reference(x, y), rel=1e-10)


def test_one_for_equal_features():
    assert cka(features(0), features(0)) == pytest.approx(1, abs=1e-12)


def test_invariant_to_rotation_scale_and_shift():
    x, y = features(0, (20, 6)), features(1, (20, 5)) + features(0, (20, 6))[:, :5]
    rotation, _ = torch.linalg.qr(features(2, (6, 6)))
    plain = cka(x, y)
    assert cka(3.7 * x @ rotation + 100, y) == pytest.approx(plain, abs=1e-9)
    assert cka(y, x) == pytest.approx(plain, abs=1e-12)
    assert cka(x * torch.linspace(0.1, 3, 6), y) != pytest.approx(plain, abs=1e-3)  # not to any linear map


def test_debiased_where_features_outnumber_examples():
    found = [cka(features(2 * seed, (20, 200)), features(2 * seed + 1, (20, 200))) for seed in range(60)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 60**0.5
    assert abs(np.mean(found)) < 0.03
    x, y = features(0, (20, 200)), features(1, (20, 200))
    k, el = (f - f.mean(0) for f in (x, y))
    biased = torch.linalg.norm(k.T @ el) ** 2 / (torch.linalg.norm(k.T @ k) * torch.linalg.norm(el.T @ el))
    assert biased > 0.8


def test_terms_are_the_jackknifes():
    x = features(0, (12, 4))
    y = x + features(1, (12, 4))
    terms, whole = cka_terms(gram(x), gram(y)), cka(x, y)
    assert terms.mean().item() == pytest.approx(whole, abs=1e-12)
    left = np.array([cka(torch.cat([x[:i], x[i + 1 :]]), torch.cat([y[:i], y[i + 1 :]])) for i in range(12)])
    pseudo = 12 * whole - 11 * left
    assert np.allclose(terms.numpy(), pseudo - pseudo.mean() + whole, atol=1e-9)


def test_features_without_spread_are_like_nothing():
    constant = torch.ones(8, 3)
    assert cka(constant, features(0, (8, 3))) == 0
    assert cka(constant, constant) == 0


@over(("sizes", "line"), [((4, 4), "examples: got 4, expected at least 5"),
     ((6, 7), "examples: got 6 and 7, expected the same ones for both")])  # fmt: skip
def test_errors_are_one_line(sizes, line):
    with pytest.raises(LcmaeError) as error:
        cka(*(features(0, (size, 3)) for size in sizes))
    assert str(error.value) == line


def test_layers_of_a_network():
    settings = replace(profile("smoke"), image_size=32, width=32, depth=2, heads=2)
    model = build_model(settings).eval()
    images = features(0, (6, 3, 32, 32)).float()
    tokens = patch_features(model.encoder, images, kind="outputs")  # (M, L, N, D)
    found = layer_grams(model.encoder, images.split(4))
    pooled = layer_grams(model.encoder, images.split(4), pooled=True)
    assert found.shape == pooled.shape == (2, 6, 6)
    for layer in range(2):
        assert torch.allclose(found[layer], gram(tokens[:, layer].flatten(1)), atol=1e-3)
        assert torch.allclose(pooled[layer], gram(tokens[:, layer].mean(1)), atol=1e-5)
    assert 0 < cka_of_grams(found[0], found[1]).item() <= 1
    with pytest.raises(LcmaeError, match="examples: got 0, expected at least 5"):
        layer_grams(model.encoder, [])
