"""Tables escape what they show and line up; the scoreboard has a colour for every verdict; Fig. 7 outlines what its
targets are cut from."""

import numpy as np
import pytest

from lcmae_core.studies import judge
from lcmae_core.studies.judge import Estimate, Outcome, verdict
from lcmae_core.viewer.figures.blocks import block_targets
from lcmae_core.viewer.figures.board import COLOURS, board
from lcmae_core.viewer.tables import Table

TABLE = Table(["row", "a < b"], [["AE(8)", "not yet run"], ["long name of a row", "1 & 2"]], "in %")


def test_a_table_as_html():
    html = TABLE._repr_html_()
    assert "<th>a &lt; b</th>" in html
    assert "<td>1 &amp; 2</td>" in html
    assert html.count("<tr>") == 3
    assert "<caption>in %</caption>" in html


def test_a_table_as_text():
    caption, head, first, second = repr(TABLE).splitlines()
    assert caption == "in %"
    assert head.index("a < b") == first.index("not yet run") == second.index("1 & 2")


def outcomes(*holds):
    sure = {True: (1.0, 2.0), False: (-2.0, -1.0), None: (-1.0, 1.0)}
    test = judge.Test("", (), float, low=0.0)
    return [Outcome(test, Estimate(np.mean(sure[h]).item(), *sure[h], 3, 10), h) for h in holds]


def test_every_verdict_has_a_colour():
    kinds = [(True,), (False,), (None,), (True, False), (True, None), (False, None)]
    words = {verdict(outcomes(*holds), signs_only=only) for holds in kinds for only in (False, True)}
    assert words | {"not judged", "not yet run"} == set(COLOURS)


def test_the_board_shows_every_claim_once():
    figure = board({"C1": "one", "C2": "two"}, {"quick": ["sign right", "not judged"], "lab": ["not yet run"] * 2})
    said = [text.get_text() for text in figure.axes[0].texts]
    assert [said.count(word) for word in ("C1", "C2", "sign right", "not judged", "not yet run", "lab")] == [
        1,
        1,
        1,
        1,
        2,
        1,
    ]
    assert len(figure.axes[0].patches) == 4


@pytest.mark.parametrize("place", [(1, 2), (0, 3)])
def test_blocks_are_outlined_where_they_are_cut(place):
    image = np.random.default_rng(0).random((32, 32, 3))
    targets = {"token": [np.zeros((8, 8, 3)), np.zeros((24, 24, 3))]}
    figure = block_targets(image, 8, {"token": place}, targets)
    small, large = figure.axes[0].patches
    assert (small.get_x(), small.get_y()) == (8 * place[1], 8 * place[0])
    assert (large.get_x(), large.get_y()) == (8 * (place[1] - 1), 8 * (place[0] - 1))
    assert large.get_width() == 24
    assert [axis.get_title() for axis in figure.axes[1:]] == ["AE(8)", "AE(24)"]
