"""Claims: the split of variance equals slow loops and sums to 1; the cosine at the same place is the mean over pairs;
an image is found where its own vector is nearest, and images equally near share the hit; of five synthetic v the rule
says collapse (constant, position only, mask only), none (image only, position + image); the query-specific distance is
that of a slow loop, says none for query-independent sinks with noise and equals the plain one for a permutation."""

import itertools
import math

import numpy as np
import pytest
import torch

from lcmae_core.analysis.collapse import collapses, mean_cosine
from lcmae_core.analysis.metrics import attention_distance, normalized_mutual_information
from lcmae_core.analysis.retrieval import found_across, nearest_found, same_place_cosine
from lcmae_core.analysis.specific import query_specific, specific_distance
from lcmae_core.analysis.variance import variance_shares

VIEWS, M, PLACES, V = 2, 12, 9, 16
AXES = {"position": (1, 1, PLACES, V), "mask": (VIEWS, 1, 1, V), "image": (1, M, 1, V)}


def vectors(generator, *parts):
    """v (views, M, places, V) as a sum of random parts, each of one axis alone, beside a constant of unit length."""
    v = torch.zeros(VIEWS, M, PLACES, V, dtype=torch.float64)
    v = v + torch.nn.functional.normalize(torch.randn(V, generator=generator, dtype=torch.float64), dim=0) / 4
    for part in parts:
        v = v + torch.randn(*AXES[part], generator=generator, dtype=torch.float64)
    return v


def judged(v):
    """The rule on v of two views."""
    same = torch.stack([same_place_cosine(view) for view in v]).mean().item()
    return collapses(same, found_across(v[0], v[1]).mean().item(), 1 / v.shape[1])


def test_the_rule_on_five_synthetic_v(generator):
    cases = {(): True, ("position",): True, ("mask",): True, ("image",): False, ("position", "image"): False}
    for parts, expected in cases.items():
        for v in (vectors(generator, *parts), vectors(generator, *parts).float()):
            assert judged(v) is expected, parts
    position = vectors(generator, "position")
    assert mean_cosine(position.flatten(0, 2)) < 0.5, "the mean cosine alone lets it pass"
    for edge in ((0.95, 1.0, 0.01), (0.5, 0.05, 0.01)):
        assert collapses(*edge), "both bounds are strict"
    assert not collapses(0.949, 0.0501, 0.01)


def slow_shares(v):
    """Each part from means taken one at a time."""
    grand = v.mean((0, 1, 2))
    square = lambda x: float(((x - grand) ** 2).sum())  # noqa: E731
    total = sum(square(v[k, m, i]) for k in range(VIEWS) for m in range(M) for i in range(PLACES))
    place = sum(square(v[:, :, i].mean((0, 1))) for i in range(PLACES)) * VIEWS * M
    mask = sum(square(v[k].mean((0, 1))) for k in range(VIEWS)) * M * PLACES
    image = sum(square(v[:, m].mean((0, 1))) for m in range(M)) * VIEWS * PLACES
    return [place / total, mask / total, image / total, (total - place - mask - image) / total]


def test_the_split_of_variance(generator):
    v = vectors(generator, *AXES) + torch.randn(VIEWS, M, PLACES, V, generator=generator, dtype=torch.float64)
    found = variance_shares(v)
    assert found == pytest.approx(slow_shares(v), rel=1e-9)
    assert sum(found) == pytest.approx(1)
    assert min(found) > 0.05
    for part in AXES:
        alone = variance_shares(vectors(generator, part))
        assert getattr(alone, part) == pytest.approx(1)
    assert variance_shares(vectors(generator)) == (0, 0, 0, 0)
    assert variance_shares(3 * vectors(generator).float() + 7) == (0, 0, 0, 0), "rounding is no variance"
    shifted = variance_shares(2 * v + 5)
    assert shifted == pytest.approx(found, rel=1e-9), "neither the scale nor the mean counts"


def test_cosine_at_the_same_place_is_the_mean_over_pairs(generator):
    v = vectors(generator, "position", "image")[0] + torch.randn(M, PLACES, V, generator=generator)
    found = same_place_cosine(v)
    for m in range(M):
        pairs = [
            float(torch.cosine_similarity(v[m, i], v[o, i], dim=0)) for o in range(M) if o != m for i in range(PLACES)
        ]
        assert found[m].item() == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert torch.allclose(same_place_cosine(vectors(generator, "position")[0]), torch.ones(M).double())


