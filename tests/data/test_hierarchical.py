"""The model of the world is what it says.

Claims: dimensions add up along a path; a leaf alone gives back all its ancestors; noise is standard normal, independent
between variables, and a variable is independent of its children's noise; every setting has an effect; the generator
alone decides; trees that are none and settings out of range are refused in one line.
"""

import pytest
import torch

from lcmae_core.config import LcmaeError
from lcmae_core.data.hierarchical import HierarchicalModel, Hierarchy, hierarchy, make_tree

SMALL = {"splits": ((1, 2), (2, 1)), "noise": (2, 1, 1), "scale": (1.0, 1.0, 0.5)}


def seeded(seed: int = 0) -> torch.Generator:
    """A generator."""
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def model() -> HierarchicalModel:
    """A binary tree over 2 x 2 patches of 2 x 2 pixels."""
    return HierarchicalModel(hierarchy(**SMALL))


def test_tree_by_hand(model):
    tree = model.tree
    assert tree.names == ("root", "z1.0.0", "z1.0.1", "x.0.0", "x.0.1", "x.1.0", "x.1.1")
    assert tree.leaves == ("x.0.0", "x.0.1", "x.1.0", "x.1.1")  # row by row, as patches are
    assert tree.path("x.1.0") == ("x.1.0", "z1.0.0", "root")  # column 0
    assert tree.leaves_below("z1.0.1") == ("x.0.1", "x.1.1")
    assert [tree.dimension(name) for name in ("root", "z1.0.1", "x.1.1")] == [2, 3, 4]
    assert model.settings.grid == (2, 2)
    assert model.settings.patch_size == 2


def test_every_leaf_of_the_default_lies_below_its_place():
    model = HierarchicalModel(Hierarchy())
    for row, col in ((0, 0), (3, 5), (7, 2)):
        assert model.tree.path(f"x.{row}.{col}")[1:] == (
            f"z2.{row // 2}.{col // 2}",
            f"z1.{row // 4}.{col // 4}",
            "root",
        )


def test_dimensions_and_names_of_a_sample(model):
    sample = model.sample(5, seeded())
    assert sample.patches.shape == (5, 4, 4)
    assert sample.patches.dtype == torch.float32
    assert {name: part.shape[1] for name, part in sample.latents.items()} == {"root": 2, "z1.0.0": 3, "z1.0.1": 3}
    assert {name: part.shape[1] for name, part in sample.noise.items()} == dict(model.tree.noise)


@pytest.mark.parametrize("bend", [0.3, 1.0, 3.0])
def test_a_leaf_gives_back_all_its_ancestors(bend):
    model = HierarchicalModel(Hierarchy(bend=bend))
    sample = model.sample_exact(200, seeded())
    for place, leaf in ((0, "x.0.0"), (42, "x.5.2")):
        found = model.invert(sample.patches[:, place], leaf)
        assert set(found) == set(model.tree.path(leaf)[1:])
        for name, values in found.items():
            torch.testing.assert_close(values, sample.latents[name], rtol=0, atol=1e-9)


def test_the_wrong_leaf_does_not(model):
    sample = model.sample_exact(200, seeded())
    wrong = model.invert(sample.patches[:, 0], "x.0.1")  # the value of x.0.0
    assert (wrong["z1.0.1"] - sample.latents["z1.0.1"]).abs().mean() > 0.1


def test_the_model_is_not_linear(model):
    sample = model.sample_exact(4000, seeded())
    inputs = torch.cat([sample.latents["root"], sample.noise["z1.0.0"]], dim=1)
    inputs = torch.cat([inputs, torch.ones(4000, 1)], dim=1)
    fit = torch.linalg.lstsq(inputs, sample.latents["z1.0.0"]).solution
    assert (inputs @ fit - sample.latents["z1.0.0"]).var() > 0.01


def test_noise_is_standard_and_independent(model):
    sample = model.sample_exact(20_000, seeded())
    noise = torch.cat(list(sample.noise.values()), dim=1)  # (B, all)
    bound = 5 / 20_000**0.5
    torch.testing.assert_close(noise.T @ noise / 20_000, torch.eye(noise.shape[1]).double(), rtol=0, atol=2 * bound)
    below = torch.cat([sample.noise[name] for name in ("z1.0.0", "z1.0.1")], dim=1)
    assert torch.corrcoef(torch.cat([sample.latents["root"], below], dim=1).T)[:2, 2:].abs().max() < bound
    cross = torch.corrcoef(torch.cat([sample.latents["root"].abs(), below.abs()], dim=1).T)[:2, 2:]
    assert cross.abs().max() < bound  # nor in their sizes


