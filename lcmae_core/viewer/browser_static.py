"""The state of the browser as a figure that stands still, for papermill, nbconvert and GitHub.

Letters: L layers, H heads, K patches among the tokens, N patches.
"""

import textwrap
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from lcmae_core.viewer.browser_maps import combine_heads, restore_rows
from lcmae_core.viewer.browser_scene import Scene
from lcmae_core.viewer.browser_words import Shown, describe, number, place
from lcmae_core.viewer.figures import MAP, Picture

MARKS = (("#ff5a1f", "-", "query"), ("#ff8df0", (0, (2, 1.5)), "locked"))
"""Colour, line and name of the two marked patches, as in the page."""
PREFIX = "#e69f00"


class Weights(NamedTuple):
    """Weights of one query in the order of the panels: on patches (L, H or 1, K), on all prefix tokens (L, H or 1)."""

    values: NDArray[np.float32]
    prefix: NDArray[np.float32]


def weights_of(scene: Scene, query: int, head_mode: str) -> Weights:
    """Weights of a query as they were sent to the page, heads put together as asked."""
    token = scene.token(query)
    own = scene.rows.prefix[:, :, token].sum(axis=-1, keepdims=True)  # (L, H, 1)
    values = combine_heads(restore_rows(scene.rows, token), head_mode)
    return Weights(values, combine_heads(own, head_mode)[..., 0])


def picture(scene: Scene, shown: Shown) -> Picture:
    """Pictures above, a block of maps for each query below, a labelled colour bar, and the line in words."""
    queries = [shown.query] + ([] if shown.locked is None else [shown.locked])
    found = [weights_of(scene, query, shown.head_mode) for query in queries]
    top = max(float(weights.values.max()) for weights in found)
    rows, cols = _panels(found[0])
    tall = scene.pictures[0].pixels.shape[0] / scene.pictures[0].pixels.shape[1]
    width = 12.0
    side = min(1.25, (width - 1.0) / cols)  # inches of a map
    block = rows * (side * tall + 0.2) + 0.55
    figure = Picture(figsize=(width, 0.9 + 2.1 * min(tall, 1.3) + block * len(queries) + 0.9))
    height = figure.get_figheight()
    upper = 2.1 * min(tall, 1.3) / height
    _pictures(figure, scene, queries, 1 - 0.3 / height - upper, upper)
    for place_, (query, weights) in enumerate(zip(queries, found)):
        bottom = 0.75 / height + (len(queries) - 1 - place_) * block / height
        span = cols * side * 1.06
        axis = figure.add_axes((0.7 / width, bottom, span / width, (block - 0.55) / height))
        _maps(axis, scene, shown, weights, top, query, place_)
    _bar(figure, scene, shown, top, height)
    line = textwrap.fill(describe(scene, shown, top), 185)
    figure.text(0.01, 0.02 / height, line, fontsize=8, va="bottom")
    return figure


