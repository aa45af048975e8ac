"""The rule that turns numbers into verdicts: the value is that of the means, its interval counts seeds and images, rows
are compared seed by seed and image by image, a closed gate leaves a test open, margins are shares of the gain, a claim
about nothing is seldom decided, and a verdict says no more than that."""

import itertools

import numpy as np
import pytest
from scipy.stats import t as student

from lcmae_core.analysis.intervals import pooled, seeds_alone, two_way
from lcmae_core.analysis.reductions import deeper
from lcmae_core.config import LcmaeError
from lcmae_core.studies import judge
from lcmae_core.studies.claims.forms import between
from lcmae_core.studies.judge import (
    Cell,
    Estimate,
    Outcome,
    combined,
    described,
    estimate,
    estimated,
    gain,
    linear,
    needed,
    of_gain,
    ratio,
    run_test,
    share,
    shown,
    smooth,
    verdict,
    within_gain,
)

A, B, MAE, RANDOM = (Cell("study", row, "probe", "right") for row in ("a", "b", "MAE", "random init"))


def normal(size, seed=0):
    """The same draws whatever was drawn before."""
    return np.random.default_rng(seed).normal(size=size)


def made(estimate, low=0.0, high=np.inf, holds=None):
    return Outcome(judge.Test("t", (A,), float, low, high), Estimate(*estimate, 3, 10), holds)


def apart(values, **bounds):
    """The outcome of a - b."""
    return run_test(linear("a - b", {A: 1, B: -1}, **bounds), values)


def around(mean, seeds=5, images=200, spread=0.01):
    return mean + spread * np.random.default_rng(round(1000 * abs(mean))).normal(size=(seeds, images))


def test_a_smooth_value_is_the_statistic_of_the_means():
    a = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 2.0]])  # mean 3
    b = np.array([[0.5, 0.5, 2.0], [1.0, 1.0, 1.0]])  # mean 1
    found = estimate(smooth("t", (A, B), lambda x, y: float(x**2 / y)), [a, b])
    assert found.value == pytest.approx(9.0)
    assert (found.seeds, found.images, found.df) == (2, 3, 1)
    assert found.low < 9 < found.high
    assert estimate(ratio("t", A, B), [a, b]).value == pytest.approx(3.0)
    assert np.isnan(estimate(ratio("t", A, B), [a, 0 * b]).value)


def test_a_linear_form_is_the_analysis_of_variance_of_its_sums():
    a, b = normal((5, 40)), normal((5, 40), seed=1)
    found, parts = estimate(linear("t", {A: 2, B: -1}, scale=100), [a, b]), two_way(2 * a - b)
    half = 100 * student.ppf(0.975, parts.df) * parts.variance**0.5
    middle = 100 * float((2 * a - b).mean())
    assert (found.value, found.low, found.high) == pytest.approx((middle, middle - half, middle + half))
    assert found.df == pytest.approx(parts.df)
    assert found.parts.seed == pytest.approx(100**2 * parts.seed)
    assert estimate(smooth("t", (A, B), lambda x, y: float(2 * x - y), scale=100), [a, b])[:3] == pytest.approx(
        found[:3]
    )


def test_layers_are_reduced_by_what_is_linear_alone():
    layers = [[[5.0, 1.0, 3.0, 2.0]]] + 0.1 * normal((3, 40, 4))  # (S, M, L)
    found = estimate(linear("t", {A: 1}, reduce=deeper), [layers])
    assert found.value == pytest.approx(layers.mean((0, 1))[2:].mean())
    assert found[:3] == pytest.approx(estimate(linear("t", {A: 1}), [layers[..., 2:].mean(-1)])[:3])
    assert estimate(linear("t", {A: 1}), [layers]).value == pytest.approx(layers.mean())
    with pytest.raises(LcmaeError, match="reduction of layers that is not linear for 'highest', expected a linear one"):
        estimate(linear("highest", {A: 1}, reduce=lambda v: v.max(-1)), [normal((3, 40, 4))])


