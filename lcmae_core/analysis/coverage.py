"""How often the intervals hold the truth, by simulation: made-up seeds and images whose true mean is known.

A row has y_sm = seed_s + image_m + cell_sm. `ratio` is what seeds add to the variance of the mean over what images add.
What an interval of a true difference of 0 does not hold is how often a claim about nothing would be decided.

Letters (CONTRIBUTING.md): S seeds, M images, R rows.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from lcmae_core.analysis.intervals import Interval, interval, jackknife, judged_df, pooled, two_way

RATIOS = (1.0, 2.0, 5.0, 20.0)
IMAGES = 24
ROWS = 4
CHUNK = 4000
"""Repetitions that exist at a time."""
Simulation = Callable[[float, int, np.random.Generator], np.ndarray]
"""ratio, repetitions, generator -> whether each repetition's interval holds the truth."""


class Kind(NamedTuple):
    """What is simulated, and the least coverage that is asked of it."""

    title: str
    bound: float
    simulate: Simulation


class Coverage(NamedTuple):
    """covered: share of repetitions whose interval holds the truth, error: its standard error."""

    kind: Kind
    ratio: float
    covered: float
    error: float


def coverage(kind: Kind, ratio: float, repetitions: int, rng: np.random.Generator) -> Coverage:
    """Simulate one kind at one ratio."""
    sizes = [min(CHUNK, repetitions - start) for start in range(0, repetitions, CHUNK)]
    held = np.concatenate([kind.simulate(ratio, size, rng) for size in sizes])
    share = float(held.mean())
    return Coverage(kind, ratio, share, float(np.sqrt(max(share * (1 - share), 1e-12) / len(held))))


def drawn(
    shape: Sequence[int], ratio: float, rng: np.random.Generator, cell: float = 1.0
) -> Float[np.ndarray, "*repetitions S M"]:
    """Numbers of true mean 0: images of variance 1, cells of variance cell^2, seeds so that the ratio is as asked."""
    *rest, s, m = shape
    seeds = rng.normal(0, np.sqrt(ratio * s / m), (*rest, s, 1))
    return seeds + rng.normal(size=(*rest, 1, m)) + cell * rng.normal(size=tuple(shape))


def one_row(seeds: int, *, satterthwaite: bool = True) -> Simulation:
    """A mean; without `satterthwaite` with S - 1 degrees of freedom, as tests of few seeds are judged."""

    def simulate(ratio: float, repetitions: int, rng: np.random.Generator) -> Bool[np.ndarray, "repetitions"]:
        y = drawn((repetitions, seeds, IMAGES), ratio, rng)
        parts = two_way(y)
        return _holds(interval(y.mean((-2, -1)), parts, df=parts.df if satterthwaite else judged_df(parts, seeds)), 0.0)

    return simulate


def pooled_rows(seeds: int, spread: Sequence[float] = (1.0,) * ROWS) -> Simulation:
    """The difference of the first two of four rows on the same images, seed part pooled over the four, which vary by
    `spread` times as much."""

    def simulate(ratio: float, repetitions: int, rng: np.random.Generator) -> Bool[np.ndarray, "repetitions"]:
        y = drawn((repetitions, ROWS, seeds, IMAGES), ratio, rng) * np.array(spread)[:, None, None]
        apart = y[:, 0] - y[:, 1]
        parts = pooled(y).parts((1.0, -1.0), two_way(apart))
        return _holds(interval(apart.mean((-2, -1)), parts), 0.0)

    return simulate


def shares(seeds: int, images: int = 100) -> Simulation:
    """Right answers: image m has a chance of .3 to .8, seed s adds the same to all of them."""

    def simulate(ratio: float, repetitions: int, rng: np.random.Generator) -> Bool[np.ndarray, "repetitions"]:
        spread = np.sqrt(ratio * seeds / images * 0.5**2 / 12)
        chance = rng.uniform(0.3, 0.8, (repetitions, 1, images)) + rng.normal(0, spread, (repetitions, seeds, 1))
        right = (rng.random((repetitions, seeds, images)) < chance).astype(float)
        parts = two_way(right)
        return _holds(interval(right.mean((-2, -1)), parts, df=judged_df(parts, seeds)), 0.55)

    return simulate


def ratios(seeds: int) -> Simulation:
    """A ratio of two means, 1 / 2, that share half of their seeds' and images' variation, by the jackknife."""

    def simulate(ratio: float, repetitions: int, rng: np.random.Generator) -> Bool[np.ndarray, "repetitions"]:
        y = 0.2 * drawn((repetitions, 3, seeds, IMAGES // 2), ratio, rng)
        above, below = 1 + y[:, 0] + y[:, 1], 2 + y[:, 0] + y[:, 2]
        return np.array([_ratio_holds(a, b) for a, b in zip(above, below)])

    return simulate


def _ratio_holds(above: Float[np.ndarray, "S M"], below: Float[np.ndarray, "S M"]) -> bool:
    parts = jackknife([above, below], _divided)
    return bool(_holds(interval(_divided(above.mean(), below.mean()), parts, df=judged_df(parts, len(above))), 0.5))


def _divided(above: float | np.ndarray, below: float | np.ndarray) -> float:
    return float(above / below)


def _holds(drawn: Interval, truth: float) -> Bool[np.ndarray, "*repetitions"]:
    return np.asarray((drawn.low < truth) & (truth < drawn.high))


KINDS = (
    Kind("5 seeds", 0.94, one_row(5)),
    Kind("3 seeds, Satterthwaite", 0.92, one_row(3)),
    Kind("3 seeds, 2 df (judges)", 0.92, one_row(3, satterthwaite=False)),
    Kind("3 seeds, difference, pooled over 4 rows", 0.94, pooled_rows(3)),
)
"""Means of normal numbers, at every ratio of `RATIOS`."""
OTHERS = (
    Kind("5 seeds, share of right answers", 0.94, shares(5)),
    Kind("3 seeds, share of right answers", 0.92, shares(3)),
    Kind("5 seeds, ratio of means", 0.94, ratios(5)),
)


def table(rng: np.random.Generator, repetitions: int = 20_000) -> list[Coverage]:
    """Every kind of `KINDS` at every ratio."""
    return [coverage(kind, ratio, repetitions, rng) for kind in KINDS for ratio in RATIOS]
