"""The attention blocks of a model, and a way to listen to them while its own forward pass runs.

Letters: B images of h x w pixels, C channels, T tokens (prefix included), D width.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.models.decoders import TransformerDecoder
from lcmae_core.models.encoder import gather_patches
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask

PARTS = ("encoder", "decoder")

Listener = Callable[[Tensor], None]


class Geometry(NamedTuple):
    """How tokens lie on the image: rows and columns of patches, sides of a patch in pixels, tokens before them."""

    grid: tuple[int, int]
    patch_size: tuple[int, int]
    prefix: int

    @property
    def num_patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]


def geometry(model: nn.Module, part: str = "encoder") -> Geometry:
    """Grid, patch size and prefix tokens of a timm ViT, or of our model's encoder or decoder (whose prefix is CLS).

    Raises:
        LcmaeError: no ViT, an unknown part.
    """
    vit = encoder_of(model, part)
    grid, patch = vit.patch_embed.grid_size, vit.patch_embed.patch_size
    return Geometry((grid[0], grid[1]), (patch[0], patch[1]), 1 if part == "decoder" else vit.num_prefix_tokens)


def encoder_of(model: nn.Module, part: str = "encoder") -> VisionTransformer:
    """The timm ViT that sees the images.

    Raises:
        LcmaeError: no ViT, an unknown part, a decoder where there is none.
    """
    if part not in PARTS:
        raise LcmaeError(f"part: got {part!r}, {nearest(part, PARTS)}")
    if part == "decoder" and (not isinstance(model, MAE) or model.decoder is None):
        raise LcmaeError(
            f"part: got 'decoder' of a {type(model).__name__} without one, expected a model with a decoder"
        )
    vit = getattr(model, "encoder", model)
    if not isinstance(vit, VisionTransformer):
        raise LcmaeError(
            f"model: got a {type(model).__name__} without attention blocks, expected a timm ViT or our MAE"
        )
    return vit


def attention_blocks(model: nn.Module, part: str = "encoder") -> Sequence[Any]:
    """The blocks, each with an `attn` that holds one qkv layer.

    Raises:
        LcmaeError: no blocks, as in the local decoders of v2 Table 2, or blocks whose attention is of another kind.
    """
    vit = encoder_of(model, part)
    if isinstance(model, MAE) and part == "decoder" and not isinstance(model.decoder, TransformerDecoder):
        kind = type(model.decoder).__name__
        raise LcmaeError(f"decoder: got {kind}, which has no attention blocks, expected a TransformerDecoder")
    blocks = list(model.decoder.blocks if part == "decoder" else vit.blocks)  # type: ignore[union-attr,arg-type]
    if not blocks:
        raise LcmaeError(f"model: got a {part} without blocks, expected at least one attention block")
    for block in blocks:
        attn = getattr(block, "attn", None)
        if not isinstance(getattr(attn, "qkv", None), nn.Linear):
            kind = type(block if attn is None else attn).__name__
            raise LcmaeError(f"model: got blocks with {kind}, expected timm's Attention with one qkv layer")
    return blocks


@torch.no_grad()
def listen(
    model: nn.Module,
    images: Float[Tensor, "B C h w"],
    part: str = "encoder",
    mask: Mask | None = None,
    *,
    inputs: Mapping[nn.Module, Listener] | None = None,
    outputs: Mapping[nn.Module, Listener] | None = None,
) -> None:
    """Run the model's own forward pass once; each named module's listener gets its first input or its output.

    A mask keeps the encoder to the visible patches (T = prefix + K), also in a plain timm ViT. The decoder needs one.

    Raises:
        LcmaeError: images of another size, a mask for another grid, a decoder without a mask.
    """
    vit = encoder_of(model, part)
    _check(vit, images, part, mask)
    with ExitStack() as hooks:
        for module, tell in (inputs or {}).items():
            hooks.callback(module.register_forward_pre_hook(lambda _, given, tell=tell: tell(given[0])).remove)
        for module, tell in (outputs or {}).items():
            hooks.callback(module.register_forward_hook(lambda _, given, made, tell=tell: tell(made)).remove)
        if part == "decoder":
            model(images, mask)
        elif isinstance(model, MAE):
            vit(images, None if mask is None else mask.keep)
        else:
            if mask is not None:
                hooks.callback(vit.norm_pre.register_forward_pre_hook(_dropper(mask, vit.num_prefix_tokens)).remove)
            vit.forward_features(images)


def _dropper(mask: Mask, prefix: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    """Leaves the prefix and the visible patches of what enters the first block."""

    def drop(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        tokens = given[0]  # (B, prefix + N, D)
        return (torch.cat([tokens[:, :prefix], gather_patches(tokens[:, prefix:], mask.keep)], dim=1),)

    return drop


def _check(vit: Any, images: Tensor, part: str, mask: Mask | None) -> None:
    embed = vit.patch_embed
    if not vit.dynamic_img_size and images.shape[-2:] != torch.Size(embed.img_size):
        got, expected = ("x".join(map(str, size)) for size in (images.shape[-2:], embed.img_size))
        raise LcmaeError(f"images: got {got} px, expected {expected} px")
    if part == "decoder" and mask is None:
        raise LcmaeError("part: got 'decoder' without a mask, expected one mask an image")
    expected_mask = (len(images), embed.num_patches)
    if mask is not None and not vit.dynamic_img_size and mask.hidden.shape != expected_mask:
        raise LcmaeError(f"mask: got shape {tuple(mask.hidden.shape)}, expected {expected_mask}")
