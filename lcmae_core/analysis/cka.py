"""Debiased linear CKA: how alike two networks see the same images, layer by layer, whatever basis they see them in.

Each image is one example. Its features in a layer are its patch tokens, either all in their places, side by side (what
every image has at a place, such as its position, cancels), or their mean.
Letters (CONTRIBUTING.md): B images of a batch, M images (the examples), L layers, C channels, h x w pixels, N patches,
D and E widths.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lcmae_core.analysis.features import patch_features
from lcmae_core.config import LcmaeError

FEWEST = 5
"""Examples that leaving one out needs: the unbiased estimate divides by M - 3."""


def cka(first: Float[Tensor, "M D"], second: Float[Tensor, "_ E"]) -> float:
    """Debiased linear CKA of two sets of features of the same examples (Kornblith et al. 2019; Nguyen et al. 2021).

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with K = X X^T, L = Y Y^T and the unbiased HSIC of Song et al. (2012):
    1 for equal features, 0 on average for independent ones, unchanged by rotation and isotropic scale of either.

    Raises:
        LcmaeError: fewer than 5 examples, or another number of them.
    """
    if len(first) != len(second):
        raise LcmaeError(f"examples: got {len(first)} and {len(second)}, expected the same ones for both")
    return float(cka_of_grams(gram(first), gram(second)))


def gram(features: Float[Tensor, "M D"]) -> Float[Tensor, "M M"]:
    """Inner products of centred examples in float64 on the CPU, zero on the diagonal as the unbiased HSIC asks.

    Raises:
        LcmaeError: fewer than 5 examples.
    """
    if len(features) < FEWEST:
        raise LcmaeError(f"examples: got {len(features)}, expected at least {FEWEST}")
    centred = features.cpu().double()
    centred = centred - centred.mean(dim=0)  # changes nothing in exact numbers, and keeps digits
    return (centred @ centred.T).fill_diagonal_(0)


def unbiased_hsic(first: Float[Tensor, "M M"], second: Float[Tensor, "M M"]) -> Float[Tensor, ""]:
    """(tr(K L) + 1'K1 1'L1 / ((M-1)(M-2)) - 2 / (M-2) 1'KL1) / (M (M-3)), K and L with zero diagonals (Song 2012)."""
    m = len(first)
    paired, sums = (first * second).sum(), first.sum() * second.sum()
    return _hsic(paired, sums, (first.sum(0) * second.sum(0)).sum(), m)


def cka_of_grams(first: Float[Tensor, "M M"], second: Float[Tensor, "M M"]) -> Float[Tensor, ""]:
    """`cka` of two `gram`s; 0 where one of them has no spread to compare (a network that sees all images alike)."""
    return _ratio(unbiased_hsic(first, second), unbiased_hsic(first, first), unbiased_hsic(second, second))


def cka_terms(first: Float[Tensor, "M M"], second: Float[Tensor, "M M"]) -> Float[Tensor, "M"]:
    """One number an example whose mean is `cka_of_grams` and whose bootstrap is, to first order, that of CKA.

    The jackknife's pseudo-values M s - (M - 1) s_(-i), s_(-i) the CKA without example i, shifted to the mean s.
    """
    whole = cka_of_grams(first, second)
    without = _ratio(_hsic_without(first, second), _hsic_without(first, first), _hsic_without(second, second))
    return whole - (len(first) - 1) * (without - without.mean())


class LayerGrams(NamedTuple):
    """A `gram` for each encoder block's output. placed: of all patches in their places. pooled: of their mean."""

    placed: Float[Tensor, "L M M"]
    pooled: Float[Tensor, "L M M"]


@torch.no_grad()
def both_grams(model: nn.Module, batches: Iterable[Tensor]) -> LayerGrams:
    """The grams of a model over all images, `batches` of (B, C, h, w), seen once.

    All features exist at once: M * L * N * D floats (0.2 GB for 128 images and ViT-Ti at 112 px).

    Raises:
        LcmaeError: fewer than 5 images, or as `patch_features`.
    """
    features = [patch_features(model, images, kind="outputs").cpu() for images in batches]  # (B, L, N, D)
    if not features:
        raise LcmaeError(f"examples: got 0, expected at least {FEWEST}")
    layers = torch.cat(features).unbind(1)  # L times (M, N, D)
    placed = torch.stack([gram(layer.flatten(1)) for layer in layers])
    return LayerGrams(placed, torch.stack([gram(layer.mean(dim=1)) for layer in layers]))


def layer_grams(model: nn.Module, batches: Iterable[Tensor], *, pooled: bool = False) -> Float[Tensor, "L M M"]:
    """One of `both_grams`: of patches in their places, or (`pooled`) of their mean.

    Raises:
        LcmaeError: as `both_grams`.
    """
    return getattr(both_grams(model, batches), "pooled" if pooled else "placed")


def _hsic(paired: Tensor, sums: Tensor, crossed: Tensor, m: int) -> Tensor:
    return (paired + sums / ((m - 1) * (m - 2)) - 2 * crossed / (m - 2)) / (m * (m - 3))


def _hsic_without(first: Tensor, second: Tensor) -> Tensor:
    """`unbiased_hsic` without example i, for every i, (M,): what i adds to each of the three sums is taken away."""
    rows, others = first.sum(0), second.sum(0)  # (M,)
    own = (first * second).sum(0)
    paired = (first * second).sum() - 2 * own
    sums = (rows.sum() - 2 * rows) * (others.sum() - 2 * others)
    crossed = (rows * others).sum() - rows * others - first @ others - second @ rows + own
    return _hsic(paired, sums, crossed, len(first) - 1)


def _ratio(shared: Tensor, first: Tensor, second: Tensor) -> Tensor:
    spread = (first.clamp(min=0) * second.clamp(min=0)).sqrt()
    return torch.where(spread > 0, shared / spread.clamp(min=1e-300), 0.0)
