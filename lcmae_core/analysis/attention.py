"""Attention maps, recomputed from each block's own layers while the forward pass keeps the fused kernel.

Letters: B images of h x w pixels, L layers, H heads, T tokens (prefix included), D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.models.encoder import gather_patches
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask


@torch.no_grad()
def attention_maps(
    model: MAE | VisionTransformer,
    images: Float[Tensor, "B C h w"],
    *,
    part: str = "encoder",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    mask: Mask | None = None,
) -> Float[Tensor, "B L H T T"]:
    """Softmax attention of the chosen layers and heads (all by default), counted from 0; rows are queries and sum to 1.

    part "encoder" runs a timm ViT or our encoder, under a mask on the kept patches only (T = prefix + K). "decoder"
    needs a model with a decoder and a mask (T = 1 + N, CLS first, patches in their places).

    Raises:
        LcmaeError: an unknown part, a decoder without mask or model, a layer or head out of range.
    """
    blocks, tokens = _entry(model, images, part, mask)
    chosen = _indices("layer", layers, len(blocks))
    found = {}
    for index, block in enumerate(blocks[: max(chosen) + 1]):
        if index in chosen:
            maps = block_attention(block, tokens)  # (B, H, T, T)
            found[index] = maps[:, _indices("head", heads, maps.shape[1])]
        tokens = block(tokens)
    return torch.stack([found[index] for index in chosen], dim=1)


def block_attention(block: Any, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T T"]:
    """softmax(q k^T / sqrt(d)) of one timm block, from its own norm, qkv and qk-norm layers."""
    attn = block.attn
    b, t, _ = tokens.shape
    qkv = attn.qkv(block.norm1(tokens)).reshape(b, t, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)  # (3, B, H, T, d)
    q, k = attn.q_norm(qkv[0]), attn.k_norm(qkv[1])
    return (q * attn.scale @ k.mT).softmax(dim=-1)


def _entry(
    model: MAE | VisionTransformer, images: Tensor, part: str, mask: Mask | None
) -> tuple[nn.Sequential, Tensor]:
    """The blocks to walk through and the tokens that enter the first."""
    if part not in ("encoder", "decoder"):
        raise LcmaeError(f"part: got {part!r}, {nearest(part, ('encoder', 'decoder'))}")
    if part == "decoder":
        if not isinstance(model, MAE) or model.decoder is None or mask is None:
            raise LcmaeError("part: got 'decoder', expected a model with a decoder, and a mask")
        return model.decoder.blocks, model.decoder.sequence(model.encoder(images, mask.keep), mask.restore)
    vit = model.encoder if isinstance(model, MAE) else model
    tokens = vit._pos_embed(vit.patch_embed(images))  # (B, prefix + N, D)
    if mask is not None:
        prefix = vit.num_prefix_tokens
        tokens = torch.cat([tokens[:, :prefix], gather_patches(tokens[:, prefix:], mask.keep)], dim=1)
    return vit.blocks, vit.norm_pre(vit.patch_drop(tokens))


def _indices(what: str, chosen: Sequence[int] | None, count: int) -> list[int]:
    indices = list(range(count) if chosen is None else chosen)
    if not indices or not all(0 <= i < count for i in indices):
        raise LcmaeError(f"{what}s: got {indices}, expected {what}s from 0 to {count - 1}")
    return indices
