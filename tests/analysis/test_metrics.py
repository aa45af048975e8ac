"""Claims: distances, masses, entropy and mutual information equal slow loops and hand-worked values in both
conventions, on non-square grids, with any prefix and selected queries; Eq. 7 streamed equals the pairwise definition
to 1e-12 and stays exact at 50 000 images; Eq. 8 equals a loop over images; wrong shapes are named in one line."""

import itertools
import math

import pytest
import torch

from lcmae_core.analysis.metrics import (
    AttentionSimilarity,
    attention_distance,
    entropy,
    near_mass,
    normalized_mutual_information,
    patch_distances,
    prefix_mass,
    semantic_similarities,
    semantic_similarity,
    uniform_near_mass,
)
from lcmae_core.config import LcmaeError
from tests.loops import over

GRIDS = [((3, 3), 1), ((2, 5), 1), ((4, 3), 0), ((2, 3), 5)]


def random_maps(grid, prefix, generator, lead=(2, 3)):
    """Random attention whose rows sum to 1, float64."""
    tokens = grid[0] * grid[1] + prefix
    return torch.rand(*lead, tokens, tokens, generator=generator, dtype=torch.float64).pow(3).softmax(-1)


def uniform(grid, prefix=0):
    """Every key alike."""
    tokens = grid[0] * grid[1] + prefix
    return torch.full((tokens, tokens), 1 / tokens, dtype=torch.float64)


def slow_distance(attn, grid, patch, prefix, renormalize, queries=None):
    """The definition, one query and one key at a time."""
    height, width = patch if isinstance(patch, tuple) else (patch, patch)
    patches = list(itertools.product(range(grid[0]), range(grid[1])))
    total = 0.0
    wanted = range(len(patches)) if queries is None else queries
    for row, i in enumerate(wanted):
        line = attn[row + (prefix if queries is None else 0)]
        far = mass = 0.0
        for j, place in enumerate(patches):
            a = float(line[prefix + j])
            far += a * math.hypot((place[0] - patches[i][0]) * height, (place[1] - patches[i][1]) * width)
            mass += a
        total += far / mass if renormalize else far
    return total / len(wanted)


@over(("grid", "patch", "pixels"), [((14, 14), 16, 116.4922), ((8, 8), 4, 16.5459)])
def test_uniform_attention(grid, patch, pixels):
    assert attention_distance(uniform(grid), grid, patch, prefix_tokens=0).item() == pytest.approx(pixels, abs=5e-5)
    with_cls = uniform(grid, 1)
    n = grid[0] * grid[1]
    assert attention_distance(with_cls, grid, patch).item() == pytest.approx(pixels * n / (n + 1), abs=1e-4)
    assert attention_distance(with_cls, grid, patch, renormalize=True).item() == pytest.approx(pixels, abs=5e-5)
    single = attention_distance(with_cls.float(), grid, patch, renormalize=True).item()
    assert single == pytest.approx(pixels, rel=1e-5)


def test_identity_is_at_no_distance():
    for renormalize in (False, True):
        assert attention_distance(torch.eye(65), (8, 8), 4, renormalize=renormalize).item() == 0


@over("renormalize", [False, True])
@over(("grid", "prefix"), GRIDS)
def test_distance_equals_the_slow_loop(grid, prefix, renormalize, generator):
    attn = random_maps(grid, prefix, generator)
    for patch in (4, (2.0, 7.0)):
        found = attention_distance(attn, grid, patch, prefix_tokens=prefix, renormalize=renormalize)
        assert found.shape == (2, 3)
        for place in itertools.product(range(2), range(3)):
            expected = slow_distance(attn[place], grid, patch, prefix, renormalize)
            assert found[place].item() == pytest.approx(expected, rel=1e-12)


@over("renormalize", [False, True])
def test_selected_queries(renormalize, generator):
    grid, prefix, queries = (3, 4), 1, torch.tensor([1, 5, 10])
    attn = random_maps(grid, prefix, generator)[:, :, queries + prefix]
    found = attention_distance(attn, grid, 8, queries=queries, renormalize=renormalize)
    expected = slow_distance(attn[1, 2], grid, 8, prefix, renormalize, queries.tolist())
    assert found[1, 2].item() == pytest.approx(expected, rel=1e-12)
    every = torch.arange(12)
    whole = random_maps(grid, prefix, generator)
    for measure in (near_mass_1, normalized_mutual_information):
        assert torch.allclose(measure(whole, grid), measure(whole[..., 1:, :], grid, queries=every), atol=1e-14)


def near_mass_1(attn, grid, **rows):
    """Within one patch."""
    return near_mass(attn, grid, 1, **rows)


