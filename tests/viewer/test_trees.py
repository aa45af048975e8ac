"""Trees as pictures.

Claims: parents stand above the middle of their children and leaves side by side, without crossing; a hidden leaf, the
identifiable set and what it determines look as the legend says; numbers of a heat map are written where they belong.
"""

import numpy as np

from lcmae_core.data.hierarchical import make_tree
from lcmae_core.viewer.figures.trees import (
    CHOSEN,
    DETERMINED,
    HIDDEN,
    MaskedTree,
    recovery_maps,
    tree_places,
    tree_rows,
)

EDGES = [("r", "a"), ("r", "b"), ("a", "1"), ("b", "2"), ("a", "3"), ("b", "4")]
TREE = make_tree(EDGES, dict.fromkeys("rab1234", 1))


def test_places_by_hand():
    places = tree_places(TREE)
    assert {name: places[name] for name in "1324"} == {"1": (0, -2), "3": (1, -2), "2": (2, -2), "4": (3, -2)}
    assert {name: places[name] for name in "abr"} == {"a": (0.5, -1), "b": (2.5, -1), "r": (1.5, 0)}


def test_marks_say_what_a_mask_makes_of_a_variable():
    figure = tree_rows({"one": MaskedTree(TREE, "1", ("a",), {"a", "r"})})
    drawn = {tuple(float(v[0]) for v in line.get_data()): line for line in figure.axes[0].lines
             if line.get_marker() in ("s", "o") and len(line.get_xdata())}  # fmt: skip
    look = {name: drawn[place] for name, place in tree_places(TREE).items()}
    assert [look[name].get_marker() for name in "1ar"] == ["s", "o", "o"]
    assert [look[name].get_markerfacecolor() for name in "13ar"] == [HIDDEN, "white", CHOSEN, "white"]
    assert look["r"].get_markeredgecolor() == DETERMINED != look["b"].get_markeredgecolor()
    assert {text.get_text() for text in figure.axes[0].texts} >= {"r\n1", "a\n2", "1\n3"}


def test_heat_maps_write_their_numbers():
    figure = recovery_maps(
        {"p": np.array([[0.0, 0.25, 1.0], [0.5, 0.75, -0.001]])}, ["u", "v"], ["x", "y", "z"], "share"
    )
    written = {text.xy: text.get_text() for text in figure.axes[0].texts}
    assert written[(1, 0)] == "0.25"
    assert written[(2, 1)] == "0.00"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["u", "v"]
