"""Honest reconstructions: which statistics turned a prediction into pixels, and how far it is from the truth.

Letters: B images, C channels, H x W pixels, N patches, P values of a patch. Pixels are in [0, 1].
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lcmae_core.models.patches import PatchStatistics, patch_statistics


def keep_visible(
    pred: Float[Tensor, "B N P"], patches: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"]
) -> Float[Tensor, "B N P"]:
    """Predictions where patches are hidden, the photograph where they are visible."""
    return torch.where(hidden[:, :, None], pred, patches)


def denormalize_patches(pred: Float[Tensor, "B N P"], statistics: PatchStatistics) -> Float[Tensor, "B N P"]:
    """Norm-pix predictions as pixels, given each patch's mean and deviation.

    With the true patches' statistics this is an oracle: it leaks the mean colour and contrast of what was hidden.
    """
    return pred * statistics.std + statistics.mean


def neighbour_statistics(
    patches: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"], grid: tuple[int, int], sigma: float = 0.7
) -> PatchStatistics:
    """Mean and deviation of every patch, guessed from visible patches alone: a Gaussian-weighted average over them.

    `sigma` is in patches. Weights are normalised over the visible patches, so the nearest one always counts.
    """
    rows, cols = torch.meshgrid(*(torch.arange(n, device=patches.device) for n in grid), indexing="ij")
    places = torch.stack([rows.flatten(), cols.flatten()], dim=1).to(patches.dtype)  # (N, 2)
    closeness = -torch.cdist(places, places).square() / (2 * sigma**2)  # (N, N)
    weights = closeness[None].masked_fill(hidden[:, None, :], -torch.inf).softmax(dim=-1)  # (B, N, N)
    mean, std = patch_statistics(patches)
    return PatchStatistics(weights @ mean, weights @ std)


def mean_colour_fill(
    patches: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"], channels: int
) -> Float[Tensor, "B N P"]:
    """Every hidden patch painted in the mean colour of the visible ones: the fill to beat."""
    b, n, p = patches.shape
    visible = ~hidden[:, :, None, None]
    colours = patches.reshape(b, n, p // channels, channels)  # (B, N, p*p, C)
    mean = (colours * visible).sum(dim=(1, 2)) / (visible.sum(dim=(1, 2)) * (p // channels))  # (B, C)
    return keep_visible(mean.repeat(1, p // channels)[:, None].expand_as(patches), patches, hidden)


def psnr(
    pred: Float[Tensor, "B N P"], patches: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"]
) -> Float[Tensor, "B"]:
    """Peak signal-to-noise ratio in dB over the hidden patches of each image: -10 log10(mean squared error)."""
    error = (pred.clamp(0, 1) - patches).square().mean(dim=-1)  # (B, N)
    return -10 * ((error * hidden).sum(dim=1) / hidden.sum(dim=1)).log10()
