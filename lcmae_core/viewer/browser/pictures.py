"""Normalised images as 8-bit pictures to look at.

Letters (CONTRIBUTING.md): B images, C channels, h x w pixels.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lcmae_core.data.augment import denormalize
from lcmae_core.models.inputs import PICTURES


def thumbnails(images: Float[Tensor, "B C h w"], side: int = 48) -> NDArray[np.uint8]:
    """The images as small squares (B, side, side, 3), cut at the middle."""
    short = min(images.shape[2:])
    top, left = ((extent - short) // 2 for extent in images.shape[2:])
    square = images[:, :, top : top + short, left : left + short].float()
    small = F.interpolate(square, (side, side), mode="bilinear", antialias=True)
    return np.stack([as_colours(image)[0] for image in small.split(1)])


def as_colours(image: Float[Tensor, "1 C h w"]) -> tuple[NDArray[np.uint8], tuple[str, str]]:
    """An image as 8-bit colour, and two lines that say what was left out: of other channels than grey or colour nobody
    knows what a value means, so the first three (the first of two) are drawn, each from its least to its greatest."""
    channels = image.shape[1]
    if channels in PICTURES:
        return as_bytes(denormalize(image).permute(0, 2, 3, 1).cpu().numpy()), ("", "")
    shown = 3 if channels > 3 else 1
    drawn = image[:, :shown]
    low, high = drawn.amin(dim=(2, 3), keepdim=True), drawn.amax(dim=(2, 3), keepdim=True)
    stretched = (drawn - low) / (high - low).clamp(min=1e-12)
    which = f"channels 1–3 of {channels}" if shown == 3 else f"channel 1 of {channels}"
    return as_bytes(stretched.permute(0, 2, 3, 1).cpu().numpy()), (which, "each from its least to its greatest value")


def as_bytes(pictures: NDArray[Any]) -> NDArray[np.uint8]:
    """The only picture of (1, h, w, 1 or 3) in [0, 1] as 8-bit colour."""
    colour = np.broadcast_to(pictures[0], (*pictures.shape[1:3], 3))
    return np.rint(colour.clip(0, 1) * 255).astype(np.uint8)
