"""Random masks, drawn outside the model.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, N patches, K kept patches, u side of a mask cell in
patches.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lcmae_core.config import LcmaeError


class Mask(NamedTuple):
    """Which patches the encoder sees.

    keep: indices of the visible patches, in the order in which the encoder gets them.
    restore: place of every patch in the sequence [kept ones, hidden ones].
    hidden: True where a patch is masked (m_i = 1 in the paper).
    """

    keep: Int64[Tensor, "B K"]
    restore: Int64[Tensor, "B N"]
    hidden: Bool[Tensor, "B N"]

    def to(self, device: torch.device | str) -> "Mask":
        """The same mask on another device."""
        return Mask(self.keep.to(device), self.restore.to(device), self.hidden.to(device))

    def row(self, image: int) -> "Mask":
        """The mask of one image, as a batch of one."""
        return Mask(*(part[image : image + 1] for part in self))


def stack_views(*masks: Mask) -> Mask:
    """Masks of several views as one batch, [view 1; view 2]; all keep the same number of patches."""
    if len(masks) == 1:
        return masks[0]
    return Mask(*(torch.cat(parts) for parts in zip(*masks)))


def num_kept(cells: int, ratio: float) -> int:
    """Cells that stay visible: int(cells * (1 - ratio)), the truncation of the public MAE code (19 of 196 at 0.9).

    Raises:
        LcmaeError: the ratio leaves no visible or no hidden cell.
    """
    kept = int(cells * (1 - ratio))
    if not 0 < kept < cells:
        raise LcmaeError(
            f"mask ratio: got {ratio}, expected above 0 and below 1, "
            f"with at least one visible and one hidden of {cells} cells"
        )
    return kept


def random_mask(
    batch: int,
    num_patches: int,
    ratio: float,
    *,
    generator: torch.Generator | None = None,
    noise: Float[Tensor, "B cells"] | None = None,
    unit: int = 1,
    grid: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
) -> Mask:
    """A random mask for each image: the cells of least noise stay visible, in ascending order of noise.

    With `unit` u > 1 the mask is drawn on the coarse grid (rows / u, columns / u) and each cell is expanded to its
    u * u patches in row-major order. `noise` is (B, N / u^2); without it, it is drawn from `generator`.

    Raises:
        LcmaeError: a ratio without visible or hidden cells, a grid that does not match, a unit that does not divide it.
    """
    rows, cols = _grid(num_patches, unit, grid)
    cells = rows * cols // unit**2
    kept = num_kept(cells, ratio)
    if noise is None:  # drawn where the generator lives, for torch allows no other place, and moved below
        noise = torch.rand(batch, cells, generator=generator, device=generator.device if generator else device)
    if noise.shape != (batch, cells):
        raise LcmaeError(f"noise: got shape {tuple(noise.shape)}, expected {(batch, cells)}")
    # stable, so that equal noise is ordered alike on every device
    order = noise.to(device or noise.device).argsort(dim=1, stable=True)  # (B, cells)
    return _mask(_expand(order, unit, rows, cols), kept * unit**2)


def mask_from_hidden(hidden: Bool[Tensor, "B N"]) -> Mask:
    """The mask that hides exactly the given patches (drawn by hand, say); visible ones keep their natural order.

    Raises:
        LcmaeError: images hide different numbers of patches, or none, or all.
    """
    counts = hidden.sum(dim=1)
    least, most = int(counts.min()), int(counts.max())
    if least != most or not 0 < least < hidden.shape[1]:
        raise LcmaeError(
            f"hidden: got {least} to {most} hidden of {hidden.shape[1]} patches, "
            "expected one number for all images, above 0 and below N"
        )
    # False sorts first, and stable keeps the rest: visible patches in their order, then the hidden ones in theirs
    return _mask(hidden.long().argsort(dim=1, stable=True), hidden.shape[1] - most)


def no_mask(batch: int, num_patches: int, device: torch.device | str = "cpu") -> Mask:
    """Every patch visible, in its natural order: an autoencoder's input (v2 section 4.2)."""
    order = torch.arange(num_patches, device=device).expand(batch, -1)  # (B, N)
    return Mask(order, order, torch.zeros_like(order, dtype=torch.bool))


def erase_patches(
    images: Float[Tensor, "B C H W"], hidden: Bool[Tensor, "B N"], grid: tuple[int, int]
) -> Float[Tensor, "B C H W"]:
    """The images with their hidden patches set to 0, the mean colour of normalised pixels; a copy."""
    side = images.shape[2] // grid[0], images.shape[3] // grid[1]
    cells = hidden.unflatten(1, grid)[:, None]  # (B, 1, rows, columns)
    pixels = cells.repeat_interleave(side[0], dim=2).repeat_interleave(side[1], dim=3)  # (B, 1, H, W)
    return images.masked_fill(pixels, 0.0)


def _grid(num_patches: int, unit: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    side = int(num_patches**0.5)
    # without a grid a number that is no square is one row: only a unit above 1 needs to know more
    rows, cols = grid or ((side, side) if side**2 == num_patches else (1, num_patches))
    if rows * cols != num_patches:
        raise LcmaeError(f"grid: got {rows}x{cols}, expected rows * columns = {num_patches} patches")
    if unit < 1 or rows % unit or cols % unit:
        raise LcmaeError(f"mask unit: got {unit}, expected a divisor of the {rows}x{cols} grid")
    return rows, cols


def _expand(order: Int64[Tensor, "B cells"], unit: int, rows: int, cols: int) -> Int64[Tensor, "B N"]:
    """Indices of patches, cell by cell in the given order of cells."""
    patches = torch.arange(rows * cols, device=order.device).reshape(rows // unit, unit, cols // unit, unit)
    members = patches.permute(0, 2, 1, 3).reshape(-1, unit**2)  # (cells, u*u)
    return members[order].flatten(1)  # (B, N)


def _mask(order: Int64[Tensor, "B N"], kept: int) -> Mask:
    restore = order.argsort(dim=1)  # sorting a permutation inverts it
    return Mask(order[:, :kept], restore, restore >= kept)  # what stands behind the kept ones is hidden
