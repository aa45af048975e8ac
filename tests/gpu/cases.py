"""The methods, and what of them takes another way through the code, at sizes that cost a second each."""

import dataclasses
from typing import Any, NamedTuple

import torch

from lcmae_core.bench import rehearsal
from lcmae_core.config import Settings, profile, replace
from lcmae_core.data.sources import open_source
from lcmae_core.models.build import AnyModel
from lcmae_core.models.encoder import Encoder
from lcmae_core.training.objectives import OBJECTIVES, Objective

TINY: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 1,
    "decoder_heads": 2, "projector_dim": 16, "batch_size": 4, "steps": 8, "local_crops": 2, "local_size": 16,
    "dino_dim": 32, "dino_hidden": 24, "dino_bottleneck": 12, "cache_gb": 0.0, "workers": 0, "tensorboard": False,
    "device": "cpu", "snapshots": 0,
}  # fmt: skip
BOTH = {"cross_view": 1.0, "in_view": 1.0}
COLOURS = {"hue": 0.1, "jitter_prob": 0.8, "grey_prob": 0.2, "blur_probs": (1.0, 0.1, 0.5), "solarise_prob": 0.2}
MORE = {"AE": {"block": 3}, "DINO": COLOURS}
METHODS: dict[str, dict[str, Any]] = {name: leaves | MORE.get(name, {}) for name, leaves in rehearsal.METHODS.items()}
"""Every method by name."""
OTHER_WAYS: dict[str, dict[str, Any]] = {
    "MAE, micro-batches": {"accum_steps": 2},
    "MAE, mask cells": {"mask_unit": 2},
    "MAE, erased": {"erased": True},
    "MAE, convolution": {"decoder": "convolution"},
    "MAE, average": {"decoder": "average"},
    "MAE, grey": {"channels": 1},
    "LC-MAE, sums of raw pixels": BOTH | {"reduction": "sum", "in_view_pixels": "raw", "norm_pix": False},
    "LC-MAE, centred, from tokens": BOTH | {"in_view_pixels": "centred", "project_from": "tokens"},
    "DINO, plain colours": {"method": "dino", "jitter": 0.0, "prototypes_frozen": 0.0},
    "supervised, mixed": {"method": "supervised", "mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1, "drop_path": 0.1},
    "Siamese, by place": {"method": "siamese", "positives": "position", "token_average": False},
}
WAYS = METHODS | OTHER_WAYS


def settings_of(name: str, **more: Any) -> Settings:
    """Settings of a method or way by its name."""
    return replace(profile("smoke"), {**TINY, **WAYS[name], **more})


class Subject(NamedTuple):
    """A method ready to be trained."""

    objective: Objective
    model: AnyModel


def subject_of(name: str, **more: Any) -> Subject:
    """Objective and real model of a case, on the CPU."""
    settings = settings_of(name, **more)
    source = open_source(settings.data)
    few = dataclasses.replace(source, train=source.train.subset(range(0, 160, 10)))  # held, they are made at once
    objective = OBJECTIVES[settings.method](settings, few)
    return Subject(objective, objective.build())


def plant(monkeypatch: Any, fault: Any) -> None:
    """Let `fault` see and change the tokens that the encoder of any method gives."""
    plain = Encoder.encode_patches
    monkeypatch.setattr(Encoder, "encode_patches", lambda self, *given: fault(plain(self, *given)))


class InBackward(torch.autograd.Function):
    """Nothing forward; `fault` sees and changes the gradient."""

    fault: Any = None

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        return InBackward.fault(grad)


def read_back(tokens: torch.Tensor) -> torch.Tensor:
    """A planted `.item()`."""
    return tokens + 0.0 * tokens.sum().item()


def cpu_tensor(tokens: torch.Tensor) -> torch.Tensor:
    """A planted tensor on the CPU, whatever the device."""
    return tokens + torch.zeros(tokens.shape[-1])
