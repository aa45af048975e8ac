"""Claims: random init and pre-trained rows are fine-tuned by one recipe at every profile, the scratch recipe stands
beside it for random init alone; the probe that judges reads the mean token; desk's recipes are those of the rule book;
the references have the published augmentation from lab up; a batch fits the images that a recipe really trains on.
"""

import pytest

from lcmae_core.config import LcmaeError, profile
from lcmae_core.config.downstream import RECIPES, FineTune, RidgeProbe, vary
from lcmae_core.config.profiles import PUBLISHED_AUGMENTATION, PUBLISHED_COLOURS, profile_of
from lcmae_core.studies import references
from lcmae_core.training.presets import (
    clip_batch,
    fine_tuning,
    probing,
    recipe_of,
)

EVERY = ("smoke", "quick", "desk", "lab", "paper")


def test_random_init_is_fine_tuned_by_the_recipe_of_pretrained_rows():
    for name in EVERY:
        untrained, trained = (recipe_of("finetune", name, trained=known) for known in (False, True))
        assert untrained == trained == fine_tuning(name, "v2"), name
        beside = recipe_of("finetune_scratch", name, trained=False)
        assert beside == fine_tuning(name, "scratch")
        assert beside == vary(untrained, layer_decay=1.0)  # nothing else differs
        assert recipe_of("finetune_scratch", name, trained=True) is None
        assert recipe_of("knn", name, trained=True) is None


def test_the_probe_that_judges_reads_the_mean_token():
    for name in EVERY:
        assert recipe_of("probe", name, trained=True) == vary(probing(name), token="mean")
    assert probing("lab").token == probing("paper").token == "cls"  # as published
    assert {probing(name).kind for name in ("smoke", "quick", "lab", "paper")} == {"probe"}
    assert probing("desk") == RidgeProbe()


def test_fine_tuning_at_desk_is_that_of_the_rule_book():
    desk, anchor = fine_tuning("desk"), fine_tuning("desk", "anchor")
    assert (desk.batch_size, desk.epochs, desk.label_share) == (32, 100, 0.1)
    assert desk.total(947) == 2959
    assert (desk.rand_augment, desk.erase, desk.cutmix, desk.flip) == (None, 0.0, 0.0, True)
    assert desk.mixup > 0
    rates = profile_of("desk").fine_tuning_rates
    assert desk.base_lr in rates
    assert len(set(rates)) == 3
    assert anchor == vary(desk, label_share=1.0, epochs=10)
    assert fine_tuning("quick", "anchor") == fine_tuning("quick")  # so short that nothing is left to shorten
    for wrong in ("desks", "labs"):
        with pytest.raises(LcmaeError, match=f"unknown profile '{wrong}'"):
            fine_tuning(wrong)


def test_references_have_the_published_augmentation_from_lab_up():
    scratch = RECIPES["scratch"]
    assert {name: getattr(scratch, name) for name in PUBLISHED_AUGMENTATION} == PUBLISHED_AUGMENTATION
    assert set(PUBLISHED_AUGMENTATION) == {"drop_path", "rand_augment", "erase", "mixup", "cutmix", "smoothing"}
    for name in ("smoke", "quick", "lab", "paper"):
        runs, base = references(profile(name), name), profile(name)
        if name in ("lab", "paper"):
            assert runs["supervised"].supervision.model_dump() == PUBLISHED_AUGMENTATION
            assert runs["DINO"].dino == base.dino.model_copy(update=PUBLISHED_COLOURS)
        else:
            assert runs["supervised"].supervision == base.supervision
            assert (runs["DINO"].dino.blur_probs, runs["DINO"].dino.solarise_prob) == ((0, 0, 0), 0)


def test_a_batch_fits_the_images_that_are_trained_on():
    recipe = FineTune(batch_size=32, label_share=0.1)
    assert clip_batch(recipe, 9469) is recipe
    assert clip_batch(recipe, 200).batch_size == 20
    assert clip_batch(vary(recipe, held_fifth=True), 200).batch_size == 16
    assert clip_batch(vary(recipe, label_share=1.0), 21).batch_size == 20
    assert clip_batch(RidgeProbe(), 3) == RidgeProbe()
