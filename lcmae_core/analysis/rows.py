"""The rows of attention maps that belong to patches, and a way to go through many of them in small memory.

Letters (CONTRIBUTING.md): T tokens (prefix included), Q queries, N patches. Prefix tokens come first.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lcmae_core.config import LcmaeError

CHUNK = 2**20
"""Values of a temporary: 4 MB of float32, which stays in a processor's cache."""


def patch_rows(
    attn: Float[Tensor, "*maps _ T"], grid: tuple[int, int], prefix: int, queries: Int64[Tensor, "Q"] | None
) -> Float[Tensor, "*maps Q N"]:
    """Rows of patch queries over patch keys, a view; `queries` names the patches of the rows where they are not all.

    Raises:
        LcmaeError: grid, prefix and queries do not add up to the shape of the maps.
    """
    check_tokens(attn, grid, prefix, queries)
    return attn[..., prefix:, prefix:] if queries is None else attn[..., prefix:]


def check_tokens(
    attn: Float[Tensor, "*maps _ T"], grid: tuple[int, int], prefix: int, queries: Int64[Tensor, "Q"] | None
) -> None:
    """Nothing, where the maps are of these tokens.

    Raises:
        LcmaeError: grid, prefix and queries do not add up to the shape of the maps.
    """
    tokens = grid[0] * grid[1] + prefix
    rows = tokens if queries is None else len(queries)
    if attn.shape[-2:] != (rows, tokens):
        got, what = "x".join(map(str, attn.shape[-2:])), f"{grid[0]}x{grid[1]} patches + {prefix} prefix tokens"
        raise LcmaeError(f"attn: got maps of {got}, expected {rows}x{tokens} for a grid of {what}")


def in_chunks(measure: Callable[[Tensor], Tensor], maps: Float[Tensor, "*maps Q T"]) -> Float[Tensor, "*maps"]:
    """`measure` (maps, Q, T) -> (maps,) over all maps, a few at a time, so that temporaries stay small."""
    rows = maps.reshape(-1, *maps.shape[-2:])
    step = max(1, CHUNK // max(1, rows[0].numel()))
    return torch.cat([measure(part) for part in rows.split(step)]).reshape(maps.shape[:-2])
