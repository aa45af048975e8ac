"""A claim as a picture: each of its tests, with the range that it asks for and the intervals that were measured."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lcmae_core.viewer.figures.look import INK
from lcmae_core.viewer.figures.paper import Picture

ASKED = "#cfe8cf"


class Measurement(NamedTuple):
    """A measured value with the ends of its interval, which may be unknown (nan)."""

    value: float
    low: float
    high: float


class ClaimTest(NamedTuple):
    """A test in words, its range (the ends may be infinite), and what was measured of it by profile."""

    text: str
    low: float
    high: float
    measured: Mapping[str, Measurement]


def claim_tests(tests: Sequence[ClaimTest], size: float = 7.2) -> Picture:
    """A panel a test: the range that the claim asks for in green, and for each profile its value with the 95 %
    interval. Every panel has the unit of its own test."""
    labels = [*dict.fromkeys(name for test in tests for name in test.measured)]
    heights = [0.62 + 0.2 * len(labels) + 0.16 * len(_lines(test.text)) for test in tests]
    figure = Picture(figsize=(size, sum(heights) + 0.1), layout="constrained")
    axes = figure.subplots(len(tests), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, test in zip(axes, tests):
        left, right = _limits(test)
        axis.axvspan(max(test.low, left), min(test.high, right), color=ASKED, lw=0, label="asked")
        for row, (name, estimate) in enumerate(test.measured.items()):
            colour = INK[labels.index(name) % len(INK)]
            axis.plot([estimate.low, estimate.high], [row, row], "-", color=colour, lw=2.2, solid_capstyle="butt")
            axis.plot([estimate.value], [row], "o", color=colour, ms=5)
        axis.set_yticks(range(len(test.measured)), [*test.measured], fontsize=8)
        axis.set_ylim(len(test.measured) - 0.4, -0.6)
        axis.set_xlim(left, right)
        axis.tick_params(axis="x", labelsize=8)
        axis.set_title("\n".join(_lines(test.text)), fontsize=8.5, loc="left")
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.tick_params(axis="y", length=0)
    return figure


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, 100) or [""]


def _limits(test: ClaimTest) -> tuple[float, float]:
    """An axis that holds all intervals and the finite ends of the range, with some air."""
    ends = [x for estimate in test.measured.values() for x in estimate if np.isfinite(x)]
    ends += [x for x in (test.low, test.high) if np.isfinite(x)]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    air = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    return low - air, high + air
