"""What a study compares has one horizon; only desk has two. A desk run is measured for all that any claim asks of its
method; the recipe for training from scratch is taken of untrained encoders alone; one image has 5 epochs wherever
epochs count; erasing differs from MAE in nothing else."""

import pytest

from lcmae_core.config import PROFILES, profile, replace
from lcmae_core.studies import RANDOM, STUDIES, leaves
from lcmae_core.studies.tables import erasing, short, table_a1
from lcmae_core.studies.trials import jobs

LONG = {"section32", "fig2", "fig3", "fig5_supervised", "table1", "table2", "hlv_ratios", "hlv_units", "depth"}


def epochs(study, name):
    return {job.case.settings.optim.epochs for job in jobs([study], profile(name), name) if job.case.trained}


def test_each_study_has_one_horizon_and_only_desk_has_two():
    for study in STUDIES.keys() - {"latents", "table_a1"}:
        found = epochs(study, "desk")
        assert found <= {10, 30} and len(found) <= 1, (study, found)  # noqa: PT018
        assert study in ("shape", "controls", "random") or (found == {30}) == (study in LONG), (study, found)
        assert len(epochs(study, "lab")) <= 1, study
    assert [name for name, one in PROFILES.items() if one.short_horizon] == ["desk"]
    for name in PROFILES:
        assert (short(profile(name), name) == profile(name)) == (name != "desk")


def test_a_desk_run_leaves_all_that_claims_need_of_its_method():
    every = jobs(STUDIES, profile("desk"), "desk", complete=True)
    for job in every:
        asked = set(STUDIES[job.study].measures)
        assert asked - set(job.measures) <= {"finetune_scratch", "corruptions"}, job.row
        assert not job.case.trained or {"collapse", "invariance", "distance", "receptive", "probe"} <= set(job.measures)
        assert not job.case.trained or set(leaves(job.case.settings)) <= set(job.measures), job.row
        assert len(set(job.measures)) == len(job.measures)
    mae = next(job for job in every if job.study == "section32")
    assert {"similarity", "reach", "terms", "fidelity", "cues", "knn"} <= set(mae.measures)
    plain = {job.measures for job in jobs(["fig6"], profile("desk"), "desk")}
    assert plain == {STUDIES["fig6"].measures}, "a reader asks for no more than the study's own"


def test_desk_trains_nothing_that_decides_no_claim_and_two_seeds_are_enough_for_the_anchor():
    found = {study: {job.row for job in jobs([study], profile("desk"), "desk")} for study in ("controls", "siamese")}
    assert found == {"controls": set(), "siamese": {"Siamese"}}
    anchored = jobs(["anchor"], profile("desk"), "desk", (1, 2, 3, 4, 5))
    assert {job.case.settings.seed for job in anchored} == {1, 2}
    assert {job.row for job in anchored} == {RANDOM, "MAE", "AE1", "AE7"}


def test_training_from_scratch_is_the_recipe_of_untrained_encoders_alone():
    for job in jobs(["table3", "table_a1"], profile("desk"), "desk"):
        assert ("finetune_scratch" in job.measures) == (job.row == RANDOM) == (not job.case.trained), job.row
        assert "finetune" in job.measures


def test_the_untrained_encoder_is_one_for_all_studies():
    for name in ("quick", "desk"):
        found = {job.record.path for job in jobs(STUDIES, profile(name), name) if job.row == RANDOM}
        assert len(found) == 1, name


def test_one_image_has_five_epochs():
    for name in PROFILES:
        rows = table_a1(profile(name), name)
        assert (rows["one image"].data.train_images, rows["full"].data.train_images) == (1, None)
        same = rows["one image"].optim == rows["full"].optim
        assert same if name in ("smoke", "quick") else rows["one image"].optim.epochs == 5, name


@pytest.mark.parametrize("name", PROFILES)
def test_erasing_differs_in_nothing_else(name):
    rows = erasing(profile(name), name)
    assert replace(rows["erased"], erased=False) == rows["MAE"]
    assert rows["erased"].masking.erased
