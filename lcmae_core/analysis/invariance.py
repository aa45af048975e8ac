"""What an encoder says of an image whatever part of it is visible: the mean token under two masks without overlap.

Letters (CONTRIBUTING.md): B images, h x w pixels, C channels, N patches, K visible patches, L layers, D width, p side
of a patch.
"""

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from lcmae_core.analysis.blocks import geometry
from lcmae_core.analysis.features import patch_features
from lcmae_core.models.masking import Mask, erase_patches, random_mask
from lcmae_core.models.patches import patchify


def disjoint_masks(
    noise: Float[Tensor, "1 cells"], num_patches: int, ratio: float, unit: int, grid: tuple[int, int]
) -> tuple[Mask, Mask]:
    """Two masks of one image that show no patch in common. Each hides the given share, or half where that is less.

    Raises:
        LcmaeError: as `random_mask`.
    """
    ratio = max(ratio, 0.5)  # two halves are the most that fits
    first = random_mask(1, num_patches, ratio, noise=noise, unit=unit, grid=grid)
    shown = noise.argsort(dim=1, stable=True)[:, : first.keep.shape[1] // unit**2]
    later = noise.scatter_add(1, shown, torch.ones_like(shown, dtype=noise.dtype))  # noise is below 1
    return first, random_mask(1, num_patches, ratio, noise=later, unit=unit, grid=grid)


@torch.no_grad()
def mean_tokens(
    encoder: VisionTransformer, images: Float[Tensor, "B C h w"], mask: Mask, *, erased: bool = False
) -> Float[Tensor, "B _ D"]:
    """The mean over the visible patches of what every block hands on and, last, of the normalised tokens: L + 1 rows.

    The encoder gets the visible patches alone; where patches are `erased` it gets all, without the hidden pixels.
    """
    keep = mask.keep[:1]
    if erased:
        images = erase_patches(images, mask.hidden.expand(len(images), -1), geometry(encoder).grid)
        every = patch_features(encoder, images, kind="outputs")[:, :, keep[0]]
    else:
        shared = Mask(*(part.expand(len(images), -1) for part in mask))
        every = patch_features(encoder, images, kind="outputs", mask=shared)  # (B, L, K, D)
    normal = encoder.norm(every[:, -1:])
    return torch.cat([every, normal], dim=1).mean(2)


def mean_colours(images: Float[Tensor, "B C h w"], mask: Mask, patch: int) -> Float[Tensor, "B C"]:
    """The mean colour of the visible patches: what no encoder is needed for."""
    visible = patchify(images, patch)[:, mask.keep[0]]  # (B, K, p * p * C), channel last
    return visible.unflatten(-1, (-1, images.shape[1])).mean((1, 2))
