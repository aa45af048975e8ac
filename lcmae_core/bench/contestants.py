"""The contestants of the benchmark: our models and other people's, of equal shape, each as one training step.

Letters (CONTRIBUTING.md): B images, N patches, T tokens, H x W pixels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lcmae_core.bench.cases import CASES, QUICK, SHALLOW, Shape
from lcmae_core.bench.loops import LOOPS
from lcmae_core.bench.peers import PEERS, Built
from lcmae_core.config import Settings, profile, replace
from lcmae_core.models.linear import Linear
from lcmae_core.models.mae import build_mae
from lcmae_core.models.masking import random_mask
from lcmae_core.training.masked import forward_views, loss_terms
from lcmae_core.training.optim import build_optimizer


class Inputs(NamedTuple):
    """What every model gets: images, and the noise of two masks (plain MAE uses the first)."""

    images: Tensor  # (B, 3, H, W)
    noise: tuple[Tensor, Tensor]  # (B, N) each


class Contestant(NamedTuple):
    """A model ready to be timed: one training step as a call, and what shows that the work is the same.

    tokens: images times tokens that enter the first block of the encoder, and of the decoder. FLOPs: of a step, by
    torch's counter.
    """

    step: Callable[[], Any]
    flops: int
    tokens: tuple[int, int]
    parameters: int


def settings_of(name: str, shape: Shape) -> Settings:
    """The model of a case; two views and all three losses for LC-MAE. Every peer gets the shape of our plain MAE."""
    base = profile(CASES[shape.case].profile)
    deep = shape.case == "vit-b" and name not in SHALLOW
    changes: dict[str, Any] = {"image_size": shape.image_size, "decoder_depth": 8 if deep else 2}
    if shape.quick:
        changes = QUICK | changes
    if name == "lcmae":
        changes |= {"cross_view": 1.0, "in_view": 1.0}
    plain = {"source": "photos", "device": str(shape.device), "compile": False, "workers": 0, "progress": False,
             "cache_gb": 0.0, "epochs": None, "steps": 1000, "batch_size": shape.batch, "base_lr": 1e-5}  # fmt: skip
    return replace(base, changes | plain)


def draw_inputs(shape: Shape) -> Inputs:
    """Random images and noise, the same for every model."""
    generator = torch.Generator().manual_seed(0)
    batch, size, patches = shape.batch, shape.image_size, settings_of("mae", shape).num_patches
    images = torch.randn(batch, 3, size, size, generator=generator)
    first, second = (torch.rand(batch, patches, generator=generator) for _ in range(2))
    return Inputs(images.to(shape.device), (first.to(shape.device), second.to(shape.device)))


def prepare(name: str, shape: Shape) -> Contestant:
    """Model, optimiser and step of one contestant, warmed up; its FLOPs and tokens are counted in the first step,
    before anything is compiled."""
    settings = settings_of(name, shape)
    if name in LOOPS:
        loop = LOOPS[name](settings)
        step, model, blocks = loop.step, loop.model, loop.blocks
    else:
        built = build(name, settings, draw_inputs(shape))
        model, blocks, step = built.model, built.blocks, step_of(built, settings, shape.device)
    flops, tokens = count(step, blocks)
    if name.endswith("-compiled"):
        model.compile()
        step()
    step()
    return Contestant(step, flops, tokens, sum(p.numel() for p in model.parameters()))


def build(name: str, settings: Settings, inputs: Inputs) -> Built:
    """Model and loss of a contestant, on the device of the inputs."""
    peer = PEERS.get(name)
    built = _ours(settings, inputs) if peer is None else peer.build(settings, inputs.images, inputs.noise[0])
    if name == "mae-plain":
        for module in built.model.modules():
            if type(module) is Linear:
                module.__class__ = nn.Linear  # type: ignore[assignment]
    return built


def step_of(built: Built, settings: Settings, device: torch.device) -> Callable[[], Tensor]:
    """Forward, backward and the same fused AdamW for all; bf16 on CUDA."""
    optimizer = build_optimizer(built.model, settings.optim)

    def step() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            value = built.loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()

    return step


def count(step: Callable[[], Any], blocks: tuple[nn.Module, nn.Module]) -> tuple[int, tuple[int, int]]:
    """FLOPs of a step by torch's counter, and the tokens that enter these two blocks in it."""
    seen = [0, 0]

    def note(place: int, inputs: tuple[Any, ...]) -> None:
        seen[place] += inputs[0].shape[0] * inputs[0].shape[1]

    hooks = [block.register_forward_pre_hook(lambda _, inputs, place=place: note(place, inputs))
             for place, block in enumerate(blocks)]  # fmt: skip
    with FlopCounterMode(display=False) as counter:
        step()
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops(), (seen[0], seen[1])


def _ours(settings: Settings, inputs: Inputs) -> Built:
    device = inputs.images.device
    model = build_mae(settings).to(device).train()
    patches, patch = settings.num_patches, settings.model.patch_size

    def loss() -> Tensor:
        views = inputs.noise[: settings.loss.num_views]
        masks = [random_mask(len(noise), patches, settings.masking.mask_ratio, noise=noise) for noise in views]
        output = forward_views(model, inputs.images, masks)
        with torch.autocast(device.type, enabled=False):
            return loss_terms(output, inputs.images, masks, patch, settings.loss).total

    decoder: Any = model.decoder
    return Built(model, loss, (model.encoder.blocks[0], decoder.blocks[0]))
