"""Pictures of what a mask makes an encoder see: attention in multiples of uniform on one scale with the token framed
and marked in its place, and every image of every class where its features put it."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from lcmae_core.viewer.figures import INK
from lcmae_core.viewer.figures.levels import Looks, attention_grid, class_maps
from tests.viewer import helpers

GRID = (2, 4)


@pytest.fixture(scope="module")
def columns():
    even, rising = np.full(8, 1 / 8), np.arange(8) / 28
    return {"ratio 0.1": Looks(even, rising), "ratio 0.9": Looks(rising[::-1], even)}


@pytest.fixture(scope="module")
def figure(columns):
    image = np.linspace(-0.5, 1.5, 8 * 16 * 3).reshape(8, 16, 3)  # patches of 4 px
    return attention_grid(image, 6, GRID, columns)


def axes(figure):
    """(2, columns + 1) without the colour bar."""
    return np.array(helpers.axes(figure), dtype=object).reshape(2, -1)


def test_maps_are_multiples_of_uniform_in_their_places(figure, columns):
    for place, looks in enumerate(columns.values(), 1):
        for row, values in enumerate((looks.cls, looks.token)):
            shown = axes(figure)[row, place].images[0].get_array()
            assert shown.shape == GRID
            for token in range(8):
                assert shown[token // 4, token % 4] == pytest.approx(8 * values[token])
    assert np.allclose(axes(figure)[0, 1].images[0].get_array(), 1), "uniform is 1"


def test_all_maps_share_the_scale_of_the_colour_bar(figure):
    limits = {axis.images[0].get_clim() for axis in axes(figure)[:, 1:].flat}
    assert limits == {(0, 8 * 7 / 28)}
    (bar,) = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert bar.get_ylabel() == "x uniform"


def test_rows_and_columns_say_what_they_are(figure):
    grid = axes(figure)
    assert [axis.get_ylabel() for axis in grid[:, 0]] == ["attention of\nCLS token", "attention of\nframed token"]
    assert [axis.get_title() for axis in grid[0]] == ["", "ratio 0.1", "ratio 0.9"]
    assert not any(len(axis.get_xticks()) or len(axis.get_yticks()) for axis in grid.flat)
    for axis in grid[:, 0]:
        shown = axis.images[0].get_array()
        assert shown.shape == (8, 16, 3)
        assert (shown.min(), shown.max()) == (0, 1), "clipped"


def test_the_frame_and_the_crosses_are_on_the_token(figure):
    """Token 6 of a 2 x 4 grid: row 1, column 2; from pixel 8 across and 4 down, 4 px wide."""
    grid = axes(figure)
    (frame,) = [patch for patch in grid[1, 0].patches if isinstance(patch, Rectangle)]
    assert (*frame.get_xy(), frame.get_width(), frame.get_height()) == (7.5, 3.5, 4, 4)
    assert not grid[0, 0].patches, "the CLS token has no place"
    for axis in grid[1, 1:]:
        assert [tuple(map(list, line.get_data())) for line in axis.lines] == [([2], [1])]
    assert not any(axis.lines for axis in grid[0])


def test_every_image_is_a_point_of_its_class():
    rng = np.random.default_rng(0)
    panels = {name: rng.normal(size=(12, 2)) for name in ("one", "two", "three")}
    labels, classes = [0, 1, 2, 1] * 3, ["cat", "dog", "owl"]
    figure = class_maps(panels, labels, classes)
    assert [axis.get_title() for axis in figure.axes] == [*panels]
    for axis, points in zip(figure.axes, panels.values()):
        assert not len(axis.get_xticks())
        for number, drawn in enumerate(axis.collections):
            assert drawn.get_label() == classes[number]
            assert tuple(drawn.get_facecolor()[0, :3]) == to_rgba(INK[number])[:3]
            mine = [points[image] for image in range(12) if labels[image] == number]
            assert np.allclose(drawn.get_offsets(), mine)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == classes


def test_more_classes_than_colours_have_other_marks():
    count = len(INK) + 1
    figure = class_maps({"one": np.zeros((count, 2))}, range(count), [str(n) for n in range(count)])
    first, *_, last = figure.axes[0].collections
    assert np.array_equal(first.get_facecolor(), last.get_facecolor())
    assert first.get_paths()[0].vertices.shape != last.get_paths()[0].vertices.shape


def test_a_class_without_images_is_in_the_legend_all_the_same():
    figure = class_maps({"one": np.zeros((2, 2))}, [0, 2], ["a", "b", "c"])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    assert len(figure._repr_png_()) > 1000
