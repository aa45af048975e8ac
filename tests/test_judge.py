"""The rule that turns numbers into verdicts: the estimate is the statistic of the means, the interval covers the truth
about as often as it says, rows are compared seed by seed and image by image, and a verdict says no more than that."""

import itertools

import numpy as np
import pytest

from lcmae_core import judge
from lcmae_core.judge import Cell, Estimate, Outcome, bootstrap, run_test, verdict
from tests.loops import over

CELL = Cell("study", "row", "measure", "key")


def difference(a, b):
    return float(a - b)


def made(estimate, low=0.0, high=np.inf, holds=None):
    return Outcome(judge.Test("t", (CELL,), float, low, high), Estimate(*estimate, 3, 10), holds)


def test_the_value_is_the_statistic_of_the_means():
    a = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 2.0]])  # mean 3
    b = np.array([[0.5, 0.5, 2.0], [1.0, 1.0, 1.0]])  # mean 1
    found = bootstrap([a, b], lambda x, y: float(x**2 / y))
    assert found.value == pytest.approx(9.0)
    assert (found.seeds, found.images) == (2, 3)
    assert found.low < 9 < found.high


def test_the_axes_after_images_reach_the_statistic():
    rng = np.random.default_rng(0)
    layers = rng.normal([[[5.0, 1.0, 3.0]]], 0.1, (3, 40, 3))  # (S, M, L)
    found = bootstrap([layers], lambda s: float(s[0] - s[1:].max()))
    assert found.value == pytest.approx(layers.mean((0, 1))[0] - layers.mean((0, 1))[2])
    assert found.low == pytest.approx(2, abs=0.1)


def test_one_seed_is_the_bootstrap_over_images():
    values = np.random.default_rng(0).normal(size=500)
    found = bootstrap([values[None]], float)
    rng = np.random.default_rng(1)
    means = values[rng.integers(500, size=(4000, 500))].mean(1)
    assert found.value == pytest.approx(values.mean())
    half = 1.96 * values.std() / 500**0.5
    assert np.allclose([found.low, found.high], np.quantile(means, (0.025, 0.975)), atol=0.1 * half)
    assert np.allclose([found.low, found.high], values.mean() + np.array([-half, half]), atol=0.1 * half)


def test_seeds_widen_the_interval():
    seeds = np.array([-1.0, 0.0, 1.0, 2.0])[:, None] + np.zeros((4, 50))  # images add nothing
    found = bootstrap([seeds], float)
    assert found.high - found.low == pytest.approx(2 * 1.96 * seeds[:, 0].std() / 2, rel=0.15)
    images = bootstrap([np.random.default_rng(0).normal(size=(1, 50)).repeat(4, 0)], float)
    assert images.high - images.low == pytest.approx(2 * 1.96 / 50**0.5, rel=0.2)  # equal seeds add nothing


@pytest.mark.parametrize("seeds", [3, 8])
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, monkeypatch):
    monkeypatch.setattr(judge, "DRAWS", 200)
    rng, covered, repetitions = np.random.default_rng(seeds), 0, 200
    for repetition in range(repetitions):
        seed, image = rng.normal(0, 0.02, (seeds, 1)), rng.normal(0, 0.3, (1, 150))
        other = rng.normal(0, 0.2, (seeds, 150))
        found = bootstrap([0.5 + seed + image + other], float, seed=repetition)
        covered += found.low < 0.5 < found.high
    assert 0.90 <= covered / repetitions <= 0.995  # 0.95, four binomial deviations below and three above


def test_rows_are_paired_by_seed_and_image():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=(3, 200))
    same = bootstrap([hard, hard], difference)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    shifted = bootstrap([hard + 1, hard], difference)
    assert shifted.high - shifted.low == pytest.approx(0, abs=1e-12)
    apart = bootstrap([hard + 1, rng.normal(size=(3, 200))], difference)
    assert apart.high - apart.low > 0.2


def test_cells_of_other_sizes_go_together():
    found = bootstrap([np.ones((2, 30)), np.full((2, 1), 0.25)], difference)
    assert found.images == 30
    assert np.allclose([found.value, found.low, found.high], 0.75)


def test_it_is_deterministic():
    values = [np.random.default_rng(0).normal(size=(3, 20))]
    assert bootstrap(values, float) == bootstrap(values, float) != bootstrap(values, float, seed=1)


@over(
    ("interval", "holds"),
    [
        ((0.1, 0.9), True),
        ((-0.1, 0.9), None),
        ((0.1, 1.1), None),
        ((-1.0, 2.0), None),
        ((1.1, 2.0), False),
        ((-2.0, -0.1), False),
        ((0.0, 0.9), None),  # the ends themselves are outside the range
        ((0.1, 1.0), None),
        ((-1.0, 0.0), False),
        ((1.0, 2.0), False),
        ((0.0, 0.0), False),
        ((0.5, 0.5), True),
    ],
)
def test_holds_fails_or_open(interval, holds, monkeypatch):
    monkeypatch.setattr(judge, "bootstrap", lambda *_: Estimate(0.5, *interval, 3, 10))
    assert run_test(judge.Test("in (0, 1)", (CELL,), float, 0.0, 1.0), []).holds is holds


def test_a_test_without_a_bound_is_open_to_that_side():
    test = judge.Test("above 0", (CELL,), float, low=0.0)
    assert run_test(test, [np.full((2, 5), 1e9)]).holds is True
    assert run_test(test, [np.full((2, 5), -1e-9)]).holds is False
    assert run_test(judge.Test("below 0", (CELL,), float, high=0.0), [np.full((2, 5), -1e9)]).holds is True


@over("count", [1, 2, 3])
def test_the_verdict_of_every_combination(count):
    for held in itertools.product((True, False, None), repeat=count):
        said = verdict([made((1.0, 0.5, 2.0), holds=h) for h in held])
        if set(held) == {True}:
            assert said == "reproduced"
        elif set(held) == {False}:
            assert said == "not reproduced"
        elif {True, False} <= set(held):
            assert said == "partly"
        else:
            assert said == "unresolved"


@over(
    ("values", "said"),
    [
        ((1.0, 2.0), "sign right"),
        ((1.0, -2.0), "signs mixed"),
        ((-1.0, -2.0), "sign wrong"),
        ((0.0,), "sign wrong"),
        ((0.1,), "sign right"),
    ],
)
def test_a_small_profile_says_signs_alone(values, said):
    for holds in (True, False, None):  # whatever the interval says
        assert verdict([made((v, -9.0, 9.0), holds=holds) for v in values], signs_only=True) == said
