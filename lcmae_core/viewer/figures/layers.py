"""Figures over layers: values with intervals, the spread over heads, and the paper's grid of attention maps.

Letters (CONTRIBUTING.md): R rows, L layers, H heads, N patches, H x W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.patches import Circle, Rectangle
from numpy.typing import NDArray

from lcmae_core.viewer.figures.basic import Images, dress
from lcmae_core.viewer.figures.look import MAP, calm, looks, mark_uniform
from lcmae_core.viewer.figures.paper import Picture

Values = NDArray[np.floating[Any]]


class Band(NamedTuple):
    """A value per layer (L,) with the lower and upper end of its interval."""

    value: Values
    low: Values
    high: Values


def layer_bands(
    panels: Mapping[str, Mapping[str, Band]],
    y: str,
    *,
    limits: tuple[float, float] | None = None,
    note: str = "",
    lines: Mapping[str, Mapping[str, float]] | None = None,
) -> Picture:
    """A panel for each entry, a line with its interval for each entry of it, over layers counted from 1; all panels
    share one y axis. `note` stands below, for what a paper reports; `lines` draws dashed references with their names,
    by panel."""
    labels = list(dict.fromkeys(label for panel in panels.values() for label in panel))
    drawn = looks(labels)
    figure = Picture(figsize=(1.2 + 3.5 * len(panels) + 0.085 * max(map(len, labels)), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, panel) in zip(axes, panels.items()):
        for label, band in panel.items():
            (colour, style), layers = drawn[label], np.arange(len(band.value)) + 1
            axis.fill_between(layers, band.low, band.high, color=colour, alpha=0.2, lw=0)
            axis.plot(layers, band.value, "o" + style, color=colour, ms=3.5, lw=1.4, label=label)
        dress(axis, title, "layer", y if axis is axes[0] else "")
        axis.set_xticks(layers[:: 1 + len(layers) // 13])
        _references(axis, (lines or {}).get(title, {}))
    if limits:
        axes[0].set_ylim(*limits)
    else:
        calm(axes[0])
    _legend(figure, axes, labels)
    if note:
        figure.supxlabel(note, fontsize=8, color="0.3")
    return figure


def head_spread(
    panels: Mapping[str, Mapping[str, Values]],
    y: Mapping[str, str] | str,
    *,
    lines: Mapping[str, Mapping[str, float]] | None = None,
    share_y: bool = False,
) -> Picture:
    """A panel for each entry, a line of means over heads for each entry (L, H) of it, with every head as a dot.

    `lines` draws dashed references with their names, by panel.
    """
    labels = list(dict.fromkeys(label for panel in panels.values() for label in panel))
    drawn = looks(labels)
    figure = Picture(figsize=(1.2 + 3.6 * len(panels) + 0.085 * max(map(len, labels)), 3.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=share_y)[0]
    for axis, (title, panel) in zip(axes, panels.items()):
        axis.tick_params(labelleft=True)  # also where the axis is shared: panels may be shown one below the other
        for label, values in panel.items():
            (colour, style), place, layers = drawn[label], labels.index(label), np.arange(len(values)) + 1
            shift = 0.5 * ((place + 0.5) / len(labels) - 0.5)  # side by side, so that no dots hide others
            for head in values.T:
                axis.plot(layers + shift, head, ".", color=colour, ms=4, alpha=0.45)
            axis.plot(layers + shift, values.mean(1), style, color=colour, lw=1.6, label=label)
        dress(axis, title, "layer", y if isinstance(y, str) else y[title])
        axis.set_xticks(layers[:: 1 + len(layers) // 13])
        _references(axis, (lines or {}).get(title, {}))
        calm(axis)
    _legend(figure, axes, labels)
    return figure


def _references(axis: Any, lines: Mapping[str, float]) -> None:
    for name, level in lines.items():
        axis.axhline(level, color="0.4", ls="--", lw=1)
        axis.annotate(name, (0.01, level), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")


class AtlasRow(NamedTuple):
    """A row of the atlas: the image and its masked version, each (H, W, 3), the query patch, maps (L, N) and the
    attention on CLS (L,), None where there is no CLS."""

    image: Images
    masked: Images
    query: int
    maps: Values
    cls: Values | None


def attention_atlas(rows: Sequence[AtlasRow], grid: tuple[int, int], titles: Sequence[str]) -> Picture:
    """v2 Fig. 4 and B.1: image, masked image and one map a layer in each row, on one colour scale a row.

    The red circle marks the query. The block in the top left corner of a map is the attention on CLS, on that scale,
    with its value in per cent. The line on a colour bar is uniform attention, 1 / tokens.
    """
    count = len(rows[0].maps) + 2
    figure = Picture(figsize=(1.25 * count + 0.9, 1.32 * len(rows) + 0.2), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, row in zip(axes, rows):
        top = float(row.maps.max())
        _query(line[0], np.clip(row.image, 0, 1), grid, row.query)
        _query(line[1], np.clip(row.masked, 0, 1), grid, row.query)
        for place, (axis, values) in enumerate(zip(line[2:], row.maps)):
            shown = axis.imshow(values.reshape(grid), cmap=MAP, vmin=0, vmax=top)
            axis.add_patch(Circle((row.query % grid[1], row.query // grid[1]), 0.55, fill=False, ec="red", lw=1.4))
            if row.cls is not None:
                _corner(axis, float(row.cls[place]), top, grid)
        bar = figure.colorbar(shown, ax=line.tolist(), shrink=0.8, pad=0.01)
        bar.ax.tick_params(labelsize=7)
        tokens = row.maps.shape[1] + (row.cls is not None)
        mark_uniform(bar, 1 / tokens)
    figure.supxlabel(f"line on a colour bar: uniform attention, 1/{tokens} = {1 / tokens:.2g}", fontsize=8, color="0.3")
    for axis, title in zip(axes[0], ["image", "masked", *titles]):
        axis.set_title(title, fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def _query(axis: Any, image: Images, grid: tuple[int, int], query: int) -> None:
    axis.imshow(image)
    side = image.shape[0] / grid[0], image.shape[1] / grid[1]
    centre = (query % grid[1] + 0.5) * side[1] - 0.5, (query // grid[1] + 0.5) * side[0] - 0.5
    axis.add_patch(Circle(centre, 0.55 * min(side), fill=False, ec="red", lw=1.4))


def _corner(axis: Any, value: float, top: float, grid: tuple[int, int]) -> None:
    """A block of about two patches for the attention on CLS."""
    side = max(grid) / 4.5
    colour = axis.images[0].cmap(min(value / top, 1.0))
    axis.add_patch(Rectangle((-0.5, -0.5), side, side, fc=colour, ec="white", lw=1))
    ink = "black" if sum(colour[:3]) > 1.5 else "white"
    axis.text(side / 2 - 0.5, side / 2 - 0.5, f"{100 * value:.0f}", fontsize=7, color=ink, ha="center", va="center")


def _legend(figure: Picture, axes: Any, labels: Sequence[str]) -> None:
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    if len(labels) > 1:
        ordered = [handles[label] for label in labels]
        figure.legend(ordered, labels, loc="outside right center", fontsize=8, frameon=False)
