"""Claims: the parts of the two-way variance are those of a slow analysis of variance; the degrees of freedom
are Satterthwaite's; the jackknife of a mean is the analysis of variance, that of a ratio the delta method; a pool rests
on the row x seed interaction; intervals hold the truth as often as asked: of normal numbers, shares and ratios."""

import numpy as np
import pytest
from scipy.stats import t as student

from lcmae_core.analysis.coverage import KINDS, OTHERS, RATIOS, coverage, drawn, pooled_rows
from lcmae_core.analysis.intervals import (
    Parts,
    independent,
    interval,
    jackknife,
    judged_df,
    pooled,
    seeds_alone,
    two_way,
)
from lcmae_core.analysis.planning import needed_images, needed_seeds
from lcmae_core.analysis.reductions import (
    deeper,
    deeper_less_shallower,
    depth_slope,
    early_share,
    is_linear,
    layer,
    layer_less,
    over_all,
    shallower,
    slope_weights,
    variation,
)


def slow_parts(y):
    """Mean squares over S M, one number after the other."""
    s, m = y.shape
    mean = sum(y[i, j] for i in range(s) for j in range(m)) / (s * m)
    row = [sum(y[i, j] for j in range(m)) / m for i in range(s)]
    column = [sum(y[i, j] for i in range(s)) / s for j in range(m)]
    seed = m * sum((r - mean) ** 2 for r in row) / (s - 1)
    image = s * sum((c - mean) ** 2 for c in column) / (m - 1)
    rest = sum((y[i, j] - row[i] - column[j] + mean) ** 2 for i in range(s) for j in range(m)) / ((s - 1) * (m - 1))
    return [square / (s * m) for square in (seed, image, rest)]


def test_the_parts_are_those_of_the_analysis_of_variance():
    y = np.random.default_rng(0).normal(size=(4, 7))
    found = two_way(y)
    assert found[:3] == pytest.approx(slow_parts(y))
    assert found[3:] == (3, 6, 18)
    by_hand = two_way(np.array([[0.0, 2.0], [4.0, 6.0]]))  # seeds 1 and 5, images 2 and 4, no cell part
    assert by_hand[:3] == pytest.approx((4.0, 1.0, 0.0))
    assert by_hand.variance == pytest.approx(5.0)
    assert np.allclose(two_way(np.stack([y, 2 * y])).seed, [found.seed, 4 * found.seed])


def test_variance_and_degrees_of_freedom_by_hand():
    parts = Parts(4.0, 2.0, 1.0, 2, 10, 20)
    assert parts.variance == pytest.approx(5.0)  # 4 + 2 - 1
    assert parts.df == pytest.approx(25 / (16 / 2 + 4 / 10 + 1 / 20))
    half = student.ppf(0.975, parts.df) * 5**0.5
    assert interval(1.0, parts) == pytest.approx((1 - half, 1 + half))
    assert Parts(0.5, 2.0, 1.0, 2, 10, 20).variance == pytest.approx(2.0)  # a negative component counts as none
    assert Parts(4.0, 0.5, 1.0, 2, 10, 20).variance == pytest.approx(4.0)
    assert Parts(3.0, 0.0, 0.0, 4, 0, 0).df == pytest.approx(4)  # seeds alone
    assert Parts(0.0, 0.0, 0.0, 4, 9, 36).df == 4  # nothing varies
    assert interval(1.0, Parts(0.0, 0.0, 0.0, 0, 0, 0)) == (-np.inf, np.inf)  # nothing could vary


def test_few_seeds_have_one_less_degree_of_freedom():
    parts = Parts(1.0, 50.0, 0.1, 2, 4000, 8000)
    assert parts.df > 2000
    assert [judged_df(parts, seeds) for seeds in (2, 3, 4)] == [1, 2, 3]
    assert judged_df(parts, 5) == parts.df == judged_df(parts, 1)


def test_one_seed_is_images_alone_and_one_image_seeds_alone():
    y = np.random.default_rng(0).normal(size=(1, 30))
    alone = two_way(y)
    assert alone.variance == pytest.approx(y.var(ddof=1) / 30)
    assert alone.df == pytest.approx(29)
    seeds = two_way(y.T[:4])
    assert seeds == pytest.approx(seeds_alone(y[0, :4]))
    assert (seeds.variance, seeds.df) == pytest.approx((y[0, :4].var(ddof=1) / 4, 3))


