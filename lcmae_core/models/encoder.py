"""The encoder f: a timm Vision Transformer that runs on the visible patches only.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, h x w pixels of a crop, N patches, K kept patches, P
values of a patch, D width, T = 1 + K tokens.
"""

import torch
from jaxtyping import Float, Int64
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from lcmae_core.config import LcmaeError
from lcmae_core.models.linear import linear
from lcmae_core.models.patches import patchify


def sincos_positions(width: int, grid: tuple[int, int], prefix: int = 1) -> Float[Tensor, "1 T D"]:
    """Fixed 2-D sin-cos positions of the public MAE recipe; the rows of the prefix (CLS) are zero.

    The first half of the channels encodes the column, the second the row; each half is [sin, cos] over frequencies
    10000^(-i / (D / 4)).

    Raises:
        LcmaeError: the width is no multiple of 4.
    """
    if width % 4:
        raise LcmaeError(f"width: got {width}, expected a multiple of 4 (2-D sin-cos positions)")
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, col = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [place.reshape(-1, 1) * frequency for place in (col, row)]  # (N, D/4) each
    table = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)  # (N, D)
    return F.pad(table, (0, 0, prefix, 0)).float()[None]  # (1, 1+N, D)


def gather_patches(values: Float[Tensor, "B N D"], keep: Int64[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
    """The rows of `values` named by `keep`; whole rows are copied, where `gather` reads an index for every value."""
    images = torch.arange(len(values), device=keep.device)[:, None]  # (B, 1)
    rows = (keep + images * values.shape[1]).flatten()  # (B*K,)
    return values.flatten(0, 1).index_select(0, rows).unflatten(0, keep.shape)  # (B, K, D)


class Encoder(VisionTransformer):
    """timm's ViT with fixed sin-cos positions whose forward pass takes the patches to keep.

    It is a timm model in every other respect: its weights load into `timm.create_model` of the same size.
    """

    cls_token: nn.Parameter
    pos_embed: nn.Parameter

    def __init__(
        self,
        image_size: tuple[int, int],
        patch: int,
        channels: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
    ):
        super().__init__(
            img_size=image_size, patch_size=patch, in_chans=channels, num_classes=0, global_pool="",
            embed_dim=width, depth=depth, num_heads=heads, mlp_ratio=mlp_ratio, weight_init="skip",
        )  # fmt: skip
        self.patch = patch
        self.image_size = image_size
        self.grid: tuple[int, int] = self.patch_embed.grid_size
        self.pos_embed = nn.Parameter(sincos_positions(width, self.grid), requires_grad=False)

    def forward(  # type: ignore[override]
        self, images: Float[Tensor, "B C H W"], keep: Int64[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Normalised tokens z = f(x[1 - m]): CLS first, then the kept patches in the order of `keep` (all without it).

        A model in half precision takes images of any type.

        Raises:
            LcmaeError: images of another size or number of channels.
        """
        expected = (self.in_chans, *self.image_size)
        if tuple(images.shape[1:]) != expected:
            raise LcmaeError(f"images: got shape {tuple(images.shape)}, expected (B, {', '.join(map(str, expected))})")
        images = images.to(self.patch_embed.proj.weight.dtype)
        patches, positions = patchify(images, self.patch), self.pos_embed[:, 1:]  # (B, N, P), (1, N, D)
        if keep is not None:
            patches = gather_patches(patches, keep)  # (B, K, P)
            positions = positions[0][keep]  # (B, K, D)
        return self.encode_patches(patches, positions)

    def encode_crop(self, images: Float[Tensor, "B C h w"]) -> Float[Tensor, "B T D"]:
        """Tokens of images of another size (DINO's local crops), CLS first: the positions are resampled to their grid
        by timm's `resample_abs_pos_embed` (bicubic, antialiased), so that they span the full grid as in DINO.

        Raises:
            LcmaeError: sides that are no multiples of the patch.
        """
        if any(side % self.patch for side in images.shape[2:]):
            raise LcmaeError(f"images: got {tuple(images.shape[2:])} px, expected multiples of the patch {self.patch}")
        grid = [side // self.patch for side in images.shape[2:]]
        positions = resample_abs_pos_embed(self.pos_embed, grid, old_size=list(self.grid), num_prefix_tokens=1)
        return self.encode_patches(patchify(images, self.patch), positions[:, 1:])

    def encode_patches(self, patches: Float[Tensor, "B K P"], positions: Tensor) -> Float[Tensor, "B T D"]:
        """Tokens of patches at positions (B, K, D), or (1, K, D) for all images alike: CLS first."""
        tokens = self._embed(patches) + positions.to(patches.dtype)
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([cls.to(tokens.dtype), tokens], dim=1)  # (B, T, D)
        return self.norm(self.blocks(self.norm_pre(tokens)))

    def _embed(self, patches: Float[Tensor, "B K P"]) -> Float[Tensor, "B K D"]:
        """The patch convolution as a matrix product on the kept patches alone: no work on hidden ones."""
        projection = self.patch_embed.proj
        weight = projection.weight.permute(0, 2, 3, 1).flatten(1)  # (D, P), channel-last like patchify
        return linear(patches, weight, projection.bias)
