"""What is compared, and at which sizes: names and numbers alone, known before torch is loaded."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

MODELS = {
    "mae": "our MAE",
    "mae-plain": "our MAE, nn.Linear",
    "hf": "HF ViTMAE",
    "hf-compiled": "HF ViTMAE, compiled",
    "lightly": "lightly's MAE",
    "textbook": "textbook MAE",
    "mae-d2": "our MAE, decoder 2",
    "lcmae": "our LC-MAE, decoder 2",
    "loop": "our loop, crops included",
    "textbook-loop": "textbook loop, crops included",
}
"""Name -> what the table calls it. `mae-plain` is our model with PyTorch's own linear layers (see models/linear.py)."""
QUICK = {"width": 64, "depth": 2, "heads": 2, "decoder_width": 32, "decoder_heads": 2, "image_size": 64}


class ModelSize(NamedTuple):
    """A size of model that all are compared at.

    models: who takes part unless others are asked for. threads: of a CPU; None means all cores.
    """

    title: str
    profile: str
    batch: int
    image_size: int
    models: tuple[str, ...]
    threads: int | None = None


CASES = {
    "vit-b": ModelSize(
        "ViT-B/16", "paper", 8, 224, ("mae", "hf", "hf-compiled", "lightly", "textbook", "mae-d2", "lcmae")
    ),
    "desk": ModelSize(
        "desk model", "desk", 32, 64,
        ("mae", "hf", "hf-compiled", "lightly", "textbook", "lcmae", "loop", "textbook-loop"), 1,
    ),
}  # fmt: skip
"""Batches are those of a CPU; a GPU takes `GPU_BATCH`."""
GPU_BATCH = 256
SHALLOW = ("mae-d2", "lcmae", "loop", "textbook-loop")
"""Whose decoder has the depth of the profile, 2, and not the 8 of the public MAE code, in ViT-B/16."""


class Shape(NamedTuple):
    """Size of the models and of a batch, and where they run; `quick` means tiny models."""

    batch: int
    image_size: int
    quick: bool
    device: "torch.device"
    case: str = "vit-b"
