"""The maps that are drawn together: of one query, of two, or of two models and their difference.

Letters (CONTRIBUTING.md): L layers, H heads, K visible patches.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcmae_core.viewer.browser.maps import combine_heads, restore_rows
from lcmae_core.viewer.browser.overview import ranks
from lcmae_core.viewer.browser.scene import Scene
from lcmae_core.viewer.browser.words import Shown, number, place

MARKS = (("#ff5a1f", "-", "query"), ("#ff8df0", (0, (2, 1.5)), "locked"))
"""Colour, line and name of the two marked patches, as in the page."""


class QueryWeights(NamedTuple):
    """Weights of one query in the order of the panels: on patches (L, H or 1, K), on all prefix tokens (L, H or 1)."""

    values: NDArray[np.float32]
    prefix: NDArray[np.float32]


def weights_of(scene: Scene, query: int, head_mode: str) -> QueryWeights:
    """Weights of a query as they were sent to the page, heads put together as asked; nothing for a prefix token that
    another model has."""
    rows = scene.rollout if head_mode == "rollout" and scene.rollout is not None else scene.rows
    mode = "each" if head_mode == "rollout" else head_mode
    if query < -len(scene.prefix):
        shape = len(scene.layers), rows.low.shape[1] if mode == "each" else 1
        return QueryWeights(np.zeros((*shape, len(scene.keys)), np.float32), np.zeros(shape, np.float32))
    token = scene.token(query)
    own = rows.prefix[:, :, token].sum(axis=-1, keepdims=True)  # (L, H, 1)
    values = combine_heads(restore_rows(rows, token), mode)
    return QueryWeights(values, combine_heads(own, mode)[..., 0])


class Block(NamedTuple):
    """Maps that are drawn together: whose, of which query, its mark, a heading, and whether they are a difference. In
    an overview also the number of each head (L, H), and where they are sorted by it, the place of each."""

    scene: Scene
    query: int
    weights: QueryWeights
    mark: int
    title: str
    signed: bool = False
    places: list[int] | None = None
    numbers: NDArray[np.float64] | None = None


def blocks_of(scene: Scene, shown: Shown, beside: Scene | None = None) -> list[Block]:
    """The maps of the query and of the locked one; or those of two models and what the second gives more."""
    shown = shown.drawn
    blocks = _locked(scene, shown) if beside is None else _two(scene, shown, beside)
    return blocks if shown.overview == "off" else _numbered(blocks, shown.overview)


def _how(shown: Shown) -> str:
    if shown.head_mode == "rollout":
        return ", rollout from the first layer on"
    return "" if shown.head_mode == "each" else f", {shown.head_mode} over heads"


def _locked(scene: Scene, shown: Shown) -> list[Block]:
    queries = [shown.query] + ([] if shown.locked is None else [shown.locked])
    return [
        Block(scene, query, weights_of(scene, query, shown.head_mode), b,
              f"{MARKS[b][2]}: {place(scene, query)}{_how(shown)}")
        for b, query in enumerate(queries)
    ]  # fmt: skip


def _two(scene: Scene, shown: Shown, beside: Scene) -> list[Block]:
    two = [
        Block(of, shown.query, weights_of(of, shown.query, shown.head_mode), 0,
              f"{of.words['model']}: {place(of, shown.query)}{_how(shown)}")
        for of in (scene, beside)
    ]  # fmt: skip
    first, second = (block.weights for block in two)
    if first.values.shape != second.values.shape:
        return two
    less = QueryWeights(second.values - first.values, second.prefix - first.prefix)
    most = number(float(np.abs(less.values).max()))
    title = f"difference, second less first: -{most} blue, +{most} red"
    return [*two, Block(scene, shown.query, less, 0, title, signed=True)]


def _numbered(blocks: list[Block], order: str) -> list[Block]:
    """Each with its heads' numbers and places; models that can be subtracted keep the places of the first, so that one
    place is one head."""
    of = [block.scene.measured(order) for block in blocks]
    if blocks[-1].signed:
        of[-1] = of[1] - of[0]
    linked = blocks[-1].signed
    return [
        block._replace(numbers=own, places=None if order == "layers" else ranks(of[0] if linked else own))
        for block, own in zip(blocks, of)
    ]
