"""The split of v's variance is drawn as it is: one stacked bar a row, pieces of the right height on each other."""

import pytest

from lcmae_core.viewer.figures.collapse import PARTS, variance_split


def test_bars_stack_to_one():
    rows = {
        "(c)": dict(zip(PARTS, (0.99, 0.0, 0.01, 0.0))),
        "(g)": dict(zip(PARTS, (0.65, 0.0, 0.13, 0.22))),
        "constant": dict.fromkeys(PARTS, 0.0),
    }
    axis = variance_split(rows, title="Table 1").axes[0]
    bars = [list(container) for container in axis.containers]
    for place, shares in enumerate(rows.values()):
        low = 0.0
        for piece, share in zip((bar[place] for bar in bars), shares.values()):
            assert (piece.get_y(), piece.get_height()) == pytest.approx((low, share))
            low += share
    assert [label.get_text() for label in axis.get_xticklabels()] == [*rows]
    assert [text.get_text() for text in axis.texts if text.get_text()] == ["0.99", "0.65", "0.13", "0.22"]
    assert axis.get_ylabel() == "share of v's variance"
