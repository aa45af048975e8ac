"""What a decoder needs of other tokens: its loss as it is, and where every token attends to itself alone (claim C24).

Letters (CONTRIBUTING.md): B images, C channels, h x w pixels, N patches, T tokens of the decoder (CLS first), D width.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.data.loader import Batch
from lcmae_core.models.decoders import TransformerDecoder
from lcmae_core.models.mae import MAE, Output
from lcmae_core.models.masking import no_mask
from lcmae_core.training.autoencoder import block_loss
from lcmae_core.training.masked import forward_views, loss_terms, view_masks


@contextmanager
def attending_alone(model: nn.Module) -> Iterator[None]:
    """Within it every token of the model's decoder attends to itself alone: its attention is the identity.

    The decoder's own blocks run on every token as a sequence of one, so that softmax leaves it a weight of 1 and
    attention returns proj(v) of the token itself; all else in a block is token by token anyway.

    Raises:
        LcmaeError: a model without a transformer decoder.
    """
    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, TransformerDecoder):
        raise LcmaeError(f"decoder: got {type(decoder).__name__}, expected a TransformerDecoder")
    images: list[int] = []

    def apart(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        images.append(len(given[0]))
        return (given[0].flatten(0, 1)[:, None],)  # (B*T, 1, D)

    def together(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        return made[:, 0].unflatten(0, (images.pop(), -1))  # (B, T, D)

    hooks = (decoder.blocks.register_forward_pre_hook(apart), decoder.blocks.register_forward_hook(together))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def own_losses(model: MAE, settings: Settings, batch: Batch) -> Float[Tensor, "B"]:
    """What a run of these settings minimises, image by image: for a masked model the weighted sum of its terms under
    the image's own masks, for an autoencoder the error of its blocks."""
    each = _of_blocks(model, settings, batch) if settings.method == "ae" else _of_masked(model, settings, batch)
    return torch.stack(each)


def _of_blocks(model: MAE, settings: Settings, batch: Batch) -> list[Tensor]:
    patch, block, loss, images = settings.model.patch_size, settings.predicted_block, settings.loss, batch.images
    pred = model(images, no_mask(len(images), settings.num_patches, images.device)).pred
    pairs = zip(pred.split(1), images.split(1))
    return [block_loss(*pair, patch, block, norm_pix=loss.norm_pix, reduction=loss.reduction) for pair in pairs]


def _of_masked(model: MAE, settings: Settings, batch: Batch) -> list[Tensor]:
    images, patch, loss, count = batch.images, settings.model.patch_size, settings.loss, len(batch.images)
    masks = view_masks(settings, batch, loss.num_views)
    output = forward_views(model, images, masks)
    return [
        loss_terms(_of_image(output, i, count), images[i : i + 1], [m.row(i) for m in masks], patch, loss).total
        for i in range(count)
    ]


def _of_image(output: Output, image: int, images: int) -> Output:
    """Its views, [view 1; view 2]."""
    return Output(*(None if part is None else part[image::images] for part in output))  # type: ignore[arg-type]
