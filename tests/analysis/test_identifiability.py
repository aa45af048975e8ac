"""The identifiable set is the theorem's.

Claims: it equals brute force over every set of latents with networkx's d-separation on 200 random trees and masks; it
is right by hand for three masks, and for a tie; what it determines follows; a planted fault is
noticed; masks that hide or show everything are skipped, or refused in one line.
"""

import random

import pytest

from lcmae_core.analysis import identifiability as ident
from lcmae_core.config import LcmaeError
from lcmae_core.data.hierarchical import Tree, make_tree
from tests.loops import over

PAIRS = [("r", "a"), ("r", "b"), ("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")]


def pairs(**noise: int) -> Tree:
    """A root of 2 dimensions, two latents below it, and two leaves below each."""
    return make_tree(PAIRS, {"r": 2, "a": 1, "b": 1, **dict.fromkeys("1234", 1)} | noise)


def random_case(seed: int) -> tuple[Tree, list[str]]:
    """A tree of 4 to 11 variables with noise of 0 to 3 dimensions (ties occur), and a mask, possibly of all or none."""
    draw = random.Random(seed)
    names = [f"v{i}" for i in range(draw.randint(4, 11))]
    edges = [(names[draw.randrange(i)], names[i]) for i in range(1, len(names))]
    tree = make_tree(edges, {name: draw.randint(0 if i else 1, 3) for i, name in enumerate(names)})
    return tree, draw.sample(tree.leaves, draw.randint(0, len(tree.leaves)))


def cases(count: int) -> list[tuple[Tree, list[str]]]:
    """The first `count` random cases whose mask hides and shows something."""
    return [case for case in map(random_case, range(3 * count)) if ident.possible(*case)][:count]


def disagreements(count: int) -> int:
    """How many of the random cases brute force answers otherwise."""
    return sum(ident.identifiable_set(*case) != ident.brute_force_set(*case) for case in cases(count))


def test_equals_brute_force_on_200_random_trees():
    assert len(cases(200)) == 200
    assert disagreements(200) == 0


@pytest.mark.parametrize("fault", ["dimension", "side"])
def test_a_planted_fault_is_noticed(monkeypatch, fault):
    add = ident.cost_with

    def forgets_dimensions(own, below):
        return add((min(own[0], 1), *own[1:]), below)

    def prefers_the_far_side(own, below):
        return add((own[0], -own[1], own[2]), below)

    monkeypatch.setattr(ident, "cost_with", forgets_dimensions if fault == "dimension" else prefers_the_far_side)
    assert disagreements(60) > 0


@over(
    ("hidden", "latents", "dimension"),
    [
        ("12", ("r",), 2),  # one half hidden: root (2), a (3) and b (3) all separate; the root has the least dimension
        ("1", ("a",), 3),  # only a lies between leaf 1 and its sibling 2
        ("13", ("a", "b"), 6),  # every pair is split: both are needed, and the root is theirs anyway
    ],
)
def test_three_masks_by_hand(hidden, latents, dimension):
    assert ident.identifiable_set(pairs(), hidden) == (latents, dimension)
    assert ident.brute_force_set(pairs(), hidden) == (latents, dimension)


def test_a_tie_goes_to_the_one_nearest_the_hidden_leaves():
    tree = pairs(a=0, b=0)
    assert ident.identifiable_set(tree, "12") == (("a",), 2)
    assert ident.identifiable_set(tree, "34") == (("b",), 2)


def test_a_large_root_pushes_nothing_down():
    assert ident.identifiable_set(pairs(r=9), "12").latents == ("r",)  # children have at least their parent's dimension


def test_what_is_determined():
    tree = pairs()
    assert ident.determined(tree, ("a",)) == {"a", "r"}


def test_masks_of_all_or_none_are_skipped_and_refused():
    tree = pairs()
    assert not ident.possible(tree, ())
    assert not ident.possible(tree, "1234")
    for hidden, number in (("", 0), ("1234", 4)):
        with pytest.raises(LcmaeError, match=f"hidden: got {number} of 4 leaves, expected a visible and a hidden one"):
            ident.identifiable_set(tree, hidden)
    with pytest.raises(LcmaeError, match="hidden: got 'a', which is no leaf"):
        ident.brute_force_set(tree, ["a"])
