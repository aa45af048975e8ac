"""The paper's measures over many images: batches stream through, one layer's maps exist at a time.

Letters: M images in all, B images of a batch, L layers, H heads, Q queries, T tokens, N patches, D and E widths.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lcmae_core.analysis.attention import indices_of, visit_attention
from lcmae_core.analysis.blocks import attention_blocks, geometry
from lcmae_core.analysis.features import patch_features
from lcmae_core.analysis.metrics import (
    AttentionSimilarity,
    attention_distance,
    entropy,
    near_mass,
    normalized_mutual_information,
    prefix_mass,
    semantic_similarities,
)
from lcmae_core.config import LcmaeError
from lcmae_core.models.masking import Mask

MEASURES: tuple[Any, ...] = ("distance", "distance_renormalized", "prefix_mass", "entropy", "nmi")


class Profile(NamedTuple):
    """Measures of the attention of patch queries, per image, layer and head, each (M, L, H) in float64 on the CPU.

    distance, distance_renormalized: pixels, in both published conventions. prefix_mass: on CLS and registers. entropy:
    nats. nmi: normalised mutual information of query and key. near: radius in patches -> share within it.
    """

    distance: Tensor
    distance_renormalized: Tensor
    prefix_mass: Tensor
    entropy: Tensor
    nmi: Tensor
    near: dict[float | int, Tensor]


def attention_profile(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    part: str = "encoder",
    layers: Sequence[int] | None = None,
    mask: Mask | None = None,
    radii: Sequence[float | int] = (1, 2, 3),
) -> Profile:
    """Every measure of every map of the images: of an encoder unmasked (v2 Fig. 5, 6), or of a decoder under one `mask`
    of one image, shared by all, whose hidden patches are the queries (v2 section 4.1). The grid is that of each batch.

    Raises:
        LcmaeError: no images, an encoder with a mask, or as `attention_maps`.
    """
    if (part == "decoder") != (mask is not None):
        raise LcmaeError(f"mask: got {'one' if mask else 'none'} for the {part}, expected one for the decoder alone")
    queries = None if mask is None else hidden_patches(mask)
    chosen = indices_of("layer", layers, len(attention_blocks(model, part)))
    found: dict[tuple[str, int], list[Tensor]] = defaultdict(list)

    def visit(place: _Place, layer: int, maps: Tensor) -> None:
        for name, values in place.measure(maps, radii).items():
            found[name, layer].append(values.double().cpu())  # (B, H)

    for images in batches:
        shared = None if mask is None else for_batch(mask, len(images))
        place = _Place(*geometry(model, part, images), queries=queries)
        rows = None if queries is None else queries + place.prefix
        visit_attention(model, images, partial(visit, place), part=part, layers=chosen, mask=shared, queries=rows)
    if not found:
        raise LcmaeError("images: got none, expected at least one batch")

    def stacked(name: str) -> Tensor:
        return torch.stack([torch.cat(found[name, layer]) for layer in chosen], dim=1)

    near = {radius: stacked(f"near {radius}") for radius in radii}
    return Profile(**{name: stacked(name) for name in MEASURES}, near=near)


class _Place(NamedTuple):
    """Where the rows of a model's maps lie on the image."""

    grid: tuple[int, int]
    patch_size: tuple[int, int]
    prefix: int
    queries: Tensor | None

    def measure(self, maps: Tensor, radii: Sequence[float | int]) -> dict[str, Tensor]:
        """All measures of the maps (B, H, Q, T) of one layer."""
        rows: dict[str, Any] = {"prefix_tokens": self.prefix, "queries": self.queries}
        distance = partial(attention_distance, maps, self.grid, self.patch_size, **rows)
        return {
            "distance": distance(),
            "distance_renormalized": distance(renormalize=True),
            "prefix_mass": prefix_mass(maps, prefix_tokens=self.prefix),
            "entropy": entropy(maps if self.queries is not None else maps[..., self.prefix :, :]),
            "nmi": normalized_mutual_information(maps, self.grid, **rows),
        } | {f"near {radius}": near_mass(maps, self.grid, radius, **rows) for radius in radii}


