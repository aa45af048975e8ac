"""Patch features of any layer, on the images or on what a decoder makes of them.

Letters (CONTRIBUTING.md): B images, h x w pixels, C channels, L layers, N patches, K visible patches, T tokens, D
width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lcmae_core.analysis.attention import indices_of, project, refuse_unlike
from lcmae_core.analysis.blocks import attention_blocks, geometry, run_with_hooks
from lcmae_core.config import LcmaeError, nearest
from lcmae_core.models.masking import Mask

KINDS = ("keys", "outputs")


def patch_features(
    model: nn.Module,
    images: Float[Tensor, "B C h w"],
    *,
    kind: str,
    part: str = "encoder",
    layers: Sequence[int] | None = None,
    mask: Mask | None = None,
) -> Float[Tensor, "B L N D"]:
    """Features of the patches (prefix dropped) in the chosen layers, all by default, counted from 0.

    kind "keys": the keys of the block's attention, heads side by side, as the segmentation work cited by v2 section 4.1
    uses DINO. "outputs": what the block hands on. v2 leaves the choice open. A masked encoder has only K patches.

    Raises:
        LcmaeError: an unknown kind or part, no attention blocks, no decoder or mask, a layer out of range; for keys
            also a layer that is no plain attention, whose keys cannot be told.
    """
    if kind not in KINDS:
        raise LcmaeError(f"kind: got {kind!r}, {nearest(kind, KINDS)}")
    blocks, prefix = attention_blocks(model, part), geometry(model, part).prefix
    chosen = indices_of("layer", layers, len(blocks))
    features: dict[int, Tensor] = {}

    def keys(layer: int) -> Callable[[Tensor, Any], None]:
        def hook(tokens: Tensor, made: Any) -> None:
            parts = project(blocks[layer].attn, tokens)
            refuse_unlike(layer, blocks[layer].attn, parts, made)
            features[layer] = parts.k.transpose(1, 2).flatten(2)[:, prefix:]

        return hook

    def outputs(layer: int) -> Callable[[Tensor], None]:
        def hook(tokens: Tensor) -> None:
            features[layer] = tokens[:, prefix:]

        return hook

    if kind == "keys":
        run_with_hooks(model, images, part, mask, both={blocks[layer].attn: keys(layer) for layer in chosen})
    else:
        run_with_hooks(model, images, part, mask, outputs={blocks[layer]: outputs(layer) for layer in chosen})
    return torch.stack([features[layer] for layer in chosen], dim=1)
