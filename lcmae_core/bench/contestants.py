"""The contestants of the benchmark: our models and Hugging Face's, of equal shape, each as one training step.

Letters: B images, N patches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lcmae_core.config import Settings, profile, replace
from lcmae_core.models.linear import Linear
from lcmae_core.models.mae import build_mae
from lcmae_core.models.masking import random_mask
from lcmae_core.training.masked import forward_views, loss_terms
from lcmae_core.training.optim import build_optimizer

MODELS = {
    "mae": "our MAE",
    "mae-plain": "our MAE, nn.Linear",
    "hf": "HF ViTMAE",
    "mae-d2": "our MAE, decoder 2",
    "lcmae": "our LC-MAE, decoder 2",
}
"""Name -> what the table calls it. `mae-plain` is our model with PyTorch's own linear layers (see models/linear.py)."""
QUICK = {"width": 64, "depth": 2, "heads": 2, "decoder_width": 32, "decoder_heads": 2, "image_size": 64}


class Shape(NamedTuple):
    """Size of the models and of a batch, and where they run; `quick` means tiny models."""

    batch: int
    image_size: int
    quick: bool
    device: torch.device


class Inputs(NamedTuple):
    """What every model gets: images, and the noise of two masks (plain MAE uses the first)."""

    images: Tensor  # (B, 3, H, W)
    noise: tuple[Tensor, Tensor]  # (B, N) each


class Contestant(NamedTuple):
    """A model ready to be timed: one training step as a call, and the FLOPs of one."""

    step: Callable[[], Tensor]
    flops: int


def settings_of(name: str, shape: Shape) -> Settings:
    """ViT-B/16 with the decoder of the public MAE code, or of depth 2; two views and all three losses for LC-MAE."""
    depth = 2 if name in ("mae-d2", "lcmae") else 8
    changes: dict[str, Any] = {"image_size": shape.image_size, "decoder_depth": depth}
    if shape.quick:
        changes = QUICK | changes
    if name == "lcmae":
        changes |= {"cross_view": 1.0, "in_view": 1.0}
    return replace(profile("paper"), changes | {"batch_size": shape.batch, "base_lr": 1e-5})


def draw_inputs(shape: Shape) -> Inputs:
    """Random images and noise, the same for every model."""
    generator = torch.Generator().manual_seed(0)
    batch, size = shape.batch, shape.image_size
    images = torch.randn(batch, 3, size, size, generator=generator)
    first, second = (torch.rand(batch, (size // 16) ** 2, generator=generator) for _ in range(2))
    return Inputs(images.to(shape.device), (first.to(shape.device), second.to(shape.device)))


def prepare(name: str, shape: Shape, inputs: Inputs) -> Contestant:
    """Model, optimiser and step of one contestant, warmed up; its FLOPs are counted in the warm-up."""
    settings = settings_of(name, shape)
    model, loss = (_hf if name == "hf" else _ours)(settings, inputs, shape.device)
    if name == "mae-plain":
        for module in model.modules():
            if type(module) is Linear:
                module.__class__ = nn.Linear  # type: ignore[assignment]
    optimizer = build_optimizer(model, settings.optim)

    def step() -> Tensor:
        with torch.autocast(shape.device.type, torch.bfloat16, enabled=shape.device.type == "cuda"):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    step()
    with FlopCounterMode(display=False) as counter:
        step()
    return Contestant(step, counter.get_total_flops())


def _ours(settings: Settings, inputs: Inputs, device: torch.device) -> tuple[nn.Module, Callable[[], Tensor]]:
    model = build_mae(settings).to(device).train()
    patches, patch = settings.num_patches, settings.model.patch_size

    def loss() -> Tensor:
        views = inputs.noise[: settings.loss.num_views]
        masks = [random_mask(len(noise), patches, settings.masking.mask_ratio, noise=noise) for noise in views]
        output = forward_views(model, inputs.images, masks)
        with torch.autocast(device.type, enabled=False):
            return loss_terms(output, inputs.images, masks, patch, settings.loss).total

    return model, loss


def _hf(settings: Settings, inputs: Inputs, device: torch.device) -> tuple[nn.Module, Callable[[], Tensor]]:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    arch = settings.model
    config = ViTMAEConfig(  # type: ignore[call-arg]
        hidden_size=arch.width, num_hidden_layers=arch.depth, num_attention_heads=arch.heads,
        intermediate_size=int(arch.width * arch.mlp_ratio), image_size=settings.data.image_size[0],
        patch_size=arch.patch_size, decoder_hidden_size=arch.decoder_width,
        decoder_num_hidden_layers=arch.decoder_depth, decoder_num_attention_heads=arch.decoder_heads,
        decoder_intermediate_size=int(arch.decoder_width * arch.mlp_ratio), mask_ratio=settings.masking.mask_ratio,
        norm_pix_loss=True, attn_implementation="sdpa",
    )  # fmt: skip
    model: nn.Module = ViTMAEForPreTraining(config)
    model.to(device).train()
    return model, lambda: model(inputs.images, noise=inputs.noise[0]).loss
