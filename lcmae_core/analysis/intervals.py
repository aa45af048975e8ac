"""Two-way intervals: how far a mean, or a smooth function of means, can be trusted when both the trainings and the
held-out images are samples.

A number of seed s on image m is read as y_sm = mean + seed_s + image_m + cell_sm. Its mean over both varies by
V = V_seed + V_image - V_cell (Cameron, Gelbach and Miller, 2011; Owen's pigeonhole bootstrap, 2007, in closed form):
the spread of the seeds' means and that of the images' means both contain the variance of the cells, which would be
counted twice otherwise. Groups of images, or masks, may stand in the place of images.

Letters (CONTRIBUTING.md): S seeds, M images, R rows of a table. In words: blocks (of images).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

Number = Any
"""A float, or an array of them over repetitions."""
BLOCKS = 50
"""Blocks of images that the jackknife deletes one at a time; up to twice as many images are deleted one by one."""
FEW_SEEDS = 5
"""Below this many seeds, where their spread is not pooled, an interval has one degree of freedom less than seeds:
Satterthwaite's number is then itself a guess from few numbers (`coverage` simulates both)."""


class Interval(NamedTuple):
    """Both ends."""

    low: Number
    high: Number


class Parts(NamedTuple):
    """Where the variance of a mean comes from, each part with its degrees of freedom (0: could not vary).

    seed, image: variances of the mean by the spread of the seeds' and of the images' means; cell: the share of both
    that belongs to single cells. All may be arrays over repetitions.
    """

    seed: Number
    image: Number
    cell: Number
    seed_df: Number
    image_df: Number
    cell_df: Number

    @property
    def variance(self) -> Number:
        """V = V_seed + V_image - V_cell; a component of variance that comes out negative counts as 0, so that V is
        never below the larger of V_seed and V_image."""
        return self.cell + np.maximum(self.seed - self.cell, 0) + np.maximum(self.image - self.cell, 0)

    @property
    def df(self) -> Number:
        """Satterthwaite's degrees of freedom: V^2 / sum of V_i^2 / df_i; the fewest of any part if nothing varies."""
        parts = [(self.seed, self.seed_df), (self.image, self.image_df), (self.cell, self.cell_df)]
        varying = [(part, free) for part, free in parts if np.all(np.asarray(free) > 0)]
        spread = sum((np.square(part) / free for part, free in varying), np.float64(0))
        least = min((np.min(free) for _, free in varying), default=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(spread > 0, np.square(self.variance) / spread, least)[()]


def interval(value: Number, parts: Parts, *, df: Number | None = None, level: float = 0.95) -> Interval:
    """value -/+ the t-quantile times the root of V, with Satterthwaite's degrees of freedom unless others are given.
    Without any degree of freedom nothing is known: the interval is the whole line."""
    free = parts.df if df is None else df
    if np.any(free <= 0):
        return Interval(-np.inf, np.inf)
    half = stdtrit(free, (1 + level) / 2) * np.sqrt(parts.variance)
    return Interval(value - half, value + half)


def judged_df(parts: Parts, seeds: int) -> Number:
    """Satterthwaite's degrees of freedom, but S - 1 with two to four seeds: so few do not tell how much they vary."""
    return seeds - 1.0 + np.zeros_like(parts.variance) if 1 < seeds < FEW_SEEDS else parts.df


def two_way(values: Float[np.ndarray, "*repetitions S M"]) -> Parts:
    """The parts by analysis of variance of one number for each seed and image.

    With mean squares MS of seeds, images and cells: V_seed = MS_seed / (S M), and so on. One seed: V is the images'
    alone. One image: the seeds' alone.
    """
    s, m = values.shape[-2:]
    by_seed, by_image = values.mean(-1), values.mean(-2)  # (..., S), (..., M)
    rest = values - by_seed[..., None] - by_image[..., None, :] + by_seed.mean(-1)[..., None, None]
    cell_df = (s - 1) * (m - 1)
    cell = np.square(rest).sum((-2, -1)) / max(cell_df, 1) / (s * m)
    return Parts(_of_means(by_seed), _of_means(by_image), cell, s - 1, m - 1, cell_df)


def _of_means(means: np.ndarray) -> Number:
    """Variance of the mean of the means on the last axis; 0 for a single one."""
    count = means.shape[-1]
    return means.var(-1, ddof=1) / count if count > 1 else np.zeros(means.shape[:-1])[()]


def independent(groups: Sequence[Float[np.ndarray, "S _"]]) -> Parts:
    """The parts of a sum of means whose second axes are different things (images, groups of images, none at all): seeds
    are paired across them, images are taken as independent. `groups`: (S, M) each, M differing."""
    each = [two_way(group) for group in groups]
    if len(each) == 1:
        return each[0]
    by_seed = np.sum([group.mean(1) for group in groups], axis=0)  # (S,)
    image, image_df = _summed([(part.image, part.image_df) for part in each])
    cell, cell_df = _summed([(part.cell, part.cell_df) for part in each])
    return Parts(_of_means(by_seed), image, cell, len(by_seed) - 1, image_df, cell_df)


def _summed(parts: Sequence[tuple[Number, Number]]) -> tuple[Number, Number]:
    """Sum of independent variances and its degrees of freedom (Satterthwaite); those of the least sure if all are 0."""
    varying = [(part, free) for part, free in parts if np.all(np.asarray(free) > 0)]
    total = sum((part for part, _ in varying), np.float64(0))
    spread = sum((np.square(part) / free for part, free in varying), np.float64(0))
    least = min((np.min(free) for _, free in varying), default=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return total, np.where(spread > 0, np.square(total) / spread, least)[()]


def seeds_alone(by_seed: Float[np.ndarray, "S"]) -> Parts:
    """The parts where the second axis is nested in the seeds (each training draws its own): means of seeds say all."""
    return Parts(_of_means(by_seed), 0.0, 0.0, len(by_seed) - 1, 0, 0)


class Pool(NamedTuple):
    """The seed parts of R rows of one table, taken to be alike: seeds and rows as a design of two factors.

    What it rests on is that all rows vary alike. Where two of four vary twice as much as the others, an interval of
    their difference holds the truth in 90 of 100 cases at three seeds, and one of the others in 99.

    average: parts of the mean of all rows; deviation: of a row's departure from it (mean squares of row x seed over
    S, and of row x seed x image over S M).
    """

    rows: int
    average: Parts
    deviation: Parts

    def parts(self, weights: Sequence[float], own: Parts) -> Parts:
        """Parts of sum_r w_r mean_r: seeds and cells pooled, images its own.

        Under equal variances and equal correlations of rows, V_seed(w) = (sum w)^2 V_average + (sum w^2 - (sum w)^2 /
        R) V_deviation: a difference of two rows rests on the row x seed interaction alone, with (R - 1)(S - 1) degrees
        of freedom.
        """
        whole = sum(weights) ** 2
        apart = max(sum(w * w for w in weights) - whole / self.rows, 0.0)
        mean, other = self.average, self.deviation
        seed, seed_df = _summed([(whole * mean.seed, mean.seed_df), (apart * other.seed, other.seed_df)])
        cell, cell_df = _summed([(whole * mean.cell, mean.cell_df), (apart * other.cell, other.cell_df)])
        return Parts(seed, own.image, cell, seed_df, own.image_df, cell_df)


def pooled(values: Float[np.ndarray, "*repetitions R S M"]) -> Pool:
    """The pool of the rows of a table, at least two, on the same seeds and images."""
    rows, s, m = values.shape[-3:]
    mean = values.mean(-3)  # (..., S, M)
    each = two_way(values - mean[..., None, :, :])  # departures: (R - 1) / R of the rows' freedom
    seed, image, cell = (part.mean(-1) * rows / (rows - 1) for part in (each.seed, each.image, each.cell))
    free = (rows - 1) * np.array([s - 1, m - 1, (s - 1) * (m - 1)])
    return Pool(rows, two_way(mean), Parts(seed, image, cell, *map(int, free)))


def jackknife(
    values: Sequence[Float[np.ndarray, "S _ ..."]], statistic: Callable[..., float], *, nested: bool = False
) -> Parts:
    """The parts of a smooth function of the means of `values` by the pigeonhole jackknife: a seed deleted, a block of
    images deleted, a block of one seed deleted; always of all `values` at once, since rows are paired. `nested`: seeds
    alone.

    `statistic` takes the mean of each of `values` over seeds and images. Second axes may differ: each is cut into as
    many blocks, and one of a single entry never loses it. It must be smooth: of a maximum the jackknife says nothing.
    """
    s, blocks = len(values[0]), _common_blocks([each.shape[1] for each in values])
    tables = [_Table(each, blocks) for each in values]
    seed = _deleted(_each(statistic, [table.without_seed() for table in tables])) if s > 1 else 0.0
    if (nested and s > 1) or blocks == 1:
        return Parts(seed, 0.0, 0.0, s - 1, 0, 0)
    image, cell = _deleted(_each(statistic, [table.without_block(blocks) for table in tables])), 0.0
    if s > 1:
        without_both = _each(statistic, [table.without_both(blocks) for table in tables])
        cell = float(two_way((s * blocks - 1) * without_both.reshape(s, blocks)).cell)
    return Parts(seed, image, cell, s - 1, blocks - 1, (s - 1) * (blocks - 1))


def _each(statistic: Callable[..., float], means: Sequence[np.ndarray]) -> np.ndarray:
    """The statistic of the first of all means, of the second, and so on."""
    return np.array([statistic(*map(np.asarray, each)) for each in zip(*means)])


def _deleted(without: np.ndarray) -> float:
    """(n - 1) / n times the sum of squared departures of the n delete-one values from their mean."""
    return float(np.var(without) * (len(without) - 1))


def _common_blocks(sizes: Sequence[int]) -> int:
    """How many blocks the second axes are cut into: single entries where they are few."""
    return min((m if m <= 2 * BLOCKS else BLOCKS for m in sizes if m > 1), default=1)


class _Table:
    """Means of seeds x images, in blocks of images, with some of it left out. A second axis of one entry is one block,
    which is never left out. Images go to blocks by a fixed shuffle: those of a class often stand together, and a block
    of neighbours would count them as one."""

    def __init__(self, values: Float[np.ndarray, "S M ..."], blocks: int):
        m = values.shape[1]
        ends = np.linspace(0, m, min(blocks, m) + 1).round().astype(int)
        shuffled = values[:, np.random.default_rng(0).permutation(m)]
        self.sums, self.counts = (
            np.add.reduceat(shuffled, ends[:-1], axis=1),
            np.diff(ends),
        )  # (S, blocks, ...), (blocks,)
        self.seeds, self.images = len(values), m

    def without_seed(self) -> np.ndarray:
        """Means without each seed, (S, ...)."""
        by_seed = self.sums.sum(1)
        return (by_seed.sum(0) - by_seed) / ((self.seeds - 1) * self.images)

    def without_block(self, blocks: int) -> np.ndarray:
        """Means without each block of images, (blocks, ...)."""
        by_block = self.sums.sum(0)
        if len(self.counts) == 1:
            return np.repeat(by_block / (self.seeds * self.images), blocks, axis=0)
        return (by_block.sum(0) - by_block) / self._wide(self.seeds * (self.images - self.counts))

    def without_both(self, blocks: int) -> np.ndarray:
        """Means without each block of each seed, (S * blocks, ...)."""
        total = self.sums.sum((0, 1))
        if len(self.counts) == 1:
            return np.repeat(total[None] / (self.seeds * self.images), self.seeds * blocks, axis=0)
        left = (total - self.sums) / self._wide(self.seeds * self.images - self.counts)
        return left.reshape(-1, *total.shape)

    def _wide(self, counts: np.ndarray) -> np.ndarray:
        """(blocks,) as (blocks, 1, ...), over whatever comes after the images."""
        return counts.reshape(-1, *[1] * (self.sums.ndim - 2))
