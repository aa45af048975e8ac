"""The attention blocks of a model, and hooks on them while its own forward pass runs.

Letters (CONTRIBUTING.md): B images, h x w pixels, C channels, T tokens (prefix included), D width, N patches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.models.decoders import TransformerDecoder
from lcmae_core.models.encoder import gather_patches
from lcmae_core.models.inputs import image_grid, in_its_type, patch_sides
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask

PARTS = ("encoder", "decoder")

TokenHook = Callable[[Tensor], None]
"""Gets a module's first input, or its output."""
PairHook = Callable[[Tensor, Any], None]
"""Gets a module's first input and its output."""


class Geometry(NamedTuple):
    """How tokens lie on the image: rows and columns of patches, sides of a patch in pixels, tokens before them."""

    grid: tuple[int, int]
    patch_size: tuple[int, int]
    prefix: int

    @property
    def num_patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]


def geometry(model: nn.Module, part: str = "encoder", images: Tensor | None = None) -> Geometry:
    """Grid, patch size and prefix tokens of a timm ViT, or of our model's encoder or decoder (whose prefix is CLS).

    The grid is that of the `images`; without them, of the size that the model was built for.

    Raises:
        LcmaeError: no ViT, an unknown part, images that the model does not take.
    """
    vit = encoder_of(model, part)
    grid = vit.patch_embed.grid_size if images is None else image_grid(vit, images)
    return Geometry((grid[0], grid[1]), patch_sides(vit), 1 if part == "decoder" else vit.num_prefix_tokens)


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
    vit = getattr(model, "encoder", model)  # of ours a part; a timm ViT is one itself
    if not isinstance(vit, VisionTransformer):
        raise LcmaeError(
            f"model: got a {type(model).__name__} without attention blocks, expected a timm ViT or our MAE"
        )
    return vit


def attention_blocks(model: nn.Module, part: str = "encoder") -> Sequence[Any]:
    """The blocks, each with an `attn` that has the layers of timm's Attention; whether it uses them so, only its output
    tells (`attention.refuse_unlike`).

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
    for layer, block in enumerate(blocks):
        attn = getattr(block, "attn", None)
        if not _has_parts_of_attention(attn):
            kind = type(block if attn is None else attn).__name__
            raise LcmaeError(f"layer {layer}: got {kind}, expected timm's Attention with one qkv layer")
    return blocks


def _has_parts_of_attention(attn: Any) -> bool:
    linear = all(isinstance(getattr(attn, name, None), nn.Linear) for name in ("qkv", "proj"))
    heads, scale = getattr(attn, "num_heads", None), getattr(attn, "scale", None)
    return linear and isinstance(heads, int) and scale is not None and attn.qkv.out_features % (3 * heads) == 0


@torch.no_grad()
def run_with_hooks(
    model: nn.Module,
    images: Float[Tensor, "B C h w"],
    part: str = "encoder",
    mask: Mask | None = None,
    *,
    inputs: Mapping[nn.Module, TokenHook] | None = None,
    outputs: Mapping[nn.Module, TokenHook] | None = None,
    both: Mapping[nn.Module, PairHook] | None = None,
) -> None:
    """Run the model's own forward pass once; each named module's hook gets its first input, its output, or `both`.

    Images are given in the type of the model's weights.

    A mask keeps the encoder to the visible patches (T = prefix + K), also in a plain timm ViT. The decoder needs one.

    Raises:
        LcmaeError: images that the model does not take, a mask for another grid, a decoder without a mask, weights of
            several types that the model's own forward pass cannot put together.
    """
    vit = encoder_of(model, part)
    _check(vit, images, part, mask)
    images = in_its_type(vit, images)
    with ExitStack() as registered:  # hooks left on a user's model after an error would go on running
        # hook=hook: a closure would look the name up when it is called, and find the last one of the loop
        for module, hook in (inputs or {}).items():
            registered.callback(module.register_forward_pre_hook(lambda _, given, hook=hook: hook(given[0])).remove)
        for module, hook in (outputs or {}).items():
            registered.callback(module.register_forward_hook(lambda _, given, made, hook=hook: hook(made)).remove)
        for module, pair in (both or {}).items():
            hook_of_pair = lambda _, given, made, pair=pair: pair(given[0], made)  # noqa: E731
            registered.callback(module.register_forward_hook(hook_of_pair).remove)
        # norm_pre is the last before the blocks: positions are added, so each kept patch carries its own
        if mask is not None and not isinstance(model, MAE):
            registered.callback(vit.norm_pre.register_forward_pre_hook(_dropper(mask, vit.num_prefix_tokens)).remove)
        with _one_line_for_mixed_types(model):
            _forward(model, vit, images, part, mask)


def _forward(model: nn.Module, vit: Any, images: Tensor, part: str, mask: Mask | None) -> None:
    if part == "decoder":
        model(images, mask)  # all of it: the decoder reads what the encoder makes of the visible patches
    elif isinstance(model, MAE):
        vit(images, None if mask is None else mask.keep)
    else:
        vit.forward_features(images)  # without pooling and head, which come after all that can be hooked


@contextmanager
def _one_line_for_mixed_types(model: nn.Module) -> Iterator[None]:
    """A forward pass that fails because half of a model was turned into another type says so, in one line."""
    try:
        yield
    except RuntimeError as error:
        kinds = sorted({str(value.dtype).removeprefix("torch.") for value in model.parameters()})
        if len(kinds) < 2:  # of one type: another fault, whose own words say more
            raise
        first = str(error).partition("\n")[0]
        raise LcmaeError(
            f"model: got weights of {' and '.join(kinds)}, which its own forward pass does not take ({first}), "
            "expected one type, or torch.autocast around the call"
        ) from None


def _dropper(mask: Mask, prefix: int) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor]]:
    """Leaves the prefix and the visible patches of what enters the first block."""

    def drop(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        tokens = given[0]  # (B, prefix + N, D)
        return (torch.cat([tokens[:, :prefix], gather_patches(tokens[:, prefix:], mask.keep)], dim=1),)

    return drop


def _check(vit: Any, images: Tensor, part: str, mask: Mask | None) -> None:
    grid = image_grid(vit, images)
    if part == "decoder" and mask is None:
        raise LcmaeError("part: got 'decoder' without a mask, expected one mask an image")
    expected = (len(images), grid[0] * grid[1])
    if mask is not None and mask.hidden.shape != expected:
        raise LcmaeError(f"mask: got shape {tuple(mask.hidden.shape)}, expected {expected}")