class Similarity(NamedTuple):
    """S per layer (L,), and its terms (M, L), whose mean over images it is; float64 on the CPU.

    `degree`: 2 for a mean over pairs (Eq. 7), whose bootstrap deviations over images are twice those of its terms (its
    first-order expansion); 1 for a mean over images (Eq. 8).
    """

    value: Float[Tensor, "L"]
    terms: Float[Tensor, "M L"]
    degree: int

    def interval(self, generator: torch.Generator, draws: int = 1000, level: float = 0.95) -> Float[Tensor, "2 L"]:
        """Bootstrap percentile interval over images."""
        picks = torch.randint(len(self.terms), (draws, len(self.terms)), generator=generator)
        means = torch.stack([self.terms[pick].mean(0) for pick in picks])  # (draws, L)
        tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        return self.value + self.degree * (means.quantile(tail, dim=0) - self.value)


def attention_similarity(
    model: nn.Module,
    batches: Callable[[], Iterable[Tensor]],
    mask: Mask,
    *,
    part: str = "decoder",
    cls_column: bool = False,
) -> Similarity:
    """S_attn of each layer (v2 Eq. 7): rows of the hidden queries under one `mask` of one image, shared by all.

    `batches` starts a pass over the images; there are two, one for the sum of maps, one for each image's term.
    `cls_column` counts the attention on CLS too; v2 says that n is the number of patches, so it is left out.

    Raises:
        LcmaeError: fewer than two images, or as `attention_maps`.
    """
    prefix = geometry(model, part).prefix
    queries = hidden_patches(mask) + prefix
    sums = [AttentionSimilarity() for _ in attention_blocks(model, part)]
    terms: list[list[Tensor]] = [[] for _ in sums]

    def run(visit: Callable[[int, Tensor], Any]) -> None:
        for images in batches():
            shared = for_batch(mask, len(images))
            visit_attention(model, images, lambda layer, maps: visit(layer, maps[:, None, ..., first:]),
                            part=part, mask=shared, queries=queries)  # fmt: skip

    first = 0 if cls_column else prefix
    run(lambda layer, maps: sums[layer].update(maps))
    value = torch.cat([each.compute() for each in sums]).cpu()
    run(lambda layer, maps: terms[layer].append(sums[layer].with_others(maps).cpu()))
    return Similarity(value, torch.cat([torch.cat(parts) for parts in terms], dim=1), degree=2)


def semantic_profile(
    model: nn.Module,
    reference: nn.Module,
    batches: Iterable[Tensor],
    mask: Mask,
    *,
    kind: str = "outputs",
    reference_kind: str = "keys",
    centred: bool = False,
    shuffled: bool = False,
) -> Similarity:
    """S_sim of each decoder layer (v2 Eq. 8) to the last layer of `reference` on the unmasked image.

    `mask` is of one image, shared by all. `centred`: as in `metrics.semantic_similarity`. `shuffled` compares with the
    reference's features of the next image of the batch instead: what positions alone would give.

    Raises:
        LcmaeError: no images, an unknown kind, or as `attention_maps`.
    """
    last, terms = len(attention_blocks(reference)) - 1, []
    for images in batches:
        shared = for_batch(mask, len(images))
        features = patch_features(model, images, kind=kind, part="decoder", mask=shared)  # (B, L, N, D)
        target = patch_features(reference, images, kind=reference_kind, layers=[last])[:, 0]  # (B, N, E)
        target = target.roll(1, 0) if shuffled else target
        terms.append(semantic_similarities(features, target, centred=centred).double().cpu())
    if not terms:
        raise LcmaeError("images: got none, expected at least one batch")
    every = torch.cat(terms)
    return Similarity(every.mean(0), every, degree=1)


def hidden_patches(mask: Mask) -> Int64[Tensor, "Q"]:
    """The patches that the mask of one image hides, in order.

    Raises:
        LcmaeError: masks of several images.
    """
    if len(mask.hidden) != 1:
        raise LcmaeError(f"mask: got {len(mask.hidden)} masks, expected one, shared by all images (Mask.row)")
    return mask.hidden[0].nonzero()[:, 0]


def for_batch(mask: Mask, size: int) -> Mask:
    """The mask of one image, shared by a batch of `size`."""
    return Mask(*(part.expand(size, -1) for part in mask))
