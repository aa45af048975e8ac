"""Cue-conflict images: the shape of one photograph in the texture of another, made from any labelled source.

The texture transfer of Efros and Freeman (SIGGRAPH 2001) without its search for seams: a picture is laid out in
overlapping blocks of the texture's photograph, each chosen for having light and dark where the shape's photograph has
them. Colours and fine grain then come from one photograph, outlines and layout from the other. Nothing is trained.

Letters: B images, C channels, H x W pixels, M photographs, R x Q blocks (rows, columns), p side of a block in px,
P pixels of an image.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from lcmae_core.config import LabelsError, LcmaeError
from lcmae_core.data.augment import grey

BLOCKS = 8
"""Blocks along the shorter side, before overlap, where no other side is asked for."""


class Pairs(NamedTuple):
    """Indices of the photographs that give shape and texture; their classes differ."""

    shape: Int64[Tensor, "M"]
    texture: Int64[Tensor, "M"]


def shape_bias(shape: float, texture: float) -> float:
    """Of the answers that name one of the two cues, the share that names the shape; nan if none does (HLV; Geirhos et
    al., ICLR 2019). Both are shares of all images."""
    return float(shape / (shape + texture)) if shape + texture else float("nan")


def conflicting_pairs(labels: Int64[Tensor, "M"], generator: torch.Generator) -> Pairs:
    """For every photograph one of another class, drawn evenly among them.

    Raises:
        LabelsError: all photographs are of one class.
    """
    other = labels[:, None] != labels[None]  # (M, M)
    if not other.any():
        raise LabelsError("labels: got one class, expected at least two: shape and texture must disagree")
    return Pairs(torch.arange(len(labels)), torch.multinomial(other.double(), 1, generator=generator)[:, 0])


def cue_conflict(
    shape: Float[Tensor, "B C H W"], texture: Float[Tensor, "B C H W"], block: int | None = None
) -> Float[Tensor, "B C H W"]:
    """Pictures with the layout of `shape`, made of blocks of `texture` (pixels in [0, 1]).

    First the brightness of `shape` is replaced, rank by rank, by that of `texture`, and by the mean of theirs where
    pixels tie. Then every block, half overlapping its neighbours, is filled with the place of `texture` whose four
    quarters are nearest in mean brightness, and the blocks are blended by a Hann window. `block` is its even side, by
    default an eighth of the picture's shorter side.

    Raises:
        LcmaeError: a block that is odd, or larger than the picture.
    """
    height, width = shape.shape[2:]
    p = block or max(2, min(height, width) // (2 * BLOCKS) * 2)
    if p % 2 or not 0 < p <= min(height, width):
        raise LcmaeError(f"block: got {p} px, expected an even number up to {min(height, width) // 2 * 2}")
    light = _ranked(grey(shape), grey(texture))
    beyond = [-side % (p // 2) for side in (width, height)]
    wanted = _quarters(F.pad(light, (0, beyond[0], 0, beyond[1]), mode="replicate"), p)[..., :: p // 2, :: p // 2]
    offered = _quarters(grey(texture), p)  # (B, 4, H - p + 1, W - p + 1)
    near = torch.cdist(wanted.flatten(2).mT, offered.flatten(2).mT).argmin(dim=2)  # (B, R * Q)
    blocks = texture.unfold(2, p, 1).unfold(3, p, 1).flatten(2, 3)  # a view of (B, C, places, p, p)
    chosen = torch.stack([each[:, at] for each, at in zip(blocks, near)])  # (B, C, R * Q, p, p)
    return _blended(chosen, (height + beyond[1], width + beyond[0]))[..., :height, :width]


def _ranked(values: Float[Tensor, "B 1 H W"], like: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """`values` with the histogram of `like`: the darkest pixel gets the darkest value, and so on. Pixels that are
    equally bright stay so, at the mean of their values: a flat area gets no grain."""
    return torch.stack([_ranked_one(a, b) for a, b in zip(values.flatten(1), like.flatten(1))]).view_as(values)


def _ranked_one(values: Float[Tensor, "P"], like: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    _, level, count = values.unique(return_inverse=True, return_counts=True)  # levels in ascending order
    total = torch.zeros_like(count, dtype=like.dtype).index_add_(0, level.sort().values, like.sort().values)
    return (total / count)[level]


def _quarters(light: Float[Tensor, "B 1 H W"], p: int) -> Float[Tensor, "B 4 _ _"]:
    """Mean brightness of the four quarters of the block whose top left corner is at each pixel."""
    half, mean = p // 2, F.avg_pool2d(light, p // 2, stride=1)
    top, bottom = mean[..., :-half, :], mean[..., half:, :]
    return torch.cat([part for row in (top, bottom) for part in (row[..., :-half], row[..., half:])], dim=1)


def _blended(blocks: Float[Tensor, "B C L p p"], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    """Half-overlapping blocks, row by row, averaged by a Hann window that is nowhere 0."""
    p, (b, c, count) = blocks.shape[-1], blocks.shape[:3]
    window = torch.hann_window(p + 2, periodic=False, dtype=blocks.dtype, device=blocks.device)[1:-1]
    weight = window[:, None] * window  # (p, p)
    columns = (blocks * weight).permute(0, 1, 3, 4, 2).reshape(b, c * p * p, count)
    total = F.fold(weight.flatten()[None, :, None].expand(1, -1, count), size, p, stride=p // 2)
    return F.fold(columns, size, p, stride=p // 2) / total
