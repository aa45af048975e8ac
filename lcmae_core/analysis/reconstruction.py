"""Honest reconstructions: which statistics turned a prediction into pixels, and how far it is from the truth.

A target lives in the space of the images that a model gets: pixels normalised by ImageNet's statistics, whose channels
have different deviations. A prediction is therefore turned back in that space, un-patched, and only then de-normalised.
Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, N patches, P values of a patch. Pixels are in [0, 1]
unless said otherwise.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from lcmae_core.config import LcmaeError
from lcmae_core.data.augment import denormalize
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask, no_mask
from lcmae_core.models.patches import PatchStatistics, patch_statistics, patchify, unpatchify


def keep_visible(
    pred: Float[Tensor, "B N P"], patches: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"]
) -> Float[Tensor, "B N P"]:
    """Predictions where patches are hidden, the photograph where they are visible."""
    return torch.where(hidden[:, :, None], pred, patches)


def denormalize_patches(pred: Float[Tensor, "B N P"], statistics: PatchStatistics) -> Float[Tensor, "B N P"]:
    """Norm-pix predictions in the space of `statistics`, the mean and deviation of each patch of the target.

    With the true patches' statistics this is an oracle: it leaks the mean colour and contrast of what was hidden.
    """
    return pred * statistics.std + statistics.mean


def neighbour_weights(hidden: Bool[Tensor, "B N"], grid: tuple[int, int], sigma: float = 1.0) -> Float[Tensor, "B N N"]:
    """Gaussian weights (`sigma` in patches) of the visible patches around every patch, summing to 1.

    They are normalised over what is visible, so that the nearest visible patch counts however far it is.
    """
    rows, cols = torch.meshgrid(*(torch.arange(n, device=hidden.device) for n in grid), indexing="ij")
    places = torch.stack([rows.flatten(), cols.flatten()], dim=1).float()  # (N, 2)
    closeness = -torch.cdist(places, places).square() / (2 * sigma**2)  # (N, N)
    return closeness[None].masked_fill(hidden[:, None, :], -torch.inf).softmax(dim=-1)


def neighbour_statistics(
    patches: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"], grid: tuple[int, int]
) -> PatchStatistics:
    """Mean and deviation of every patch, guessed from the visible patches around it alone."""
    weights = neighbour_weights(hidden, grid)
    mean, std = patch_statistics(patches)
    return PatchStatistics(weights @ mean, weights @ std)


def patch_colours(patches: Float[Tensor, "B N P"], channels: int) -> Float[Tensor, "B N C"]:
    """Mean colour of every patch."""
    return patches.unflatten(-1, (-1, channels)).mean(dim=2)


def painted(colours: Float[Tensor, "B N C"], values: int) -> Float[Tensor, "B N P"]:
    """Patches of one colour each, `values` = p * p * C numbers a patch."""
    return colours.repeat(1, 1, values // colours.shape[2])


def mean_colour_fill(
    patches: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"], channels: int
) -> Float[Tensor, "B N P"]:
    """Every patch in the mean colour of the visible ones: the fill to beat."""
    visible = (~hidden)[:, :, None].to(patches.dtype)  # (B, N, 1)
    mean = (patch_colours(patches, channels) * visible).sum(dim=1, keepdim=True) / visible.sum(dim=1, keepdim=True)
    return painted(mean, patches.shape[2]).expand_as(patches)


def neighbour_colour_fill(
    patches: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"], grid: tuple[int, int], channels: int
) -> Float[Tensor, "B N P"]:
    """Every patch in the colour interpolated from the visible ones around it: the harder fill to beat."""
    return painted(neighbour_weights(hidden, grid) @ patch_colours(patches, channels), patches.shape[2])


def psnr(
    pred: Float[Tensor, "B N P"], patches: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"]
) -> Float[Tensor, "B"]:
    """Peak signal-to-noise ratio in dB over the hidden patches of each image: -10 log10(mean squared error)."""
    error = (pred.clamp(0, 1) - patches).square().mean(dim=-1)  # (B, N)
    return -10 * ((error * hidden).sum(dim=1) / hidden.sum(dim=1)).log10()


class Reconstruction(NamedTuple):
    """pixels: the photograph where it is visible, the guess where it is hidden. psnr: in dB, over hidden patches."""

    pixels: Float[Tensor, "B N P"]
    psnr: Float[Tensor, "B"]


@torch.no_grad()
def reconstruct(
    model: MAE, images: Float[Tensor, "B C H W"], mask: Mask, *, norm_pix: bool
) -> dict[str, Reconstruction]:
    """What the model and its rivals make of the hidden patches, by name.

    "mean colour" and "neighbours" use no model: the mean of the visible pixels, and colours interpolated between
    visible patches. A pixel model adds "pixel". A norm-pix model adds "norm-pix", its prediction with statistics
    interpolated from visible patches, and "norm-pix oracle", with the true ones, which leaks what was hidden.

    Raises:
        LcmaeError: an autoencoder that predicts blocks larger than a patch.
    """
    _one_patch(model)
    target, patches = patchify(images, model.arch.patch_size), _pixels(images, model.arch.patch_size)  # (B, N, P)
    pred, hidden = model(images, mask).pred, mask.hidden
    guesses = {
        "mean colour": mean_colour_fill(patches, hidden, model.channels),
        "neighbours": neighbour_colour_fill(patches, hidden, model.grid, model.channels),
    }
    if norm_pix:
        known = {"norm-pix": neighbour_statistics(target, hidden, model.grid),
                 "norm-pix oracle": patch_statistics(target)}  # fmt: skip
        predicted = {name: denormalize_patches(pred, statistics) for name, statistics in known.items()}
    else:
        predicted = {"pixel": pred}
    for name, values in predicted.items():
        guesses[name] = _pixels(unpatchify(values, model.arch.patch_size, model.grid), model.arch.patch_size)
    return {
        name: Reconstruction(keep_visible(guess.clamp(0, 1), patches, hidden), psnr(guess, patches, hidden))
        for name, guess in guesses.items()
    }


@torch.no_grad()
def rebuild_whole(model: MAE, images: Float[Tensor, "B C H W"], *, norm_pix: bool) -> Float[Tensor, "B C H W"]:
    """What the decoder makes of whole, unmasked images, in [0, 1]: the reconstructions that HLV (arXiv 2306.04898)
    compares. No loss ever asked for them. A norm-pix model is given the mean and deviation of each patch, of which none
    is hidden here.

    Raises:
        LcmaeError: an autoencoder that predicts blocks larger than a patch, a model without decoder.
    """
    _one_patch(model)
    pred = model(images, no_mask(len(images), model.num_patches, images.device)).pred
    patch = model.arch.patch_size
    values = denormalize_patches(pred, patch_statistics(patchify(images, patch))) if norm_pix else pred
    return denormalize(unpatchify(values, patch, model.grid)).clamp(0, 1)


def _pixels(images: Float[Tensor, "B C H W"], patch: int) -> Float[Tensor, "B N P"]:
    """Patches in [0, 1] of images normalised by ImageNet's statistics."""
    return patchify(denormalize(images), patch)


def _one_patch(model: MAE) -> None:
    if model.block != 1:
        raise LcmaeError(f"block: got {model.block} patches a token, expected 1: larger predictions overlap")


def as_pictures(
    patches: Float[Tensor, "B N P"], patch: int, grid: tuple[int, int], hidden: Bool[Tensor, "B N"] | None = None
) -> NDArray[np.float32]:
    """Patches in [0, 1] as (B, H, W, 3) arrays to draw; hidden ones, if given, in mid-grey."""
    if hidden is not None:
        patches = torch.where(hidden[:, :, None], 0.5, patches)
    pictures = unpatchify(patches, patch, grid).permute(0, 2, 3, 1).float().cpu()  # (B, H, W, C)
    return pictures.expand(-1, -1, -1, 3).numpy()
