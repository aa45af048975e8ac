"""The two views of an image under which v is compared: masks that all images share, or a mirror image.

A model that hides nothing (an autoencoder, the Siamese network) has no masks to be invariant to; the plainest other
view that its training knows is the mirror image, in which every patch has another place.

Letters (CONTRIBUTING.md): B images, h x w pixels, C channels, N patches, T tokens of the encoder, V width of v, D
width. In words: places (patches that both views hide, or both show).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lcmae_core.models.mae import MAE, Output
from lcmae_core.models.masking import Mask, no_mask
from lcmae_core.models.siamese import Siamese


class ViewPair(NamedTuple):
    """v at the places hidden in both views, None of a model without; the encoder's tokens at the places that both show
    (in mirrored views both are all patches)."""

    v: Float[Tensor, "2 B places V"] | None
    tokens: Float[Tensor, "2 B _ D"]


Pair = ViewPair
"""Its former name."""


class Whole(NamedTuple):
    """v of all patches, where a model has any, and the encoder's tokens, CLS first."""

    v: Float[Tensor, "B N V"] | None
    latent: Float[Tensor, "B T D"]


@torch.no_grad()
def masked_pair(model: MAE, images: Float[Tensor, "B C h w"], masks: tuple[Mask, Mask]) -> ViewPair:
    """Under two masks of one image, shared by all."""
    hidden, shown = (part[0] for part in (masks[0].hidden & masks[1].hidden, ~masks[0].hidden & ~masks[1].hidden))
    v, tokens = [], []
    for mask in masks:
        output: Output = model(images, Mask(*(part.expand(len(images), -1) for part in mask)))
        v.append(_vectors(output)[:, hidden])
        place = torch.arange(len(shown), device=shown.device) if model.erased else mask.restore[0]
        tokens.append(output.latent[:, 1:][:, place[shown]])
    return ViewPair(torch.stack(v), torch.stack(tokens))


@torch.no_grad()
def mirrored_pair(model: nn.Module, images: Float[Tensor, "B C h w"], grid: tuple[int, int]) -> ViewPair:
    """Of whole images and their mirror images, patch by patch of the picture."""
    views = (whole(model, images), whole(model, images.flip(3)))
    order = mirrored_places(grid).to(images.device)
    tokens = torch.stack([views[0].latent[:, 1:], views[1].latent[:, 1:][:, order]])
    if views[0].v is None or views[1].v is None:
        return ViewPair(None, tokens)
    return ViewPair(torch.stack([views[0].v, views[1].v[:, order]]), tokens)


@torch.no_grad()
def whole(model: nn.Module, images: Float[Tensor, "B C h w"]) -> Whole:
    """Of images with nothing hidden; v: the projection, the prediction without a projector, else None (an encoder)."""
    if isinstance(model, Siamese):
        output = model(images)
        return Whole(output.projected, output.latent)
    if isinstance(model, MAE) and model.decoder is not None:
        output = model(images, no_mask(len(images), model.num_patches, images.device))
        return Whole(_vectors(output), output.latent)
    encoder: nn.Module = getattr(model, "encoder", model)
    return Whole(None, encoder(images))


def mirrored_places(grid: tuple[int, int]) -> Int64[Tensor, "N"]:
    """Where each patch of a picture lies in its mirror image."""
    return torch.arange(grid[0] * grid[1]).reshape(grid).flip(1).flatten()


def _vectors(output: Output) -> Tensor:
    return output.pred if output.projected is None else output.projected
