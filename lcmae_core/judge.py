"""From image-by-image measurements of several seeds to a verdict, by a rule that is written before what it judges.

A claim is a list of tests, each a statistic of means with the range in which it holds. The statistic is bootstrapped
over seeds and images together; a test holds if its whole 95 % interval lies in the range, fails if all of it lies
outside, and is open otherwise.

Letters: S seeds, M images, K cells.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lcmae_core.analysis.resampling import resampled_means

DRAWS = 1000
MARGIN = 2.0
"""Points of accuracy within which two settings count as equally good. Fixed beforehand: two standard errors of a
difference on 3 925 held-out photographs and three seeds are about 1.2 points."""


class Cell(NamedTuple):
    """Where numbers come from: a row of a study, a measure, and the name of what it found."""

    study: str
    row: str
    measure: str
    key: str


class Test(NamedTuple):
    """text: the statement with its bounds. It holds where low < statistic(mean of each cell, in order) < high."""

    text: str
    cells: tuple[Cell, ...]
    statistic: Callable[..., float]
    low: float = -np.inf
    high: float = np.inf


class Estimate(NamedTuple):
    """A statistic with its 95 % bootstrap interval over seeds and images."""

    value: float
    low: float
    high: float
    seeds: int
    images: int


class Outcome(NamedTuple):
    """A test with its estimate, and whether it holds (None: open)."""

    test: Test
    estimate: Estimate
    holds: bool | None

    @property
    def on_side(self) -> bool:
        """Whether the estimate itself, whatever its interval, lies where the claim says."""
        return self.test.low < self.estimate.value < self.test.high


def bootstrap(values: Sequence[np.ndarray], statistic: Callable[..., float], seed: int = 0) -> Estimate:
    """The statistic of the means of `values`, each (S, M, ...), and its interval.

    Seeds and images are resampled as in `resampled_means`, the same for all cells: rows of a study are paired. With one
    seed the interval covers images alone. Three seeds can tell their own spread but roughly: an interval covers in
    95 of 100 repetitions where seeds add no more than images do, in 84 where they add five times as much.
    """
    found = [statistic(*means) for means in resampled_means(values, DRAWS, seed)]
    low, high = np.quantile(found, (0.025, 0.975))
    value = float(statistic(*(each.mean((0, 1)) for each in values)))
    return Estimate(value, float(low), float(high), len(values[0]), max(each.shape[1] for each in values))


def run_test(test: Test, values: Sequence[np.ndarray]) -> Outcome:
    """A test against the numbers of its cells, in their order."""
    estimate = bootstrap(values, test.statistic)
    inside = test.low < estimate.low and estimate.high < test.high
    outside = estimate.high <= test.low or estimate.low >= test.high
    return Outcome(test, estimate, True if inside else False if outside else None)


def verdict(outcomes: Sequence[Outcome], *, signs_only: bool = False) -> str:
    """reproduced: all tests hold. not reproduced: all fail. partly: some hold and some fail. unresolved: otherwise.

    `signs_only` is for profiles too small for more: it looks at the estimates instead of the intervals, and says
    "sign right", "sign wrong" or "signs mixed".
    """
    if signs_only:
        right = [o.on_side for o in outcomes]
        return "sign right" if all(right) else "signs mixed" if any(right) else "sign wrong"
    held = [o.holds for o in outcomes]
    if all(held):
        return "reproduced"
    if all(h is False for h in held):
        return "not reproduced"
    return "partly" if True in held and False in held else "unresolved"
