"""What attention maps mean, as numbers: how alike (Eq. 7), how far, how concentrated, how dependent on the query.

Letters (CONTRIBUTING.md): B images, L layers, T tokens (prefix included), Q queries, N patches, D and E widths. In
words: values (of a map), maps: they are (..., T, T), rows are queries; any leading dimensions are kept, so a result is
per image, layer and head. Prefix tokens come first.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from lcmae_core.analysis.rows import check_tokens, in_chunks, patch_rows
from lcmae_core.config import LcmaeError

Side = float | int | tuple[float | int, float | int]
"""Side of a patch: one number, or height and width."""


def patch_distances(grid: tuple[int, int], patch_size: Side = 1) -> Float[Tensor, "N N"]:
    """Euclidean distance between the centres of every two patches, in the unit of `patch_size` (height, width)."""
    height, width = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
    rows, cols = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    places = torch.stack([rows.flatten() * height, cols.flatten() * width], dim=1)  # (N, 2)
    return (places[:, None] - places[None]).norm(dim=-1)


def attention_distance(
    attn: Float[Tensor, "*maps Q T"],
    grid: tuple[int, int],
    patch_size: Side,
    *,
    prefix_tokens: int = 1,
    renormalize: bool = False,
    queries: Int64[Tensor, " queries"] | None = None,
) -> Float[Tensor, "*maps"]:
    """Mean over patch queries of sum_j A_ij d_ij in pixels (v2 section 4.2, Fig. 5, 6, A.1), per map, i.e. per head.

    Attention to and from the prefix is dropped. The authors of ViT leave what remains as it is (the default, cited by
    v2); `renormalize` divides each row by its sum over patches, as later comparisons do. Their ratio is 1 - CLS mass
    where that mass is the same in every row, so the choice can reorder models. Without a prefix, uniform attention
    gives 116.4922 px on 14x14 patches of 16 px; identity gives 0. `queries` names the patches whose rows the maps hold,
    where they do not hold all T.

    Raises:
        LcmaeError: grid, prefix and queries do not add up to the shape of the maps.
    """
    distances = patch_distances(grid, patch_size).to(attn)
    if renormalize:
        return _near(attn, distances, grid, prefix_tokens, queries)
    check_tokens(attn, grid, prefix_tokens, queries)
    if queries is None:
        table, count = F.pad(distances, (prefix_tokens, 0, prefix_tokens, 0)), len(distances)
    else:
        table, count = F.pad(distances[queries.to(attn.device)], (prefix_tokens, 0)), len(queries)
    return attn.flatten(-2) @ table.flatten() / count  # one product over whole maps, zero where the prefix is


def near_mass(
    attn: Float[Tensor, "*maps Q T"],
    grid: tuple[int, int],
    radius: float | int,
    *,
    prefix_tokens: int = 1,
    queries: Int64[Tensor, " queries"] | None = None,
) -> Float[Tensor, "*maps"]:
    """Mean over patch queries of the attention on patches within `radius` patches of the query (itself included),
    as a share of its attention on patches. Uniform attention gives `uniform_near_mass`.

    Raises:
        LcmaeError: grid, prefix and queries do not add up to the shape of the maps.
    """
    near = (patch_distances(grid) <= radius + 1e-9).to(attn)
    return _near(attn, near, grid, prefix_tokens, queries)


def _near(
    attn: Tensor, table: Float[Tensor, "N N"], grid: tuple[int, int], prefix: int, queries: Tensor | None
) -> Tensor:
    """Mean over patch queries i of sum_j A_ij t_ij / sum_j A_ij over patches j."""
    rows = patch_rows(attn, grid, prefix, queries)
    t = table if queries is None else table[queries.to(table.device)]
    return in_chunks(lambda maps: (torch.einsum("mij,ij->mi", maps, t) / maps.sum(-1)).mean(-1), rows)


def uniform_near_mass(
    grid: tuple[int, int], radius: float | int, queries: Int64[Tensor, " queries"] | None = None
) -> float:
    """What `near_mass` of uniform attention is: the mean share of patches within `radius`, borders included."""
    near = patch_distances(grid) <= radius + 1e-9
    return (near if queries is None else near[queries.cpu()]).double().mean().item()


def prefix_mass(attn: Float[Tensor, "*maps Q T"], *, prefix_tokens: int = 1) -> Float[Tensor, "*maps"]:
    """Mean over patch queries of the attention on the prefix (CLS, registers): the CLS mass. Maps with all T rows lose
    those of the prefix first."""
    rows = attn[..., prefix_tokens:, :] if attn.shape[-2] == attn.shape[-1] else attn
    return rows[..., :prefix_tokens].sum(-1).mean(-1)


def entropy(attn: Float[Tensor, "*maps Q T"]) -> Float[Tensor, "*maps"]:
    """Mean over rows of -sum_j A_ij log A_ij, in nats: 0 for a single key, log T for uniform attention."""
    return in_chunks(lambda maps: torch.special.entr(maps).sum(-1).mean(-1), attn)


def normalized_mutual_information(
    attn: Float[Tensor, "*maps Q T"],
    grid: tuple[int, int],
    *,
    prefix_tokens: int = 1,
    queries: Int64[Tensor, " queries"] | None = None,
) -> Float[Tensor, "*maps"]:
    """I(query; key) / sqrt(H(query) H(key)) for patch queries drawn uniformly: p(i) = 1/Q, p(j|i) = A_ij renormalised
    over patches (Park et al. 2023, cited by v2). 0 if every query attends alike, 1 for a permutation.

    Raises:
        LcmaeError: grid, prefix and queries do not add up to the shape of the maps, or there is one query.
    """
    rows = patch_rows(attn, grid, prefix_tokens, queries)
    if rows.shape[-2] < 2:
        raise LcmaeError(f"queries: got {rows.shape[-2]}, expected at least two patches")

    def information(maps: Tensor) -> Tensor:
        given = maps / maps.sum(-1, keepdim=True)  # p(j|i)
        of_keys = torch.special.entr(given.mean(-2)).sum(-1)  # H(key)
        mutual = of_keys - torch.special.entr(given).sum(-1).mean(-1)
        return (mutual / (of_keys * math.log(maps.shape[-2])).sqrt()).nan_to_num(0.0).clamp(0.0)

    return in_chunks(information, rows)


class AttentionSimilarity:
    """S_attn (v2 Eq. 7), streamed: the mean cosine between the flattened maps of every two images, per layer.

    With n unit maps u_i it is (||sum u_i||^2 - n) / (n (n - 1)), so one running sum of maps suffices for any number
    of images. It is kept in float64 (on the CPU where a device has none), exact at 50 000 images. All images must share
    one mask, and maps are the rows of the hidden queries: `analysis.streams.attention_similarity` sees to both.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def update(self, maps: Float[Tensor, "B L *map"]) -> "AttentionSimilarity":
        """Add a batch of maps (B, L, ...), of the same shape every time.

        Raises:
            LcmaeError: maps of another shape than before, or a map without any weight.
        """
        flat, norms = _flat(maps)
        home = torch.device("cpu") if flat.device.type == "mps" else flat.device
        total = torch.einsum("bl,blf->lf", 1 / norms, flat).to(home, torch.float64)  # (L, values)
        if self._sum is None:
            self._sum = torch.zeros_like(total)
        if total.shape != self._sum.shape:
            got, expected = tuple(total.shape), tuple(self._sum.shape)
            raise LcmaeError(f"maps: got (layers, values of a map) {got}, expected {expected} as before")
        self._sum += total
        self._count += len(maps)
        return self

    def compute(self) -> Float[Tensor, "L"]:
        """S_attn of each layer so far.

        Raises:
            LcmaeError: fewer than two images.
        """
        if self._sum is None or self._count < 2:
            raise LcmaeError(f"S_attn: got {self._count} image{'s' * (self._count != 1)}, expected at least two")
        n = self._count
        return (self._sum.square().sum(-1) - n) / (n * (n - 1))

    def with_others(self, maps: Float[Tensor, "B L *map"]) -> Float[Tensor, "B L"]:
        """Mean cosine of each image's maps with those of all *other* images seen so far, itself among them.

        The mean over all images is S_attn; the spread over images gives its interval (see `streams`).
        """
        self.compute()  # says what is missing
        assert self._sum is not None
        flat, norms = _flat(maps)
        along = torch.einsum("blf,lf->bl", flat, self._sum.to(flat))  # u_i . sum u, times the norm of the map
        return ((along / norms).to(self._sum) - 1) / (self._count - 1)


