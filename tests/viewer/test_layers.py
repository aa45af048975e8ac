"""Figures over layers show every value with its interval or its heads, and the atlas marks query and CLS to scale."""

import numpy as np
import pytest

from lcmae_core.viewer.figures.layers import AtlasRow, Band, attention_atlas, head_spread, layer_bands
from tests.viewer.helpers import axes


def test_bands_count_layers_from_one_and_share_the_axis():
    value = np.array([0.9, 0.6, 0.7])
    band = Band(value, value - 0.1, value + 0.05)
    figure = layer_bands({"left": {"a": band}, "right": {"b": band}}, "S", limits=(0, 1), note="published: 0.9")
    left, right = axes(figure)
    assert left.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert left.get_ylim() == right.get_ylim() == (0, 1)
    low, high = left.collections[0].get_datalim(left.transData).intervaly
    assert (low, high) == pytest.approx((0.5, 0.95))
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == ("layer", "S", "")
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["a", "b"]
    assert figure._supxlabel.get_text() == "published: 0.9"


def test_every_head_is_a_dot_around_the_mean():
    values = {"MAE": np.array([[1.0, 3.0], [2.0, 6.0]]), "DINO": np.array([[2.0, 2.0], [3.0, 5.0]])}
    axis = axes(head_spread({"distance": values}, "px", lines={"distance": {"uniform": 7.0}}))[0]
    dots = [line for line in axis.lines if line.get_marker() == "."]
    means = [line for line in axis.lines if line.get_label() in values]
    assert len(dots) == 4
    assert [line.get_ydata().tolist() for line in means] == [[2, 4], [2, 4]]
    assert dots[0].get_xdata()[0] != dots[2].get_xdata()[0], "two labels side by side"
    assert [t.get_text() for t in axis.texts] == ["uniform"]


def test_the_atlas_marks_query_and_cls_on_one_scale_a_row():
    maps = np.stack([np.full(6, 0.1), np.linspace(0, 0.5, 6)])
    picture = np.zeros((4, 6, 3))
    rows = [
        AtlasRow(picture, picture, 4, maps, np.array([0.25, 0.5])),
        AtlasRow(picture, picture, 0, maps / 2, None),
    ]
    figure = attention_atlas(rows, (2, 3), ["layer 1", "layer 8"])
    grid = np.array(axes(figure), dtype=object).reshape(2, 4)
    assert [axis.get_title() for axis in grid[0]] == ["image", "masked", "layer 1", "layer 8"]
    assert {axis.images[0].get_clim() for axis in grid[0, 2:]} == {(0, 0.5)}
    assert {axis.images[0].get_clim() for axis in grid[1, 2:]} == {(0, 0.25)}
    assert grid[0, 2].patches[0].center == (1, 1)  # patch 4 of a 2x3 grid
    assert grid[0, 0].patches[0].center == (2.5, 2.5)  # the same place in 2 px patches
    block = grid[0, 3].patches[1]
    assert block.get_xy() == (-0.5, -0.5)
    assert block.get_facecolor() == grid[0, 3].images[0].cmap(1.0)
    assert [axis.texts[0].get_text() for axis in grid[0, 2:]] == ["25", "50"]
    assert not grid[1, 2].texts