def test_other_second_axes_are_independent_and_share_their_seeds():
    rng = np.random.default_rng(0)
    seed = 3 * rng.normal(size=(4, 1))
    images, groups, number = seed + rng.normal(size=(4, 30)), -seed + rng.normal(size=(4, 5)), np.full((4, 1), 7.0)
    a, b, both = two_way(images), two_way(groups), independent([images, groups, number])
    assert both.seed == pytest.approx((images.mean(1) + groups.mean(1)).var(ddof=1) / 4)  # seeds cancel: paired
    assert both.seed < a.seed
    assert (both.image, both.cell) == pytest.approx((a.image + b.image, a.cell + b.cell))
    assert both.image_df == pytest.approx((a.image + b.image) ** 2 / (a.image**2 / 29 + b.image**2 / 4))
    assert independent([images]) == a


def test_the_jackknife_of_a_mean_is_the_analysis_of_variance():
    y = np.random.default_rng(0).normal(size=(4, 20))
    assert jackknife([y], float) == pytest.approx(two_way(y))
    assert jackknife([y, y], lambda a, b: float(3 * a - b)) == pytest.approx(two_way(2 * y))
    assert jackknife([y], float, nested=True) == pytest.approx(seeds_alone(y.mean(1)))
    assert jackknife([y[:1]], float) == pytest.approx(two_way(y[:1]))
    assert jackknife([y[:, :1]], float) == pytest.approx(two_way(y[:, :1]))


def test_the_jackknife_of_a_ratio_is_the_delta_method():
    rng = np.random.default_rng(0)
    shared = drawn((5, 60), 3.0, rng)
    a, b = 10 + shared + 0.1 * drawn((5, 60), 3.0, rng), 20 + shared
    linear = a / b.mean() - a.mean() * b / b.mean() ** 2  # first order around the means
    found, expected = jackknife([a, b], lambda x, y: float(x / y)), two_way(linear)
    assert found[:3] == pytest.approx(expected[:3], rel=0.02)
    assert found[3:] == expected[3:]


def test_blocks_do_not_take_neighbours_for_one_image():
    """Photographs sorted by class: blocks of neighbours would give 40 times the variance."""
    right = np.repeat([[1.0, 0.0]], 2000, axis=1).reshape(1, -1)
    found = jackknife([right.repeat(2, axis=0)], float)
    assert found.image == pytest.approx(two_way(right).image, rel=0.75)
    assert found.image_df == 49


def test_cells_of_other_sizes_go_together():
    rng = np.random.default_rng(0)
    a, b, number = rng.normal(3, 1, (3, 400)), rng.normal(2, 1, (3, 12)), np.array([[1.0], [2.0], [3.0]])
    found = jackknife([a, b, number], lambda x, y, z: float(x + y + 0 * z))
    assert found.image == pytest.approx(two_way(a).image + two_way(b).image, rel=0.5)
    assert found.image_df == 11
    with_seeds = jackknife([a, number], lambda x, z: float(z))
    assert (with_seeds.seed, with_seeds.image) == pytest.approx((1 / 3, 0.0))


