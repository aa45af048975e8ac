"""Attention rows as bytes for the browser, and back.

Letters (CONTRIBUTING.md): L layers, H heads, T tokens, K visible patches.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy.typing import NDArray
from torch import Tensor

from lcmae_core.config import LcmaeError

LEVELS = 255
"""Steps between the least and the greatest weight of a row."""
MEGABYTE = 1_000_000


class Rows(NamedTuple):
    """The attention rows of one image: the weight of query t on patch k is low + step * level.

    Each row (layer, head and query) has its own float32 `low` and `step`, taken over its patches only: neither a row
    that is uniform but for a few per cent nor one that gives nine tenths to CLS is rounded to one level. Weights on
    prefix tokens (CLS, registers) are exact.
    """

    levels: UInt8[np.ndarray, "L H T K"]
    low: Float32[np.ndarray, "L H T"]
    step: Float32[np.ndarray, "L H T"]
    prefix: Float32[np.ndarray, "L H T prefix"]

    def packed(self) -> bytes:
        """low, step and prefix as little-endian float32, then the levels: what the browser reads in this order."""
        floats = (self.low, self.step, self.prefix)
        return b"".join(part.astype("<f4").tobytes() for part in floats) + self.levels.tobytes()


def encode_rows(maps: Float[Tensor, "L H T T"], prefix: int) -> Rows:
    """Attention maps as bytes with a scale for each row; restored weights are off by at most (max - min) / 510."""
    weights = maps.float().cpu().numpy()
    patches = weights[..., prefix:]  # (L, H, T, K)
    low, high = patches.min(axis=-1), patches.max(axis=-1)  # (L, H, T)
    step = (high - low) / LEVELS
    # a row of equal weights has no range: every level is 0 and `low` says it all
    levels = np.rint((patches - low[..., None]) / np.where(step > 0, step, 1)[..., None])
    return Rows(levels.clip(0, LEVELS).astype(np.uint8), low, step, np.ascontiguousarray(weights[..., :prefix]))


def restore_rows(rows: Rows, query: int) -> NDArray[np.float32]:
    """Weights of query token `query` on the patches, (L, H, K), as the browser computes them."""
    return rows.low[:, :, query, None] + rows.step[:, :, query, None] * rows.levels[:, :, query].astype(np.float32)


def combine_heads(values: Float32[np.ndarray, "L H K"], mode: str) -> NDArray[np.float32]:
    """(L, H, K) for "each", (L, 1, K) for the "mean" or the "max" over heads."""
    if mode == "each":
        return values
    return values.mean(axis=1, keepdims=True) if mode == "mean" else values.max(axis=1, keepdims=True)


def check_budget(layers: int, heads: int, tokens: int, budget_mb: float) -> None:
    """Refuse maps that would take more than `budget_mb` megabytes (one byte a weight) before any is computed.

    Raises:
        LcmaeError: they would.
    """
    size = layers * heads * tokens**2 / MEGABYTE
    if size > budget_mb:
        raise LcmaeError(
            f"maps: got {layers} layers x {heads} heads x {tokens}^2 tokens = {size:.3g} MB, expected at most "
            f"{budget_mb:g} MB: choose fewer layers or heads, or raise budget_mb"
        )
