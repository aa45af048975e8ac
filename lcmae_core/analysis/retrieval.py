"""Does a vector tell its image from others? Cosine at the same place, and the image found again in another view.

Letters (CONTRIBUTING.md): M images, V width of a vector. In words: places (patches of the grid).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lcmae_core.losses import unit

TIE = 1e-6
"""Likenesses closer than that are alike: float32 knows no finer cosine."""


def same_place_cosine(v: Float[Tensor, "M places V"]) -> Float[Tensor, "M"]:
    """Mean over places i and other images m' of cos(v_i(m), v_i(m')): 1 where v does not depend on the image.

    Linear in M: with u the unit vectors it is (u(m) . sum u - u(m) . u(m)) / (M - 1) at each place.
    """
    u = unit(v.double().cpu())
    with_all = (u * (u.sum(0) - u)).sum(-1)  # (M, places)
    return with_all.mean(1) / (len(u) - 1)


def found_across(one: Float[Tensor, "M places V"], two: Float[Tensor, "M places V"]) -> Float[Tensor, "M"]:
    """Share of places where v_i(m) of one view has the largest cosine with v_i(m) of the other among all M images' v_i.

    Chance is 1 / M, which is what vectors that do not depend on the image get: n images that are equally near share
    the hit, 1 / n each.
    """
    a, b = (unit(v.double().cpu()).transpose(0, 1) for v in (one, two))  # (places, M, V)
    return hits(a @ b.mT).mean(0)


def nearest_found(one: Float[Tensor, "M V"], two: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    """1 where row m of `two` is nearest (Euclidean) to row m of `one` among all M, shared by those equally near."""
    return hits(-torch.cdist(one.double().cpu(), two.double().cpu(), compute_mode="donot_use_mm_for_euclid_dist"))


def hits(likeness: Float[Tensor, "*places M M"]) -> Float[Tensor, "*places M"]:
    """For every row 1 / n where the diagonal entry is one of the n largest (up to `TIE`) of its row, else 0."""
    tied = likeness >= likeness.amax(-1, keepdim=True) - TIE
    return tied.diagonal(dim1=-2, dim2=-1).double() / tied.sum(-1)
