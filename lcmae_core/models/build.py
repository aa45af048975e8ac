"""The model of a run, whatever its method; every one has the collection's `Encoder` as `.encoder`."""

import torch

from lcmae_core.config import Settings
from lcmae_core.models.mae import MAE, build_mae
from lcmae_core.models.reference import Dino, Supervised, build_dino, build_supervised, class_count
from lcmae_core.models.siamese import Siamese, build_siamese
from lcmae_core.store.runs import Run

AnyModel = MAE | Dino | Supervised | Siamese
"""What `build_model` makes for `method` mae or ae, dino, supervised, siamese."""


def build_model(settings: Settings, classes: int | None = None) -> AnyModel:
    """The model of these settings on the CPU, its weights drawn from the seed alone.

    `classes` sizes the head of a supervised model; without it the settings' source is opened to count its labels.

    Raises:
        LcmaeError: a supervised model of a source without labels; DINO without the package lightly.
    """
    if settings.method == "dino":
        return build_dino(settings)
    if settings.method == "supervised":
        return build_supervised(settings, class_count(settings) if classes is None else classes)
    return build_siamese(settings) if settings.method == "siamese" else build_mae(settings)


def model_of(run: Run, step: int | None = None, device: torch.device | str = "cpu") -> AnyModel:
    """The model of a run as it stood at a kept step (by default the last), in evaluation mode.

    Raises:
        LcmaeError: nothing is kept at that step.
    """
    weights = run.weights(step)
    model = build_model(run.settings, classes=len(weights.get("head.bias", ())))
    model.load_state_dict(weights)
    return model.to(device).eval()
