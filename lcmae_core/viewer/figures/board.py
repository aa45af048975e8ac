"""The scoreboard as one picture: claims down, profiles across, a coloured word in each cell; and how far its intervals
can be trusted."""

import re
from collections.abc import Mapping, Sequence
from textwrap import wrap

from matplotlib.patches import Rectangle

from lcmae_core.viewer.figures.look import INK
from lcmae_core.viewer.figures.paper import Picture

COLOURS = {
    "reproduced": "#009E73", "sign right": "#8FD3BF", "partly": "#E69F00", "signs mixed": "#F3CF80",
    "not reproduced": "#D55E00", "sign wrong": "#F0AE85", "unresolved": "#BBBBBB", "not judged": "#E8E8E8",
    "not yet run": "#FFFFFF",
}  # fmt: skip
"""Verdict -> fill: full colours where intervals decided, pale ones where only a sign was looked at."""

SAID, COLUMN = 5.2, 1.2
"""Inches that the statements and each profile take: with four profiles the letters stay whole on a page of 1400 px."""


def board(statements: Mapping[str, str], columns: Mapping[str, Sequence[str]]) -> Picture:
    """statements: claim -> what it says. columns: profile -> verdict of each claim, in their order."""
    lines = {name: wrap(statement, 78) for name, statement in statements.items()}
    heights = [max(1.0, 0.25 + 0.52 * len(text)) for text in lines.values()]
    figure = Picture(figsize=(SAID + COLUMN * len(columns), 0.34 * sum(heights) + 0.6), layout="constrained")
    axis = figure.subplots()
    for row, (name, text) in enumerate(lines.items()):
        top, middle = sum(heights[:row]), sum(heights[:row]) + heights[row] / 2
        axis.text(0, middle, name, va="center", fontsize=9, fontweight="bold")
        axis.text(0.45, middle, "\n".join(text), va="center", fontsize=8)
        for place, verdicts in enumerate(columns.values()):
            word = verdicts[row]
            left = SAID + COLUMN * place
            axis.add_patch(
                Rectangle((left, top + 0.06), COLUMN - 0.07, heights[row] - 0.12, fc=COLOURS[word], ec="0.6", lw=0.6)
            )
            ink = "white" if word in ("reproduced", "not reproduced") else "black"
            axis.text(left + COLUMN / 2 - 0.035, middle, word, va="center", ha="center", fontsize=8, color=ink)
    titles = [broken(title) for title in columns]
    for place, title in enumerate(titles):
        size = 9 if "\n" not in title else 7
        axis.text(
            SAID + COLUMN * (place + 0.5) - 0.035,
            -0.1,
            title,
            ha="center",
            va="bottom",
            fontsize=size,
            fontweight="bold",
        )
    axis.set_xlim(0, SAID + COLUMN * len(columns))
    axis.set_ylim(sum(heights), -0.7 - 0.45 * max(title.count("\n") for title in titles))
    axis.set_axis_off()
    return figure


def broken(title: str, width: int = 15) -> str:
    """A long name of a checkpoint in lines that fit a column, broken behind its underscores and hyphens."""
    lines = [""]
    for part in re.findall(r"[^_-]*[_-]?", title):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def coverage_curves(
    ratios: Sequence[float],
    covered: Mapping[str, Sequence[float]],
    errors: Mapping[str, Sequence[float]],
    bounds: Mapping[str, float],
) -> Picture:
    """How often intervals hold the truth (share, with two standard errors of the simulation) over what seeds add to the
    variance over what images add; dashed in the same colour: the least that is asked of each kind."""
    figure = Picture(figsize=(8.2, 3.6), layout="constrained")
    axis = figure.subplots()
    for place, (label, shares) in enumerate(covered.items()):
        colour = INK[place % len(INK)]
        spread = [2 * error for error in errors[label]]
        axis.errorbar(ratios, shares, spread, color=colour, label=label, marker="o", ms=3, lw=1.4, capsize=2)
        axis.axhline(bounds[label], color=colour, ls="--", lw=0.8)
    axis.axhline(0.95, color="0.5", lw=0.8)
    axis.set_xscale("log")
    axis.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("variance of the mean by seeds / by images")
    axis.set_ylabel("intervals that hold the truth")
    axis.set_axisbelow(True)
    axis.grid(alpha=0.25)
    figure.legend(loc="outside right center", fontsize=8)
    return figure
