"""Images to patches and back, the blocks centred on them, and the per-patch normalisation of the target.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, p side of a patch, N patches, P = p * p * C values
of a patch, b side of a block in patches. In words: values (of a block, b * b * P).
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lcmae_core.config import LcmaeError

EPS = 1e-6
"""Added to the variance of a patch before its root, as in the public MAE recipe."""


class PatchStatistics(NamedTuple):
    """Mean and standard deviation of each patch over its P values, each (B, N, 1)."""

    mean: Float[Tensor, "*B N 1"]
    std: Float[Tensor, "*B N 1"]


def patchify(images: Float[Tensor, "B C H W"], patch: int) -> Float[Tensor, "B N P"]:
    """Cut images into patches, row by row; within a patch the order is row, column, channel (channel-last).

    Raises:
        LcmaeError: the patch size does not divide the image.
    """
    b, c, h, w = images.shape
    if h % patch or w % patch:
        raise LcmaeError(f"patch size: got {patch} for {h}x{w} images, expected a divisor of both sides")
    blocks = images.reshape(b, c, h // patch, patch, w // patch, patch)
    return blocks.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch * c)  # (B, N, P)


def unpatchify(patches: Float[Tensor, "B N P"], patch: int, grid: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    """The inverse of `patchify`; `grid` is (rows, columns) of patches.

    Raises:
        LcmaeError: N is not rows * columns, or P is not a multiple of patch * patch.
    """
    b, n, p = patches.shape
    rows, cols = grid
    if n != rows * cols or p % patch**2:
        raise LcmaeError(
            f"patches: got shape {(b, n, p)}, expected (B, {rows * cols}, {patch**2} * C) for a {rows}x{cols} grid"
        )
    blocks = patches.reshape(b, rows, cols, patch, patch, p // patch**2)
    return blocks.permute(0, 5, 1, 3, 2, 4).reshape(b, -1, rows * patch, cols * patch)  # (B, C, H, W)


def centred_blocks(images: Float[Tensor, "B C H W"], patch: int, block: int) -> Float[Tensor, "B N values"]:
    """What the tokens of an autoencoder regress (v2 Fig. 7): the `block` x `block` patches around every patch.

    Token i gets the bp x bp pixels centred on patch i, in the order row, column, channel: block 1 is `patchify`. At the
    border the image goes on reflected, its edge pixels not repeated (numpy's "reflect"). **[open]**

    Raises:
        LcmaeError: an even block, or one that reaches further beyond the image than the image is large.
    """
    rows, cols = images.shape[2] // patch, images.shape[3] // patch
    if block % 2 == 0 or block // 2 >= min(rows, cols):
        raise LcmaeError(f"block: got {block}, expected an odd number up to {2 * min(rows, cols) - 1} patches")
    border, side = block // 2 * patch, block * patch
    padded = F.pad(images, (border, border, border, border), mode="reflect")
    windows = padded.unfold(2, side, patch).unfold(3, side, patch)  # (B, C, rows, columns, bp, bp)
    return windows.permute(0, 2, 3, 4, 5, 1).reshape(len(images), rows * cols, -1)  # (B, N, values)


def patch_statistics(patches: Float[Tensor, "*B N P"]) -> PatchStatistics:
    """Mean and sqrt(unbiased variance + 1e-6) of each patch over all its values, channels together."""
    return PatchStatistics(
        patches.mean(dim=-1, keepdim=True), (patches.var(dim=-1, keepdim=True, unbiased=True) + EPS).sqrt()
    )


def normalize_patches(patches: Float[Tensor, "*B N P"]) -> Float[Tensor, "*B N P"]:
    """The norm-pix target: every patch minus its mean, over its standard deviation (`patch_statistics`).

    With the mean square m of P centred values, x / sqrt(P / (P - 1) m + e) = sqrt((P - 1) / P) x / sqrt(m + e'), e' =
    (P - 1) / P e: a layer norm, which PyTorch computes in one pass, nine times as fast on a CPU as by `var`.
    """
    values = patches.shape[-1]
    if values == 1:
        return patches * float("nan")  # one value has no variance
    share = (values - 1) / values
    return F.layer_norm(patches, (values,), eps=share * EPS) * share**0.5
