"""A small MAE trained on fresh samples of a hierarchical latent variable model: Eq. 1 on the patches as they are.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, N patches, P values of a patch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lcmae_core.config import Model, Optim
from lcmae_core.data.hierarchical import HierarchicalModel
from lcmae_core.losses import reconstruction_loss
from lcmae_core.models.mae import MAE, initialize
from lcmae_core.models.masking import random_mask
from lcmae_core.models.patches import patchify, unpatchify
from lcmae_core.training.optim import build_optimizer, scheduled
from lcmae_core.training.steps import Steps, run_unsaved

Images = Float[Tensor, "B C H W"]


class TrainedOnLatents(NamedTuple):
    """mae: the model. loss: Eq. 1 of every step, in units of a pixel's variance (1: the mean is predicted)."""

    mae: MAE
    loss: list[float]


def new_mae(model: HierarchicalModel, arch: Model, seed: int) -> MAE:
    """An untrained MAE whose patches are the leaves of `model`; `arch.patch_size` is replaced by theirs."""
    side, (rows, cols) = model.settings.patch_size, model.settings.grid
    arch = arch.model_copy(update={"patch_size": side})
    mae = MAE(arch, (rows * side, cols * side), model.settings.channels)
    return initialize(mae, torch.Generator().manual_seed(seed))


def images_of(model: HierarchicalModel, patches: Float[Tensor, "B N P"]) -> Float[Tensor, "B C H W"]:
    """The leaves laid out as images, which `patchify` takes apart again."""
    return unpatchify(patches, model.settings.patch_size, model.settings.grid)


def train_on_latents(
    model: HierarchicalModel, arch: Model, optim: Optim, ratio: float, unit: int, seed: int
) -> TrainedOnLatents:
    """`optim.steps` steps of Eq. 1 with random masks of this ratio and unit, every batch drawn afresh from `seed`.

    The steps are those of `pretrain` without data files, checkpoints and views: every batch is new, and a training
    takes seconds. Pixels are not normalised patch by patch: that would take a mean and a scale out of the latents.

    Raises:
        LcmaeError: a ratio that leaves no visible or hidden cell, a unit that does not divide the grid.
    """
    mae = new_mae(model, arch, seed)
    optimizer, total = build_optimizer(mae, optim), optim.steps or 0
    generator = torch.Generator().manual_seed(seed + 1)

    def batches(start: int, stop: int) -> Iterator[Images]:
        return (images_of(model, model.sample(optim.batch_size, generator).patches) for _ in range(start, stop))

    def backward(images: Images, step: int) -> dict[str, Tensor]:
        mask = random_mask(len(images), mae.num_patches, ratio, generator=generator, unit=unit, grid=mae.grid)
        loss = reconstruction_loss(mae(images, mask).pred, patchify(images, model.settings.patch_size), mask.hidden)
        loss.backward()
        return {"total": loss}

    task = Steps(mae, optimizer, batches, scheduled(optimizer, total, optim), backward, optim.clip_grad)
    losses = run_unsaved(task, total)
    return TrainedOnLatents(mae.eval(), losses)
