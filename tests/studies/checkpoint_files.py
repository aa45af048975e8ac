"""Made-up files of the official formats, small enough to be measured in seconds."""

from pathlib import Path

import torch

from tests.models.reference import official_state

SIZES = {"width": 768, "patch": 32, "side": 4, "depth": 2}
"""Published widths, whose heads are known; two blocks and a 4 x 4 grid keep them fast."""


def mae_file(folder: Path, name: str = "mae_visualize_vit_base.pth") -> Path:
    """As facebookresearch/mae saves a full model."""
    torch.save({"model": official_state(**SIZES)}, folder / name)
    return folder / name


def dino_file(folder: Path, name: str = "dino_vitbase16_pretrain.pth") -> Path:
    """As facebookresearch/dino saves a backbone: a bare state dict of an encoder."""
    torch.save(official_state(**SIZES, decoder=False, seed=1), folder / name)
    return folder / name


def deit_file(folder: Path, name: str = "deit_base_patch16_224-b5f2ef4d.pth") -> Path:
    """As facebookresearch/deit saves a classifier."""
    head = {"head.weight": torch.zeros(10, SIZES["width"]), "head.bias": torch.zeros(10)}
    torch.save({"model": official_state(**SIZES, decoder=False, seed=2) | head}, folder / name)
    return folder / name
