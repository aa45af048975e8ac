"""One line in words of what the browser shows; the page says the same (draw.js), and a test compares them."""

import math
from dataclasses import dataclass, replace

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.viewer.browser.scene import Scene

VIEWS = ("overlay", "heat")
SCALES = ("shared", "per map")
ORDERS = ("off", "layers", "distance", "similarity")
"""No overview of all heads, or one whose tiles stand by layer and head, by attention distance or by S_attn, smallest
first."""
HEAD_MODES = ("each", "mean", "max", "rollout")


@dataclass(frozen=True)
class Shown:
    """How the maps of a scene are drawn: the query, the locked one, and the look.

    Raises:
        LcmaeError: an unknown view, scale or way to put heads together.
    """

    query: int
    locked: int | None = None
    view: str = "overlay"
    scale: str = "shared"
    head_mode: str = "each"
    overview: str = "off"

    def __post_init__(self) -> None:
        for what, valid in (("view", VIEWS), ("scale", SCALES), ("head_mode", HEAD_MODES),
                            ("overview", ORDERS)):  # fmt: skip
            check_name(what, getattr(self, what), valid)

    @property
    def drawn(self) -> "Shown":
        """What is drawn of it: an overview shows each head by itself, on one scale."""
        return self if self.overview == "off" else replace(self, head_mode="each", scale="shared")


def check_name(what: str, value: str, valid: tuple[str, ...]) -> None:
    """Refuse a name that is not one of `valid`.

    Raises:
        LcmaeError: with the nearest name.
    """
    if value not in valid:
        raise LcmaeError(f"{what}: got {value!r}, {nearest(str(value), valid)}")


def number(value: float) -> str:
    """Two significant digits without an exponent: 0.0051, 0.52, 1.0."""
    if value < 5e-9:
        return "0"
    return f"{value:.{min(8, max(0, 1 - math.floor(math.log10(value) + 1e-9)))}f}"


def place(scene: Scene, query: int) -> str:
    """A query in words that count from 1, and whether it is hidden."""
    if query < 0:
        return scene.prefix[-query - 1]
    row, col = divmod(query, scene.grid[1])
    state = "" if scene.hidden is None else " (hidden)" if scene.hidden[query] else " (visible)"
    return f"row {row + 1}, column {col + 1}{state}"


def describe(scene: Scene, shown: Shown, top: float, beside: Scene | None = None, apart: float | None = None) -> str:
    """Model, part, layers, heads, query, normalisation and colours of what is drawn; `top` ends a shared scale, `apart`
    that of the differences where there is a scene beside it and its maps can be subtracted."""
    words, shown = scene.words, shown.drawn
    others = "" if beside is None else f" beside {beside.words['model']}"
    locked = "" if shown.locked is None or beside else f", compared with the locked {place(scene, shown.locked)}"
    view = "drawn over the photograph" if shown.view == "overlay" else "as heat maps"
    return (
        f"{words['model']}{others}, {words['image']}: {words['part']}. {words['layers'].capitalize()}, "
        f"{_heads(shown.head_mode, words['heads'])}{_overview(shown.overview, words, beside)}. "
        f"Query: {place(scene, shown.query)}{locked}. "
        f"Softmax attention from the query to every token ({words['tokens']}; {_sums(shown.head_mode)}; "
        f"uniform is 1/{scene.tokens} = {number(1 / scene.tokens)}), {view}. "
        f"Colours: {_colours(shown.scale, top, beside, apart)}. "
        "Layers, heads, rows and columns count from 1 here, from 0 in Python."
    )


def _colours(scale: str, top: float, beside: Scene | None, apart: float | None) -> str:
    shared = scale == "shared"
    scales = f"one scale for all maps, 0 to {number(top)}" if shared else "a scale for each map, 0 to its own maximum"
    if beside is None:
        return scales
    if apart is None:
        return scales + "; no difference is drawn, for the layers or heads are not the same"
    ends = f"{number(apart)} less (blue) to {number(apart)} more (red)"
    return f"{scales}; differences from {ends} in {beside.words['model']}"


def _heads(mode: str, heads: str) -> str:
    if mode == "rollout":
        return "attention rollout from the first layer on (mean over all heads, half of it the residual path)"
    return heads if mode == "each" else f"{mode} over {heads}"


def _overview(order: str, words: dict[str, str], beside: Scene | None) -> str:
    if order == "off":
        return ""
    number_on = words["similarity" if order == "similarity" else "distance"]
    if order == "layers":
        return f", every head a tile with its {number_on}"
    first = " of the first model" if beside else ""
    return f", every head a tile, sorted by its {number_on}{first}, smallest first"


def _sums(mode: str) -> str:
    if mode == "rollout":
        return "what can have flowed, without values and MLPs; a row sums to 1"
    return "the greatest of the heads, so a row may sum to more than 1" if mode == "max" else "a row sums to 1"
