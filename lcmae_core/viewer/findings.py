"""Captions whose findings are worked out from the numbers they are about: true of whatever is on the screen.

A notebook writes a sentence once. Which word it takes (above, below, rises, not told apart ...) follows from the
values, and these travel with the caption as metadata of its output, so that a test can hold the word against them.

Letter: M images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lcmae_core.analysis.intervals import interval, two_way

MARKDOWN = "text/markdown"
APART = ("above", "below", "not told apart from")
COURSE = ("rises", "falls", "stays")
ALONG = ("rises throughout", "falls throughout", "goes up and down", "stays the same")


@dataclass(frozen=True)
class Finding:
    """A sentence, or a part of one, with what it was computed from.

    kind: apart, order, course, along or meaning. says: the words that the values decided. values: name -> number.
    intervals: name -> 95 % interval of the difference, where images could be compared one by one.
    """

    text: str
    kind: str
    says: Sequence[str]
    values: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def ledger(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        intervals = {name: [float(low), float(high)] for name, (low, high) in self.intervals.items()}
        values = {name: _plain(value) for name, value in self.values.items()}
        return {"kind": self.kind, "text": self.text, "says": list(self.says), "values": values, "intervals": intervals}


@dataclass(frozen=True)
class Caption:
    """What stands under a figure: plain words, which find nothing, and findings, in the order of reading."""

    parts: Sequence[str | Finding]

    def __str__(self) -> str:
        return " ".join(str(getattr(part, "text", part)) for part in self.parts if part)

    @property
    def findings(self) -> list[Finding]:
        """The parts that were worked out."""
        return [part for part in self.parts if isinstance(part, Finding)]

    def _repr_markdown_(self) -> str:
        return f"*{self}*"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        ledger = {"findings": [finding.ledger for finding in self.findings]}
        return {MARKDOWN: self._repr_markdown_(), "text/plain": str(self)}, {MARKDOWN: ledger}


def caption(*parts: str | Finding) -> Caption:
    """The caption of the figure above it; empty parts are left out. What was seen, and not worked out, is a part with
    `if nb.as_stored else ""`: silent for another profile, seed or source."""
    return Caption(tuple(part for part in parts if part))


def digits(value: float) -> str:
    """Three significant digits without an exponent, where that can be: 0.00347, 18.3, 1150; nan is said as it is."""
    if not math.isfinite(value) or value == 0:
        return f"{value:.0f}" if value == 0 else str(float(value))
    if not 1e-6 < abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))}f}"


def paired_interval(one: Any, other: Any, widen: float = 1.0) -> tuple[float, float] | None:
    """95 % interval (Student's t) of the mean difference of two measures of the same M images, or of one of them and a
    fixed number; None of fewer than two images, and of single numbers."""
    first, second = _numbers(one), _numbers(other)
    if first.ndim != 1 or second.shape not in (first.shape, ()) or len(first) < 2:
        return None
    gap = first - second
    middle = float(gap.mean())
    half = widen * (float(interval(middle, two_way(gap[None])).high) - middle)
    return middle - half, middle + half


def apart(
    quantity: str, one: tuple[str, Any], others: Mapping[str, Any], unit: str = "", *, widen: float = 1.0
) -> Finding:
    """Where one thing stands beside others: `one` is (name, value), a value a number, or M numbers of the same images.

    With numbers of images the word is that of the paired 95 % interval; of single numbers it is that of their digits
    as they are shown, and the sentence says that there is no interval. `widen`: 2 for the terms of a mean over pairs of
    images (Eq. 7), whose deviations are half of those of the mean.
    """
    means = {name: float(_numbers(value).mean()) for name, value in (one, *others.items())}
    name, words, told = one[0], [], []
    intervals: dict[str, tuple[float, float]] = {}
    for other, value in others.items():
        reach = paired_interval(one[1], value, widen)
        words.append(_apart_word(means[name], means[other], reach))
        beside = "no interval" if reach is None else f"difference {digits(reach[0])} to {digits(reach[1])}"
        told.append(f"{words[-1]} {other} ({_with(means[other], unit)}; {beside})")
        if reach is not None:
            intervals[other] = reach
    counted = f", 95 % intervals over {_numbers(one[1]).size} images" if intervals else ""
    text = f"{quantity}{counted}: {name} ({_with(means[name], unit)}) is {_listed(told)}."
    return Finding(text, "apart", words, means, intervals)


def order(quantity: str, values: Mapping[str, float], unit: str = "") -> Finding:
    """Which of several is highest and which lowest; of values that are shown alike, neither."""
    plain = {name: float(value) for name, value in values.items()}
    high, low = max(plain, key=plain.__getitem__), min(plain, key=plain.__getitem__)
    if digits(plain[high]) == digits(plain[low]):
        return Finding(f"{quantity}: {_with(plain[high], unit)} everywhere.", "order", ["everywhere"], plain)
    text = f"{quantity}: highest in {high} ({_with(plain[high], unit)}), lowest in {low} ({_with(plain[low], unit)})."
    return Finding(text, "order", [high, low], plain)


def course(quantity: str, first: tuple[str, float], last: tuple[str, float], unit: str = "") -> Finding:
    """How something goes from one state to another: each (name, value)."""
    (begin, before), (end, after) = (first[0], float(first[1])), (last[0], float(last[1]))
    alike = digits(before) == digits(after)
    word = COURSE[2] if alike or math.isnan(before - after) else COURSE[0] if after > before else COURSE[1]
    where = f"from {digits(before)} ({begin}) to {_with(after, unit)} ({end})"
    text = f"{quantity} {word} {f'at {_with(after, unit)} ({begin}, {end})' if alike else where}."
    return Finding(text, "course", [word], {begin: before, end: after})


def along(quantity: str, over: str, values: Mapping[str, float], unit: str = "") -> Finding:
    """How something goes over ordered things, such as layers or mask ratios, with Spearman's rank correlation."""
    plain = {name: float(value) for name, value in values.items()}
    line = np.array([*plain.values()])
    steps = np.diff(line)
    if len(line) < 2 or digits(line.max()) == digits(line.min()):
        return Finding(f"{quantity} stays the same over {over}: {_with(line[0], unit)}.", "along", [ALONG[3]], plain)
    word = ALONG[0] if (steps > 0).all() else ALONG[1] if (steps < 0).all() else ALONG[2]
    from scipy.stats import spearmanr  # half a second, which few who import this module need

    rank = float(spearmanr(np.arange(len(line)), line).statistic)
    (begin, *_, end) = plain
    text = (
        f"{quantity} {word} over {over} ({_with(plain[begin], unit)} at {begin}, {_with(plain[end], unit)} at {end}, "
        f"rank correlation {rank:.2f})."
    )
    return Finding(text, "along", [word], plain)


def meaning(quantity: str, value: float, *bands: tuple[float, str], unit: str = "") -> Finding:
    """What a value means: the words of the first band whose upper limit it does not exceed, (limit, words) each; the
    last one's limit is infinity."""
    number = float(value)
    words = next((words for limit, words in bands if number <= limit), bands[-1][1])
    limits = {f"up to {limit:g}": limit for limit, _ in bands}
    text = f"{quantity} is {_with(number, unit)}: {words}."
    return Finding(text, "meaning", [words, *(told for _, told in bands)], {quantity: number} | limits)


def _numbers(values: Any) -> np.ndarray:
    """Of a tensor on any device, too."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)


def _apart_word(one: float, other: float, reach: tuple[float, float] | None) -> str:
    """above, below, or neither."""
    if reach is None:
        alike = digits(one) == digits(other) or math.isnan(one - other)
        return APART[2] if alike else APART[0] if one > other else APART[1]
    return APART[0] if reach[0] > 0 else APART[1] if reach[1] < 0 else APART[2]


def _with(value: float, unit: str) -> str:
    return f"{digits(value)} {unit}".rstrip() if unit != "%" else f"{digits(value)} %"


def _listed(parts: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _plain(value: Any) -> Any:
    """A number as JSON has it: infinity and nan as words."""
    return float(value) if math.isfinite(value) else str(float(value))
