"""Pictures of collapse: of what v depends, row by row.

Letters (CONTRIBUTING.md): R rows.
"""

from collections.abc import Mapping, Sequence

from lcmae_core.viewer.figures.basic import dress
from lcmae_core.viewer.figures.look import INK
from lcmae_core.viewer.figures.paper import Picture

PARTS = ("position", "mask", "image", "interaction")
"""Of which v's variance is the sum."""


def variance_split(
    rows: Mapping[str, Mapping[str, float]], parts: Sequence[str] = PARTS, *, title: str = ""
) -> Picture:
    """A stacked bar for each row: the shares of v's variance, each share from .06 on written into its piece. A row
    whose shares are all 0 is a v that does not vary at all."""
    figure = Picture(figsize=(0.8 * len(rows) + 3.0, 3.2), layout="constrained")
    axis = figure.subplots()
    names, below = list(rows), [0.0] * len(rows)
    for ink, part in zip(INK, parts):
        shares = [rows[name].get(part, 0.0) for name in names]
        drawn = axis.bar(names, shares, bottom=below, color=ink, width=0.65, label=part)
        axis.bar_label(drawn, [f"{share:.2f}" if share >= 0.06 else "" for share in shares], label_type="center",
                       fontsize=8, color="white")  # fmt: skip
        below = [low + share for low, share in zip(below, shares)]
    axis.set_ylim(0, 1)
    dress(axis, title, "", "share of v's variance")
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    return figure