def test_the_conventions_differ_by_the_cls_mass_where_it_is_even(generator):
    grid = (4, 4)
    patches = random_maps(grid, 0, generator, (1,))[0]
    attn = torch.zeros(17, 17, dtype=torch.float64)
    attn[0, 0], attn[1:, 0], attn[1:, 1:] = 1, 0.3, 0.7 * patches
    raw, again = (attention_distance(attn, grid, 4, renormalize=flag) for flag in (False, True))
    assert prefix_mass(attn).item() == pytest.approx(0.3)
    assert raw.item() == pytest.approx(0.7 * again.item())


def test_near_mass_by_hand():
    grid = (1, 3)
    attn = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.6, 0.0, 0.4]], dtype=torch.float64)
    assert near_mass(attn, grid, 0, prefix_tokens=0).item() == pytest.approx((0.5 + 0.8 + 0.4) / 3)
    assert near_mass(attn, grid, 1, prefix_tokens=0).item() == pytest.approx((0.8 + 1.0 + 0.4) / 3)
    assert near_mass(attn, grid, 2, prefix_tokens=0).item() == pytest.approx(1)
    assert uniform_near_mass(grid, 1) == pytest.approx((2 + 3 + 2) / 9)
    assert uniform_near_mass(grid, 1, torch.tensor([0])) == pytest.approx(2 / 3)
    for radius in (1, 2, 3):
        found = near_mass(uniform((5, 7), 1), (5, 7), radius).item()
        assert found == pytest.approx(uniform_near_mass((5, 7), radius))


def test_patch_distances_are_between_centres():
    assert patch_distances((2, 3), (10, 4))[0].tolist() == pytest.approx(
        [0, 4, 8, 10, math.hypot(10, 4), math.hypot(10, 8)]
    )


def test_entropy_and_mutual_information(generator):
    grid = (3, 3)
    assert entropy(uniform(grid)).item() == pytest.approx(math.log(9))
    assert entropy(torch.full((3, 9), 1 / 9)).item() == pytest.approx(math.log(9)), "a mean over rows"
    assert entropy(torch.eye(9)).item() == 0
    shuffled = torch.eye(9, dtype=torch.float64)[torch.randperm(9, generator=generator)]
    assert normalized_mutual_information(shuffled, grid, prefix_tokens=0).item() == pytest.approx(1)
    assert normalized_mutual_information(uniform(grid), grid, prefix_tokens=0).item() == pytest.approx(0, abs=1e-12)
    attn = random_maps(grid, 1, generator)[0, 0]
    joint = attn[1:, 1:] / attn[1:, 1:].sum(-1, keepdim=True) / 9  # p(i, j)
    mutual = sum(
        float(joint[i, j]) * math.log(float(joint[i, j]) / float(joint[i].sum() * joint[:, j].sum()))
        for i in range(9)
        for j in range(9)
    )
    of_keys = -sum(float(p) * math.log(float(p)) for p in joint.sum(0))
    expected = mutual / math.sqrt(of_keys * math.log(9))
    assert normalized_mutual_information(attn, grid).item() == pytest.approx(expected, rel=1e-10)


def pairwise(maps):
    """Eq. 7 as it is written: the mean cosine over ordered pairs of different images, for each layer."""
    count, layers = maps.shape[:2]
    found = []
    for layer in range(layers):
        total = 0.0
        for i, j in itertools.permutations(range(count), 2):
            a, b = maps[i, layer].flatten(), maps[j, layer].flatten()
            total += float(a @ b / (a.norm() * b.norm()))
        found.append(total / (count * (count - 1)))
    return found


@over("batches", [[7], [3, 4], [1, 1, 5]])
def test_eq7_equals_the_pairwise_definition(batches, generator):
    maps = torch.rand(7, 3, 2, 5, 11, generator=generator, dtype=torch.float64).pow(4)
    similarity = AttentionSimilarity()
    for part in maps.split(batches):
        assert similarity.update(part) is similarity
    assert similarity.compute().tolist() == pytest.approx(pairwise(maps), abs=1e-12)
    terms = similarity.with_others(maps)
    assert terms.shape == (7, 3)
    assert torch.allclose(terms.mean(0), similarity.compute(), atol=1e-13)
    assert terms[2, 1].item() == pytest.approx(
        sum(
            float(torch.cosine_similarity(maps[2, 1].flatten(), maps[j, 1].flatten(), dim=0))
            for j in range(7)
            if j != 2
        )
        / 6
    )


