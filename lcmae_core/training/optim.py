"""The optimiser and the learning-rate schedule of the public MAE recipe."""

import math
from collections.abc import Callable

import torch
from torch import nn

from lcmae_core.config import Optim


def learning_rate(step: int, total: int, optim: Optim) -> float:
    """Linear warm-up, then half a cosine to zero, per iteration (step counts from 0)."""
    progress, warmup = step / total, optim.warmup
    if progress < warmup:
        return optim.lr * progress / warmup
    return optim.lr * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.AdamW:
    """AdamW, fused; weight decay on matrices only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def scheduled(optimizer: torch.optim.Optimizer, total: int, optim: Optim) -> Callable[[int], float]:
    """Sets the rate of a step in an optimiser and returns it."""

    def rate(step: int) -> float:
        lr = learning_rate(step, total, optim)
        set_learning_rate(optimizer, lr)
        return lr

    return rate