def test_a_pool_rests_on_rows_times_seeds():
    """Two rows differ by their interaction with seeds: what a seed does to all rows alike is not in it."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(4, 3, 50)) + rng.normal(size=(4, 3, 1)) + 100 * rng.normal(size=(1, 3, 1))
    pool, own = pooled(y), two_way(y[0] - y[1])
    means = y.mean(2)  # (R, S)
    rest = means - means.mean(0) - means.mean(1)[:, None] + means.mean()
    interaction = sum(rest[r, s] ** 2 for r in range(4) for s in range(3)) / (3 * 2)
    found = pool.parts((1.0, -1.0), own)
    assert found.seed == pytest.approx(2 * interaction / 3)
    assert (found.seed_df, found.image, found.image_df) == (pytest.approx(6), own.image, own.image_df)
    margin = pool.parts((1.0, -0.75, -0.25), own)
    assert margin.seed == pytest.approx((1 + 0.75**2 + 0.25**2) * interaction / 3)
    single = pool.parts((1.0,), two_way(y[0]))
    assert single.seed == pytest.approx(means.var(1, ddof=1).mean() / 3)  # the mean of the rows' own variances
    assert single.seed_df < 3  # which all follow the seed here


def test_alike_rows_pool_to_the_variance_of_each():
    rng = np.random.default_rng(1)
    y = rng.normal(size=(400, 4, 3, 1)) + np.zeros((1, 1, 1, 6))
    found = pooled(y).parts((1.0, -1.0), two_way(y[:, 0] - y[:, 1]))
    assert found.seed.mean() == pytest.approx(2 / 3, rel=0.1)
    spread = [np.std(found.seed), np.std(two_way(y[:, 0] - y[:, 1]).seed)]
    assert spread[0] < 0.7 * spread[1]  # 6 degrees of freedom for 2


def test_intervals_hold_the_truth_as_often_as_asked():
    """60 000 repetitions, 10 000 where pooled or judged by S - 1 degrees of freedom. Two standard errors of the
    simulation (.0019) less than what was found is still what is asked; where pooled (.0044) what was found is."""
    rng = np.random.default_rng(0)
    for kind in KINDS:
        pools = "pooled" in kind.title
        for ratio in RATIOS:
            found = coverage(kind, ratio, 60_000 if kind in KINDS[:2] else 10_000, rng)
            slack = 0 if pools else 2 * found.error
            assert found.covered - slack >= kind.bound, (kind.title, ratio, found)
            assert 1 - found.covered <= 0.08  # a claim about nothing, decided


def test_a_pool_is_wrong_where_rows_vary_unlike():
    """The limit that `Pool` states: too short for rows that vary twice as much as the others, too long for these."""
    spreads = ((2.0, 2.0, 1.0, 1.0), (1.0, 1.0, 2.0, 2.0))
    found = [pooled_rows(3, spread)(5.0, 4000, np.random.default_rng(0)).mean() for spread in spreads]
    assert found == pytest.approx([0.90, 0.99], abs=0.02)


def test_shares_and_ratios_are_held_as_often():
    """Within two standard errors of the simulation: .0047 of 10 000 shares, .014 of 1 000 ratios."""
    rng = np.random.default_rng(0)
    for kind in OTHERS:
        repetitions = 1_000 if "ratio" in kind.title else 10_000
        for ratio in (5.0,) if "ratio" in kind.title else (1.0, 5.0):
            found = coverage(kind, ratio, repetitions, rng)
            assert found.covered + 2 * found.error >= kind.bound, (kind.title, ratio, found)
            assert 1 - found.covered - 2 * found.error <= 0.08


def test_the_simulation_has_the_ratio_it_says():
    y = drawn((20_000, 5, 24), 5.0, np.random.default_rng(0), cell=0.0)
    parts = two_way(y)
    assert parts.seed.mean() / parts.image.mean() == pytest.approx(5.0, rel=0.03)
    assert y.mean((1, 2)).var() == pytest.approx(6 / 24, rel=0.05)


def test_reductions_by_hand_and_which_are_linear():
    far = np.array([1.0, 2.0, 6.0, 3.0])
    cases = ((over_all, 3.0), (deeper, 4.5), (shallower, 1.5), (deeper_less_shallower, 3.0), (layer(2), 6.0),
             (layer_less(0, 2), -5.0), (depth_slope, 3.0))  # fmt: skip
    rows = np.random.default_rng(0).normal(size=(50, 4))
    for reduce, expected in cases:
        assert reduce(far) == pytest.approx(expected)
        assert is_linear(reduce, rows)
    assert not is_linear(lambda v: v.max(-1), rows)
    assert slope_weights(2) == (-1.0, 1.0)
    assert slope_weights(5) == pytest.approx(np.polyfit(np.linspace(0, 1, 5), np.eye(5), 1)[0])
    assert early_share(far) == pytest.approx(0.5)
    assert variation(far) == pytest.approx(np.std(far) / 3)


def test_how_many_seeds_would_do():
    seeds = Parts(1.0, 0.0, 0.0, 4, 99, 396)
    found = needed_seeds(2.0, seeds, 5, 0.0)  # t(S - 1) * (5 / S)^.5 < 2
    assert found == next(s for s in range(2, 99) if student.ppf(0.975, s - 1) * (5 / s) ** 0.5 < 2)
    assert needed_seeds(9.0, seeds, 5, 0.0) < found
    assert needed_seeds(2.0, Parts(0.0, 2.0, 0.0, 4, 99, 396), 5, 0.0) is None  # images alone are too wide
    images = needed_images(2.0, Parts(0.0, 2.0, 0.0, 4, 99, 396), 5, 100, 0.0)
    assert images == pytest.approx(100 * 2 / (2 / 1.96) ** 2, rel=0.15)
    assert needed_images(2.0, seeds, 5, 100, 0.0) is None
    assert needed_seeds(2.0, seeds, 1, 0.0) is None  # one seed says nothing of seeds
