"""The query-specific attention distance: how far a query looks beyond what every query looks at (our control for C8).

Where all queries attend to the same few tokens (sinks), the attention distance is large or small by where the sinks
lie, and says nothing about the queries. So the mean map over the queries is subtracted first; what remains, where it
is positive, depends on the query, and its distance is measured.

Letters (CONTRIBUTING.md): T tokens (prefix included), Q queries, N patches. Prefix tokens come first.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lcmae_core.analysis.metrics import Side, patch_distances
from lcmae_core.analysis.rows import in_chunks, patch_rows

LEAST_MASS = 0.05
"""Query-specific attention of a query, mean over queries, below which a layer has no query-specific distance: hardly
anything in it depends on the query then (C8 is open there)."""


class Specific(NamedTuple):
    """far: mean over queries of sum_j R_ij d_ij, in the unit of the patch size. mass: of sum_j R_ij, from 0 to 1."""

    far: Float[Tensor, "*maps"]
    mass: Float[Tensor, "*maps"]


def query_specific(
    attn: Float[Tensor, "*maps Q T"],
    grid: tuple[int, int],
    patch_size: Side,
    *,
    prefix_tokens: int = 1,
    queries: Int64[Tensor, " queries"] | None = None,
) -> Specific:
    """Both, per map: R = max(A - mean over queries of A, 0), of patch queries over patch keys, not renormalised.

    0 and 0 where all queries attend alike. A permutation of N patches has mass 1 - 1/N and far / mass equal to its
    plain attention distance.

    Raises:
        LcmaeError: grid, prefix and queries do not add up to the shape of the maps.
    """
    rows = patch_rows(attn, grid, prefix_tokens, queries)
    distances = patch_distances(grid, patch_size).to(attn)
    table = distances if queries is None else distances[queries.to(attn.device)]

    def own(maps: Tensor) -> Tensor:
        return (maps - maps.mean(-2, keepdim=True)).clamp(min=0)

    far = in_chunks(lambda maps: torch.einsum("mij,ij->m", own(maps), table) / table.shape[0], rows)
    return Specific(far, in_chunks(lambda maps: own(maps).sum(-1).mean(-1), rows))


def specific_distance(
    far: Float[np.ndarray, "*layers"], mass: Float[np.ndarray, "*layers"]
) -> Float[np.ndarray, "*layers"]:
    """sum(d R) / sum(R) of every layer in pixels, from the means of `far` and `mass` over its images and heads (and
    seeds); NaN where the mean mass of a query is below `LEAST_MASS`: there is nothing query-specific to measure."""
    return np.where(mass < LEAST_MASS, np.nan, far / np.maximum(mass, 1e-12))
