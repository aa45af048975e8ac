"""The profiles: named sets of leaves for a purpose and a machine."""

from typing import Any

from lcmae_core.config.errors import LcmaeError, nearest
from lcmae_core.config.settings import Settings, replace

PROFILES = ("smoke", "quick", "desk", "lab", "paper")
IN_NOTEBOOK = ("smoke", "quick")
"""Profiles whose runs a notebook trains by itself; those of the others are trained by `lcmae study`."""


def profile(name: str) -> Settings:
    """The plain-MAE settings of a profile (with the sizes of DINO for the day it is asked for); studies change leaves.

    smoke: quick's shapes, a handful of steps. quick: two CPU cores, minutes. desk: two CPU cores, one to three days:
    every claim judged on Imagenette at 64 px. lab: one GPU, ViT-Ti, the paper's 14x14 grid. paper: v2 section 5,
    ViT-B/16 on ImageNet-1k.
    """
    if name not in PROFILES:
        raise LcmaeError(f"unknown profile {name!r}: {nearest(name, PROFILES)}")
    return replace(Settings(), _PROFILE_LEAVES[name])


_PROFILE_LEAVES: dict[str, dict[str, Any]] = {
    "smoke": {
        "steps": 4, "batch_size": 8, "checkpoint_every": 2, "log_every": 1, "tensorboard": False, "progress": False,
    },
    "quick": {"steps": 500, "batch_size": 16, "base_lr": 3.2e-2, "log_every": 10, "tensorboard": False},
    "desk": {
        "seed": 1, "batch_size": 32, "steps": None, "epochs": 30, "base_lr": 1.2e-2, "log_every": 100,
        "checkpoint_every": 500, "tensorboard": False, "source": "torchvision:Imagenette", "dino_dim": 256,
    },
    "lab": {
        "image_size": 112, "patch_size": 8, "width": 192, "depth": 12, "heads": 3,
        "decoder_width": 192, "decoder_heads": 6,
        "batch_size": 256, "steps": None, "epochs": 100, "base_lr": 1e-3, "precision": "bf16", "compile": True,
        "log_every": 50, "checkpoint_every": 1000, "workers": 8, "source": "parquet:data/imagenette-128",
        "local_size": 48, "dino_dim": 4096, "dino_hidden": 1024, "dino_bottleneck": 256,
    },
    "paper": {
        "image_size": 224, "patch_size": 16, "width": 768, "depth": 12, "heads": 12,
        "decoder_width": 512, "decoder_depth": 2, "decoder_heads": 16,
        "batch_size": 1024, "steps": None, "epochs": 100, "warmup": 0.2, "base_lr": 1.5e-4, "precision": "bf16",
        "compile": True, "log_every": 50, "checkpoint_every": 1000, "workers": 8, "source": "folder:data/imagenet",
        "local_size": 96, "dino_dim": 65536, "dino_hidden": 2048, "dino_bottleneck": 256,
    },
}  # fmt: skip
"""Leaves in which a profile departs from the defaults. Rates of quick and lab: CHANGELOG, "Learning-rate sweep"."""
