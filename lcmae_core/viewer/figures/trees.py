"""Trees of latent variables as pictures: hidden and visible leaves, and the latents that a mask makes identifiable."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcmae_core.data.hierarchical import Tree
from lcmae_core.viewer.figures.look import INK, MAP
from lcmae_core.viewer.figures.paper import Picture

HIDDEN, CHOSEN, DETERMINED = "0.35", INK[1], INK[4]


class MaskedTree(NamedTuple):
    """A tree with the leaves that a mask hides, its identifiable set, and the ancestors which that determines."""

    tree: Tree
    hidden: Collection[str]
    identifiable: Collection[str]
    determined: Collection[str]


class _Look(NamedTuple):
    mark: str
    face: str
    edge: str


def tree_rows(panels: Mapping[str, MaskedTree], *, labels: bool = True) -> Picture:
    """A panel for each masked tree, the root on top, with a legend below; `labels` writes names and dimensions.

    Square: leaf, dark if hidden. Circle: latent; filled if it belongs to the identifiable set, ringed if that
    determines it, empty otherwise.
    """
    most = max(len(masked.tree.leaves) for masked in panels.values())
    figure = Picture(figsize=(max(2.6, (0.62 if labels else 0.34) * most) * len(panels), 3.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, masked) in zip(axes, panels.items()):
        _draw(axis, masked, labels)
        axis.set_title(title, fontsize=10)
    marks = [("s", HIDDEN, HIDDEN, "hidden leaf"), ("s", "white", HIDDEN, "visible leaf"),
             ("o", CHOSEN, CHOSEN, "identifiable set c"), ("o", "white", DETERMINED, "determined by c"),
             ("o", "white", "0.75", "not identified")]  # fmt: skip
    handles = [axes[0].plot([], [], mark, mfc=face, mec=edge, mew=1.8, ms=9)[0] for mark, face, edge, _ in marks]
    figure.legend(handles, [text for *_, text in marks], loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    return figure


def tree_places(tree: Tree) -> dict[str, tuple[float, float]]:
    """Where every variable stands: leaves side by side at whole numbers, parents above the middle of their children.

    Leaves stand in the order in which a walk from the root meets them, so that no edges cross; height is minus depth.
    """
    across: dict[str, float] = {}

    def place(name: str) -> None:
        children = [child for child in tree.names if tree.parent.get(child) == name]
        for child in children:
            place(child)
        middle = np.mean([across[child] for child in children]) if children else len(set(across) & set(tree.leaves))
        across[name] = float(middle)

    place(tree.root)
    return {name: (across[name], 1.0 - len(tree.path(name))) for name in tree.names}


def _draw(axis: Any, masked: MaskedTree, labels: bool) -> None:
    tree, places = masked.tree, tree_places(masked.tree)
    for above, name in tree.edges:
        axis.plot(*zip(places[above], places[name]), color="0.75", lw=1, zorder=1)
    for name, (across, up) in places.items():
        look = _look(masked, name)
        axis.plot(across, up, look.mark, mfc=look.face, mec=look.edge, mew=1.8, ms=19 if labels else 9, zorder=2)
        if labels:
            ink = "black" if look.face == "white" else "white"
            text = f"{name}\n{tree.dimension(name)}"
            axis.annotate(text, (across, up), ha="center", va="center", fontsize=7, color=ink, zorder=3)
    axis.set_axis_off()
    axis.margins(0.1, 0.14)


def _look(masked: MaskedTree, name: str) -> _Look:
    if name in masked.tree.leaves:
        return _Look("s", HIDDEN if name in masked.hidden else "white", HIDDEN)
    if name in masked.identifiable:
        return _Look("o", CHOSEN, CHOSEN)
    return _Look("o", "white", DETERMINED if name in masked.determined else "0.75")


def recovery_maps(
    panels: Mapping[str, NDArray[Any]], rows: Sequence[str], columns: Sequence[str], unit: str
) -> Picture:
    """A matrix (rows, columns) a panel, with its numbers written in, all on one colour scale from 0 to 1."""
    size = (0.62 * len(columns) + 0.5) * len(panels) + 2.2, 0.42 * len(rows) + 1.3
    figure = Picture(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, values) in zip(axes, panels.items()):
        shown = axis.imshow(values, cmap=MAP, vmin=0, vmax=1, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            axis.annotate(f"{value:.2f}".replace("-0.00", "0.00"), (column, row), ha="center", va="center", fontsize=8,
                          color="black" if value > 0.55 else "white")  # fmt: skip
        axis.set_xticks(range(len(columns)), columns, fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("level of the latent")
    axes[0].set_yticks(range(len(rows)), rows, fontsize=8)
    figure.colorbar(shown, ax=axes.tolist(), label=unit, shrink=0.9)
    return figure
