"""Attention maps, recomputed from each block's own layers while the forward pass keeps the fused kernel, and shown only
where they explain what the block gave.

Letters (CONTRIBUTING.md): B images, h x w pixels, C channels, L layers, H heads, T tokens (prefix included), Q queries,
D width, d width of a head.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lcmae_core.analysis.blocks import attention_blocks, run_with_hooks
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
        LcmaeError: an unknown part, no attention blocks, a layer whose output its maps do not give (`refuse_unlike`),
            no decoder or mask, a layer, head or query out of range, images that the model does not take, maps of more
            than `budget_gb` (10^9 bytes).
    """
    chosen = indices_of("layer", layers, len(attention_blocks(model, part)))
    maps: dict[int, Tensor] = {}
    select = _Selection(chosen, heads, queries, kept=len(chosen), budget_gb=budget_gb)
    _walk(model, images, maps.__setitem__, part, mask, select)
    return torch.stack([maps[layer] for layer in chosen], dim=1)


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

    def hook_of(layer: int) -> Callable[[Tensor, Any], None]:
        def hook(tokens: Tensor, made: Any) -> None:
            attn = blocks[layer].attn
            _refuse_large(select, tokens, attn.num_heads)
            projected = project(attn, tokens)
            refuse_unlike(layer, attn, projected, made)
            visit(layer, _maps(attn, projected, select.heads, select.queries))

        return hook

    for layer in select.layers:
        indices_of("head", select.heads, blocks[layer].attn.num_heads)
    run_with_hooks(model, images, part, mask, both={blocks[layer].attn: hook_of(layer) for layer in select.layers})


class Projected(NamedTuple):
    """What an attention layer makes of its tokens, by head; q and k after its qk-norm."""

    q: Float[Tensor, "B H T d"]
    k: Float[Tensor, "B H T d"]
    v: Float[Tensor, "B H T d"]


def project(attn: Any, tokens: Float[Tensor, "B T D"]) -> Projected:
    """Queries, keys and values of a timm Attention."""
    b, t, _ = tokens.shape
    q, k, v = attn.qkv(tokens).reshape(b, t, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
    norms = (getattr(attn, name, None) or nn.Identity() for name in ("q_norm", "k_norm"))
    q, k = (norm(part) for norm, part in zip(norms, (q, k)))
    return Projected(q, k, v)


def attention_of(
    attn: Any,
    tokens: Float[Tensor, "B T D"],
    heads: Sequence[int] | None = None,
    queries: Int64[Tensor, "Q"] | None = None,
) -> Float[Tensor, "B H Q T"]:
    """softmax(q k^T / sqrt(d)) of a timm Attention for the tokens that enter it, from its qkv and qk-norm layers.

    Scores and softmax of half-precision models are taken in float32, as the fused kernel does. Whether the layer uses
    these maps is not asked here.
    """
    return _maps(attn, project(attn, tokens), heads, queries)


def _maps(attn: Any, projected: Projected, heads: Sequence[int] | None, queries: Tensor | None) -> Tensor:
    q, k, _ = projected
    if queries is not None:
        indices_of("query", queries.tolist(), q.shape[2])
        q = q[:, :, queries.to(q.device)]
    if heads is not None:
        wanted = indices_of("head", heads, attn.num_heads)
        q, k = q[:, wanted], k[:, wanted]
    return _softmax(attn, q, k)


def _softmax(attn: Any, q: Tensor, k: Tensor) -> Tensor:
    """The maps (B, H, Q, T), in float32 at least."""
    real = _real(q)
    if getattr(attn, "fused_attn", True):  # kernels accumulate scores in float32; the plain path rounds them
        q, k = q.to(real), k.to(real)
    with torch.autocast(q.device.type, enabled=False):
        return (q * attn.scale @ k.mT.to(q.dtype)).softmax(dim=-1, dtype=real)


TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""How far an output may lie from softmax(q k^T) v, projected, as a share of it, by the coarsest type on the way."""
CHECKED = 16
"""Rows of the first image that are compared, evenly spaced from the first token to the last."""


def refuse_unlike(layer: int, attn: Any, projected: Projected, made: Any) -> None:
    """See on the tokens at hand whether an attention layer's output is softmax(q k^T / sqrt(d)) v through its own
    projection (and the norm before it, where timm has one); a layer with rotary positions, a bias on the scores, gates,
    mixed heads or another order of q, k and v has the same parts but shows something else.

    The difference of `CHECKED` rows, in the Euclidean norm, may be `TOLERANCE` of what the values give (without the
    projection's own bias, which would hide it), plus the rounding of types coarser than float32.

    Raises:
        LcmaeError: naming the layer and its class; also where the output is no finite number, or drawn by dropout.
    """
    name = f"layer {layer}: got {type(attn).__name__}"
    if not isinstance(made, Tensor) or made.shape[:2] != (projected.q.shape[0], projected.q.shape[2]):
        raise LcmaeError(f"{name}, which gives no tensor of its tokens, expected timm's Attention")
    if attn.training and any(isinstance(m, nn.Dropout) and m.p > 0 for m in attn.modules()):
        raise LcmaeError(f"{name} in training mode, with dropout, expected a model in evaluation mode: model.eval()")
    count = made.shape[1]
    rows = torch.linspace(0, count - 1, min(count, CHECKED), device=made.device).round().long()
    with torch.autocast(made.device.type, enabled=False):
        gap, allowed = _gap(attn, projected, made[:1, rows], rows)
    if not math.isfinite(gap):
        raise LcmaeError(f"{name} with an output that is NaN or infinite, expected finite weights and images")
    if gap > allowed:
        raise LcmaeError(
            f"{name}, whose output is not softmax(q k^T) v through its projection (off by {gap:.2g}, allowed "
            f"{allowed:.2g}), expected plain attention: the maps would not be those that it uses"
        )


def _gap(attn: Any, projected: Projected, made: Tensor, rows: Tensor) -> tuple[float, float]:
    """How far the output lies from what the maps and values of the first image give, and how far it may."""
    q, k, v = (part[:1] for part in projected)
    real = _real(made)
    mixed = (_softmax(attn, q[:, :, rows], k) @ v.to(_real(q))).to(real).transpose(1, 2).flatten(2)  # (1, rows, D)
    norm = getattr(attn, "norm", None)
    if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
        mixed = norm(mixed.to(next((p.dtype for p in norm.parameters()), real))).to(real)
    weight = attn.proj.weight.to(real)
    given = mixed @ weight.mT
    bias = 0 if attn.proj.bias is None else attn.proj.bias.to(real)
    coarsest = max((part.dtype for part in (q, k, v, made)), key=lambda kind: torch.finfo(kind).eps)
    allowed = _tolerance(coarsest, made.device) * given.norm()
    if coarsest not in (torch.float32, torch.float64):  # what rounding to it may have cost on the way
        spread = (mixed.square() @ weight.square().mT).sum().sqrt()
        allowed += torch.finfo(coarsest).eps * (made.to(real).norm() + spread)
    return (given + bias - made.to(real)).norm().item(), allowed.item()


def _tolerance(kind: torch.dtype, device: torch.device) -> float:
    coarse = device.type == "cuda" and kind == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return 2e-2 if coarse else TOLERANCE[kind]


def _real(like: Tensor) -> torch.dtype:
    return torch.float64 if like.dtype == torch.float64 else torch.float32


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
