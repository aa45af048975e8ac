"""The recipes of a profile: what `smoke`, `quick`, `lab` and `paper` change in the published ones."""

from typing import Any

from lcmae_core.config import LcmaeError, Supervision, nearest
from lcmae_core.config.downstream import HELD, RECIPES, AnyRecipe, FineTune, LinearProbe, R, Recipe, RidgeProbe, vary

PUBLISHED_AUGMENTATION: dict[str, Any] = RECIPES["scratch"].model_dump(include=set(Supervision.model_fields))
"""Leaves of the settings `Supervision` as published: what fine-tuning's `scratch` has."""
PUBLISHED_COLOURS: dict[str, Any] = {
    "jitter": 0.4, "hue": 0.1, "jitter_prob": 0.8, "grey_prob": 0.2, "blur_probs": (1.0, 0.1, 0.5),
    "solarise_prob": 0.2,
}  # fmt: skip
"""Leaves of the settings `Dino` that say how its crops are coloured, as published (Caron et al. 2021)."""

DESK_PROBE = RidgeProbe()
"""In closed form, on features of whole images: LARS would take more minutes than the features."""
RATES: dict[str, tuple[float, ...]] = {"desk": (2.5e-3, 8e-3, 2.5e-2)}
"""base_lr among which a profile's fine-tuning is chosen (`training.choose`), the same for every row: at batch 32 rates
of 3e-4, 1e-3 and 3e-3, around quick's 2e-3 and the 1e-3 with which small ViTs are trained, a factor of 3 apart."""

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
    "desk": {
        "batch_size": 32, "epochs": 100, "base_lr": RATES["desk"][1], "label_share": 0.1, "warmup": 0.1,
        "rand_augment": None, "erase": 0.0, "cutmix": 0.0,
    },
    "paper": {"precision": "bf16"},
}  # fmt: skip
"""lab: RandAugment costs a CPU core about 3 ms an image: 100 epochs of Imagenette would take 16 cores three minutes
a run, most of the three GPU-hours of the profile; 30 epochs take one. Not tuned: no accuracy was looked at.
quick learns from 512 images: mixed ones would teach it little. Its rate is the same for every preset.
desk: a tenth of the labels, where pre-training matters most and a run takes minutes; of augmentation crop, flip and
mixup alone; drop path, smoothing and layer decay as published."""


def probing(profile: str) -> LinearProbe | RidgeProbe:
    """The linear probe of a profile.

    Raises:
        LcmaeError: an unknown profile.
    """
    return DESK_PROBE if profile == "desk" else vary(LinearProbe(), _PROBE[_known(profile, _PROBE)])


def fine_tuning(profile: str, preset: str = "v2") -> FineTune:
    """Fine-tuning of a profile, from the preset v2, mae, scratch or anchor (`RECIPES`).

    Raises:
        LcmaeError: an unknown profile or preset.
    """
    recipe, changes = RECIPES[_known(preset, RECIPES)], _FINE_TUNE[_known(profile, _FINE_TUNE)]
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


def _known(name: str, names: Any) -> str:
    if name not in names:
        raise LcmaeError(f"unknown recipe {name!r}: {nearest(name, names)}")
    return name
