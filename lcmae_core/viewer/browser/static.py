"""The state of the browser as a figure that stands still, for papermill, nbconvert and GitHub.

Letters (CONTRIBUTING.md): L layers, H heads, K visible patches, N patches.
"""

import textwrap
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from lcmae_core.viewer.browser.blocks import MARKS, Block, blocks_of
from lcmae_core.viewer.browser.overview import columns, slots, tile_number
from lcmae_core.viewer.browser.scene import Scene
from lcmae_core.viewer.browser.words import Shown, describe, number
from lcmae_core.viewer.figures import MAP, SIGNED, Picture

PREFIX = "#e69f00"
WIDTH, LEFT, HEADING = 12.0, 0.7, 0.5
"""Inches: of the figure, of the row labels, of the lines above a block of maps."""


def picture(scene: Scene, shown: Shown, beside: Scene | None = None) -> Picture:
    """Pictures above, blocks of maps below, a labelled colour bar, and the line in words."""
    blocks, shown = blocks_of(scene, shown, beside), shown.drawn
    top = max(float(block.weights.values.max()) for block in blocks if not block.signed)
    apart = float(np.abs(blocks[-1].weights.values).max()) if blocks[-1].signed else None
    plan = _plan(scene, blocks, shown.overview)
    figure = Picture(figsize=(WIDTH, plan.height))
    _pictures(figure, scene, blocks, plan)
    for b, block in enumerate(blocks):
        row, col = divmod(b, plan.across)
        x = LEFT + col * (plan.block[0] + LEFT)
        y = plan.height - plan.upper - (row + 1) * (HEADING + plan.block[1])
        axis = figure.add_axes((x / WIDTH, y / plan.height, plan.block[0] / WIDTH, plan.block[1] / plan.height))
        _maps(axis, block, shown, apart if block.signed and apart is not None else top, plan)
    _bar(figure, scene, shown, top, plan)
    line = textwrap.fill(describe(scene, shown, top, beside, apart), 185)
    figure.text(0.01, 0.05 / plan.height, line, fontsize=8, va="bottom")
    return figure


class _Plan(NamedTuple):
    """Sizes in inches (height, side of pictures, upper part, width and height of a block) and in pixels of a map."""

    height: float
    picture: float
    upper: float
    block: tuple[float, float]
    across: int
    cols: int
    rows: int
    cell: int
    map: tuple[int, int]
    pitch: tuple[int, int]


