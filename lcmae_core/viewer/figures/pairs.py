"""Two crops of a photograph and the pairs of their tokens that are pulled together.

Letters (CONTRIBUTING.md): H x W pixels of the photograph, h x w pixels of a crop, N patches of a crop.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.patches import ConnectionPatch, Rectangle

from lcmae_core.viewer.figures.basic import Images
from lcmae_core.viewer.figures.look import INK, MAP
from lcmae_core.viewer.figures.paper import Picture


def positive_pairs(
    photographs: Sequence[Images],
    crops: Sequence[tuple[Images, Images]],
    boxes: Sequence[tuple[Sequence[int], Sequence[int]]],
    pairs: Sequence[Sequence[tuple[int, int]]],
    grid: tuple[int, int],
    words: Sequence[tuple[str, str]],
) -> Picture:
    """A row a photograph: it with both boxes (top, left, height, width), then its crops with a line for every pair of
    tokens (i of the first, j of the second), one colour a row of the first crop's tokens. `words` say more of each."""
    figure = Picture(figsize=(8.4, 2.75 * len(crops)), layout="constrained")
    axes = figure.subplots(len(crops), 3, squeeze=False)
    for line, photograph, two, places, joined, titles in zip(axes, photographs, crops, boxes, pairs, words):
        line[0].imshow(np.clip(photograph, 0, 1))
        for (top, left, height, width), colour, name in zip(places, INK, ("first crop", "second crop")):
            box = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, ec=colour, lw=2.2, label=name)
            line[0].add_patch(box)
        line[0].legend(loc="lower left", fontsize=7, framealpha=0.8)
        for axis, crop, colour, name, word in zip(line[1:], two, INK, ("first crop", "second crop"), titles):
            axis.imshow(np.clip(crop, 0, 1))
            axis.spines[:].set(color=colour, linewidth=2.2)
            axis.set_title(f"{name}, {word}", fontsize=9)
        line[0].set_title("photograph", fontsize=9)
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
        _join(figure, line[1], line[2], joined, grid, [crop.shape[:2] for crop in two])
    return figure


def _join(
    figure: Picture, one: Any, two: Any, pairs: Sequence[tuple[int, int]], grid: tuple[int, int], sizes: Any
) -> None:
    for i, j in pairs:
        colour = colormaps[MAP]((i // grid[1]) / max(grid[0] - 1, 1))
        ends = [_centre(token, grid, size) for token, size in zip((i, j), sizes)]
        for axis, end in zip((one, two), ends):
            axis.plot(*end, "o", ms=4.5, mfc=colour, mec="white", mew=0.8)
        figure.add_artist(ConnectionPatch(ends[0], ends[1], "data", "data", axesA=one, axesB=two, color=colour, lw=0.7))


def _centre(token: int, grid: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    row, col = divmod(token, grid[1])
    return (col + 0.5) * size[1] / grid[1] - 0.5, (row + 0.5) * size[0] / grid[0] - 0.5
