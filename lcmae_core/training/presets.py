"""The recipes of a profile: the published ones with what `config.profiles` changes in them."""

from typing import Any

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.config.downstream import HELD, RECIPES, AnyRecipe, FineTune, LinearProbe, R, Recipe, RidgeProbe, vary
from lcmae_core.config.profiles import profile_of


def probing(profile: str) -> LinearProbe | RidgeProbe:
    """The linear probe of a profile.

    Raises:
        LcmaeError: an unknown profile.
    """
    one = profile_of(profile)
    return RidgeProbe() if one.ridge else vary(LinearProbe(), one.probe)


def fine_tuning(profile: str, preset: str = "v2") -> FineTune:
    """Fine-tuning of a profile, from the preset v2, mae, scratch or anchor (`RECIPES`).

    Raises:
        LcmaeError: an unknown profile or preset.
    """
    recipe, changes = RECIPES[_known(preset, RECIPES)], profile_of(profile).fine_tuning
    kept = {"epochs", "label_share"} if preset == "anchor" else set()
    return vary(recipe, {name: value for name, value in changes.items() if name not in kept})


def clip_batch(recipe: R, images: int) -> R:
    """The recipe with a batch that the source can fill: all images that it trains on (an even number), where they are
    fewer. Some of the source's `images` it may leave out (`label_share`, `held_fifth`)."""
    if not isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, FineTune):
        images = int(images * recipe.label_share * (1 - HELD if recipe.held_fifth else 1))
    return recipe if recipe.batch_size <= images else vary(recipe, batch_size=max(2, images // 2 * 2))


FINE_TUNED = {"finetune": "v2", "finetune_scratch": "scratch", "finetune_anchor": "anchor"}
"""Measure -> preset."""


def recipe_of(measure: str, profile: str, *, trained: bool) -> AnyRecipe | None:
    """What a study trains a measure with, None for a measure that trains nothing.

    Random init is fine-tuned by the recipe of pre-trained encoders (v2: all models "employ the same strategy"), and
    beside it, measure finetune_scratch, by that of an untrained one, at one rate for all layers. The probe reads the
    mean of the patch tokens; the measure varies the token.
    """
    if measure == "probe":
        return vary(probing(profile), token="mean")
    if measure not in FINE_TUNED or (measure == "finetune_scratch" and trained):
        return None
    return fine_tuning(profile, FINE_TUNED[measure])


def rates_of(measure: str, profile: str) -> tuple[float, ...]:
    """base_lr among which that of a measure is chosen; none where it is the recipe's own."""
    return profile_of(profile).fine_tuning_rates if measure in FINE_TUNED else ()


def _known(name: str, names: Any) -> str:
    if name not in names:
        raise LcmaeError(f"unknown recipe {name!r}: {nearest(name, names)}")
    return name
