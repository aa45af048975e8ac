"""Attention maps, recomputed from each block's own layers while the forward pass keeps the fused kernel.

Letters: B images of h x w pixels, C channels, L layers, H heads, T tokens (prefix included), Q queries, D width.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lcmae_core.analysis.blocks import attention_blocks, listen
from lcmae_core.config import LcmaeError
from lcmae_core.models.masking import Mask


def attention_maps(
    model: nn.Module,
    images: Float[Tensor, "B C h w"],
    *,
    part: str = "encoder",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    mask: Mask | None = None,
    queries: Int64[Tensor, "Q"] | None = None,
    budget_gb: float = 4.0,
) -> Float[Tensor, "B L H Q T"]:
    """Softmax attention of the chosen layers and heads (all by default), counted from 0; rows are queries and sum to 1.

    part "encoder" runs a timm ViT or our encoder, under a mask on the kept patches only (T = prefix + K). "decoder"
    needs a model with a decoder and a mask (T = 1 + N, CLS first, patches in their places). `queries` are tokens whose
    rows are wanted (all by default, then Q = T).

    Raises:
        LcmaeError: an unknown part, no attention blocks, no decoder or mask, a layer, head or query out of range,
            images of another size, maps of more than `budget_gb` (10^9 bytes).
    """
    chosen = indices_of("layer", layers, len(attention_blocks(model, part)))
    found: dict[int, Tensor] = {}
    select = _Selection(chosen, heads, queries, kept=len(chosen), budget_gb=budget_gb)
    _walk(model, images, found.__setitem__, part, mask, select)
    return torch.stack([found[layer] for layer in chosen], dim=1)


def visit_attention(
    model: nn.Module,
    images: Float[Tensor, "B C h w"],
    visit: Callable[[int, Tensor], None],
    *,
    part: str = "encoder",
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    mask: Mask | None = None,
    queries: Int64[Tensor, "Q"] | None = None,
    budget_gb: float = 4.0,
) -> None:
    """`visit(layer, maps)` for each chosen layer in the order of the forward pass, maps (B, H, Q, T) as in
    `attention_maps`. One layer's maps exist at a time, so every layer of ViT-L fits where one does.

    Raises:
        LcmaeError: as `attention_maps`; the budget is for one layer's maps.
    """
    chosen = indices_of("layer", layers, len(attention_blocks(model, part)))
    _walk(model, images, visit, part, mask, _Selection(chosen, heads, queries, kept=1, budget_gb=budget_gb))


class _Selection(NamedTuple):
    """Which maps are wanted, and how many layers of them exist at once."""

    layers: list[int]
    heads: Sequence[int] | None
    queries: Tensor | None
    kept: int
    budget_gb: float


def _walk(
    model: nn.Module,
    images: Tensor,
    visit: Callable[[int, Tensor], None],
    part: str,
    mask: Mask | None,
    select: _Selection,
) -> None:
    blocks = attention_blocks(model, part)

    def listener(layer: int) -> Callable[[Tensor], None]:
        def hear(tokens: Tensor) -> None:
            _refuse_large(select, tokens, blocks[layer].attn.num_heads)
            visit(layer, attention_of(blocks[layer].attn, tokens, select.heads, select.queries))

        return hear

    for layer in select.layers:
        indices_of("head", select.heads, blocks[layer].attn.num_heads)
    listen(model, images, part, mask, inputs={blocks[layer].attn: listener(layer) for layer in select.layers})


def attention_of(
    attn: Any,
    tokens: Float[Tensor, "B T D"],
    heads: Sequence[int] | None = None,
    queries: Int64[Tensor, "Q"] | None = None,
) -> Float[Tensor, "B H Q T"]:
    """softmax(q k^T / sqrt(d)) of a timm Attention for the tokens that enter it, from its qkv and qk-norm layers.

    The softmax of half-precision models is taken in float32.
    """
    q, k = queries_and_keys(attn, tokens)
    if heads is not None:
        wanted = indices_of("head", heads, attn.num_heads)
        q, k = q[:, wanted], k[:, wanted]
    if queries is not None:
        indices_of("query", queries.tolist(), tokens.shape[1])
        q = q[:, :, queries.to(q.device)]
    scores = q * attn.scale @ k.mT  # (B, H, Q, T)
    half = scores.dtype in (torch.float16, torch.bfloat16)
    return scores.softmax(dim=-1, dtype=torch.float32 if half else None)


def queries_and_keys(
    attn: Any, tokens: Float[Tensor, "B T D"]
) -> tuple[Float[Tensor, "B H T d"], Float[Tensor, "B H T d"]]:
    """q and k of a timm Attention, each (B, H, T, D / H), after its qk-norm."""
    b, t, _ = tokens.shape
    q, k, _ = attn.qkv(tokens).reshape(b, t, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
    return attn.q_norm(q), attn.k_norm(k)


def block_attention(block: Any, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T T"]:
    """Attention of one pre-norm timm block for the tokens that enter the block."""
    return attention_of(block.attn, block.norm1(tokens))


def indices_of(what: str, chosen: Sequence[int] | None, count: int) -> list[int]:
    """The chosen indices, all by default.

    Raises:
        LcmaeError: none, or one out of range.
    """
    indices = list(range(count) if chosen is None else chosen)
    if not indices or not all(0 <= i < count for i in indices):
        plural = "queries" if what == "query" else f"{what}s"
        raise LcmaeError(f"{plural}: got {indices}, expected {plural} from 0 to {count - 1}")
    return indices


def _refuse_large(select: _Selection, tokens: Tensor, num_heads: int) -> None:
    b, t, _ = tokens.shape
    h = num_heads if select.heads is None else len(select.heads)
    q = t if select.queries is None else len(select.queries)
    gigabytes = select.kept * b * h * q * t * max(tokens.element_size(), 4) / 1e9
    if gigabytes > select.budget_gb:
        raise LcmaeError(
            f"maps: got {b} images x {select.kept} layers x {h} heads of {q}x{t} ({gigabytes:.2g} GB), "
            f"expected at most {select.budget_gb:g} GB: choose layers, heads or queries, or stream with visit_attention"
        )
