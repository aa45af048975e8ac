"""Figures are complete: labelled axes, one colour a label, one scale across maps, PNG without a backend."""

import numpy as np
import pytest

from lcmae_core.viewer.controls import live
from lcmae_core.viewer.figures import basic as figures
from tests.viewer.helpers import axes


def test_a_picture_shows_itself_as_png():
    png = figures.bars({"a": 1.0}, "value")._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 1000


def test_rows_are_labelled_and_values_clipped():
    figure = figures.image_rows({"one": np.full((2, 4, 4, 3), 1.5), "two": np.zeros((1, 4, 4, 3))}, ["x", "y"])
    grid = axes(figure)
    assert [grid[0].get_ylabel(), grid[2].get_ylabel()] == ["one", "two"]
    assert [axis.get_title() for axis in grid[:2]] == ["x", "y"]
    assert grid[0].images[0].get_array().max() == 1
    assert not grid[3].images


def test_a_label_keeps_its_colour_across_panels():
    panels = {"left": {"b": ([0, 1], [1, 2])}, "right": {"a": ([0, 1], [0, 1]), "b": ([0, 1], [1, 1])}}
    left, right = axes(figures.curves(panels, "step", {"left": "loss", "right": "rank"}, lines={"left": 1.0}))
    colours = {line.get_label(): line.get_color() for line in right.lines}
    assert left.lines[0].get_color() == colours["b"] != colours["a"]
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == ("step", "loss", "rank")
    assert left.lines[1].get_ydata()[0] == 1.0


def test_heat_maps_share_one_scale():
    figure = figures.heat_maps({"a": np.eye(3), "b": np.ones((3, 3))}, "cosine", (-1, 1), "j", "i")
    assert {axis.images[0].get_clim() for axis in axes(figure)} == {(-1, 1)}
    assert figure.axes[-1].get_ylabel() == "cosine"


def test_attention_marks_the_query_and_shares_one_scale():
    maps = np.stack([np.full(8, 0.1), np.linspace(0, 0.7, 8)])
    figure = figures.attention_row(np.zeros((4, 8, 3)), maps, (2, 4), query=6, titles=["layer 1", "layer 2"])
    image, *rest = axes(figure)
    assert {axis.images[0].get_clim() for axis in rest} == {(0, 0.7)}
    assert all((axis.lines[0].get_xdata()[0], axis.lines[0].get_ydata()[0]) == (2, 1) for axis in rest)
    assert image.patches[0].get_xy() == (3.5, 1.5)  # column 2 and row 1 of 2 px patches
    assert [axis.get_title() for axis in (image, *rest)] == ["query", "layer 1", "layer 2"]


@pytest.fixture
def drawn():
    return []


def draw_into(drawn):
    def draw(ratio=0.5, kind="a", image=2):
        drawn.append((ratio, kind, image))
        return figures.bars({"x": ratio}, "y")

    return draw


def test_controls_start_at_the_defaults_and_redraw(drawn, monkeypatch):
    monkeypatch.delenv("LCMAE_HEADLESS", raising=False)
    box = live(draw_into(drawn), ratio=(0.1, 0.9, 0.1), kind=["a", "b"], image=(0, 5))
    assert drawn == [(0.5, "a", 2)]
    ratio, kind, image = box.children[0].children
    ratio.value, kind.value, image.value = 0.7, "b", 4
    assert drawn[-1] == (0.7, "b", 4)


def test_nothing_is_shown_where_nobody_is_there(drawn, monkeypatch):
    monkeypatch.setenv("LCMAE_HEADLESS", "1")
    assert live(draw_into(drawn), ratio=(0.1, 0.9)) is None
    assert not drawn