def _panels(weights: Weights) -> tuple[int, int]:
    layers, heads = weights.prefix.shape
    return (layers, heads) if heads > 1 else (-(-layers // 8), min(layers, 8))


def _pictures(figure: Picture, scene: Scene, queries: list[int], bottom: float, height: float) -> None:
    for i, drawn in enumerate(scene.pictures):
        share = height * figure.get_figheight() / figure.get_figwidth()
        share *= drawn.pixels.shape[1] / drawn.pixels.shape[0]
        axis = figure.add_axes((0.7 / 12 + i * (share + 0.02), bottom, share, height))
        axis.imshow(drawn.pixels, extent=(0, scene.grid[1], scene.grid[0], 0), aspect="auto")
        axis.set_title(drawn.title, fontsize=9, loc="left")
        axis.set_xlabel("\n".join(drawn.notes).strip(), fontsize=7.5, loc="left", labelpad=2)
        axis.set_xticks([])
        axis.set_yticks([])
        if i == 0:
            for query, mark in reversed(list(zip(queries, MARKS))):
                _outline(axis, scene, query, mark, (0, 0), 1, 2)


def _outline(axis: Any, scene: Scene, query: int, mark: Any, at: tuple[float, float], cell: float, line: float) -> None:
    if query < 0:
        return
    row, col = divmod(query, scene.grid[1])
    corner = at[0] + col * cell, at[1] + row * cell
    for colour, style, width in (("black", "-", line + 1.2), (mark[0], mark[1], line)):
        axis.add_patch(Rectangle(corner, cell, cell, fill=False, ec=colour, ls=style, lw=width))


def _maps(
    axis: Any, scene: Scene, shown: Shown, weights: Weights, top: float, query: int, mark: int
) -> None:
    """All maps of a query as one picture: one patch is `cell` pixels, a gap between panels holds the CLS bars."""
    rows, cols = _panels(weights)
    cell = max(2, 112 // max(scene.grid))
    high, wide = scene.grid[0] * cell, scene.grid[1] * cell
    pitch = high + max(10, high // 5), wide + max(4, wide // 17)
    canvas = np.ones((rows * pitch[0], cols * pitch[1], 3), np.float32)
    backdrop = _backdrop(scene, shown, (high, wide))
    layers, heads = weights.prefix.shape
    size = 6.5 if cols > 10 else 8
    for panel in range(layers * heads):
        layer, head = divmod(panel, heads)
        y, x = (panel // cols) * pitch[0] + pitch[0] - high, (panel % cols) * pitch[1]
        values = weights.values[layer, head]
        limit = top if shown.scale == "shared" else float(values.max())
        canvas[y : y + high, x : x + wide] = _tile(scene, shown, values, limit, backdrop, cell)
        _outline(axis, scene, query, MARKS[mark], (x, y), cell, 1.0)
        name = f"layer {scene.layers[layer] + 1}, " * (heads == 1)
        if scene.prefix:
            share = float(weights.prefix[layer, head])
            axis.add_patch(Rectangle((x, y - high * 0.04), wide, high * 0.03, fc="0.85", ec="none"))
            axis.add_patch(Rectangle((x, y - high * 0.04), wide * min(1, share), high * 0.03, fc=PREFIX, ec="none"))
            own = scene.prefix[0] if len(scene.prefix) == 1 else "prefix"
            name += (f"{own} " if cols <= 10 else "") + f"{share:.2f}"
        axis.text(x, y - high * 0.05, name.rstrip(", "), fontsize=size, va="bottom")
    axis.imshow(canvas, aspect="auto", interpolation="nearest", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    _labels(axis, scene, shown, query, mark, (rows, cols), pitch, (high, wide), heads)


def _labels(
    axis: Any, scene: Scene, shown: Shown, query: int, mark: int, panels: tuple[int, int],
    pitch: tuple[int, int], size: tuple[int, int], heads: int,
) -> None:  # fmt: skip
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, labelsize=8)
    axis.xaxis.tick_top()
    grid = heads > 1
    axis.set_xticks([c * pitch[1] + size[1] / 2 for c in range(panels[1])] if grid else [])
    axis.set_yticks([r * pitch[0] + pitch[0] - size[0] / 2 for r in range(panels[0])] if grid else [])
    if grid:
        axis.set_xticklabels([f"head {h + 1}" if heads <= 10 else f"{h + 1}" for h in scene.heads])
        axis.set_yticklabels([f"layer {layer + 1}" for layer in scene.layers])
    how = "" if shown.head_mode == "each" else f", {shown.head_mode} over heads"
    words = f"{MARKS[mark][2]}: {place(scene, query)}{how}"
    axis.text(0, -pitch[0] * 0.16 - 4, words, fontsize=9, weight="bold", va="bottom") if not grid else axis.set_title(
        words, fontsize=9, weight="bold", loc="left", pad=6
    )


def _backdrop(scene: Scene, shown: Shown, size: tuple[int, int]) -> NDArray[np.float32]:
    """The grey photograph at the size of a map (white for heat maps), hatched where no token is."""
    pixels = scene.pictures[0].pixels
    if shown.view == "overlay":
        from PIL import Image

        grey = np.asarray(Image.fromarray(pixels).convert("L").resize(size[::-1])) / 255
    else:
        grey = np.ones(size)
    if scene.blind and scene.hidden is not None:
        cell = size[0] // scene.grid[0]
        covered = scene.hidden.reshape(scene.grid).repeat(cell, axis=0).repeat(cell, axis=1)
        stripes = np.add.outer(np.arange(size[0]), np.arange(size[1])) % 6 < 2
        grey = np.where(covered, np.where(stripes, 0.77, 0.54), grey)
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32)


def _tile(
    scene: Scene, shown: Shown, values: NDArray[Any], limit: float, backdrop: NDArray[Any], cell: int
) -> NDArray[Any]:
    """One map over its backdrop; over a photograph the colour is the more opaque the greater the weight."""
    part = np.zeros(scene.grid[0] * scene.grid[1])
    cover = np.zeros_like(part)
    part[scene.keys] = (values / limit).clip(0, 1) if limit > 0 else 0
    cover[scene.keys] = (70 + 175 * part[scene.keys]) / 255 if shown.view == "overlay" else 1
    colour = matplotlib.colormaps[MAP](part)[:, :3]
    large = [a.reshape(*scene.grid, -1).repeat(cell, axis=0).repeat(cell, axis=1) for a in (colour, cover)]
    return large[0] * large[1] + backdrop * (1 - large[1])


def _bar(figure: Picture, scene: Scene, shown: Shown, top: float, height: float) -> None:
    shared = shown.scale == "shared"
    scale = ScalarMappable(Normalize(0, top if shared else 1), MAP)
    axis = figure.add_axes((0.66, 1 - 1.2 / height, 0.28, 0.14 / height))
    figure.colorbar(scale, cax=axis, orientation="horizontal")
    axis.set_title("softmax attention weight", fontsize=9, loc="left")
    axis.set_xticks([0, top if shared else 1], ["0", number(top) if shared else "each map's maximum"], fontsize=8)
    uniform = 1 / scene.tokens
    words = f"uniform: 1/{scene.tokens} = {number(uniform)}"
    if shared and uniform <= top:
        axis.plot([uniform], [-0.5], "^", color="black", ms=6, clip_on=False)
        words = f"▲ {words}"
    elif shared:
        words += " (beyond the end of this scale)"
    lines = [words]
    if scene.prefix:
        own = scene.prefix[0] if len(scene.prefix) == 1 else f"the {len(scene.prefix)} prefix tokens"
        lines.append(f"orange bar above each map: weight on {own}, 0 to 1")
    if scene.blind:
        lines.append("hatched: hidden, no tokens of this encoder")
    axis.text(0, -2.2, "\n".join(lines), fontsize=8, va="top", transform=axis.transAxes)
