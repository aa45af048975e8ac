"""The loss of an autoencoder (v2 section 4.2, Fig. 7): every token regresses the block of pixels centred on it.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, N patches. In words: values (of a block).
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.models.patches import EPS, centred_blocks

CHUNK, CPU_CHUNK = 2**25, 2**20
"""Target values made at once, or those of one image where these are more: 128 MB of float32, and on a CPU 4 MB, which
stay in its cache (blocks of 7 patches at quick: 0.08 s a step instead of 0.12). Blocks of 112 px at ViT-B repeat a
pixel 49 times: the targets of 64 images would take 1.9 GB."""


def block_loss(
    pred: Float[Tensor, "B N values"],
    images: Float[Tensor, "B C H W"],
    patch: int,
    block: int,
    *,
    norm_pix: bool = True,
    reduction: str = "mean",
) -> Float[Tensor, ""]:
    """sum_i ||h(x)_i - x_i||^2 over all patches i, with x_i the block of `centred_blocks` around patch i.

    With `norm_pix` every block is normalised by its own mean and variance, as patches are **[open]**. "mean" averages
    over values, patches and images; "sum" adds those of an image and averages over images. Computed in float32. Beside
    the prediction and its gradient no more than three times `CHUNK` values exist at once, forward or backward, and the
    padded images and statistics of one chunk.

    Raises:
        LcmaeError: an unknown reduction, a block that does not fit, predictions of another size.
    """
    counts = {"mean": pred.numel(), "sum": len(pred)}
    if reduction not in counts:
        raise LcmaeError(f"reduction: got {reduction!r}, {nearest(reduction, counts)}")
    expected = (len(images), images[0, 0].numel() // patch**2, images.shape[1] * (block * patch) ** 2)
    if pred.shape != expected:
        raise LcmaeError(f"pred: got shape {tuple(pred.shape)}, expected {expected} for blocks of {block} patches")
    return _SquaredError.apply(pred, images, patch, block, norm_pix) / counts[reduction]


class _SquaredError(torch.autograd.Function):
    """sum (pred - target)^2, with targets made chunk by chunk and again for the gradient, so that none is kept."""

    @staticmethod
    def forward(ctx: Any, pred: Tensor, images: Tensor, patch: int, block: int, norm_pix: bool) -> Tensor:
        ctx.save_for_backward(pred, images)
        ctx.how = (patch, block, norm_pix)
        return torch.stack([error.square_().sum() for _, error in _errors(pred, images, *ctx.how)]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        pred, images = ctx.saved_tensors
        grad = torch.empty_like(pred)
        for part, error in _errors(pred, images, *ctx.how):
            grad[part] = error.mul_(2 * upstream)
        return grad, None, None, None, None


def _errors(
    pred: Tensor, images: Tensor, patch: int, block: int, norm_pix: bool
) -> Iterator[tuple[slice, Float[Tensor, "B N values"]]]:
    """pred - target for a few images at a time, and which images."""
    step = max(1, (CPU_CHUNK if pred.device.type == "cpu" else CHUNK) // pred[0].numel())
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        target = centred_blocks(images[part], patch, block)
        target = _normalized(target) if norm_pix else target
        error = pred[part] - target  # float32, whatever autocast made of the prediction
        del target  # before the next one is made
        yield part, error
        del error


def _normalized(blocks: Float[Tensor, "B N values"]) -> Float[Tensor, "B N values"]:
    """`normalize_patches` to rounding, three times as fast on a CPU, where `var` is slow and large copies cost."""
    centred = blocks - blocks.mean(dim=-1, keepdim=True)
    square = torch.linalg.vector_norm(centred, dim=-1, keepdim=True).square()  # (B, N, 1)
    return centred.div_((square / (blocks.shape[-1] - 1) + EPS).sqrt())