def test_few_seeds_and_one_seed():
    y = normal((5, 300))
    dfs = [estimate(linear("t", {A: 1}), [y[:seeds]]).df for seeds in (1, 2, 3, 4, 5)]
    assert dfs[:4] == [299, 1, 2, 3]
    assert dfs[4] == pytest.approx(two_way(y).df) != 4
    one = estimate(linear("t", {A: 1}), [y[:1]])
    assert one.high - one.value == pytest.approx(1.968 * y[0].std(ddof=1) / 300**0.5, rel=1e-3)
    assert estimate(linear("t", {A: 1}), [y[:1, :1]])[1:3] == (-np.inf, np.inf)  # nothing could vary


def test_what_is_nested_in_seeds_counts_by_seeds_alone():
    y = normal((5, 40))
    for test in (linear("t", {A: 1}, nested=True), smooth("t", (A,), float, nested=True)):
        found = estimate(test, [y])
        assert found.df == 4
        assert found.parts[:3] == pytest.approx(seeds_alone(y.mean(1))[:3])


def test_rows_are_paired_by_seed_and_image():
    hard = normal((3, 200))
    for test in (linear("t", {A: 1, B: -1}), smooth("t", (A, B), lambda a, b: float(a - b))):
        assert estimate(test, [hard + 1, hard])[:3] == pytest.approx((1, 1, 1))
        other = estimate(test, [hard + 1, normal((3, 200), seed=1)])
        assert other.high - other.low > 0.2


def test_cells_of_other_sizes_go_together():
    found = estimate(linear("t", {A: 1, B: -1}), [np.ones((2, 30)), np.full((2, 1), 0.25)])
    assert found.images == 30
    assert found[:3] == pytest.approx((0.75, 0.75, 0.75))


def test_a_share_stays_inside_and_a_difference_does_not():
    right = np.ones((5, 40))
    right[0, :3] = 0
    assert estimate(share("t", A, scale=100), [right]).high == 100.0
    assert estimate(linear("t", {A: 1}, scale=100), [right]).high > 100
    low = estimate(linear("a - b", {A: 1, B: -1}), [right, np.ones((5, 40))])
    assert low.low < 0
    assert estimated(right.astype(bool), scale=100).high == 100.0
    assert estimated(right).high > 1
    all_right = estimated(np.ones((3, 3925), bool))
    assert (all_right.low, all_right.value, all_right.high) == (1, 1, 1)


def test_pooling_takes_the_seed_part_of_the_table():
    rows = normal((4, 3, 1)) + 0.1 * normal((4, 3, 100), seed=1)
    test = linear("a - b", {A: 1, B: -1})
    alone, both = estimate(test, [rows[0], rows[1]]), estimate(test, [rows[0], rows[1]], pooled(rows))
    assert (alone.df, alone.pooled, both.pooled) == (2, False, True)
    assert both.df == pytest.approx(6, abs=0.5)
    departures = rows.mean(2) - rows.mean((0, 2))  # of a row's mean of a seed from that of all rows, (R, S)
    spread = np.square(departures - departures.mean(1, keepdims=True)).sum() / 6  # (R - 1) (S - 1)
    assert both.parts.seed == pytest.approx(2 * spread / 3, rel=0.01)
    assert both.value == alone.value


ENDS = [
    ((0.1, 0.9), True), ((-0.1, 0.9), None), ((0.1, 1.1), None), ((-1.0, 2.0), None), ((1.1, 2.0), False),
    ((-2.0, -0.1), False), ((0.0, 0.9), None), ((0.1, 1.0), None), ((-1.0, 0.0), False), ((1.0, 2.0), False),
    ((0.0, 0.0), False), ((0.5, 0.5), True),
]  # fmt: skip
"""Ends of an interval, and whether a test of (0, 1) holds: the ends themselves are outside the range."""


