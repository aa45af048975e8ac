"""Who is compared with whom, how surely, and whether the two did the same work.

A ratio is the speed of ours over theirs: the median over rounds of their seconds by ours, of two steps that ran side by
side. Its interval holds the median of all possible rounds with 95 % by order statistics, whatever their distribution.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

LEVEL = 0.95
ALIKE = 0.02
"""By how much the FLOPs of the same work may differ."""


class Pair(NamedTuple):
    """Ours, theirs, the least speed ratio that is aimed at, and how many times the work ours does."""

    ours: str
    theirs: str
    target: float | None = None
    work: int = 1

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.ours}/{self.theirs}"


LC_MAE = 1 / 1.95
"""An LC-MAE step of a ViT-B, with two views, takes at most 1.95 MAE steps. (The projector of a desk model costs more
than its encoder.)"""
PAIRS = {
    "vit-b": (
        Pair("mae", "hf", 1.1), Pair("mae", "hf-compiled"), Pair("mae", "lightly", 1.1), Pair("mae", "textbook"),
        Pair("mae-plain", "hf"), Pair("lcmae", "mae-d2", LC_MAE, 2),
    ),
    "desk": (
        Pair("mae", "hf"), Pair("mae", "hf-compiled"), Pair("mae", "lightly"), Pair("mae", "textbook"),
        Pair("mae-plain", "hf"), Pair("lcmae", "mae", None, 2), Pair("loop", "textbook-loop", 1.3),
    ),
}  # fmt: skip


class MedianInterval(NamedTuple):
    """A median with the ends of its interval; level: what that holds it with, less than `LEVEL` for a few rounds."""

    median: float
    low: float
    high: float
    level: float


def interval(values: Sequence[float]) -> MedianInterval:
    """The k-th smallest and k-th largest, with the largest k that still gives `LEVEL`: 4th and 12th of 15."""
    ordered, count = sorted(values), len(values)
    below, k = 0.0, 0  # below: the chance that fewer than k values lie below the true median
    while k < count // 2:
        more = below + math.comb(count, k) / 2**count
        if 1 - 2 * more < LEVEL:
            break
        below, k = more, k + 1
    if k == 0:
        k, below = 1, 1 / 2**count
    return MedianInterval(statistics.median(ordered), ordered[k - 1], ordered[count - k], 1 - 2 * below)


def compare(case: str, seconds: Mapping[str, Sequence[float]], about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Pair -> speed, interval, FLOPs and tokens as shares of the other's (less twice the work of LC-MAE), target."""
    ratios = {}
    for pair in PAIRS[case]:
        if not {pair.ours, pair.theirs} <= set(seconds):
            continue
        of = interval([b / a for a, b in zip(seconds[pair.ours], seconds[pair.theirs], strict=True)])
        ours, theirs = about[pair.ours], about[pair.theirs]
        ratios[pair.name] = {
            "speed": of.median, "low": of.low, "high": of.high, "level": of.level, "target": pair.target,
            "flops": ours.flops / theirs.flops / pair.work,
            "tokens": [a / b / pair.work for a, b in zip(ours.tokens, theirs.tokens, strict=True)],
            "work": pair.work,
        }  # fmt: skip
    return ratios


def same_work(ratio: Mapping[str, Any]) -> str | None:
    """What differs in the work of a pair: None if tokens are equal and FLOPs are within `ALIKE`."""
    differences = []
    if ratio["tokens"] != [1.0, 1.0]:
        differences.append("tokens of encoder and decoder {:.3f} and {:.3f} times theirs".format(*ratio["tokens"]))
    if abs(ratio["flops"] - 1) > ALIKE:
        differences.append(f"FLOPs {ratio['flops']:.3f} times theirs")
    times = f" (of {ratio['work']} times the work)" if ratio["work"] > 1 else ""
    return ", ".join(differences) + times if differences else None
