"""What the Siamese network of v1 minimises: L_cross over positives and L_in inside each crop (a reconstruction).

Letters (CONTRIBUTING.md): B images, N patches of a crop, P values of a patch, V width of v.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lcmae_core.config import Settings
from lcmae_core.data.loader import Batch
from lcmae_core.losses import Pool, Reduction, alone, cross_view_loss, in_view_loss
from lcmae_core.models.encoder import gather_patches
from lcmae_core.models.siamese import Positives, Projection, Siamese, mutual_positives, same_place
from lcmae_core.training.masked import in_view_pixels


def positives_of(batch: Batch, settings: Settings) -> Positives:
    """The positives of a batch of crop pairs, as the settings `Siamese` choose them."""
    if settings.siamese.positives == "position":
        return same_place(len(batch.index), settings.num_patches, batch.images.device)
    one, two = batch.places
    return mutual_positives(one, two, settings.grid, settings.siamese.positive_radius)


def siamese_terms(
    model: Siamese, output: Projection, batch: Batch, settings: Settings, pool: Pool = alone
) -> dict[str, Tensor]:
    """total = siamese_cross_view * cross + siamese_in_view * inside, and whether there was anything to compare.

    cross: 1 - cos(v_i, v_j), pooled over the positives of the batch. inside: Eq. 6 with every patch of a crop as if
    hidden, pooled over both crops; its x are the pixels of `in_view_pixels`, averaged as the tokens are. positives:
    positives of a crop pair. unpaired: share of crop pairs without any; they add nothing to cross, but both their crops
    still count in inside, which needs no partner. Only terms with a weight are computed.
    """
    siamese, v = settings.siamese, output.projected
    total, terms = v.new_zeros((), dtype=torch.float32), {}
    if siamese.siamese_cross_view > 0:
        pairs = positives_of(batch, settings)
        terms["cross"] = positive_loss(v, pairs, settings.loss.reduction, pool)
        count = pairs.positive.sum(dim=1)  # (B,)
        terms |= {"positives": count.float().mean(), "unpaired": (count == 0).float().mean()}
        total = total + siamese.siamese_cross_view * terms["cross"]
    if siamese.siamese_in_view > 0:
        x = in_view_pixels(torch.cat(batch.crops), settings.model.patch_size, settings.loss.in_view_pixels)
        everywhere = torch.ones(v.shape[:2], dtype=torch.bool, device=v.device)
        terms["inside"] = in_view_loss(v, model.average(x), everywhere, reduction=settings.loss.reduction, pool=pool)
        total = total + siamese.siamese_in_view * terms["inside"]
    return {"total": total} | terms


def positive_loss(
    v: Float[Tensor, "2B N V"], pairs: Positives, reduction: Reduction = "mean", pool: Pool = alone
) -> Float[Tensor, ""]:
    """L_cross: 1 - cos(v_i, v_j) over positives (i, j), v of [crop 1; crop 2]; Eq. 5 with each token's partner in the
    second crop in the place of the token at its own position. A zero that keeps the graph where there are none.
    """
    first, second = v.chunk(2)
    partners = gather_patches(second, pairs.partner)  # (B, N, V)
    return cross_view_loss(first, partners, pairs.positive, pairs.positive, reduction=reduction, pool=pool)
