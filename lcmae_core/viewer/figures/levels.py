"""Pictures of what a mask makes an encoder see: where its tokens look, and how its features sort the classes.

Letters (CONTRIBUTING.md): H x W pixels, N patches, M images.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from lcmae_core.viewer.figures.basic import Images
from lcmae_core.viewer.figures.look import INK, MAP, mark_uniform
from lcmae_core.viewer.figures.paper import Picture


class Looks(NamedTuple):
    """Attention over the N patches, mean over heads: of the CLS token, and of one patch token."""

    cls: NDArray[Any]
    token: NDArray[Any]


def attention_grid(image: Images, token: int, grid: tuple[int, int], columns: Mapping[str, Looks]) -> Picture:
    """The photograph with one token framed, then one column for each encoder: attention of CLS above, of the framed
    token below, all on one scale.

    Values are multiples of uniform attention.
    """
    figure = Picture(figsize=(1.55 * (len(columns) + 1) + 0.9, 3.3), layout="constrained")
    axes = figure.subplots(2, len(columns) + 1)
    count = grid[0] * grid[1]
    top = count * max(float(np.max(part)) for looks in columns.values() for part in looks)
    for axis, name in zip(axes[:, 0], ("CLS token", "framed token")):
        axis.imshow(np.clip(image, 0, 1), interpolation="nearest")
        axis.set_ylabel(f"attention of\n{name}", fontsize=9)
    axes[1, 0].add_patch(_frame(image, token, grid))
    for place, (title, looks) in enumerate(columns.items(), 1):
        axes[0, place].set_title(title, fontsize=9)
        for axis, values in zip(axes[:, place], looks):
            shown = axis.imshow(count * values.reshape(grid), cmap=MAP, vmin=0, vmax=top, interpolation="nearest")
        axes[1, place].plot(*divmod(token, grid[1])[::-1], "x", color="red", ms=6, mew=1.5)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    mark_uniform(figure.colorbar(shown, ax=axes[:, 1:].ravel().tolist(), label="x uniform", shrink=0.8), 1.0)
    return figure


def _frame(image: Images, token: int, grid: tuple[int, int]) -> Rectangle:
    height, width = image.shape[0] / grid[0], image.shape[1] / grid[1]
    row, column = divmod(token, grid[1])
    return Rectangle((column * width - 0.5, row * height - 0.5), width, height, fill=False, ec="red", lw=2)


def class_maps(panels: Mapping[str, NDArray[Any]], labels: Sequence[int], classes: Sequence[str]) -> Picture:
    """Points (M, 2) of a two-dimensional picture of features, a panel an encoder, coloured by class. Axes have no
    unit: only who is whose neighbour means something."""
    figure = Picture(figsize=(2.6 * len(panels) + 1.4, 2.8), layout="constrained")
    axes, of = figure.subplots(1, len(panels), squeeze=False)[0], np.asarray(labels)
    for axis, (title, points) in zip(axes, panels.items()):
        for number, name in enumerate(classes):
            chosen = points[of == number]
            ink, mark = INK[number % len(INK)], "osD^v"[number // len(INK) % 5]
            axis.scatter(*chosen.T, s=9, color=ink, marker=mark, linewidths=0, alpha=0.8, label=name)
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=8, frameon=False, markerscale=1.6)
    return figure