def _plan(scene: Scene, drawn: list[Block], order: str) -> _Plan:
    layers, heads = (max(block.weights.prefix.shape[axis] for block in drawn) for axis in (0, 1))
    blocks = len(drawn)
    rows = layers if heads > 1 else -(-layers // 6)
    cols = heads if heads > 1 else -(-layers // rows)
    if order != "off":
        cols = columns(layers, heads, order, blocks)
        rows = 1 + max(row for block in drawn for row, _ in _slots(block, cols))
    pixels = scene.pictures[0].pixels.shape
    cell = max(2, 112 // max(scene.grid))
    size = round(scene.grid[1] * cell * pixels[0] / pixels[1]), scene.grid[1] * cell  # as the picture, not the grid
    fits = [min(1.7, (WIDTH / n - LEFT - 0.1) / cols / 1.06) for n in range(1, blocks + 1)]  # inches of a map
    across = blocks if order != "off" else 2 if blocks > 1 and fits[1] >= 1.0 else 1
    side = fits[across - 1]
    strip = round(0.26 * size[1] / side)
    pitch = size[0] + strip, size[1] + max(4, size[1] // 17)
    inch = side / size[1]
    block = cols * pitch[1] * inch, rows * pitch[0] * inch
    shown = 2.1 * min(1.0, 1.5 * pixels[0] / pixels[1])
    upper = 0.3 + shown + (0.45 if len(scene.pictures) > 1 else 0.15)
    height = upper + -(-blocks // across) * (HEADING + block[1]) + 0.65
    return _Plan(height, shown, upper, block, across, cols, rows, cell, size, pitch)


def _pictures(figure: Picture, scene: Scene, blocks: list[Block], plan: _Plan) -> None:
    x, bottom = LEFT, plan.height - 0.3 - plan.picture
    for drawn in scene.pictures:
        width = plan.picture * drawn.pixels.shape[1] / drawn.pixels.shape[0]
        axis = figure.add_axes((x / WIDTH, bottom / plan.height, width / WIDTH, plan.picture / plan.height))
        x += width + 0.2
        axis.imshow(drawn.pixels, extent=(0, scene.grid[1], scene.grid[0], 0), aspect="auto")
        axis.set_title(drawn.title, fontsize=9, loc="left")
        axis.set_xlabel("\n".join(drawn.notes).strip(), fontsize=8, loc="left", labelpad=2)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        for mark, query in reversed({block.mark: block.query for block in blocks}.items()):
            _outline(axis, scene, query, MARKS[mark], (0, 0), (1, 1), 2)


def _outline(
    axis: Any, scene: Scene, query: int, mark: Any, at: tuple[float, float], cell: tuple[float, float], line: float
) -> None:
    """The frame of a patch in a box at x, y whose patches are `cell` (height, width) large."""
    if query < 0:
        return
    row, col = divmod(query, scene.grid[1])
    corner = at[0] + col * cell[1], at[1] + row * cell[0]
    for colour, style, width in (("black", "-", line + 1.2), (mark[0], mark[1], line)):
        axis.add_patch(Rectangle(corner, cell[1], cell[0], fill=False, ec=colour, ls=style, lw=width))


def _maps(axis: Any, block: Block, shown: Shown, top: float, plan: _Plan) -> None:
    """All maps of a block as one picture, captions and marks on it; a strip above each map holds the CLS bar."""
    (high, wide), pitch, scene, weights = plan.map, plan.pitch, block.scene, block.weights
    canvas = np.ones((plan.rows * pitch[0], plan.cols * pitch[1], 3), np.float32)
    backdrop = _backdrop(scene, shown, plan)
    (layers, heads), places = weights.prefix.shape, _slots(block, plan.cols)
    for panel in range(layers * heads):
        layer, head = divmod(panel, heads)
        row, col = places[panel]
        y, x = row * pitch[0] + pitch[0] - high, col * pitch[1]
        values = weights.values[layer, head]
        limit = top if block.signed or shown.scale == "shared" else float(values.max())
        canvas[y : y + high, x : x + wide] = _tile(block, shown, values, limit, backdrop)
        _outline(axis, scene, block.query, MARKS[block.mark], (x, y), (high / scene.grid[0], wide / scene.grid[1]), 1.0)
        if block.numbers is not None:
            name = f"{scene.layers[layer] + 1}.{scene.heads[head] + 1}"
            number = tile_number(float(block.numbers[layer, head]), shown.overview, block.signed)
            axis.text(x, y - 0.02 * pitch[0], f"{name}  {number}", fontsize=7, va="bottom")
            continue
        name = f"layer {scene.layers[layer] + 1}" if heads == 1 else ""
        share = float(weights.prefix[layer, head]) if scene.prefix else None
        _caption(axis, block, name, share, (x, y), plan)
    axis.imshow(canvas, aspect="auto", interpolation="nearest", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    _labels(axis, block, plan, heads)


def _caption(axis: Any, block: Block, name: str, share: float | None, at: tuple[int, int], plan: _Plan) -> None:
    """Above a map: its layer where no row label says it, the weight on the prefix as a bar from 0 to 1 and a number."""
    (x, y), wide, scene = at, plan.map[1], block.scene
    thick = 0.14 * (plan.pitch[0] - plan.map[0])
    if share is not None:
        if not block.signed:
            axis.add_patch(Rectangle((x, y - 1.5 * thick), wide, thick, fc="0.85", ec="none"))
            axis.add_patch(Rectangle((x, y - 1.5 * thick), wide * min(1, share), thick, fc=PREFIX, ec="none"))
        own = scene.prefix[0] if len(scene.prefix) == 1 else "prefix"
        number_of = f"{share:+.2f}" if block.signed else f"{share:.2f}"
        name += ", " * bool(name) + (f"{own} " if plan.cols <= 10 else "") + number_of
    axis.text(x, y - 2 * thick, name, fontsize=7 if plan.cols > 10 else 8, va="bottom")


def _slots(block: Block, cols: int) -> list[tuple[int, int]]:
    """Row and column of each map of a block: layers down and heads across, or flowing where heads are put together."""
    layers, heads = block.weights.prefix.shape
    if block.numbers is not None:
        return slots(layers, heads, cols, block.places)
    return [divmod(m, heads if heads > 1 else cols) for m in range(layers * heads)]


def _labels(axis: Any, block: Block, plan: _Plan, heads: int) -> None:
    scene = block.scene
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, labelsize=8, pad=1)
    axis.xaxis.tick_top()
    each = heads > 1 and block.numbers is None
    axis.set_xticks([c * plan.pitch[1] + plan.map[1] / 2 for c in range(heads)] if each else [])
    axis.set_yticks([(r + 1) * plan.pitch[0] - plan.map[0] / 2 for r in range(len(scene.layers))] if each else [])
    if each:
        axis.set_xticklabels(
            [f"head {h + 1}" if heads <= 10 or not i else f"{h + 1}" for i, h in enumerate(scene.heads)]
        )
        axis.set_yticklabels([f"layer {layer + 1}" for layer in scene.layers])
    axis.set_title(block.title, fontsize=9, weight="bold", loc="left", pad=5)


def _backdrop(scene: Scene, shown: Shown, plan: _Plan) -> NDArray[np.float32]:
    """The grey photograph at the size of a map (white for heat maps), hatched where no token is."""
    size = plan.map
    if shown.view == "overlay":
        grey = np.asarray(Image.fromarray(scene.pictures[0].pixels).convert("L").resize(size[::-1])) / 255
    else:
        grey = np.ones(size)
    if scene.blind and scene.hidden is not None:
        stripes = np.add.outer(np.arange(size[0]), np.arange(size[1])) % 6 < 2
        grey = np.where(_enlarge(scene, scene.hidden, size), np.where(stripes, 0.77, 0.54), grey)
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32)


def _enlarge(scene: Scene, values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Values of the N patches as pixels of a map."""
    rows, cols = (np.arange(n) * g // n for n, g in zip(size, scene.grid))
    return values.reshape(*scene.grid, *values.shape[1:])[rows[:, None], cols[None]]


def _tile(block: Block, shown: Shown, values: NDArray[Any], limit: float, backdrop: NDArray[Any]) -> NDArray[Any]:
    """One map over its backdrop; over a photograph the colour is the more opaque the greater the weight."""
    scene = block.scene
    part, cover = np.zeros(scene.grid[0] * scene.grid[1]), np.zeros(scene.grid[0] * scene.grid[1])
    part[scene.keys] = (values / limit).clip(-1, 1) if limit > 0 else 0
    cover[scene.keys] = _opacity(np.abs(part[scene.keys]), shown)
    colour = matplotlib.colormaps[SIGNED]((1 + part) / 2) if block.signed else matplotlib.colormaps[MAP](part)
    colour = colour[:, :3]
    colour, cover = (_enlarge(scene, a, backdrop.shape[:2]) for a in (colour, cover[:, None]))
    return colour * cover + backdrop * (1 - cover)


def _opacity(part: NDArray[Any], shown: Shown) -> NDArray[Any]:
    """Of a colour at `part` of its scale, as in the page: over a photograph 70 to 245 of 255."""
    return (70 + 175 * part) / 255 if shown.view == "overlay" else np.ones_like(part)


def _bar(figure: Picture, scene: Scene, shown: Shown, top: float, plan: _Plan) -> None:
    """The colours as they appear on the maps, with numbers and the mark of uniform attention."""
    shared, uniform = shown.scale == "shared", 1 / scene.tokens
    axis = figure.add_axes((0.66, 1 - 0.72 / plan.height, 0.28, 0.14 / plan.height))
    part = np.linspace(0, 1, 256)
    cover = _opacity(part, shown)[:, None]
    colours = matplotlib.colormaps[MAP](part)[:, :3] * cover + 0.5 * (1 - cover)
    end = top if shared else 1.0
    axis.imshow(colours[None], aspect="auto", extent=(0, end, 0, 1))
    axis.set_title("softmax attention weight", fontsize=9, loc="left")
    axis.set_yticks([])
    axis.set_xticks([0, end], ["0", number(top) if shared else "each map's maximum"], fontsize=8)
    axis.tick_params(pad=5)
    axis.xaxis.get_majorticklabels()[1].set_horizontalalignment("right")
    words = f"uniform: 1/{scene.tokens} = {number(uniform)}"
    if shared and uniform <= top:
        axis.plot([uniform], [-0.45], "^", color="black", ms=5, clip_on=False)
        axis.axvline(uniform, color="black", lw=1)
        words = f"▲ {words}"
    elif shared:
        words += " (beyond the end of this scale)"
    axis.set_xlim(0, end)
    axis.set_ylim(0, 1)
    lines = [words]
    if shown.overview != "off":
        lines.append(
            f"on a tile: layer.head and {'S_attn' if shown.overview == 'similarity' else 'attention distance in px'}"
        )
    elif scene.prefix:
        own = scene.prefix[0] if len(scene.prefix) == 1 else f"the {len(scene.prefix)} prefix tokens"
        lines.append(f"orange bar above a map: weight on {own}, 0 to 1")
    if scene.blind:
        lines.append("hatched: hidden, no tokens of this encoder")
    axis.text(0, -2.4, "\n".join(lines), fontsize=8, va="top", transform=axis.transAxes)
