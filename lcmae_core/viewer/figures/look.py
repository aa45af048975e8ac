"""One look for every figure: which colour a model has, which map a quantity, how far an axis reaches, and the mark of
uniform attention.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

INK = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]
"""Okabe and Ito's colour-blind-safe palette."""
BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY, BLACK, GREY = INK
MAP = "viridis"
"""Colours of quantities from 0 on."""
SIGNED = "RdBu_r"
"""Colours of quantities of two signs, white at zero."""
LEAST_SPAN = 0.25
"""An axis spans at least this share of its greatest value: noise of a per cent must not fill it."""
MODELS = {
    "MAE": BLUE, "DINO": VERMILLION, "supervised": GREEN, "LC-MAE": BLACK, "Siamese": SKY, "untrained": GREY,
    "trained": BLUE, "uniform": "#666666", "transformer": BLUE, "convolution": ORANGE, "average": GREEN,
    "by position only": ORANGE, "without L_in": PINK, "without the average": GREEN, "ours": BLUE,
    "one image": ORANGE, "full": BLUE,
}  # fmt: skip
"""Every model that figures name -> its colour; what a model is under another name has the same."""
ROWS = {"a": BLACK, "b": BLUE, "c": VERMILLION, "d": GREEN, "e": PINK, "f": SKY, "g": ORANGE}
"""Rows of Table 1: (b) is MAE, (a) is LC-MAE."""
BLOCKS = {1: VERMILLION, 3: GREEN, 5: PINK, 7: ORANGE}
"""Autoencoders by the side of their block in patches."""
_OF_14 = {14: 1, 42: 3, 70: 5, 98: 7}


class Look(NamedTuple):
    """Colour and dashes of a curve."""

    colour: str
    style: str = "-"


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """How each label is drawn: models as everywhere, mask ratios from dark to light, others by their names in order.

    No two labels of one figure look alike, up to eight others.
    """
    names = list(dict.fromkeys(labels))
    known = {name: look for name in names if (look := _known(name))}
    twice = [name for place, name in enumerate(known) if known[name] in list(known.values())[:place]]
    others = sorted([name for name in names if name not in known] + twice)
    free = [ink for ink in INK if ink not in {known[name].colour for name in known if name not in twice}] or INK
    for place, name in enumerate(others):
        known[name] = Look(free[place % len(free)], ("-", "--", ":")[place // len(free) % 3])
    return {name: known[name] for name in names}


def _known(label: str) -> Look | None:
    if label in MODELS:
        return Look(MODELS[label], "--" if label == "uniform" else "-")
    if row := re.fullmatch(r"\(([a-g])\)( [^,]*)?|([a-g])", label):
        return Look(ROWS[row[1] or row[3]])
    if block := re.fullmatch(r"AE(\d+)|AE\((\d+)\)", label):
        return _autoencoder(int(block[1] or 0), int(block[2] or 0))
    if ratio := re.fullmatch(r"ratio (0?\.\d+)(, unit (\d+))?", label):
        return Look(to_hex(colormaps[MAP](0.95 * float(ratio[1]))), {"2": "--", "4": ":"}.get(ratio[3] or "", "-"))
    if unit := re.fullmatch(r"unit (\d+)x?", label):
        return Look(INK[int(unit[1]).bit_length() % len(INK)])
    return None


def _autoencoder(patches: int, pixels: int) -> Look | None:
    """By the side of its block, in patches, or in pixels where a patch has a power of two of them, or 14."""
    if pixels:
        patches = _OF_14.get(pixels, pixels // (pixels & -pixels))
    return Look(BLOCKS[patches]) if patches in BLOCKS else None


def signed_colours(values: NDArray[np.floating[Any]], limit: float) -> NDArray[np.floating[Any]]:
    """(..., 3) in [0, 1]: blue at -limit, white at 0, red at limit."""
    return np.asarray(colormaps[SIGNED](np.clip(values / limit, -1, 1) / 2 + 0.5))[..., :3]


def map_of(limits: tuple[float, float]) -> tuple[str, float, float]:
    """The map of a quantity between two limits, and its ends: of both signs, white stands at zero."""
    if limits[0] >= 0:
        return MAP, *limits
    most = max(abs(end) for end in limits)
    return SIGNED, -most, most


def calm(axis: Any, keep: tuple[float, float] | None = None) -> None:
    """Widen a y axis whose values differ by less than `LEAST_SPAN` of the greatest, about their middle; `keep` is a
    range of interest that stays in it."""
    low, high = axis.get_ylim()
    if keep is not None:
        low, high = min(low, keep[0]), max(high, keep[1])
    wanted = LEAST_SPAN * max(abs(low), abs(high))
    if high - low < wanted:
        middle = (low + high) / 2
        low, high = middle - wanted / 2, middle + wanted / 2
    axis.set_ylim(low, high)


def mark_uniform(bar: Any, value: float, label: str = "") -> None:
    """On an upright colour bar of attention: a line at what uniform attention gives, which the bar's label names."""
    low, high = bar.mappable.get_clim()
    uniform = f"line: uniform, {value:.2g}" if low <= value <= high else f"uniform: {value:.2g}"
    if low <= value <= high:
        bar.ax.axhline(value, color="white", lw=3)
        bar.ax.axhline(value, color="black", lw=1.2)
    if label:
        bar.set_label(f"{label} ({uniform})")