def test_holds_fails_or_open(monkeypatch):
    for ends, holds in ENDS:
        monkeypatch.setattr("lcmae_core.studies.judge.rule.estimate", lambda *_, e=ends: Estimate(0.5, *e, 3, 10))
        assert run_test(linear("in (0, 1)", {A: 1}, low=0.0, high=1.0), []).holds is holds, ends


def test_a_test_without_a_bound_is_open_to_that_side():
    huge, tiny = np.full((2, 5), 1e9), np.full((2, 5), -1e-9)
    assert run_test(linear("above 0", {A: 1}, low=0.0), [huge]).holds is True
    assert run_test(linear("above 0", {A: 1}, low=0.0), [tiny]).holds is False
    assert run_test(linear("below 0", {A: 1}, high=0.0), [-huge]).holds is True


def test_what_is_not_defined_is_open():
    found = run_test(smooth("t", (A,), lambda a: float("nan"), low=0.0), [np.ones((3, 5))])
    assert (found.holds, found.why) == (None, "not defined by these numbers")


def test_a_gate_that_does_not_hold_leaves_the_test_open():
    test = linear("a - b: above 0", {A: 1, B: -1}, low=0.0, gates=(gain(MAE, RANDOM),))
    values = [around(0.9), around(0.5)]
    for mae, random, holds in ((0.8, 0.5, True), (0.5, 0.8, None), (0.5, 0.5, None)):
        gate = run_test(test.gates[0], [around(mae), around(random) + 0.02 * normal((5, 1))])
        found = run_test(test, values, gates=[gate])
        assert found.holds is holds, (mae, random)
        assert ("its gate does not hold: gain, MAE - random init: above 0: " in found.why) is (holds is None)
    assert run_test(test, values[::-1], gates=[gate]).holds is None  # nor does it fail


def test_margins_are_shares_of_the_gain():
    """The form by hand: a - b - .25 (MAE - random), with the points in between on either side of it."""
    test = of_gain("t", {A: 1, B: -1}, MAE, RANDOM, 0.25)
    assert dict(zip(test.cells, test.weights)) == {A: 1, B: -1, MAE: -0.25, RANDOM: 0.25}
    assert (test.low, test.high, test.gates) == (-np.inf, 0.0, (gain(MAE, RANDOM),))
    found = run_test(test, [around(m) for m in (0.52, 0.50, 0.60, 0.40)])  # 2 points of a margin of 5
    assert found.estimate.value == pytest.approx(-3, abs=0.3)
    assert found.holds is True
    assert run_test(test, [around(m) for m in (0.58, 0.50, 0.60, 0.40)]).holds is False
    keeps = of_gain("t", {A: 1, RANDOM: -1}, MAE, RANDOM, 0.6, above=True)
    assert dict(zip(keeps.cells, keeps.weights)) == pytest.approx({A: 1, RANDOM: -0.4, MAE: -0.6})
    assert (keeps.low, keeps.high) == (0.0, np.inf)
    assert combined({A: 1.0}, {A: 1.0, B: 2.0}) == {A: 2.0, B: 2.0}


def test_within_a_margin_needs_both_sides():
    test = within_gain("t", A, MAE, MAE, RANDOM, 0.25)
    assert dict(zip(test.cells, test.weights)) == {A: 1, MAE: -1.25, RANDOM: 0.25}
    assert dict(zip(test.cells, test.mirror)) == {A: -1, MAE: 0.75, RANDOM: 0.25}
    for a, holds, value in ((0.60, True, -5), (0.58, True, -3), (0.62, True, -3), (0.50, False, 5), (0.70, False, 5)):
        by = {A: around(a), MAE: around(0.6), RANDOM: around(0.4)}
        found = run_test(test, [by[cell] for cell in test.cells])
        assert found.holds is holds, a
        assert found.estimate.value == pytest.approx(value, abs=0.4)
    wide = {A: around(0.6, spread=1.0), MAE: around(0.61, spread=1.0), RANDOM: around(0.4)}
    assert run_test(test, [wide[cell] for cell in test.cells]).holds is None