def test_variables_are_standardised_and_siblings_share_their_parent(model):
    sample = model.sample_exact(20_000, seeded(1))
    assert sample.patches.mean(dim=0).abs().max() < 0.06
    assert (sample.patches.std(dim=0) - 1).abs().max() < 0.06
    column, row = sample.patches[:, [0, 2]], sample.patches[:, [0, 1]]  # same parent; same root alone

    def alike(pair):
        return (pair[:, 0] * pair[:, 1]).mean()

    assert alike(column) > alike(row) + 0.05 > 0.1


def test_the_generator_alone_decides(model):
    first, again, other = (model.sample(3, seeded(seed)).patches for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "change",
    [{"bend": 2.0}, {"function_seed": 1}, {"scale": (1.0, 1.0, 1.0)}, {"noise": (1, 2, 1)}, {"channels": 4},
     {"splits": ((2, 1), (1, 2))}],
    ids=str,
)  # fmt: skip
def test_every_setting_has_an_effect(model, change):
    changed = HierarchicalModel(hierarchy(**(SMALL | change)))
    same = torch.equal(changed.sample(4, seeded()).patches, model.sample(4, seeded()).patches)
    assert not same or changed.settings.patch_size != model.settings.patch_size or changed.tree != model.tree


@pytest.mark.parametrize(
    ("edges", "noise", "line"),
    [
        ([("a", "b"), ("b", "a")], {"a": 1, "b": 1}, "tree: got the cycle a <- b <- a, expected none"),
        ([("r", "a"), ("b", "c"), ("c", "b")], dict.fromkeys("rabc", 1), "tree: got the cycle"),
        (
            [("a", "c"), ("b", "c")],
            dict.fromkeys("abc", 1),
            "tree: got parents 'a' and 'b' of 'c', expected one",
        ),
        ([], {"a": 1}, "tree: got no leaves, expected at least one variable below the root"),
        ([("a", "b")], {"a": 1, "b": 1, "c": 1}, r"tree: got 2 roots \(a, c\), expected one"),
        (
            [("root", "leaf")],
            {"root": 1, "laef": 1},
            "tree: variable 'leaf' has no noise dimension, did",
        ),
        ([("a", "b")], {"a": 0, "b": 1}, "tree: got 0 noise dimensions of 'a', expected 0 or more"),
        ([("a", "b")], {"a": 1, "b": -1}, "tree: got -1 noise dimensions of 'b'"),
    ],
)
def test_trees_that_are_none(edges, noise, line):
    with pytest.raises(LcmaeError, match=line) as error:
        make_tree(edges, noise)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("leaves", "line"),
    [
        ({"noise": (2, 1)}, "noise: got 2 entries, expected 3, one a level"),
        ({"noise": (2, 1, 2)}, "noise: got a sum of 5, expected channels x side x side"),
        ({"noise": (0, 3, 1)}, "noise: got .* 1 or more of the root"),
        ({"scale": (1.0, 0.0, 1.0)}, "scale: got .* expected numbers above 0"),
        ({"splits": ((1, 1), (1, 1))}, "splits: got .* two leaves or more"),
        ({"bend": 0.0}, "bend: got 0.0, expected greater than 0"),
        ({"noize": (2, 1, 1)}, "unknown setting 'noize' of a hierarchy: did you mean 'noise'"),
    ],
)
def test_settings_out_of_range(leaves, line):
    with pytest.raises(LcmaeError, match=line) as error:
        hierarchy(**(SMALL | leaves))
    assert "\n" not in str(error.value)


def test_unknown_variables(model):
    with pytest.raises(LcmaeError, match=r"leaf: got 'x.9.9', "):
        model.invert(torch.zeros(1, 4), "x.9.9")
    with pytest.raises(LcmaeError, match=r"variable: got 'rot', did you mean 'root'"):
        model.tree.path("rot")