def test_an_image_is_found_where_its_own_vector_is_nearest(generator):
    one = torch.randn(M, PLACES, V, generator=generator)
    two = one + 1.5 * torch.randn(M, PLACES, V, generator=generator)
    found = found_across(one, two)
    assert 0.2 < found.mean() < 0.98, "a case that is no limit"
    for m in range(M):
        hit = 0
        for i in range(PLACES):
            cosines = [float(torch.cosine_similarity(one[m, i], two[o, i], dim=0)) for o in range(M)]
            hit += cosines.index(max(cosines)) == m
        assert found[m].item() == pytest.approx(hit / PLACES)
    assert found_across(one, one).eq(1).all()
    assert found_across(one, one.roll(1, 0)).max() == 0
    same = torch.randn(1, PLACES, V, generator=generator).expand(M, -1, -1) * torch.rand(M, 1, 1, generator=generator)
    assert torch.allclose(found_across(same, same), torch.full((M,), 1 / M, dtype=torch.float64)), "all alike: chance"
    colours = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [5.0, 5.0]])
    moved = colours + torch.tensor([[0.1, 0.1]] * 3 + [[-4.9, -4.9]])
    assert nearest_found(colours, colours).tolist() == [1, 0.5, 0.5, 1]
    assert nearest_found(colours, moved).tolist() == [0.5, 0.5, 0.5, 0]


# ---- query-specific attention


def slow_specific(attn, grid, prefix):
    """Far and mass of one map by the definition."""
    places = list(itertools.product(range(grid[0]), range(grid[1])))
    far = mass = 0.0
    for j, key in enumerate(places):
        column = [float(attn[prefix + i, prefix + j]) for i in range(len(places))]
        for i, query in enumerate(places):
            own = max(column[i] - sum(column) / len(column), 0)
            far += own * 8 * math.dist(query, key)
            mass += own
    return far / len(places), mass / len(places)


def test_query_specific_attention_equals_a_slow_loop(generator):
    for grid, prefix in (((3, 4), 1), ((2, 3), 0)):
        tokens = grid[0] * grid[1] + prefix
        attn = torch.randn(2, 3, tokens, tokens, generator=generator, dtype=torch.float64).mul(2).softmax(-1)
        found = query_specific(attn, grid, 8, prefix_tokens=prefix)
        for b, h in itertools.product(range(2), range(3)):
            assert (found.far[b, h].item(), found.mass[b, h].item()) == pytest.approx(
                slow_specific(attn[b, h], grid, prefix), rel=1e-9
            )
    chosen = torch.tensor([0, 4, 5])
    few = query_specific(attn[:, :, chosen], grid, 8, prefix_tokens=0, queries=chosen)
    own = (attn[1, 2, chosen] - attn[1, 2, chosen].mean(0)).clamp(min=0)
    assert few.mass[1, 2].item() == pytest.approx(own.sum().item() / 3), "the mean is over the queries that are asked"


def test_sinks_have_no_query_specific_distance(generator):
    """Two keys draw all queries; their logits differ between queries by noise of .001 alone."""
    grid, logits = (8, 8), torch.zeros(64, 64)
    logits[:, (9, 54)] = 6.0
    attn = (logits + 0.001 * torch.randn(64, 64, generator=generator)).softmax(-1)
    found = query_specific(attn, grid, 8, prefix_tokens=0)
    assert attention_distance(attn, grid, 8, prefix_tokens=0) > 25, "the plain distance is that of their places"
    assert np.isnan(specific_distance(found.far.numpy(), found.mass.numpy()))
    assert found.mass < 0.001
    assert normalized_mutual_information(attn, grid, prefix_tokens=0) < 1e-4


def test_a_permutation_has_its_plain_distance(generator):
    shuffled = torch.eye(64, dtype=torch.float64)[torch.randperm(64, generator=generator)]
    found = query_specific(shuffled, (8, 8), 8, prefix_tokens=0)
    plain = attention_distance(shuffled, (8, 8), 8, prefix_tokens=0).item()
    assert found.mass.item() == pytest.approx(1 - 1 / 64)
    assert specific_distance(found.far.numpy(), found.mass.numpy()) == pytest.approx(plain)
    sinks = torch.zeros(64, 64, dtype=torch.float64)
    sinks[:, 9] = 1
    both = query_specific(0.7 * sinks + 0.3 * shuffled, (8, 8), 8, prefix_tokens=0)
    mixed = specific_distance(both.far.numpy(), both.mass.numpy())
    assert mixed == pytest.approx(plain, rel=0.01), "a sink beside it changes nothing"
    ends = specific_distance(np.ones(2), np.array([0.0499, 0.05]))
    np.testing.assert_allclose(ends, [np.nan, 20])
