"""All heads at once: what each head is sorted by (how far it attends, how alike images are to it), and in which order.

Letters (CONTRIBUTING.md): B images, C channels, h x w pixels, L layers, H heads, T tokens, K visible patches, Q
queries.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor, nn

from lcmae_core.analysis.attention import visit_attention
from lcmae_core.analysis.metrics import AttentionSimilarity, patch_distances
from lcmae_core.analysis.streams import for_batch
from lcmae_core.models.masking import Mask
from lcmae_core.models.pretrained import expected_images

ALIKE = 8
"""Images that S_attn is taken over, at most: the first ones of the browser."""


def head_distances(
    maps: Float[Tensor, "L H T T"],
    grid: tuple[int, int],
    side: tuple[int, int],
    keys: Int64[Tensor, " K"],
    queries: Int64[Tensor, " Q"],
) -> NDArray[np.float64]:
    """Attention distance in pixels of every head (L, H) in one image, as `analysis.metrics.attention_distance`: mean
    over the queries of sum_j A_ij d_ij, prefix tokens left out. keys: the patch of each column after the prefix, fewer
    than all where an encoder is masked. queries: which of the K columns are asked."""
    table = patch_distances(grid, side)[keys][:, keys][queries].to(maps)  # (Q, K)
    rows = maps[..., -len(keys) :, -len(keys) :][..., queries.to(maps.device), :]
    return (torch.einsum("lhqk,qk->lh", rows, table) / len(queries)).double().cpu().numpy()


@torch.no_grad()
def head_similarities(
    model: nn.Module,
    images: Float[Tensor, "B C h w"],
    part: str,
    mask: Mask | None,
    rows: Int64[Tensor, " Q"],
    prefix: int,
) -> NDArray[np.float64]:
    """S_attn (v2 Eq. 7) of every head by itself (L, H): the mean cosine between its maps of every two of the images,
    all under one mask of one image. rows: of the maps, the first patch after the prefix tokens being `prefix`; the
    columns of the prefix are left out, as `analysis.streams.attention_similarity` does.

    Raises:
        LcmaeError: fewer than two images.
    """
    device = next(model.parameters()).device
    shown = expected_images(model, images.to(device))
    similarities: list[Tensor] = []

    def visit(_: int, maps: Tensor) -> None:
        alike = AttentionSimilarity().update(maps[..., prefix:].float())  # heads stand where layers stood: (B, H, Q, T)
        similarities.append(alike.compute().double().cpu())

    shared = None if mask is None else for_batch(mask, len(images))
    visit_attention(model, shown, visit, part=part, mask=shared, queries=rows.to(device))
    return torch.stack(similarities).numpy()


def ranks(values: NDArray[np.floating[Any]]) -> list[int]:
    """The place of each map (in the order of layers and heads), smallest first; of equals the earlier."""
    flat = values.ravel()
    places = [0] * len(flat)
    for place, index in enumerate(np.argsort(flat, kind="stable")):
        places[int(index)] = place
    return places


def columns(layers: int, heads: int, order: str, blocks: int) -> int:
    """Tiles in a row of a block of the still picture: heads of a layer, or of sorted ones as many as have room."""
    room = 16 if order == "layers" else 12
    return min(heads if order == "layers" else layers * heads, {1: room, 2: 8}.get(blocks, 5))


def slots(layers: int, heads: int, cols: int, places: Sequence[int] | None) -> list[tuple[int, int]]:
    """Row and column of each map: where its place is, or layer by layer, each from a row of its own on."""
    if places is not None:
        return [divmod(place, cols) for place in places]
    lines = -(-heads // cols)
    return [(layer * lines + head // cols, head % cols) for layer in range(layers) for head in range(heads)]


def tile_number(value: float, order: str, signed: bool = False) -> str:
    """A tenth of a pixel, a hundredth of S_attn, with its sign where it is a difference; the page writes the same."""
    digits = 2 if order == "similarity" else 1 if abs(value) < 99.95 else 0
    size = f"{abs(value):.{digits}f}"
    return size if not signed else ("-" if value < 0 and float(size) else "+") + size
