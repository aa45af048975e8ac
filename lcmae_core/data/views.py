"""What is cut from an image, once or many times (multi-crop): a pure function of (seed, epoch, index, crop number).

Letters (CONTRIBUTING.md): B images.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..config import Data, Dino
from .augment import BOX_DRAWS, centre_boxes, draw_boxes
from .colour import SHADE_DRAWS, SIGMA_SIDE, Colours
from .counter import counter_uniform

EVALUATION = -1
"""The `epoch` of evaluation batches: their central view draws nothing."""


class Views(NamedTuple):
    """How images are cut: everything that a box, a flip or a colour depends on besides (epoch, index)."""

    seed: int
    size: tuple[int, int]
    scale: tuple[float, float]
    ratio: tuple[float, float]
    mirror: bool
    number: int = 0
    """Crop number: each has random streams of its own."""
    colours: Colours = Colours()

    def boxes(self, epoch: Tensor, index: Tensor, heights: Tensor, widths: Tensor) -> Int64[Tensor, "B 4"]:
        """Random boxes, drawn on the CPU so that every device cuts the same pixels."""
        return draw_boxes(self._uniform("crop", epoch, index, BOX_DRAWS), heights, widths, self.scale, self.ratio)

    def flips(self, epoch: Tensor, index: Tensor) -> Bool[Tensor, "B"]:
        """Which images are mirrored."""
        return self._uniform("flip", epoch, index, 1)[:, 0] < (0.5 if self.mirror else 0.0)

    def shades(self, epoch: Tensor, index: Tensor) -> Float[Tensor, "B 9"]:
        """The random numbers of `colour.shade`."""
        return self._uniform("jitter", epoch, index, SHADE_DRAWS)

    def _uniform(self, stream: str, epoch: Tensor, index: Tensor, count: int) -> Float[Tensor, "B draws"]:
        return counter_uniform(self.seed, f"{stream}{self.number or ''}", epoch, index, count)


def multi_crop(data: Data, dino: Dino, seed: int) -> tuple[Views, ...]:
    """DINO's crops of an image: two global ones of the model's size, then the local ones, each with its own colours."""
    whole = Views(seed, data.image_size, dino.global_scale, data.crop_ratio, data.flip)
    first, second, local = dino_colours(data, dino)
    small = whole._replace(size=dino.local_size, scale=dino.local_scale, colours=local)
    return (
        whole._replace(colours=first),
        whole._replace(number=1, colours=second),
        *(small._replace(number=2 + i) for i in range(dino.local_crops)),
    )


def dino_colours(data: Data, dino: Dino) -> tuple[Colours, Colours, Colours]:
    """Of the first global crop, the second and the local ones. They differ in how often they are blurred, and the
    second alone is solarised, so that the two global crops are not alike.

    The blur was published in pixels of global crops of 224 px, and is the same in pixels for local crops of 96 px: here
    it shrinks with the global crop, for all crops alike.
    """
    scale = min(data.image_size) / SIGMA_SIDE
    shared = Colours(dino.jitter, dino.hue, dino.jitter_prob, dino.grey_prob, blur_scale=scale)
    first, second, local = (shared._replace(blur_prob=prob) for prob in dino.blur_probs)
    return first, second._replace(solarise_prob=dino.solarise_prob), local


def crop_pair(data: Data, seed: int) -> tuple[Views, ...]:
    """Two independent crops of an image as MAE cuts one, for the Siamese network: the first is the one MAE sees."""
    first = Views(seed, data.image_size, data.crop_scale, data.crop_ratio, data.flip)
    return (first, first._replace(number=1))


class Place(NamedTuple):
    """Where one crop of each image lies in its picture, whose pixels all crops of the image share."""

    box: Int64[Tensor, "B 4"]
    """Top, left, height, width in pixels of the picture, as it was shrunk before it was cut."""
    mirrored: Bool[Tensor, "B"]

    def chunks(self, parts: int) -> list["Place"]:
        """The places of the images in equal consecutive parts."""
        return [Place(*part) for part in zip(self.box.chunk(parts), self.mirrored.chunk(parts))]


class Cuts(NamedTuple):
    """All that is cut from an image: `views` in training; in evaluation the central view, then those of multi-crop."""

    views: tuple[Views, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Of the first crop, by which large pictures are shrunk."""
        return self.views[0].size

    def of(self, epoch: Tensor) -> tuple[Views | None, ...]:
        """The views of a batch in order; None is the central one."""
        if int(epoch[0]) != EVALUATION:
            return self.views
        return (None, *(self.views if len(self.views) > 1 else ()))

    def boxes(
        self, epoch: Tensor, index: Tensor, heights: Tensor, widths: Tensor
    ) -> list[tuple[tuple[int, int], Int64[Tensor, "B 4"]]]:
        """Size and boxes of every view."""
        return [
            (self.size, centre_boxes(heights, widths, self.size))
            if view is None
            else (view.size, view.boxes(epoch, index, heights, widths))
            for view in self.of(epoch)
        ]

    def places(self, epoch: Tensor, index: Tensor, boxes: Sequence[Tensor]) -> tuple[Place, ...]:
        """Where the crops of multi-crop lie, given the boxes of every view; none where only one crop is cut."""
        if len(self.views) == 1:
            return ()
        return tuple(Place(box, v.flips(epoch, index)) for v, box in zip(self.views, boxes[-len(self.views) :]))
