"""Colour changes of whole batches on the device: jitter, hue, greyscale, blur, solarisation, as DINO's crops have them.

Every image has random numbers of its own, so it is changed alike in whatever batch it comes.
Letters (CONTRIBUTING.md): B images, C channels, h x w pixels of a crop. In words: side (pixels of it).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .augment import grey, jitter

SHADE_DRAWS = 9
"""Random numbers of an image: brightness, contrast, saturation, hue, whether these; whether grey; whether blurred, how
much; whether solarised."""
SIGMA = (0.1, 2.0)
"""Standard deviations of the published blur, in pixels of a crop of 224 px."""
SIGMA_SIDE = 224
"""Side of the crops for which `SIGMA` was published."""
_REACH = 4.0  # deviations beyond which the blur's kernel is cut off; its mass there is 6e-5
_SOLARISE_FROM = 128.0


class Colours(NamedTuple):
    """How the colours of a crop are changed, in this order; nothing by default. Probabilities are per image."""

    jitter: float = 0.0
    """Strength of brightness, contrast and (half of it) saturation, see `augment.jitter`."""
    hue: float = 0.0
    """Largest turn of the hue, as a share of the circle."""
    jitter_prob: float = 1.0
    """Of jitter and hue together."""
    grey_prob: float = 0.0
    blur_prob: float = 0.0
    blur_scale: float = 1.0
    """By what the published deviations are multiplied."""
    solarise_prob: float = 0.0

    @property
    def any(self) -> bool:
        """Whether anything can change."""
        return max(self.jitter, self.hue, self.grey_prob, self.blur_prob, self.solarise_prob) > 0


def shade(
    images: Float[Tensor, "B C h w"], uniform: Float[Tensor, "B 9"], colours: Colours
) -> Float[Tensor, "B C h w"]:
    """Pixels in [0, 255] under jitter and hue, then greyscale, blur and solarisation, each with its probability.

    The order of the published recipe, but for one thing: there brightness, contrast, saturation and hue come in an
    order drawn for each image, here always in this one, so that a batch is changed at once.
    """
    u = uniform.unbind(1)
    if colours.jitter or colours.hue:
        changed = jitter(images, uniform[:, :3], colours.jitter) if colours.jitter else images
        changed = turn_hue(changed, (2 * u[3] - 1) * colours.hue) if colours.hue else changed
        images = _where(u[4] < colours.jitter_prob, changed, images)
    if colours.grey_prob:
        images = _where(u[5] < colours.grey_prob, grey(images).expand_as(images), images)
    if colours.blur_prob:
        sigma = (SIGMA[0] + (SIGMA[1] - SIGMA[0]) * u[7]) * colours.blur_scale
        images = _where(u[6] < colours.blur_prob, blur(images, sigma), images)
    if colours.solarise_prob:
        images = _where(u[8] < colours.solarise_prob, solarise(images), images)
    return images


def turn_hue(images: Float[Tensor, "B C h w"], turn: Float[Tensor, "B"]) -> Float[Tensor, "B C h w"]:
    """Add `turn`, in [-0.5, 0.5] of the circle, to the hue of pixels in [0, 255]; value and saturation stay.

    Hue in sixths of the circle: (g - b) / c from red, 2 + (b - r) / c from green, 4 + (r - g) / c from blue, whichever
    channel is the largest (v), c = v - smallest. Back: channel n = v - c max(0, min(k, 4 - k, 1)) with
    k = (n + hue) mod 6, n = 5, 3, 1 for red, green, blue. Grey pictures have no hue.
    """
    if images.shape[1] == 1:
        return images
    value, smallest = images.amax(dim=1), images.amin(dim=1)  # (B, h, w)
    chroma = value - smallest
    red, green, blue = (images / torch.where(chroma > 0, chroma, 1)[:, None]).unbind(1)
    top = images.argmax(dim=1)
    hue = torch.where(top == 0, green - blue, torch.where(top == 1, 2 + blue - red, 4 + red - green))
    hue = hue + 6 * turn.to(images.dtype)[:, None, None]
    k = torch.stack([(n + hue) % 6 for n in (5, 3, 1)], dim=1)  # (B, 3, h, w)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def blur(images: Float[Tensor, "B C h w"], sigma: Float[Tensor, "B"]) -> Float[Tensor, "B C h w"]:
    """A Gaussian of each image's own deviation in pixels, the picture reflected at its borders.

    Two batched matrix products, down and across, with weights exp(-d^2 / (2 sigma^2)) that sum to 1 over whole pixels d
    up to 4 sigma away (at least 1).
    """
    down, across = (_blur_weights(sigma.to(images.dtype), side) for side in images.shape[2:])
    return torch.matmul(torch.matmul(down[:, None], images), across[:, None].mT)


def _blur_weights(sigma: Tensor, side: int) -> Float[Tensor, "B side side"]:
    """Row i: the share of every pixel in the blurred pixel i; a pixel beyond a border counts for its mirror image."""
    place = torch.arange(side, device=sigma.device)
    straight = (place[None, :] - place[:, None]).abs()  # (side, side), from output i to pixel j
    before = place[None, :] + place[:, None]  # to the image of j in front of the first pixel
    behind = 2 * (side - 1) - before  # and behind the last one
    first, last = (place == 0)[None, :], (place == side - 1)[None, :]  # the mirrors themselves have no second image
    far = 2 * side  # farther than any kernel reaches
    distances = (straight, torch.where(first, far, before), torch.where(last, far, behind))
    reach = (_REACH * sigma).ceil().clamp(1, side - 1)[:, None, None]
    width = sigma[:, None, None]
    weights = torch.stack([torch.where(d <= reach, (-((d / width) ** 2) / 2).exp(), 0.0) for d in distances]).sum(dim=0)
    return weights / weights.sum(dim=-1, keepdim=True)


def solarise(images: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """Pixels in [0, 255] from 128 on become 255 minus themselves."""
    return torch.where(images >= _SOLARISE_FROM, 255 - images, images)


def _where(which: Bool[Tensor, "B"], changed: Tensor, images: Tensor) -> Tensor:
    return torch.where(which[:, None, None, None], changed, images)
