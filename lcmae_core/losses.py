"""The three losses of LC-MAE: Eq. 1, 5 and 6 of v2, and nothing else.

Letters (CONTRIBUTING.md): B images, N patches, P values of a patch, V width of v. `hidden` is the m of
v = p(h(x, m)): True where masked.

A term is active where the masks say so: a hidden patch (Eq. 1, each of its P values a term), a patch hidden in both
views (Eq. 5), a pair of hidden patches (Eq. 6). Every loss knows two reductions. "mean" is the sum of all active terms
of the batch divided by their number. "sum" adds the terms of an image, as the equations are written, and averages over
the images of the batch. Without any active term the loss is 0, still attached to autograd: gradients are 0. All are
computed in float32 or better.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lcmae_core.config import LcmaeError, nearest

Reduction = Literal["mean", "sum"]
Pool = Callable[[Tensor], Tensor]
"""Takes the number of active terms in this process; returns what the reduction "mean" divides their sum by. A process
that holds the whole batch divides by that very number (`alone`). Where ranks share a batch, all divide by the average
number of terms of a rank: the average of their losses, which ranks form, is then the loss of the whole batch."""
EPS = 1e-6
"""Vectors shorter than this have no direction: their cosine with anything is 0, and so is its gradient."""


def alone(count: Tensor) -> Tensor:
    """The `Pool` of a process that holds the whole batch."""
    return count


def reconstruction_loss(
    pred: Float[Tensor, "B N P"],
    target: Float[Tensor, "B N P"],
    hidden: Bool[Tensor, "B N"],
    *,
    reduction: Reduction = "mean",
    pool: Pool = alone,
) -> Float[Tensor, ""]:
    """Eq. 1 (section 3.1): sum_i m_i ||h(x, m)_i - x_i||^2, over hidden patches only.

    The target is given as it is regressed: pixels, or patches normalised by `models.patches.normalize_patches`.

    Raises:
        LcmaeError: an unknown reduction.
    """
    error = (at_least_float32(pred) - at_least_float32(target)).square().sum(dim=-1)  # (B, N)
    return _reduce(error * hidden, hidden.sum() * pred.shape[-1], reduction, pool)


def cross_view_loss(
    v1: Float[Tensor, "B N V"],
    v2: Float[Tensor, "B N V"],
    hidden1: Bool[Tensor, "B N"],
    hidden2: Bool[Tensor, "B N"],
    *,
    reduction: Reduction = "mean",
    pool: Pool = alone,
) -> Float[Tensor, ""]:
    """Eq. 5 (section 3.3): sum_i m1_i m2_i (1 - cos(v1_i, v2_i)), over patches hidden in both views.

    Raises:
        LcmaeError: an unknown reduction.
    """
    both = hidden1 & hidden2  # (B, N)
    cos = (unit(v1) * unit(v2)).sum(dim=-1)  # (B, N)
    return _reduce((1 - cos) * both, both.sum(), reduction, pool)


def in_view_loss(
    v: Float[Tensor, "B N V"],
    patches: Float[Tensor, "B N P"],
    hidden: Bool[Tensor, "B N"],
    *,
    reduction: Reduction = "mean",
    pool: Pool = alone,
) -> Float[Tensor, ""]:
    """Eq. 6 (section 3.3): sum_{i != j} m_i m_j |cos(v_i, v_j) - cos(x_i, x_j)|, over ordered pairs of hidden patches.

    One batched similarity matrix: vectors of visible patches are multiplied by 0 instead of being left out, so that
    their pairs add nothing. To leave them out, the CPU would have to wait for a GPU to say which they are.

    Raises:
        LcmaeError: an unknown reduction.
    """
    m = hidden[:, :, None]
    gap = similarity(unit(v) * m) - similarity(unit(patches) * m)  # (B, N, N), zero unless m_i m_j
    i_is_j = torch.eye(v.shape[1], dtype=torch.bool, device=v.device)
    count = hidden.sum(dim=1)  # (B,)
    return _reduce(gap.abs().masked_fill(i_is_j, 0), (count * (count - 1)).sum(), reduction, pool)


def unit(vectors: Float[Tensor, "*B N V"]) -> Float[Tensor, "*B N V"]:
    """Vectors of length 1; those shorter than `EPS` become zero, with zero gradient."""
    vectors = at_least_float32(vectors)
    square = vectors.square().sum(dim=-1, keepdim=True)  # (B, N, 1)
    has_direction = square > EPS**2
    return vectors * (torch.where(has_direction, square, 1).rsqrt() * has_direction)


def similarity(units: Float[Tensor, "*B N V"]) -> Float[Tensor, "*B N N"]:
    """Cosine of every pair of unit vectors, in their own precision even under autocast."""
    with torch.autocast(units.device.type, enabled=False):
        return units @ units.mT


def at_least_float32(values: Tensor) -> Tensor:
    """At least float32, whatever autocast made of it."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def _reduce(terms: Tensor, count: Tensor, reduction: str, pool: Pool) -> Tensor:
    """`terms` holds zeros where inactive; `count` is the number of active terms in the batch."""
    if reduction == "mean":
        divisor = pool(count)
        return terms.sum() / torch.where(divisor > 0, divisor, 1)
    if reduction == "sum":
        return terms.sum() / len(terms)
    raise LcmaeError(f"reduction: got {reduction!r}, {nearest(reduction, ('mean', 'sum'))}")
