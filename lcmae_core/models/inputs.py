"""What images a Vision Transformer takes, asked of its own layers and of the images at hand: grid, type, statistics.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, D width, p sides of a patch.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lcmae_core.config import LcmaeError
from lcmae_core.data.augment import IMAGENET_MEAN, IMAGENET_STD, denormalize

PICTURES = (1, 3)
"""Channels for which the collection knows what a value means: grey and colour, by ImageNet's statistics."""


def patch_sides(vit: VisionTransformer) -> tuple[int, int]:
    """Height and width of a patch in pixels; behind a convolutional stem (timm's hybrids), of what one token covers."""
    height, width = vit.patch_embed.feat_ratio(as_scalar=False)
    return int(height), int(width)


def image_grid(vit: VisionTransformer, images: Tensor) -> tuple[int, int]:
    """Rows and columns of patches that these very images become; a patch that the model pads counts whole.

    Raises:
        LcmaeError: no images, another number of channels, another size than a model of fixed size takes, or sides that
            are no multiples of the patch where the model does not pad.
    """
    embed: Any = vit.patch_embed
    sides, fixed = patch_sides(vit), None if vit.dynamic_img_size else tuple(embed.img_size)
    channels = getattr(embed, "in_chans", None) or embed.proj.in_channels
    size = tuple(images.shape[2:])
    whole = embed.dynamic_img_pad or not any(side % p for side, p in zip(size, sides))
    if images.ndim != 4 or not len(images) or images.shape[1] != channels or fixed not in (None, size) or not whole:
        rule = "" if fixed or embed.dynamic_img_pad else f", h a multiple of {sides[0]} and w of {sides[1]}"
        expected = ", ".join(map(str, ("B", channels, *(fixed or ("h", "w")))))
        raise LcmaeError(f"images: got shape {tuple(images.shape)}, expected ({expected}){rule}")
    rows, cols = embed.dynamic_feat_size(size)
    return int(rows), int(cols)


def in_its_type(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Images in the type of the weights that meet them first, so that a half-precision model takes any.

    Raises:
        LcmaeError: whole numbers, which nobody normalised.
    """
    if not images.is_floating_point():
        raise LcmaeError(f"images: got {images.dtype}, expected normalised images of a floating-point type")
    return images.to(next(vit.patch_embed.parameters()).dtype)


def own_statistics(cfg: Mapping[str, Any], channels: int) -> tuple[list[float], list[float]] | None:
    """Mean and deviation of each channel that a configuration states, or None.

    Grey models take the means of the colour statistics, as `normalize` does; a single number counts for every channel.
    """
    stated = [_spread(cfg.get(name), channels) for name in ("mean", "std")]
    return None if stated[0] is None or stated[1] is None else (stated[0], stated[1])


def _spread(values: Any, channels: int) -> list[float] | None:
    values = [float(v) for v in values] if isinstance(values, Sequence) else None
    if not values or len(values) == channels:
        return values or None
    if len(values) == 1 or channels == 1:
        return [sum(values) / len(values)] * channels
    return None


def renormalize(
    images: Float[Tensor, "B C H W"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "B C H W"]:
    """Images normalised by ImageNet's statistics, normalised by others; computed in float32."""
    images = images if images.dtype == torch.float64 else images.float()
    columns = (images.new_tensor(list(values))[:, None, None] for values in (mean, std))
    centre, spread = columns
    return (denormalize(images) - centre) / spread


@torch.no_grad()
def take_imagenet_images(projection: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> None:
    """Change a patch embedding made for images of other statistics so that ImageNet's give the same tokens, exactly.

    With x' = (x s + m - mean) / std for x of ImageNet's m and s, W * x' + b is (W s / std) * x + b + sum W (m - mean) /
    std: a convolution without padding, so no border is treated otherwise.
    """
    weight = projection.weight.double()  # (D, C, p, p)
    theirs, spread = (weight.new_tensor(list(values))[:, None, None] for values in (mean, std))
    zero, one = (denormalize(weight.new_full((1, projection.in_channels, 1, 1), value))[0] for value in (0.0, 1.0))
    shift, scale = (zero - theirs) / spread, (one - zero) / spread  # (C, 1, 1)
    if projection.bias is not None:
        projection.bias.add_((weight * shift).sum(dim=(1, 2, 3)).to(projection.bias.dtype))
    projection.weight.copy_(weight * scale)


def are_imagenets(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Whether these are the statistics that the collection's images have."""
    known = own_statistics({"mean": IMAGENET_MEAN, "std": IMAGENET_STD}, len(mean))
    assert known is not None
    return all(abs(a - b) < 1e-6 for a, b in zip((*mean, *std), (*known[0], *known[1])))
