"""Settings and arguments that were renamed: both names are taken everywhere, files and digests of settings keep the
former one."""

import json
from pathlib import Path

import pytest

from lcmae_core.config import LcmaeError, Settings, digest, parse, replace
from lcmae_core.config.downstream import RECIPES, FineTune, parse_recipe, vary
from lcmae_core.config.errors import nearest
from lcmae_core.config.resolve import Asked
from tests.loops import over

RENAMED = {"accumulate": "accum_steps", "hold_gb": "device_cache_gb", "siamese_in": "siamese_in_view",
           "siamese_cross": "siamese_cross_view"}  # fmt: skip
GROUP = {"accumulate": "optim", "hold_gb": "runtime", "siamese_in": "siamese", "siamese_cross": "siamese"}


@over(("old", "name"), RENAMED.items())
def test_both_names_mean_the_same_and_files_keep_the_old_one(old, name):
    settings = replace(Settings(), {name: 2})
    assert replace(Settings(), {old: 2}) == settings != Settings()
    stored = json.loads(settings.model_dump_json())
    assert stored[GROUP[old]][old] == 2
    assert name not in stored[GROUP[old]]
    assert parse(stored) == settings
    assert parse({GROUP[old]: {name: 2}}) == settings


def test_a_recipe_takes_both_names():
    recipe = vary(RECIPES["v2"], accum_steps=2)
    assert vary(RECIPES["v2"], accumulate=2) == recipe
    assert recipe.model_dump(exclude_defaults=True) == {"accumulate": 2}
    assert parse_recipe(FineTune, recipe.model_dump()) == recipe


@over(
    ("changes", "expected"),
    [
        ({"accumulate": 2}, "39ae34652f"),
        ({"method": "siamese", "siamese_in": 0.5, "siamese_cross": 2.0}, "4fd5a625f5"),
        ({"hold_gb": 1.0}, "db4e6756fa"),
        ({}, "db4e6756fa"),
    ],
)
def test_digests_are_those_of_before_the_names_changed(changes, expected):
    assert digest(replace(Settings(), changes), "x") == expected
    assert (
        digest(replace(Settings(), {RENAMED.get(name, name): value for name, value in changes.items()}), "x")
        == expected
    )


def test_the_committed_records_still_bear_the_digest_of_their_settings():
    files = sorted(Path("outputs/desk/results/runs").glob("*.json"))
    assert files
    for file in files:
        content = json.loads(file.read_text())
        assert file.stem.rpartition("-")[2] == digest(parse(content["settings"]), content["fingerprint"]), file.name


def test_parameters_are_read_by_either_name_but_not_by_both():
    assert Asked(parameters={"accumulate": 2, "seed": 1}).own == {"accum_steps": 2}
    with pytest.raises(LcmaeError, match=r"^accum_steps: got it as 'accumulate' too, its former name, expected one"):
        _ = Asked(parameters={"accumulate": 2, "accum_steps": 2}).own
    with pytest.raises(LcmaeError, match=r"^accum_steps: got it as 'accumulate' too"):
        replace(Settings(), {"accumulate": 2}, accum_steps=2)


def test_an_error_names_todays_setting():
    with pytest.raises(LcmaeError, match=r"^accum_steps: got 0, expected greater than 0$"):
        replace(Settings(), accumulate=0)


def test_a_nearest_name_is_said_where_it_is_near():
    names = ["compile", "base_lr", "image_size", "patch_size", "mask_ratio"]
    assert nearest("mask_ration", names) == "did you mean 'mask_ratio'?"
    assert nearest("lr", names) == "did you mean 'base_lr'?"
    assert nearest("size", names) == "did you mean 'image_size' or 'patch_size'?"
    assert nearest("nope", names) == "expected one of: compile, base_lr, image_size, patch_size, mask_ratio"
    assert nearest("nope", names, "lcmae train --list") == "expected one of those that lcmae train --list shows"
    assert nearest("", ["a_", "b"]) == "expected one of: a_, b"


def test_former_keywords_of_functions_are_taken_and_said():
    from lcmae_core.analysis.collapse import collapses

    with pytest.warns(DeprecationWarning, match=r"collapses\(found=\) is now retrieved="):
        assert collapses(same_place=0.5, found=0.04, chance=0.01)
    assert not collapses(0.5, retrieved=0.06, chance=0.01)
    with pytest.raises(LcmaeError, match="retrieved: got it as 'found' too"):
        collapses(0.5, found=0.04, retrieved=0.04, chance=0.01)