def test_eq7_limits(generator):
    same = torch.rand(1, 1, 4, 9, generator=generator).repeat(5, 2, 1, 1)
    assert AttentionSimilarity().update(same).compute().tolist() == pytest.approx([1, 1], abs=1e-6)
    apart = torch.eye(6)[:, None]  # no two maps share a key
    assert AttentionSimilarity().update(apart).compute().item() == pytest.approx(0, abs=1e-7)
    scaled = torch.rand(4, 1, 6, generator=generator)
    weights = torch.tensor([1.0, 5, 0.1, 7])[:, None, None]
    before, after = (AttentionSimilarity().update(m).compute() for m in (scaled, scaled * weights))
    assert torch.allclose(before, after, atol=1e-6), "each image counts once, however large its map"


def test_eq7_stays_exact_at_50_000_images(generator):
    """float32 maps, 50 000 of them: the float64 sum of float64 unit maps is met to 1e-8; a float32 sum is not."""
    base = torch.rand(1, 1, 24, generator=generator)
    similarity = AttentionSimilarity()
    naive, exact = torch.zeros(24), torch.zeros(24, dtype=torch.float64)
    for _ in range(500):
        maps = base + 0.05 * torch.rand(100, 1, 24, generator=generator)
        similarity.update(maps)
        exact += (maps.double() / maps.double().norm(dim=-1, keepdim=True)).sum((0, 1))
        for row in maps[:, 0]:
            naive += row / row.norm()
    n = 50_000
    expected, single = ((float(s.double().square().sum()) - n) / (n * (n - 1)) for s in (exact, naive))
    assert abs(similarity.compute().item() - expected) < 1e-8
    assert abs(single - expected) > 1e-7, "the test would not notice a float32 sum"


def test_eq8_equals_a_loop_over_images(generator):
    features = torch.randn(3, 2, 5, 4, generator=generator, dtype=torch.float64)
    reference = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64)
    for diagonal in (False, True):
        found = semantic_similarities(features, reference, diagonal=diagonal)
        for b, layer in itertools.product(range(3), range(2)):
            w, r = [], []
            for i, j in itertools.product(range(5), repeat=2):
                if diagonal or i != j:
                    w.append(float(torch.cosine_similarity(features[b, layer, i], features[b, layer, j], dim=0)))
                    r.append(float(torch.cosine_similarity(reference[b, i], reference[b, j], dim=0)))
            dot = sum(x * y for x, y in zip(w, r))
            expected = dot / math.sqrt(sum(x * x for x in w) * sum(y * y for y in r))
            assert found[b, layer].item() == pytest.approx(expected, abs=1e-12)
        mean = semantic_similarity(features, reference, diagonal=diagonal)
        assert torch.allclose(mean, found.mean(0))
    moved = features + torch.randn(3, 2, 1, 4, generator=generator, dtype=torch.float64)  # the same for all patches
    centred, again = (semantic_similarities(f, reference, centred=True) for f in (features, moved))
    assert torch.allclose(centred, again, atol=1e-12), "what all patches share does not count"
    by_hand = semantic_similarities(
        features - features.mean(2, keepdim=True), reference - reference.mean(1, keepdim=True)
    )
    assert torch.allclose(centred, by_hand)
    rotated = features[:, 0] @ torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    assert semantic_similarity(3 * rotated, features[:, 0]).item() == pytest.approx(1)


@over(
    ("call", "line"),
    [
        (
            lambda: attention_distance(torch.ones(2, 197, 197), (8, 8), 16),
            "attn: got maps of 197x197, expected 65x65 for a grid of 8x8 patches + 1 prefix tokens",
        ),
        (
            lambda: near_mass(torch.ones(3, 65), (8, 8), 1, queries=torch.arange(4)),
            "attn: got maps of 3x65, expected 4x65 for a grid of 8x8 patches + 1 prefix tokens",
        ),
        (
            lambda: normalized_mutual_information(torch.ones(1, 1), (1, 1), prefix_tokens=0),
            "queries: got 1, expected at least two patches",
        ),
        (lambda: AttentionSimilarity().compute(), "S_attn: got 0 images, expected at least two"),
        (
            lambda: AttentionSimilarity().update(torch.zeros(2, 1, 4)),
            "maps: got a map that is zero everywhere, expected rows that sum to 1",
        ),
        (
            lambda: AttentionSimilarity().update(torch.ones(2, 1, 4)).update(torch.ones(2, 1, 5)),
            "maps: got (layers, values of a map) (1, 5), expected (1, 4) as before",
        ),
        (
            lambda: semantic_similarity(torch.ones(2, 4, 3), torch.ones(2, 9, 3)),
            "reference: got (images, patches) (2, 9), expected (2, 4) as in the features",
        ),
    ],
)
def test_wrong_shapes_are_named(call, line):
    with pytest.raises(LcmaeError) as error:
        call()
    assert str(error.value) == line
