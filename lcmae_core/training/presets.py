"""The recipes of a profile: what `smoke`, `quick`, `lab` and `paper` change in the published ones."""

from typing import Any

from lcmae_core.config import PROFILES, LcmaeError, nearest
from lcmae_core.config.downstream import RECIPES, FineTune, LinearProbe, R, Recipe, vary

_PROBE: dict[str, dict[str, Any]] = {
    "smoke": {"cached": True, "batch_size": 128, "steps": 20, "base_lr": 12.8},
    "quick": {"cached": True, "batch_size": 1024, "steps": 300, "base_lr": 1.6},
    "lab": {"cached": True, "batch_size": 4096, "steps": 2000, "base_lr": 0.4, "precision": "bf16"},
    "paper": {"precision": "bf16"},
}
"""The fast path up to lab. LARS moves the matrix by lr * trust of its length a step, so a small source needs the
published peak rate (6.4, whatever the batch) and as many steps."""

_FINE_TUNE: dict[str, dict[str, Any]] = {
    "smoke": {"batch_size": 8, "steps": 4},
    "quick": {"batch_size": 16, "steps": 32, "warmup": 0.1, "base_lr": 3.2e-2, "mixup": 0.0, "cutmix": 0.0},
    "lab": {"batch_size": 256, "epochs": 30, "precision": "bf16"},
    "paper": {"precision": "bf16"},
}
"""lab: RandAugment costs a CPU core about 3 ms an image: 100 epochs of Imagenette would take 16 cores three minutes
a run, most of the three GPU-hours of the profile; 30 epochs take one. Not tuned: no accuracy was looked at.
quick learns from 512 images: mixed ones would teach it little. Its rate is the same for every preset."""


def probing(profile: str) -> LinearProbe:
    """The linear probe of a profile.

    Raises:
        LcmaeError: an unknown profile.
    """
    return vary(LinearProbe(), _PROBE[_known(profile, PROFILES)])


def fine_tuning(profile: str, preset: str = "v2") -> FineTune:
    """Fine-tuning of a profile, from the preset v2, mae or scratch (`RECIPES`).

    Raises:
        LcmaeError: an unknown profile or preset.
    """
    return vary(RECIPES[_known(preset, RECIPES)], _FINE_TUNE[_known(profile, PROFILES)])


def fitted(recipe: R, images: int) -> R:
    """The recipe with a batch that the source can fill: all its images (an even number), where it has fewer."""
    if recipe.batch_size <= images:
        return recipe
    return vary(recipe, batch_size=max(2, images // 2 * 2))


def recipe_of(measure: str, profile: str, *, trained: bool) -> Recipe | None:
    """What a study trains a measure with: the probe's or fine-tuning's recipe (an untrained encoder's at one rate for
    all layers), None for a measure that trains nothing."""
    if measure == "probe":
        return probing(profile)
    return fine_tuning(profile, "v2" if trained else "scratch") if measure == "finetune" else None


def _known(name: str, names: Any) -> str:
    if name not in names:
        raise LcmaeError(f"unknown recipe {name!r}: {nearest(name, names)}")
    return name
