"""Claims: every leaf of a recipe, the origin, the seed, the data and the encoder's shape name an evaluation, and
nothing else does; predictions come back as they were; recipes are strict, and their errors one line.
"""

import numpy as np
import pytest

from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.config.downstream import RECIPES, FineTune, LinearProbe, Recipe, RidgeProbe, vary
from lcmae_core.store.evaluations import (
    PREDICTIONS,
    Predictions,
    evaluation_digest,
    load_evaluation,
    load_predictions,
    open_evaluation,
    save_predictions,
)
from lcmae_core.training.presets import fine_tuning, probing
from tests.loops import over

OTHER = {
    "batch_size": 32, "steps": 7, "epochs": 3.0, "warmup": 0.2, "base_lr": 0.5, "min_lr": 1e-7,
    "crop_scale": (0.5, 1.0),
    "crop_ratio": (1.0, 1.0), "flip": False, "precision": "bf16",
    "cached": True, "token": "mean", "momentum": 0.5, "probe_decay": 0.1, "trust": 0.01,
    "accum_steps": 2, "beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1, "layer_decay": 0.5, "drop_path": 0.2,
    "rand_augment": None, "erase": 0.5, "mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0, "head_std": 0.02,
    "clip_grad": 1.0, "ema": 0.9, "label_share": 0.5, "held_fifth": True, "folds": 3, "penalties": (1.0, 2.0),
}  # fmt: skip


@pytest.fixture
def settings(tmp_path):
    return replace(profile("smoke"), out=str(tmp_path))


@pytest.mark.parametrize("recipe", [LinearProbe(), RidgeProbe(), FineTune()])
def test_every_leaf_of_a_recipe_changes_the_digest(settings, recipe):
    leaves = set(type(recipe).model_fields)
    assert leaves <= set(OTHER)
    other = OTHER | ({"token": "cls"} if isinstance(recipe, RidgeProbe) else {})
    changed = [vary(recipe, {leaf: other[leaf]}) for leaf in leaves]
    assert len({evaluation_digest(settings, r, "mae", "x") for r in [recipe, *changed]}) == len(leaves) + 1


def test_what_else_names_an_evaluation(settings):
    def digest(changes=None, origin="mae", data="x", recipe: Recipe = RECIPES["v2"]):
        return evaluation_digest(replace(settings, changes or {}), recipe, origin, data)

    read = [{"seed": 1}, {"image_size": 32}, {"channels": 1}, {"validation_fraction": 0.3}, {"patch_size": 4},
            {"width": 96}, {"depth": 2}, {"heads": 2}, {"mlp_ratio": 2.0}]  # fmt: skip
    others = [digest(change) for change in read] + [
        digest(origin="dino"),
        digest(data="y"),
        digest(recipe=probing("quick")),
    ]
    assert len({digest(), *others}) == len(others) + 1
    for unread in ({"workers": 0}, {"mask_ratio": 0.5}, {"steps": 9}, {"crop_scale": (0.5, 1.0)}, {"out": "there"}):
        assert digest(unread) == digest()


def test_an_evaluation_comes_back(settings):
    for recipe in (vary(probing("quick"), token="mean"), probing("desk"), fine_tuning("smoke", "mae")):
        made = open_evaluation(settings, recipe, "untrained0", "x")
        found = load_evaluation(made.path)
        assert (found.settings, found.recipe, found.origin) == (settings, recipe, "untrained0")
        assert made.path.parent.name == "evaluations"
        assert made.name.startswith(f"{recipe.kind}-untrained0-s0-")
        with pytest.raises(LcmaeError, match="which is not finished, expected a finished evaluation"):
            _ = found.predictions
    with pytest.raises(LcmaeError, match=r"expected an evaluation's folder with recipe\.json"):
        load_evaluation(settings.runtime.out)


@pytest.mark.parametrize("most", [3, 999])
def test_predictions_come_back(tmp_path, most):
    rng = np.random.default_rng(0)
    made = Predictions(rng.integers(0, most + 1, 50), rng.integers(0, most + 1, 50), rng.random(50, dtype=np.float32))
    made.label[0], file = most, tmp_path / PREDICTIONS
    save_predictions(file, made)
    found = load_predictions(file)
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found, made))
    assert np.array_equal(found.right, made.label == made.predicted)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(LcmaeError, match="expected a readable npz"):
        load_predictions(file)
    with pytest.raises(LcmaeError, match="expected a readable npz"):
        load_predictions(tmp_path / "none.npz")


def test_recipes_are_the_published_ones():
    v2, mae, scratch = RECIPES["v2"], RECIPES["mae"], RECIPES["scratch"]
    assert (v2.lr, v2.layer_decay, mae.lr, mae.layer_decay, scratch.layer_decay) == (4e-3, 0.75, 2e-3, 0.65, 1)
    assert v2.total(1_281_167) == 125_114  # 100 epochs of ImageNet-1k in batches of 1024
    assert LinearProbe().lr == pytest.approx(6.4)
    assert LinearProbe().warmup * LinearProbe().epochs == pytest.approx(10)


@over("name", ["smoke", "quick", "desk", "lab", "paper"])
def test_every_profile_has_recipes(name):
    assert isinstance(probing(name), RidgeProbe if name == "desk" else LinearProbe)
    assert fine_tuning(name, "mae").layer_decay == 0.65


@over(
    ("changes", "line"),
    [
        ({"layer_decy": 0.5}, r"unknown setting 'layer_decy' \(= 0.5\): .*layer_decay"),
        ({"layer_decay": 1.5}, "layer_decay: got 1.5, expected"),
        ({"batch_size": 31}, "batch_size: got 31, expected an even number"),
        ({"accum_steps": 3}, "accum_steps: got 3, expected a divisor of batch_size 1024"),
        ({"steps": 3, "epochs": 2.0}, "steps, epochs: got 3, 2.0, expected exactly one"),
        ({"rand_augment": "augmix"}, "rand_augment: got 'augmix', expected timm's form"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale: got .*, expected 0 < low <= high <= 1"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio: got .*, expected 0 < low <= high"),
        ({"min_lr": 1.0}, "min_lr: got 1.0, expected at most the peak rate"),
    ],
)
def test_a_wrong_recipe_is_one_line(changes, line):
    with pytest.raises(LcmaeError, match=line) as caught:
        vary(FineTune(), changes)
    assert "\n" not in str(caught.value)


def test_unknown_profiles_and_presets_name_the_nearest():
    with pytest.raises(LcmaeError, match=r"unknown profile 'quik'.*quick"):
        probing("quik")
    with pytest.raises(LcmaeError, match=r"unknown recipe 'scrach'.*scratch"):
        fine_tuning("quick", "scrach")


def test_steps_and_epochs_take_each_other_back():
    assert vary(FineTune(), steps=5).epochs is None
    assert vary(vary(FineTune(), steps=5), epochs=2.0).steps is None
