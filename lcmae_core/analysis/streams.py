"""The paper's measures over many images: batches stream through, one layer's maps exist at a time.

Letters (CONTRIBUTING.md): M images in all, B images of a batch, C channels, h x w pixels, G groups of images, L layers,
H heads, Q queries, T tokens, N patches, D and E widths, K visible patches.
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
from lcmae_core.analysis.specific import query_specific
from lcmae_core.config import LcmaeError
from lcmae_core.models.masking import Mask

MEASURES = ("distance", "distance_renormalized", "prefix_mass", "entropy", "nmi", "specific_far", "specific_mass")


class AttentionProfile(NamedTuple):
    """Measures of the attention of patch queries, per image, layer and head, each (M, L, H) in float64 on the CPU.

    distance, distance_renormalized: pixels, in both published conventions. prefix_mass: on CLS and registers. entropy:
    nats. nmi: normalised mutual information of query and key. specific_far (pixels), specific_mass: attention beyond
    what all queries attend to (`specific`). near: radius in patches -> share within it.
    """

    distance: Tensor
    distance_renormalized: Tensor
    prefix_mass: Tensor
    entropy: Tensor
    nmi: Tensor
    specific_far: Tensor
    specific_mass: Tensor
    near: dict[float | int, Tensor]


Profile = AttentionProfile
"""Its former name."""


def attention_profile(
    model: nn.Module,
    batches: Iterable[Tensor],
    *,
    part: str = "encoder",
    layers: Sequence[int] | None = None,
    mask: Mask | None = None,
    radii: Sequence[float | int] = (1, 2, 3),
) -> AttentionProfile:
    """Every measure of every map of the images: of an encoder unmasked (v2 Fig. 5, 6), or at its training-time number
    of tokens, under one `mask` of one image, shared by all; or of a decoder under such a mask, whose hidden patches are
    the queries (v2 section 4.1), all patches where none is hidden. The grid is that of each
    batch.

    Raises:
        LcmaeError: no images, a decoder without a mask, or as `attention_maps`.
    """
    if part == "decoder" and mask is None:
        raise LcmaeError("mask: got none for the decoder, expected one, shared by all images")
    queries = None if mask is None else _queries(mask, part)
    masked = part == "encoder" and mask is not None  # then maps know the visible patches alone
    chosen = indices_of("layer", layers, len(attention_blocks(model, part)))
    by_layer: dict[tuple[str, int], list[Tensor]] = defaultdict(list)

    def visit(place: _Place, layer: int, maps: Tensor) -> None:
        for name, values in place.measure(place.widened(maps) if masked else maps, radii).items():
            by_layer[name, layer].append(values.double().cpu())  # (B, H)

    for images in batches:
        shared = None if mask is None else for_batch(mask, len(images))
        place = _Place(*geometry(model, part, images), queries=queries)
        rows = None if masked or queries is None else queries + place.prefix
        visit_attention(model, images, partial(visit, place), part=part, layers=chosen, mask=shared, queries=rows)
    if not by_layer:
        raise LcmaeError("images: got none, expected at least one batch")

    def stacked(name: str) -> Tensor:
        return torch.stack([torch.cat(by_layer[name, layer]) for layer in chosen], dim=1)

    near = {radius: stacked(f"near {radius}") for radius in radii}
    return AttentionProfile(**{name: stacked(name) for name in MEASURES}, near=near)


def _queries(mask: Mask, part: str) -> Int64[Tensor, "Q"] | None:
    """Whose rows are looked at: the visible patches of a masked encoder in its own order, hidden ones of a decoder."""
    hidden = hidden_patches(mask)
    return mask.keep[0] if part == "encoder" else hidden if len(hidden) else None


class _Place(NamedTuple):
    """Where the rows of a model's maps lie on the image."""

    grid: tuple[int, int]
    patch_size: tuple[int, int]
    prefix: int
    queries: Tensor | None

    def widened(self, maps: Tensor) -> Tensor:
        """Maps over the visible patches, (B, H, prefix + K, prefix + K), as the rows of these over all patches, with no
        attention on hidden ones."""
        assert self.queries is not None
        columns = torch.cat([torch.arange(self.prefix, device=maps.device), self.queries.to(maps.device) + self.prefix])
        wide = maps.new_zeros(*maps.shape[:2], len(self.queries), self.prefix + self.grid[0] * self.grid[1])
        return wide.index_copy_(-1, columns, maps[..., self.prefix :, :])

    def measure(self, maps: Tensor, radii: Sequence[float | int]) -> dict[str, Tensor]:
        """All measures of the maps (B, H, Q, T) of one layer."""
        rows: dict[str, Any] = {"prefix_tokens": self.prefix, "queries": self.queries}
        distance = partial(attention_distance, maps, self.grid, self.patch_size, **rows)
        specific = query_specific(maps, self.grid, self.patch_size, **rows)
        return {
            "distance": distance(),
            "distance_renormalized": distance(renormalize=True),
            "prefix_mass": prefix_mass(maps, prefix_tokens=self.prefix),
            "entropy": entropy(maps if self.queries is not None else maps[..., self.prefix :, :]),
            "nmi": normalized_mutual_information(maps, self.grid, **rows),
            "specific_far": specific.far,
            "specific_mass": specific.mass,
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


class DecoderLooks(NamedTuple):
    """s_attn: S_attn (Eq. 7) of each group of images. near: attention within a radius of the query, of each image in
    the order of the groups, mean over heads. Float64 on the CPU."""

    s_attn: Float[Tensor, "G L"]
    near: Float[Tensor, "M L"]


def decoder_looks(
    model: nn.Module, groups: Iterable[Float[Tensor, "_ C h w"]], mask: Mask, radius: float | int = 2
) -> DecoderLooks:
    """Both of a decoder in one pass: S_attn of disjoint groups of images, each a tensor that is run at once.

    Pairs are taken within a group, so groups are independent and their spread gives an interval; their mean estimates
    the S_attn of all pairs without bias where images are put into groups at random.

    Raises:
        LcmaeError: a group of fewer than two images, no group, or as `attention_maps`.
    """
    shape = geometry(model, "decoder")
    asked = _queries(mask, "decoder")
    queries = torch.arange(shape.num_patches) if asked is None else asked
    s_attn, near = [], []
    for images in groups:
        sums: dict[int, AttentionSimilarity] = defaultdict(AttentionSimilarity)
        close: dict[int, Tensor] = {}

        def visit(layer: int, maps: Tensor, sums: Any = sums, close: Any = close) -> None:
            sums[layer].update(maps[:, None, ..., shape.prefix :])
            of_heads = near_mass(maps, shape.grid, radius, prefix_tokens=shape.prefix, queries=queries)
            close[layer] = of_heads.mean(1).double().cpu()  # (B,)

        rows = (queries + shape.prefix).to(images.device)
        visit_attention(model, images, visit, part="decoder", mask=for_batch(mask, len(images)), queries=rows)
        s_attn.append(torch.cat([sums[layer].compute().cpu() for layer in sorted(sums)]))
        near.append(torch.stack([close[layer] for layer in sorted(close)], dim=1))
    if not near:
        raise LcmaeError("images: got none, expected at least one group")
    return DecoderLooks(torch.stack(s_attn), torch.cat(near))


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
    (profile,) = semantic_profiles(
        model, reference, batches, mask, ways=((centred, shuffled),), kind=kind, reference_kind=reference_kind
    )
    return profile


def semantic_profiles(
    model: nn.Module,
    reference: nn.Module,
    batches: Iterable[Tensor],
    mask: Mask,
    *,
    ways: Sequence[tuple[bool, bool]],
    kind: str = "outputs",
    reference_kind: str = "keys",
) -> list[Similarity]:
    """`semantic_profile` in several ways, each (centred, shuffled), from one pass over the images.

    Raises:
        LcmaeError: as `semantic_profile`.
    """
    last = len(attention_blocks(reference)) - 1
    terms: list[list[Tensor]] = [[] for _ in ways]
    for images in batches:
        shared = for_batch(mask, len(images))
        features = patch_features(model, images, kind=kind, part="decoder", mask=shared)  # (B, L, N, D)
        target = patch_features(reference, images, kind=reference_kind, layers=[last])[:, 0]  # (B, N, E)
        for of_way, (centred, shuffled) in zip(terms, ways):
            other = target.roll(1, 0) if shuffled else target
            of_way.append(semantic_similarities(features, other, centred=centred).double().cpu())
    if not terms[0]:
        raise LcmaeError("images: got none, expected at least one batch")
    return [Similarity(torch.cat(each).mean(0), torch.cat(each), degree=1) for each in terms]


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
