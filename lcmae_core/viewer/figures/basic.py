"""Figures: plain arrays in, one labelled Figure out, with no pyplot state.

Letters (CONTRIBUTING.md): H x W pixels, N patches. In words: images (of a row), panels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from lcmae_core.viewer.figures.look import INK, MAP, calm, looks, map_of, mark_uniform
from lcmae_core.viewer.figures.paper import Picture

Images = NDArray[np.floating[Any]]
Curve = tuple[Sequence[float], Sequence[float]]


def image_rows(rows: Mapping[str, Images], columns: Sequence[str] = (), size: float = 1.15) -> Picture:
    """One labelled row of images, each (images, H, W, 3) in [0, 1], for every entry; `columns` titles the first row."""
    count = max(len(images) for images in rows.values())
    figure = Picture(figsize=(size * count + 1.6, size * len(rows) + 0.3 * bool(columns)), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for (label, images), line in zip(rows.items(), axes):
        for column, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
            if column < len(images):
                axis.imshow(np.clip(images[column], 0, 1), interpolation="nearest")
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9 if count <= 10 else 9.5)
    for axis, title in zip(axes[0], columns):
        axis.set_title(title, fontsize=8 if count <= 10 else 9.5)  # a wide figure is shown smaller
    return figure


def curves(
    panels: Mapping[str, Mapping[str, Curve]],
    x: str,
    y: Mapping[str, str] | str,
    *,
    log_x: bool = False,
    limits: Mapping[str, tuple[float, float]] | None = None,
    lines: Mapping[str, float] | None = None,
    ticks: Sequence[float] | None = None,
    bands: Mapping[str, Mapping[str, Curve]] | None = None,
) -> Picture:
    """A panel for each entry of `panels`, a curve for each entry of it.
    A model has its colour in every figure (`look.looks`); an axis is not narrower than `look.LEAST_SPAN` of its values.

    `y` labels the axes (one for all, or one a panel), `limits` sets their ranges, `lines` draws dashed references,
    `ticks` says which x are labelled. `bands`: lower and upper end of the interval at every x, where a curve has one.
    """
    labels = list(dict.fromkeys(label for panel in panels.values() for label in panel))
    drawn = looks(labels)
    legend = 0.09 * max(map(len, labels)) * (len(labels) > 1)
    figure = Picture(figsize=(0.4 + 3.6 * len(panels) + legend, 3.0), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, panel) in zip(axes, panels.items()):
        for label, (steps, values) in panel.items():
            colour, style = drawn[label]
            marker = "o" if len(steps) < 30 else None
            axis.plot(steps, values, style, color=colour, label=label, marker=marker, ms=3, lw=1.4)
            if bands and label in bands.get(title, {}):
                interval(axis, steps, *bands[title][label], colour)
        dress(axis, title, x, y if isinstance(y, str) else y[title], log_x)
        if ticks is not None:
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        if lines and title in lines:
            axis.axhline(lines[title], color="0.5", ls="--", lw=1)
        if limits and title in limits:
            axis.set_ylim(*limits[title])
        else:
            calm(axis)
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    if len(handles) > 1:
        ordered = [handles[label] for label in labels]
        figure.legend(ordered, labels, loc="outside right center", fontsize=8, frameon=False)
    return figure


def interval(axis: Any, x: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> None:
    """The interval of a curve: a band, or a bar where there is one point."""
    if len(x) > 1:
        axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
    else:
        axis.vlines(x, low, high, color=colour, alpha=0.5, lw=2)


def bars(
    values: Mapping[str, float],
    y: str,
    *,
    title: str = "",
    colours: Sequence[str] | None = None,
    chance: float | None = None,
    ends: Mapping[str, tuple[float, float]] | None = None,
) -> Picture:
    """A labelled bar for each entry, its value written on top; `chance` draws the level of guessing, `ends` the
    interval of a value, low and high."""
    figure = Picture(figsize=(0.75 * len(values) + 1.6, 3.0), layout="constrained")
    axis = figure.subplots()
    drawn = axis.bar(list(values), list(values.values()), color=colours or INK[0], width=0.65)
    if not ends:
        axis.bar_label(drawn, fmt="%.3g", fontsize=8, padding=2)
    for place, name in enumerate(values):
        if ends and name in ends:
            axis.vlines(place, *ends[name], color="0.15", lw=1.4)
        if ends:  # the number stands above the interval
            above = max(values[name], *ends.get(name, ()), 0.0)
            axis.annotate(f"{values[name]:.3g}", (place, above), (0, 2), textcoords="offset points", ha="center",
                          fontsize=8)  # fmt: skip
    if min(values.values()) < 0:
        axis.axhline(0, color="0.2", lw=0.8)
    axis.margins(y=0.15)
    if chance is not None:
        axis.axhline(chance, color="0.4", ls="--", lw=1)
        axis.annotate("chance", (1, chance), xycoords=("axes fraction", "data"), fontsize=8, ha="right", va="bottom")
    dress(axis, title, "", y)
    return figure


def attention_row(
    image: Images,
    maps: NDArray[Any],
    grid: tuple[int, int],
    query: int,
    titles: Sequence[str],
    unit: str = "attention",
    tokens: int | None = None,
) -> Picture:
    """The image with its query patch, then one map a panel over the same grid, (panels, N), on one labelled scale.

    The cross marks the query, the line on the scale what uniform attention gives: 1 / tokens (default: N).
    """
    figure = Picture(figsize=(1.75 * (len(maps) + 1) + 0.8, 2.1), layout="constrained")
    axes = figure.subplots(1, len(maps) + 1)
    side = image.shape[0] / grid[0], image.shape[1] / grid[1]
    row, col = divmod(query, grid[1])
    axes[0].imshow(np.clip(image, 0, 1))
    axes[0].add_patch(
        Rectangle((col * side[1] - 0.5, row * side[0] - 0.5), side[1], side[0], fill=False, ec="red", lw=2)
    )
    top = float(np.max(maps))
    for axis, values in zip(axes[1:], maps):
        shown = axis.imshow(values.reshape(grid), cmap=MAP, vmin=0, vmax=top)
        axis.plot(col, row, "x", color="red", ms=7, mew=2)
    bar = figure.colorbar(shown, ax=axes[1:].tolist(), shrink=0.85)
    mark_uniform(bar, 1 / (tokens or maps.shape[1]), unit)
    for axis, title in zip(axes, ["query", *titles]):
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    return figure


def dress(axis: Any, title: str, x: str, y: str, log_x: bool = False) -> None:
    """Title, axis labels, grid and open frame: what every chart here has."""
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.set_axisbelow(True)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if log_x:
        axis.set_xscale("symlog", linthresh=1)


def heat_maps(
    panels: Mapping[str, NDArray[Any]], unit: str, limits: tuple[float, float], x: str = "", y: str = "", first: int = 0
) -> Picture:
    """One matrix a panel, all on one labelled colour scale, white at zero where limits have two signs. `first` is the
    number of the first row and column: layers count from 1."""
    colours, low, high = map_of(limits)
    figure = Picture(figsize=(2.6 * len(panels) + 0.9, 2.9), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, values) in zip(axes, panels.items()):
        rows, cols = values.shape
        place = (first - 0.5, first + cols - 0.5, first + rows - 0.5, first - 0.5)
        shown = axis.imshow(values, cmap=colours, vmin=low, vmax=high, interpolation="nearest", extent=place)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(x)
    axes[0].set_ylabel(y)
    figure.colorbar(shown, ax=axes.tolist(), label=unit, shrink=0.85)
    return figure
