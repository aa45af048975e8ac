"""What a step minimises: masks of a batch, the model's views of it, and the weighted sum of the three losses.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, N patches, P values of a patch.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lcmae_core.config import LcmaeError, Loss, Settings, nearest
from lcmae_core.data.augment import denormalize
from lcmae_core.data.counter import counter_uniform
from lcmae_core.data.loader import Batch
from lcmae_core.losses import Pool, alone, cross_view_loss, in_view_loss, reconstruction_loss
from lcmae_core.models.mae import MAE, Output
from lcmae_core.models.masking import Mask, random_mask, stack_views
from lcmae_core.models.patches import normalize_patches, patchify


class LossTerms(NamedTuple):
    """total: the weighted sum that is minimised; the others: unweighted, None where not computed."""

    total: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""] | None
    cross_view: Float[Tensor, ""] | None
    in_view: Float[Tensor, ""] | None


def view_masks(settings: Settings, batch: Batch, views: int) -> list[Mask]:
    """One independent mask a view, a function of (seed, epoch, index, view) alone."""
    cells = settings.num_patches // settings.masking.mask_unit**2
    return [
        random_mask(
            len(batch.index),
            settings.num_patches,
            settings.masking.mask_ratio,
            noise=counter_uniform(settings.seed, f"mask{view}", batch.epoch, batch.index, cells),
            unit=settings.masking.mask_unit,
            grid=settings.grid,
        )
        for view in range(views)
    ]


def forward_views(model: MAE, images: Float[Tensor, "B C H W"], masks: list[Mask]) -> Output:
    """All views as one batch, [view 1; view 2]: the same images under each mask."""
    return model(_per_view(images, len(masks)), stack_views(*masks))


def _per_view(values: Tensor, views: int) -> Tensor:
    """The batch once for each view; itself, not a copy, for one."""
    return values if views == 1 else torch.cat([values] * views)


def loss_terms(
    output: Output, images: Float[Tensor, "B C H W"], masks: list[Mask], patch: int, loss: Loss, pool: Pool = alone
) -> LossTerms:
    """The terms of v2 section 3.3 that have a weight. L_MAE and L_in are the averages over the views. `pool` is the
    losses' own: the images may be a share of a batch.

    A batch of views is pooled as one, which is that average, because all views hide equally many patches.
    """
    pixels = patchify(images, patch)  # (B, N, P)
    hidden = stack_views(*masks).hidden  # (views*B, N)
    views = len(masks)
    total = output.pred.new_zeros((), dtype=torch.float32)
    reconstruction = cross = inside = None
    if loss.reconstruction > 0:
        target = normalize_patches(pixels) if loss.norm_pix else pixels
        reconstruction = reconstruction_loss(
            output.pred, _per_view(target, views), hidden, reduction=loss.reduction, pool=pool
        )
        total = total + loss.reconstruction * reconstruction
    if loss.cross_view > 0:
        v1, v2 = _vectors(output).chunk(2)
        cross = cross_view_loss(v1, v2, masks[0].hidden, masks[1].hidden, reduction=loss.reduction, pool=pool)
        total = total + loss.cross_view * cross
    if loss.in_view > 0:
        x = _per_view(in_view_pixels(images, patch, loss.in_view_pixels), views)
        inside = in_view_loss(_vectors(output), x, hidden, reduction=loss.reduction, pool=pool)
        total = total + loss.in_view * inside
    return LossTerms(total, reconstruction, cross, inside)


def in_view_pixels(images: Float[Tensor, "B C H W"], patch: int, kind: str) -> Float[Tensor, "B N P"]:
    """The x of Eq. 6, which v2 leaves open: the choice decides how much a collapsed v costs.

    imagenet: pixels normalised by ImageNet's statistics. raw: pixels in [0, 1]. centred: minus the image's mean colour.
    norm_pix: every patch normalised by its own mean and variance.

    Raises:
        LcmaeError: an unknown kind.
    """
    if kind == "raw":
        return patchify(denormalize(images), patch)
    if kind == "centred":
        return patchify(images - images.mean(dim=(2, 3), keepdim=True), patch)
    if kind not in ("imagenet", "norm_pix"):
        raise LcmaeError(f"in_view_pixels: got {kind!r}, {nearest(kind, ('imagenet', 'raw', 'centred', 'norm_pix'))}")
    pixels = patchify(images, patch)
    return normalize_patches(pixels) if kind == "norm_pix" else pixels


def _vectors(output: Output) -> Tensor:
    """v: the projection, or the prediction itself where a model has no projector (plain MAE, measured only)."""
    return output.pred if output.projected is None else output.projected