def test_a_control_has_no_bound_and_every_number_says_what_it_rests_on():
    control = run_test(shown("untrained, %", A, scale=100), [around(0.5)])
    assert (control.test.low, control.test.high) == (-np.inf, np.inf)
    assert control.estimate.value == pytest.approx(50, abs=0.5)
    said = described(apart([around(0.9), around(0.5)], low=0.0))
    assert said.startswith("a - b: 0.4 [")
    assert said.endswith(" df, 5 seeds x 200")


def test_what_would_decide():
    seeds = 0.5 * np.array([-1.0, 0.0, 1.0, 2.0, 0.5])[:, None] + 0.01 * normal((5, 50))
    found = run_test(linear("t", {A: 1}, low=0.0), [seeds])
    assert found.holds is None
    more = needed(found)
    assert more.images is None  # images are not what is missing
    again = np.tile(seeds, (-(-more.seeds // 5), 1))
    assert run_test(linear("t", {A: 1}, low=0.0), [again]).holds is True


def test_of_two_bounds_the_nearer_one_decides():
    seeds = 0.3 + 0.5 * np.array([-1.0, 0.0, 1.0, 2.0, -2.0])[:, None] + 0.01 * normal((5, 50))  # about 0.3
    one, two = (run_test(linear("t", {A: 1}, low=0.0, **more), [seeds]) for more in ({}, {"high": 9.0}))
    assert (one.holds, two.holds) == (None, None)
    assert needed(two) == needed(one)


def test_numbers_that_are_missing_leave_a_claim_open():
    held, failed = made((1.0, 0.5, 2.0), holds=True), made((-1.0, -2.0, -0.5), holds=False)
    assert [verdict([held], missing=n) for n in (0, 1, 2)] == ["reproduced", "unresolved", "unresolved"]
    assert verdict([failed], missing=1) == "unresolved"
    assert verdict([held, failed], missing=1) == "partly"
    assert verdict([], missing=2) == "unresolved"


def test_the_verdict_of_every_combination():
    for count in (1, 2, 3):
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


def test_a_small_profile_says_signs_alone():
    cases = (((1.0, 2.0), "sign right"), ((1.0, -2.0), "signs mixed"), ((-1.0, -2.0), "sign wrong"),
             ((0.0,), "sign wrong"), ((0.1,), "sign right"))  # fmt: skip
    for values, said in cases:
        for holds in (True, False, None):  # whatever the interval says
            assert verdict([made((v, -9.0, 9.0), holds=holds) for v in values], signs_only=True) == said


def test_a_layer_that_a_model_has_not_leaves_a_test_open():
    shallow = np.random.default_rng(0).random((3, 8, 3))  # the decoder of smoke has 3 layers, not 8
    found = run_test(linear("layer 1 - layer 4: above 0", {A: 1}, low=0, reduce=between(0, 3)), [shallow])
    assert found.holds is None
    assert np.isnan(found.estimate.value)


def test_a_claim_about_nothing_is_seldom_decided():
    """Two pairwise tests of rows that are alike, as C7 has them: at most 8 % of 1 500 claims are decided, with five
    seeds and with three, and at most 8 % of single tests (binomial error of the simulation: .006)."""
    rng, tests = np.random.default_rng(0), [linear("t", {A: 1, B: -1}, high=0.0)] * 2
    for seeds in (3, 5):
        decided, single = 0, 0
        for _ in range(1500):
            rows = 0.5 * rng.normal(size=(3, seeds, 1)) + rng.normal(size=(3, seeds, 20))
            outcomes = [run_test(test, [rows[0], rows[other]]) for test, other in zip(tests, (1, 2))]
            decided += verdict(outcomes) != "unresolved"
            single += outcomes[0].holds is not None
        assert decided / 1500 <= 0.08
        assert single / 1500 <= 0.08
