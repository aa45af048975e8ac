"""One look over all figures.

Claims: a model has one colour in every kind of figure, under each of its names, whatever stands beside it, and no two
of a figure look alike; what has two signs is drawn in a map that is white at zero; noise of a per cent does not fill an
axis; every scale of attention has the mark of uniform attention where it belongs; intervals are drawn where they are
given; layers count from 1; no text is cut; colours and maps are chosen in one place.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from lcmae_core.config import profile, replace
from lcmae_core.studies.registry import STUDIES
from lcmae_core.viewer.figures import attention_row, bars, curves, heat_maps, look, looks, signed_colours
from lcmae_core.viewer.figures.blocks import block_targets
from lcmae_core.viewer.figures.board import board
from lcmae_core.viewer.figures.layers import AtlasRow, Band, attention_atlas, head_spread, layer_bands
from lcmae_core.viewer.figures.levels import Looks, attention_grid
from tests.viewer.helpers import axes

ROOT = Path(__file__).parents[2]
VALUE = np.array([0.9, 0.6, 0.7])


def scales(figure):
    return [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]


def colours_of(figure) -> dict[str, str]:
    """Label -> colour of its curve in any panel."""
    return {line.get_label(): to_hex(line.get_color()) for axis in axes(figure) for line in axis.lines}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("names", [
    ["MAE", "AE(8)", "AE(24)", "AE(40)", "AE(56)"], ["AE(16)", "MAE", "AE(48)"], ["AE(8)", "uniform"],
    ["MAE", "DINO", "supervised"], ["Siamese", "MAE", "LC-MAE", "DINO", "supervised"],
    ["(a) MAE + cross + in", "(c) cross"],
])  # fmt: skip
def test_a_model_has_one_colour_in_every_figure(names, order):
    names = names[::order]
    panel = {"x": {name: ([0, 1], [1, 2]) for name in names}}
    bands = {"x": {name: Band(VALUE, VALUE - 0.1, VALUE + 0.1) for name in names}}
    heads = {"x": {name: np.ones((3, 2)) for name in names}}
    everywhere = {name: to_hex(looks([name])[name].colour) for name in names}
    for figure in (curves(panel, "step", "loss"), layer_bands(bands, "S"), head_spread(heads, "px")):
        found = colours_of(figure)
        assert {name: found[name] for name in names} == everywhere
    blocks = [int(name[3:-1]) for name in names if name.startswith("AE(")]
    if blocks:
        targets = {"token": [np.zeros((side, side, 3)) for side in blocks]}
        figure = block_targets(np.zeros((64, 64, 3)), 8, {"token": (2, 3)}, targets)
        for side, axis in zip(blocks, figure.axes[1:], strict=True):
            assert to_hex(axis.spines["left"].get_edgecolor()) == everywhere[f"AE({side})"]


def test_a_model_has_its_colour_under_each_of_its_names():
    for same in (("MAE", "(b) MAE", "b", "transformer"), ("LC-MAE", "(a) MAE + cross + in", "a"),
                 ("AE1", "AE(8)", "AE(16)", "AE(14)"), ("AE7", "AE(56)", "AE(112)", "AE(98)"),
                 ("AE3", "AE(24)", "AE(48)"), ("ratio 0.25", "ratio .25")):  # fmt: skip
        assert len({looks([name])[name] for name in same}) == 1, same


@pytest.mark.parametrize("study", STUDIES)
def test_no_two_rows_of_a_study_look_alike(study, tmp_path):
    rows = list(STUDIES[study].rows(replace(profile("quick"), out=str(tmp_path)), "quick"))
    assert len(set(looks(rows).values())) == len(rows)


def test_others_are_told_apart_up_to_24_and_do_not_depend_on_their_order():
    names = [f"model {i}" for i in range(24)]
    assert len(set(looks(names).values())) == 24
    assert looks(names[::-1])["model 3"] == looks(names)["model 3"]
    assert looks(["b", "MAE"])["MAE"] != looks(["b", "MAE"])["b"], "the same model twice in a figure: two looks"
    assert looks(["only one"])["only one"].colour == look.INK[0]


def test_what_has_two_signs_is_white_at_zero():
    for limits in ((-1, 1), (-0.2, 0.9)):
        (axis,) = axes(heat_maps({"a": np.eye(3)}, "cosine", limits))
        assert axis.images[0].get_cmap().name == look.SIGNED
        low, high = axis.images[0].get_clim()
        assert low == -high == -max(map(abs, limits))
    (axis,) = axes(heat_maps({"a": np.eye(3)}, "share", (0, 1)))
    assert (axis.images[0].get_cmap().name, axis.images[0].get_clim()) == (look.MAP, (0, 1))
    blue, white, red = signed_colours(np.array([-2.0, 0.0, 2.0]), 2.0)
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert white.min() > 0.95
    assert any(line.get_ydata()[0] == 0 for line in bars({"a": 1, "b": -1}, "y").axes[0].lines), "bars stand on a line"


def test_noise_does_not_fill_an_axis_and_signals_do():
    noise, signal = [0.3750, 0.3751, 0.3755], [0.1, 0.5, 0.9]
    bands = {"x": {"a": Band(np.array(noise), np.array(noise) - 1e-4, np.array(noise) + 1e-4)}}
    for figure in (
        curves({"x": {"a": ([0, 1, 2], noise)}}, "step", "y"),
        layer_bands(bands, "S"),
        head_spread({"x": {"a": np.array(noise)[:, None]}}, "px"),
    ):
        low, high = figure.axes[0].get_ylim()
        assert high - low >= 0.24 * 0.3755
        assert low < 0.36
        assert high > 0.39
    low, high = curves({"x": {"a": ([0, 1, 2], signal)}}, "step", "y").axes[0].get_ylim()
    assert high - low < 1, "a real difference is not squeezed"
    limited = curves({"x": {"a": ([0, 1, 2], noise)}}, "step", "y", limits={"x": (0, 1)})
    assert limited.axes[0].get_ylim() == (0, 1)


def test_uniform_attention_is_marked_on_every_scale():
    maps = np.stack([np.full(8, 0.05), np.linspace(0, 0.7, 8)])
    picture = np.zeros((4, 8, 3))
    row = attention_row(picture, maps, (2, 4), 6, ["1", "2"], tokens=9)
    atlas = attention_atlas([AtlasRow(picture, picture, 4, maps, np.array([0.2, 0.5]))] * 2, (2, 4), ["1", "2"])
    grid = attention_grid(picture, 6, (2, 4), {"ratio 0.1": Looks(maps[0], maps[1])})
    for figure, count, at in ((row, 1, 1 / 9), (atlas, 2, 1 / 9), (grid, 1, 1.0)):
        assert len(scales(figure)) == count
        for scale in scales(figure):
            assert any(np.allclose(line.get_ydata(), at) for line in scale.lines)
    (scale,) = scales(row)
    assert scale.get_ylabel() == "attention (line: uniform, 0.11)"
    assert "uniform attention, 1/9" in atlas._supxlabel.get_text()
    (scale,) = scales(attention_row(picture, maps / 70, (2, 4), 6, ["1", "2"]))
    assert scale.get_ylabel() == "attention (uniform: 0.12)", "no line where it is beyond the end"
    lines = {"x": {"uniform": 8.3}}
    for figure in (layer_bands({"x": {"a": Band(VALUE, VALUE, VALUE)}}, "px", lines=lines),
                   head_spread({"x": {"a": np.ones((3, 2))}}, "px", lines=lines)):  # fmt: skip
        assert figure.axes[0].get_ylim()[1] > 8.3
        assert [text.get_text() for text in figure.axes[0].texts] == ["uniform"]


def test_intervals_are_drawn_where_they_are_given():
    figure = curves({"x": {"a": ([0, 1], [1, 2]), "b": ([0, 1], [2, 2])}}, "step", "y",
                    bands={"x": {"a": ([0.5, 1.5], [1.5, 2.5])}})  # fmt: skip
    (band,) = figure.axes[0].collections
    assert band.get_datalim(figure.axes[0].transData).intervaly == pytest.approx([0.5, 2.5])
    assert to_hex(band.get_facecolor()[0]) == colours_of(figure)["a"]
    alone = curves({"x": {"a": ([0.75], [1])}}, "step", "y", bands={"x": {"a": ([0.5], [1.5])}})
    assert alone.axes[0].collections[0].get_segments()[0][:, 1].tolist() == [0.5, 1.5]
    drawn = bars({"a": 2.0, "b": 1.0}, "y", ends={"b": (0.5, 1.5)}).axes[0]
    assert [(text.get_text(), text.xy) for text in drawn.texts] == [("2", (0, 2.0)), ("1", (1, 1.5))]
    assert [c.get_segments()[0].tolist() for c in drawn.collections] == [[[1, 0.5], [1, 1.5]]]


def test_layers_count_from_one():
    (axis,) = axes(heat_maps({"a": np.eye(4)}, "CKA", (0, 1), "layer", "layer", first=1))
    assert list(axis.images[0].get_extent()) == [0.5, 4.5, 4.5, 0.5]
    figure = layer_bands({"x": {"a": Band(VALUE, VALUE, VALUE)}}, "S")
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 2, 3]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        source = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
        assert not re.search(r"layers?[^.\n]{0,30}from 0", source), path.name


def test_no_statement_of_the_board_is_cut():
    long = "a statement that goes on and on " * 6
    figure = board({"C1": long, "C2": "short"}, {"quick": ["partly", "not judged"], "desk": ["partly", "sign right"]})
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert " ".join(texts[1].split()) == long.strip()
    assert not any("…" in text for text in texts)
    tall, low = (figure.axes[0].patches[place].get_height() for place in (0, 2))
    assert tall > 1.25 * low, "its row is as high as its lines"
    profiles = ("quick", "demo", "mae_visualize_vit_base", "desk")
    wide = board({"C1": long}, {name: ["not reproduced"] for name in profiles})
    assert 96 * wide.get_figwidth() < 1060, "not made smaller on a page of 1400 px"
    drawn = FigureCanvasAgg(wide).get_renderer()
    wide.draw_without_rendering()
    texts = [text.get_window_extent(drawn) for text in wide.axes[0].texts]
    cells = [patch.get_window_extent(drawn) for patch in wide.axes[0].patches]
    assert texts[1].x1 < cells[0].x0, "the statement ends before the first verdict"
    assert all(cell.x0 < word.x0 and word.x1 < cell.x1 for cell, word in zip(cells, texts[2:6], strict=True))


def test_colours_and_maps_are_chosen_in_one_place():
    found = re.compile(r"""\\?["'](viridis|RdBu|RdBu_r|plasma|magma|cividis|jet|coolwarm|tab10)\\?["']|cmap=\\?["']""")
    files = [*(ROOT / "lcmae_core").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert [f.name for f in files if f.name != "look.py" and found.search(f.read_text(encoding="utf-8"))] == []
    assert [f.name for f in files if "#0072B2" in f.read_text(encoding="utf-8")] == ["look.py"]
