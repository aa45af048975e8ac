"""Cue-conflict images: the shape of one photograph in the texture of another, made from any labelled source.

The texture transfer of Efros and Freeman (SIGGRAPH 2001) without its search for seams: a picture is laid out in
overlapping blocks of the texture's photograph, each chosen for having light and dark where the shape's photograph has
them. Colours and fine grain then come from one photograph, outlines and layout from the other. Nothing is trained.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, M images of a split. In words: blocks (row by row), side
(of a block, in pixels), pixels (of an image).
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
    side = block or max(2, min(height, width) // (2 * BLOCKS) * 2)
    if side % 2 or not 0 < side <= min(height, width):
        raise LcmaeError(f"block: got {side} px, expected an even number up to {min(height, width) // 2 * 2}")
    light = _ranked(grey(shape), grey(texture))
    beyond = [-extent % (side // 2) for extent in (width, height)]
    wanted = _quarters(F.pad(light, (0, beyond[0], 0, beyond[1]), mode="replicate"), side)[
        ..., :: side // 2, :: side // 2
    ]
    offered = _quarters(grey(texture), side)  # (B, 4, H - side + 1, W - side + 1)
    near = torch.cdist(wanted.flatten(2).mT, offered.flatten(2).mT).argmin(dim=2)  # (B, blocks)
    blocks = texture.unfold(2, side, 1).unfold(3, side, 1).flatten(2, 3)  # a view of (B, C, places, side, side)
    chosen = torch.stack([each[:, at] for each, at in zip(blocks, near)])  # (B, C, blocks, side, side)
    return _blended(chosen, (height + beyond[1], width + beyond[0]))[..., :height, :width]


def _ranked(values: Float[Tensor, "B 1 H W"], like: Float[Tensor, "B 1 H W"]) -> Float[Tensor, "B 1 H W"]:
    """`values` with the histogram of `like`: the darkest pixel gets the darkest value, and so on. Pixels that are
    equally bright stay so, at the mean of their values: a flat area gets no grain."""
    return torch.stack([_ranked_one(a, b) for a, b in zip(values.flatten(1), like.flatten(1))]).view_as(values)


def _ranked_one(values: Float[Tensor, "pixels"], like: Float[Tensor, "pixels"]) -> Float[Tensor, "pixels"]:
    _, level, count = values.unique(return_inverse=True, return_counts=True)  # levels in ascending order
    total = torch.zeros_like(count, dtype=like.dtype).index_add_(0, level.sort().values, like.sort().values)
    return (total / count)[level]


def _quarters(light: Float[Tensor, "B 1 H W"], side: int) -> Float[Tensor, "B 4 _ _"]:
    """Mean brightness of the four quarters of the block whose top left corner is at each pixel."""
    half, mean = side // 2, F.avg_pool2d(light, side // 2, stride=1)
    top, bottom = mean[..., :-half, :], mean[..., half:, :]
    return torch.cat([part for row in (top, bottom) for part in (row[..., :-half], row[..., half:])], dim=1)


def _blended(blocks: Float[Tensor, "B C blocks side side"], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    """Half-overlapping blocks, row by row, averaged by a Hann window that is nowhere 0."""
    side, (b, c, count) = blocks.shape[-1], blocks.shape[:3]
    window = torch.hann_window(side + 2, periodic=False, dtype=blocks.dtype, device=blocks.device)[1:-1]
    weight = window[:, None] * window  # (side, side)
    columns = (blocks * weight).permute(0, 1, 3, 4, 2).reshape(b, c * side * side, count)
    total = F.fold(weight.flatten()[None, :, None].expand(1, -1, count), size, side, stride=side // 2)
    return F.fold(columns, size, side, stride=side // 2) / total
