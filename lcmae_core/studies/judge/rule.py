"""From image-by-image measurements of several seeds to a verdict, by a rule that is written before what it judges.

A claim is a list of tests, each a linear form or a smooth function of means with the range in which it holds. Its 95 %
interval counts training seeds and held-out images (`analysis.intervals`); a test holds if its whole interval lies in
the range, fails if all of it lies outside, and is open otherwise, or while one of its gates does not hold.

Letters (CONTRIBUTING.md): S seeds, M images, L layers, R rows of a table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lcmae_core.analysis.intervals import (
    Parts,
    Pool,
    independent,
    interval,
    jackknife,
    judged_df,
    seeds_alone,
)
from lcmae_core.analysis.planning import needed_images, needed_seeds
from lcmae_core.analysis.reductions import Reduction, is_linear, over_all
from lcmae_core.config import LcmaeError

MARGIN = 2.0
"""No longer used for new verdicts: two settings once counted as equally good within this many points of accuracy, more
than any two rows of Table 1 differ by. Margins are now shares of MAE's gain (`within_gain`). Kept only so that the old
rules, in `claims.superseded`, can still be worked out."""


class Cell(NamedTuple):
    """Where numbers come from: a row of a study, a measure, and the name of what it found."""

    study: str
    row: str
    measure: str
    key: str


@dataclass(frozen=True)
class Test:
    """text: the statement with its bounds. It holds where low < value < high.

    The value is `scale` times a linear form, sum of `weights` times what `reduce` makes of each cell, or, where there
    are no weights, `statistic` of the mean of each cell, which must be smooth: no maximum, no minimum.
    mirror: |a - b| < c is two inequalities, a - b < c and b - a < c; these are the weights of the second. gates: tests
    that must hold first; without them this one is open. nested: seeds do not share images (or masks), so that images
    cannot be told apart from seeds, and the interval comes from the spread between seeds alone. limits: where the value
    can lie at all (a share: 0 to 1), which its interval does not leave.
    """

    text: str
    cells: tuple[Cell, ...]
    statistic: Callable[..., float] | None = None
    low: float = -np.inf
    high: float = np.inf
    weights: tuple[float, ...] = ()
    reduce: Reduction = over_all
    scale: float = 1.0
    mirror: tuple[float, ...] = ()
    gates: tuple["Test", ...] = ()
    nested: bool = False
    limits: tuple[float, float] = (-np.inf, np.inf)


class Estimate(NamedTuple):
    """A value with its 95 % interval over seeds and images, the degrees of freedom of its t-quantile, and the parts of
    its variance, V = seed + image - cell: that of the seeds' means, plus that of the images' means, minus that of
    single numbers (a seed on an image, `parts.cell`), which both of them hold. pooled: the seeds' variance was taken
    over all rows of the table, not over these runs alone."""

    value: float
    low: float
    high: float
    seeds: int
    images: int
    df: float = np.nan
    parts: Parts = Parts(np.nan, np.nan, np.nan, 0, 0, 0)
    pooled: bool = False


class Outcome(NamedTuple):
    """A test with its estimate and whether it holds (None: open). why: what left it open other than an interval that is
    too wide, such as a gate that does not hold."""

    test: Test
    estimate: Estimate
    holds: bool | None
    why: str = ""

    @property
    def on_side(self) -> bool:
        """Whether the estimate itself, whatever its interval, lies where the claim says."""
        return self.test.low < self.estimate.value < self.test.high


Values = Sequence[Float[np.ndarray, "S _ ..."]]


def estimate(test: Test, values: Values, pool: Pool | None = None) -> Estimate:
    """A test's value and interval from the numbers of its cells, each (S, M, ...), in their order; seeds and images are
    paired. Of one seed the interval covers images alone.

    Raises:
        LcmaeError: a `reduce` that is not linear.
    """
    if test.weights:
        return _estimate(test, test.weights, values, pool)
    if test.statistic is None:
        raise LcmaeError(f"test: got neither weights nor a statistic for {test.text!r}, expected one of them")
    value = test.scale * float(test.statistic(*(np.asarray(each.mean((0, 1))) for each in values)))
    parts = _scaled(jackknife(values, test.statistic, nested=test.nested), test.scale)
    return _with_interval(test, value, parts, values)


def _estimate(test: Test, weights: Sequence[float], values: Values, pool: Pool | None) -> Estimate:
    """Of a linear form. Cells of equally many images are added up first, seed by seed and image by image; the variance
    is taken of these sums, so that what cells have in common cancels."""
    groups: dict[int, np.ndarray] = {}
    for weight, each in zip(weights, values, strict=True):
        reduced = weight * _reduced(test, each)  # (S, M)
        groups[reduced.shape[1]] = groups.get(reduced.shape[1], 0.0) + reduced
    value = test.scale * sum(float(group.mean()) for group in groups.values())
    seeds = len(values[0])
    if test.nested and seeds > 1:
        parts = seeds_alone(np.sum([group.mean(1) for group in groups.values()], axis=0))
    else:
        parts = independent(list(groups.values()))
        parts = pool.parts(weights, parts) if pool is not None and seeds > 1 else parts
    return _with_interval(test, value, _scaled(parts, test.scale), values, pooled=pool is not None and seeds > 1)


def _reduced(test: Test, values: Float[np.ndarray, "S M ..."]) -> Float[np.ndarray, "S M"]:
    if values.ndim == 2:
        return values
    if not is_linear(test.reduce, values.reshape(-1, *values.shape[2:])):
        raise LcmaeError(f"test: got a reduction of layers that is not linear for {test.text!r}, expected a linear one")
    return np.asarray(test.reduce(values))


def _scaled(parts: Parts, scale: float) -> Parts:
    return parts._replace(**{name: scale**2 * float(getattr(parts, name)) for name in ("seed", "image", "cell")})


def _with_interval(test: Test, value: float, parts: Parts, values: Values, *, pooled: bool = False) -> Estimate:
    seeds = len(values[0])
    df = float(parts.df if pooled else judged_df(parts, seeds))
    ends = [float(end) for end in interval(value, parts, df=df)]
    low, high = (np.clip(end, *test.limits) for end in ends)
    images = max(each.shape[1] for each in values)
    return Estimate(float(np.clip(value, *test.limits)), float(low), float(high), seeds, images, df, parts, pooled)


def estimated(values: Float[np.ndarray, "S M"], *, scale: float = 1.0, pool: Pool | None = None) -> Estimate:
    """A mean over seeds and images with its interval, by the same rule as a test's; of booleans a share, whose interval
    stays inside [0, scale]."""
    limits = (0.0, scale) if values.dtype == bool else (-np.inf, np.inf)
    test = Test("", (), weights=(1.0,), scale=scale, limits=limits)
    return estimate(test, [values.astype(np.float64)], pool)


def run_test(test: Test, values: Values, pool: Pool | None = None, gates: Sequence[Outcome] = ()) -> Outcome:
    """A test against the numbers of its cells, in their order, behind the outcomes of its gates."""
    measured = estimate(test, values, pool)
    holds = _holds(test, measured)
    if test.mirror:
        other = _estimate(test, test.mirror, values, pool)
        both = (holds, _holds(test, other))
        holds = False if False in both else None if None in both else True
        measured = max(measured, other, key=lambda side: side.value)  # the side that is nearer to its bound
    if np.isnan([measured.value, measured.low, measured.high]).any():
        return Outcome(test, measured, None, "not defined by these numbers")
    closed = [gate for gate in gates if gate.holds is not True]
    if closed:
        return Outcome(test, measured, None, "; ".join(f"its gate does not hold: {described(gate)}" for gate in closed))
    return Outcome(test, measured, holds)


def _holds(test: Test, interval: Estimate) -> bool | None:
    inside = test.low < interval.low and interval.high < test.high
    outside = interval.high <= test.low or interval.low >= test.high
    return True if inside else False if outside else None


def described(outcome: Outcome) -> str:
    """A test with its number, interval, degrees of freedom, seeds and images in one line."""
    e = outcome.estimate
    free = f", {e.df:.3g} df" if np.isfinite(e.df) else ""
    count = f"{e.seeds} seed{'s' * (e.seeds > 1)} x {e.images}{', seeds pooled' * e.pooled}"
    return f"{outcome.test.text}: {e.value:.3g} [{e.low:.3g}, {e.high:.3g}]{free}, {count}"


def verdict(outcomes: Sequence[Outcome], *, missing: int = 0, signs_only: bool = False) -> str:
    """reproduced: all tests hold. not reproduced: all fail. partly: some hold and some fail. unresolved: otherwise.
    `missing` tests, whose numbers are not there yet, are open.

    `signs_only` is for profiles too small for more: it looks at the estimates instead of the intervals, and says
    "sign right", "sign wrong" or "signs mixed".
    """
    if signs_only:
        right = [o.on_side for o in outcomes]
        return "sign right" if all(right) else "signs mixed" if any(right) else "sign wrong"
    held = [o.holds for o in outcomes] + [None] * missing
    if all(held):
        return "reproduced"
    if all(h is False for h in held):
        return "not reproduced"
    return "partly" if True in held and False in held else "unresolved"


class Needed(NamedTuple):
    """How many seeds (on these images) or images (with these seeds) would decide; None: more than can be told."""

    seeds: int | None
    images: int | None


def needed(outcome: Outcome) -> Needed:
    """For a test that its interval leaves open, by the bound that is nearest to its value (see `analysis.planning`)."""
    e, bounds = outcome.estimate, [b for b in (outcome.test.low, outcome.test.high) if np.isfinite(b)]
    bound = float(min(bounds, key=lambda b: abs(b - e.value)))
    return Needed(needed_seeds(e.value, e.parts, e.seeds, bound),
                  needed_images(e.value, e.parts, e.seeds, e.images, bound))  # fmt: skip
