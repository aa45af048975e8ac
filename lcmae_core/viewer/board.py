"""The scoreboard as one picture: claims down, profiles across, a coloured word in each cell."""

from collections.abc import Mapping, Sequence
from textwrap import shorten

from matplotlib.patches import Rectangle

from lcmae_core.viewer.figures import Picture

COLOURS = {
    "reproduced": "#009E73", "sign right": "#8FD3BF", "partly": "#E69F00", "signs mixed": "#F3CF80",
    "not reproduced": "#D55E00", "sign wrong": "#F0AE85", "unresolved": "#BBBBBB", "not judged": "#E8E8E8",
    "not yet run": "#FFFFFF",
}  # fmt: skip
"""Verdict -> fill: full colours where intervals decided, pale ones where only a sign was looked at."""


def board(statements: Mapping[str, str], columns: Mapping[str, Sequence[str]]) -> Picture:
    """statements: claim -> what it says. columns: profile -> verdict of each claim, in their order."""
    figure = Picture(figsize=(8.4 + 1.5 * len(columns), 0.34 * len(statements) + 0.6), layout="constrained")
    axis = figure.subplots()
    for row, (name, statement) in enumerate(statements.items()):
        axis.text(0, row + 0.5, name, va="center", fontsize=9, fontweight="bold")
        axis.text(0.45, row + 0.5, shorten(statement, 112, placeholder=" …"), va="center", fontsize=8)
        for place, verdicts in enumerate(columns.values()):
            word = verdicts[row]
            left = 6.3 + 1.5 * place
            axis.add_patch(Rectangle((left, row + 0.06), 1.42, 0.88, fc=COLOURS[word], ec="0.6", lw=0.6))
            ink = "white" if word in ("reproduced", "not reproduced") else "black"
            axis.text(left + 0.71, row + 0.5, word, va="center", ha="center", fontsize=8, color=ink)
    for place, title in enumerate(columns):
        axis.text(7.01 + 1.5 * place, -0.35, title, ha="center", fontsize=9, fontweight="bold")
    axis.set_xlim(0, 6.3 + 1.5 * len(columns))
    axis.set_ylim(len(statements), -0.7)
    axis.set_axis_off()
    return figure