def semantic_similarity(
    features: Float[Tensor, "B *layers N D"],
    reference: Float[Tensor, "_ _ E"],
    *,
    diagonal: bool = False,
    centred: bool = False,
) -> Float[Tensor, "*layers"]:
    """S_sim (v2 Eq. 8): mean over images of cos(W, W'), W the N x N cosines between an image's patch features.

    W is taken as it is, without threshold, and compared off the diagonal, where it is not 1 by definition; `diagonal`
    includes it. `centred` first subtracts an image's mean feature: what all patches share lifts every cosine towards 1,
    in any image, and hides what they do not share. Features of several layers (B, L, N, D) are compared with one
    reference, CLS dropped from both.

    Raises:
        LcmaeError: other images or patches in the reference than in the features.
    """
    return semantic_similarities(features, reference, diagonal=diagonal, centred=centred).mean(0)


def semantic_similarities(
    features: Float[Tensor, "B *layers N D"],
    reference: Float[Tensor, "_ _ E"],
    *,
    diagonal: bool = False,
    centred: bool = False,
) -> Float[Tensor, "B *layers"]:
    """The terms of `semantic_similarity`, image by image.

    Raises:
        LcmaeError: other images or patches in the reference than in the features.
    """
    got, expected = (len(reference), reference.shape[-2]), (len(features), features.shape[-2])
    if got != expected:
        raise LcmaeError(f"reference: got (images, patches) {got}, expected {expected} as in the features")
    weights, target = (_cosines(each, diagonal, centred) for each in (features, reference))  # (B, ..., N*N), (B, N*N)
    target = target.reshape(len(target), *(1,) * (weights.ndim - 2), -1)
    return F.cosine_similarity(weights, target, dim=-1)


def _cosines(features: Tensor, diagonal: bool, centred: bool) -> Float[Tensor, "B *layers pairs"]:
    if centred:
        features = features - features.mean(-2, keepdim=True)
    unit = F.normalize(features, dim=-1)
    weights = unit @ unit.mT  # (B, ..., N, N)
    if not diagonal:
        weights = weights * ~torch.eye(weights.shape[-1], dtype=torch.bool, device=weights.device)
    return weights.flatten(-2)


def _flat(maps: Tensor) -> tuple[Float[Tensor, "B L values"], Float[Tensor, "B L"]]:
    """Flattened maps and their norms."""
    flat = maps.flatten(2)
    norms = torch.linalg.vector_norm(flat, dim=-1)
    if not bool((norms > 0).all()):
        raise LcmaeError("maps: got a map that is zero everywhere, expected rows that sum to 1")
    return flat, norms
