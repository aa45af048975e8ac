"""How often the intervals hold the truth, by simulation: made-up seeds and images whose true mean is known.

A row has y_sm = seed_s + image_m + cell_sm. `ratio` is what seeds add to the variance of the mean over what images add.

Letters: S seeds, M images, R rows.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lcmae_core.analysis.intervals import FEW_SEEDS, Interval, interval, two_way

RATIOS = (1.0, 2.0, 5.0, 20.0)
IMAGES = 24
CHUNK = 4000
"""Repetitions that exist at a time."""


class Coverage(NamedTuple):
    """kind: what is simulated. covered: share of repetitions whose interval holds the truth, with its standard error;
    what is left is how often a claim at its bound is decided. bound: the least that is asked for."""

    kind: str
    seeds: int
    ratio: float
    covered: float
    error: float
    bound: float


class Kind(NamedTuple):
    """title, seeds, the least coverage asked for, and what simulates it: (ratio, repetitions, generator) -> whether the
    interval holds the truth, (repetitions,)."""

    title: str
    seeds: int
    bound: float
    simulate: Callable[[float, int, np.random.Generator], np.ndarray]


def drawn(
    shape: Sequence[int], ratio: float, rng: np.random.Generator, cell: float = 1.0
) -> Float[np.ndarray, "*repetitions S M"]:
    """Numbers of true mean 0: images of variance 1, cells of variance `cell`^2, seeds so that the ratio is as asked."""
    *rest, s, m = shape
    seed = rng.normal(0, np.sqrt(ratio * s / m), (*rest, s, 1))
    return seed + rng.normal(size=(*rest, 1, m)) + cell * rng.normal(size=shape)


def _holds(found: Interval, truth: float = 0.0) -> np.ndarray:
    return np.asarray((found.low < truth) & (truth < found.high))


def alone(seeds: int, *, few: bool = True) -> Callable[[float, int, np.random.Generator], np.ndarray]:
    """A mean of one row. `few`: with S - 1 degrees of freedom below five seeds, as tests are judged."""

    def simulate(ratio: float, repetitions: int, rng: np.random.Generator) -> np.ndarray:
        parts = two_way(drawn((repetitions, seeds, IMAGES), ratio, rng))
        df = np.full(repetitions, seeds - 1.0) if few and seeds < FEW_SEEDS else None
        return _holds(interval(drawn_mean(parts), parts, df=df))

    return simulate
