"""Which latents a mask makes identifiable (arXiv 2306.04898, Theorems 1 and 2), read off the graph alone.

Theorem 1: hidden and visible leaves share exactly one set c of latents of least total dimension; Theorem 2: the encoder
of an MAE recovers c up to a one-to-one map. c separates (d-separates) the hidden from the visible leaves.
"""

from collections.abc import Collection, Iterable
from itertools import combinations
from typing import NamedTuple

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.data.hierarchical import Tree


class Identifiable(NamedTuple):
    """latents: the set c, in the order of the tree. dimension: their dimensions added up."""

    latents: tuple[str, ...]
    dimension: int


class _Cost(NamedTuple):
    """What a partial assignment costs, compared in this order; `chosen` are its separating latents."""

    dimension: int
    hidden_side: int
    chosen: tuple[str, ...]


_IMPOSSIBLE = _Cost(10**9, 0, ())


def identifiable_set(tree: Tree, hidden: Collection[str]) -> Identifiable:
    """The separator c of hidden and visible leaves with the least total dimension, nearest the hidden ones if tied.

    In a tree no variable has two parents, so d-separation is separation in the undirected tree: c is a minimum vertex
    cut. Every variable is "hidden side", "visible side" or in the cut, and the two sides never touch; one pass from the
    leaves up keeps, for each of the three, the least (dimension, size of the hidden side). Linear in the variables.

    Raises:
        LcmaeError: an unknown leaf, or a mask that hides none or all (`possible` says so beforehand).
    """
    _check(tree, hidden)
    costs = {name: _leaf_costs(name in hidden) for name in tree.leaves}
    for name in reversed(tree.names):
        if name in costs:
            continue
        below = [costs[child] for child in tree.names if tree.parent.get(child) == name]
        costs[name] = {
            "hidden": cost_with((0, 1, ()), (min(c["hidden"], c["cut"]) for c in below)),
            "visible": cost_with((0, 0, ()), (min(c["visible"], c["cut"]) for c in below)),
            "cut": cost_with((tree.dimension(name), 0, (name,)), (min(c.values()) for c in below)),
        }
    best = min(costs[tree.root].values())
    return Identifiable(tuple(name for name in tree.latents if name in best.chosen), best.dimension)


def possible(tree: Tree, hidden: Collection[str]) -> bool:
    """Whether a mask hides something and shows something; any other is skipped, there being no such set."""
    return 0 < len(set(hidden)) < len(tree.leaves)


def brute_force_set(tree: Tree, hidden: Collection[str]) -> Identifiable:
    """The same set by trying every set of latents, with networkx's d-separation; 2^latents tests, for small trees.

    Of several of the least dimension it takes the one beyond which the hidden leaves reach fewest variables.

    Raises:
        LcmaeError: as `identifiable_set`.
    """
    _check(tree, hidden)
    import networkx as nx  # a tenth of a second, which few who import this module need

    graph, shown = nx.DiGraph(tree.edges), set(tree.leaves) - set(hidden)
    separators: list[tuple[int, int, tuple[str, ...]]] = []
    for size in range(len(tree.latents) + 1):
        for chosen in combinations(tree.latents, size):
            dimension = sum(tree.dimension(name) for name in chosen)
            if nx.is_d_separator(graph, set(hidden), shown, set(chosen)):
                rest = graph.to_undirected().subgraph(set(graph) - set(chosen))
                reached = set().union(*(nx.node_connected_component(rest, leaf) for leaf in hidden))
                separators.append((dimension, len(reached), chosen))
    dimension, _, latents = min(separators)
    return Identifiable(latents, dimension)


def determined(tree: Tree, known: Iterable[str]) -> frozenset[str]:
    """What a set of variables determines: itself and every ancestor."""
    return frozenset(above for name in known for above in tree.path(name))


def _leaf_costs(hidden: bool) -> dict[str, _Cost]:
    return {"hidden": _Cost(0, 1, ()) if hidden else _IMPOSSIBLE,
            "visible": _IMPOSSIBLE if hidden else _Cost(0, 0, ()), "cut": _IMPOSSIBLE}  # fmt: skip


def cost_with(own: tuple[int, int, tuple[str, ...]], below: Iterable[_Cost]) -> _Cost:
    """The cost of a node, (dimension, leaves on the hidden side, chosen names), with those of all nodes below it."""
    dimension, hidden_side, chosen = own
    for cost in below:
        dimension, hidden_side = dimension + cost.dimension, hidden_side + cost.hidden_side
        chosen += cost.chosen
    return _Cost(dimension, hidden_side, chosen)


def _check(tree: Tree, hidden: Collection[str]) -> None:
    if unknown := [name for name in hidden if name not in tree.leaves]:
        raise LcmaeError(f"hidden: got {unknown[0]!r}, which is no leaf, {nearest(unknown[0], tree.leaves)}")
    if not possible(tree, hidden):
        raise LcmaeError(
            f"hidden: got {len(set(hidden))} of {len(tree.leaves)} leaves, expected a visible and a hidden one"
        )
