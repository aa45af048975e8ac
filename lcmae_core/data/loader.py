"""Batches on the device: order, crops and flips are a function of (seed, epoch, index), so training resumes anywhere.

Small sources are held on the device as one uint8 canvas and cropped there; larger ones are decoded and cropped by
worker processes. Both cut the same pixels from the same pictures, bit by bit (`augment.resize_weights`).

Letters (CONTRIBUTING.md): B images, C channels, M images of the split, H x W pixels of a canvas, h x w pixels of a
crop.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..config import Data, LcmaeError
from ..store.progress import progress_bar
from ..store.stopping import stop_if_asked
from .ahead import read_ahead
from .augment import crop_resize, flip, normalize
from .cache import Cache, Canvas, canvas_of
from .colour import shade
from .counter import WHOLE, Positions, Share, positions
from .decoders import shrunk
from .resample import cut_many, cut_one, cut_resize, pixels_of
from .splits import THREADS, Split
from .views import EVALUATION, Cuts, Place, Views

__all__ = [
    "EVALUATION", "Batch", "Canvas", "Loader", "Views", "cut_resize", "hold", "pixels_of", "shrink",
]  # fmt: skip


class Batch(NamedTuple):
    """Pictures ready for the model, with what identifies them; all on the device."""

    images: Float[Tensor, "B C h w"]
    """Normalised by ImageNet's statistics."""
    epoch: Int64[Tensor, "B"]
    index: Int64[Tensor, "B"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    labels: Int64[Tensor, "B"] | None
    crops: tuple[Float[Tensor, "B C _ _"], ...] = ()
    """Multi-crop: every crop of the pictures, by crop number, each of its own size; empty where only one is cut. In
    training `images` is crop 0. In evaluation `images` is the central view, and the crops beside it are random as ever,
    but always the same: those of epoch -1."""
    places: tuple[Place, ...] = ()
    """Where each of `crops` lies in its picture."""
    at: Positions | None = None
    """Epoch and index once more, on the CPU, where random numbers are drawn for this batch: to read them from the GPU
    would make the CPU wait for all that the GPU still has to do."""

    @property
    def first(self) -> tuple[int, int]:
        """Epoch and index of the first image, read on the CPU where they are kept there."""
        epoch, index = self.at or (self.epoch, self.index)
        return int(epoch[0]), int(index[0])

    def chunks(self, parts: int) -> list["Batch"]:
        """The batch in equal consecutive parts."""
        labels = [None] * parts if self.labels is None else self.labels.chunk(parts)
        crops = zip(*(crop.chunk(parts) for crop in self.crops)) if self.crops else [()] * parts
        places = zip(*(place.chunks(parts) for place in self.places)) if self.places else [()] * parts
        at = [None] * parts if self.at is None else map(Positions, *(values.chunk(parts) for values in self.at))
        return [Batch(*part) for part in zip(*(t.chunk(parts) for t in self[:3]), labels, crops, places, at)]


def shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Reduce a picture whose short side exceeds twice the crop's longer side to exactly that; never enlarge.

    The short side is then twice the crop's, so that even a crop of a fifth of the area (0.45 of the side) has nine
    pixels for ten of the output: hardly any is made up. Held and streamed pictures are shrunk alike, so where they lie
    does not change results.
    """
    short, limit = min(image.size), 2 * max(size)
    if short <= limit:
        return image
    return image.resize(shrunk(image.size, limit), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _read_all(split: Split, size: tuple[int, int], largest: float, progress: bool) -> list[Tensor] | None:
    """Every picture, shrunk; None as soon as a box around those read so far has more than `largest` pixels."""
    pictures: list[Tensor] = []
    split = split.at_least(2 * max(size))
    bar = progress_bar(f"reading {split.name}", len(split), "image", wanted=progress)
    with ThreadPoolExecutor(THREADS) as pool, bar:
        while len(pictures) < len(split):  # in blocks, so that giving up stops the reading
            stop_if_asked(f"reading {split.name}")
            block = range(len(pictures), min(len(pictures) + 64, len(split)))
            pictures += pool.map(lambda i: pixels_of(shrink(split.read(i), size)), block)
            bar.update(len(block))
            if max(p.shape[1] for p in pictures) * max(p.shape[2] for p in pictures) > largest:
                return None
    return pictures


def hold(split: Split, size: tuple[int, int], channels: int, most_gb: float, progress: bool = True) -> Canvas | None:
    """All pictures on one canvas on the CPU, or None if that would take more than `most_gb` (10^9 bytes)."""
    if not len(split):
        return None
    pictures = _read_all(split, size, most_gb * 1e9 / (channels * len(split)), progress)
    if pictures is None:
        return None
    heights, widths = (torch.tensor([p.shape[axis] for p in pictures]) for axis in (1, 2))
    # one box for all can be indexed and moved at once; each picture lies in its corner, and no crop leaves its picture
    pixels = torch.zeros(len(split), channels, int(heights.max()), int(widths.max()), dtype=torch.uint8)
    for place, picture in zip(pixels, pictures):
        place[:, : picture.shape[1], : picture.shape[2]] = picture
    return Canvas(pixels, heights, widths)


class _Crops(Dataset[list[Tensor]]):
    """(epoch, index) -> the cut and resized uint8 crops of an image, then their boxes; decoding processes run it."""

    def __init__(self, split: Split, cuts: Cuts) -> None:
        self.split, self.cuts = split.at_least(2 * max(cuts.size)), cuts

    def __getitem__(self, place: tuple[int, int]) -> list[Tensor]:
        return self.__getitems__([place])[0]

    def __getitems__(self, places: list[tuple[int, int]], many: Callable[..., Any] = map) -> list[list[Tensor]]:
        """Those of a batch, whose boxes are drawn at once; `many` is how pictures are gone through."""
        pictures = list(many(self._picture, places))
        sizes = [[picture.height, picture.width] for picture in pictures]
        epoch, index, height, width = torch.tensor([[*p, *s] for p, s in zip(places, sizes)]).unbind(1)
        cuts = self.cuts.boxes(epoch, index, height, width)
        boxes = torch.stack([boxes for _, boxes in cuts], dim=1)  # (B, views, 4)
        return list(many(self._cut, pictures, boxes, [[size for size, _ in cuts]] * len(pictures)))

    def _picture(self, place: tuple[int, int]) -> Image.Image:
        return shrink(self.split.read(place[1]), self.cuts.size)

    def _cut(self, picture: Image.Image, boxes: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
        return [*(cut_one(picture, box, size) for box, size in zip(boxes.tolist(), sizes)), boxes]


class Loader:
    """Batches of one split.

    Args:
        split: pictures from `open_source`.
        data: crop size, channels, augmentation.
        seed: of order, crops and flips.
        batch_size: images a training batch, on this device.
        device_cache_gb: splits up to this size (10^9 bytes of uint8) are held on the device; larger ones are streamed.
        workers: decoding processes when streaming.
        crops: what multi-crop cuts (`multi_crop`), in place of the one crop that `data` describes.
        progress: say how far the reading of a split that is held has come.
        share: the rows of a training batch that this process takes.
        cache: where decoded pictures, and copies of encoded ones, are kept for the next loader, in whatever process.
    """

    def __init__(
        self,
        split: Split,
        data: Data,
        *,
        seed: int,
        batch_size: int,
        device: torch.device | str,
        device_cache_gb: float = 4.0,
        workers: int = 2,
        crops: tuple[Views, ...] = (),
        progress: bool = True,
        cache: Cache | None = None,
        share: Share = WHOLE,
    ) -> None:
        self._share = share
        self.split, self.seed, self.batch_size, self.workers = split, seed, batch_size, workers
        self.device = torch.device(device)
        self._cuts = Cuts(crops or (Views(seed, data.image_size, data.crop_scale, data.crop_ratio, data.flip),))
        self._crops, self._cache, self._copied = _Crops(split, self._cuts), cache, False
        # a split that repeats its pictures holds each once
        distinct = split if split.period is None else split.subset(range(split.period))
        how = (data.image_size, data.channels, device_cache_gb, progress)
        self._canvas = canvas_of(cache, distinct, 2 * max(how[0]), device_cache_gb * 1e9, lambda: hold(distinct, *how))
        if self._canvas is not None:  # sizes stay on the CPU, where boxes are drawn
            self._canvas = self._canvas._replace(pixels=self._canvas.pixels.to(self.device))
        self._labels = None if split.labels is None else torch.tensor(split.labels)

    @property
    def size(self) -> int:
        """Images of the split."""
        return len(self.split)

    @property
    def held(self) -> bool:
        """Whether the pictures lie on the device."""
        return self._canvas is not None

    def batch(self, step: int) -> Batch:
        """Training batch number `step`: a pure function of (seed, step)."""
        [batch] = self.batches(step, step + 1)
        return batch

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Batches start, ..., stop - 1; a streamed split is read ahead by `workers` processes."""
        if not self.held and not self._copied:  # some sources are slow in random order: they make a copy, once
            self._crops, self._copied = _Crops(self.split.copied(self._cache), self._cuts), True
        return self._run(stop - start, lambda: (self._positions(step) for step in range(start, stop)))

    def evaluation(
        self, batch_size: int | None = None, limit: int | None = None, share: Share = WHOLE
    ) -> Iterator[Batch]:
        """The first `limit` images in order, central view, not mirrored; epoch is -1. Draws nothing. Of several
        processes each takes the next part of them (`share`), all as long as the others' or one shorter."""
        count = self.size if limit is None else min(limit, self.size)
        part = torch.arange(count).tensor_split(share.of)[share.number]
        return self._evaluation(part.split(batch_size or self.batch_size) if len(part) else ())

    def evaluation_in_turn(self, share: Share) -> Iterator[Batch]:
        """As `evaluation` of all images, in the very batches of one process: of several each takes every `of`-th, and
        all take equally many, for a forward pass may wait for the others: where they run out, the last once more."""
        batches = torch.arange(self.size).split(self.batch_size) if self.size else ()
        turns = range(share.number, -(-len(batches) // share.of) * share.of, share.of)
        return self._evaluation([batches[min(turn, len(batches) - 1)] for turn in turns])

    def _evaluation(self, parts: Sequence[Tensor]) -> Iterator[Batch]:
        return self._run(len(parts), lambda: (Positions(torch.full_like(i, EVALUATION), i) for i in parts))

    def _positions(self, step: int) -> Positions:
        if not self.size:
            raise LcmaeError(f"split {self.split.name!r}: got 0 images, expected at least one to train on")
        return positions(self.seed, step, self.batch_size, self.size, self._share)

    def _run(self, count: int, places: Callable[[], Iterator[Positions]]) -> Iterator[Batch]:
        """`count` batches. Each call of `places` gives their positions from the first: worker processes go through them
        once, and what they return is labelled by going through them again."""
        # processes take longer to start than one batch takes to cut
        if self.held or not self.workers or count < 2:
            cut = self._from_canvas if self.held else self._from_pictures
            yield from (cut(*place) for place in places())
            return
        ahead = read_ahead(self._crops, count, places, self.workers, pin=self.device.type == "cuda")
        for place, (*pictures, boxes) in ahead:
            pictures = [p.to(self.device, non_blocking=True) for p in pictures]
            yield self._finish(*place, pictures, boxes.unbind(1))

    def _from_canvas(self, epoch: Tensor, index: Tensor) -> Batch:
        assert self._canvas is not None
        place = index % len(self._canvas.pixels)  # a split may list a picture several times; the canvas has it once
        cuts = self._cuts.boxes(epoch, index, self._canvas.heights[place], self._canvas.widths[place])
        pictures = self._canvas.pixels.index_select(0, self.send(place))  # (B, C, H, W)
        boxes = [self.send(box) for _, box in cuts]
        # the same to the last bit; on a CPU large pictures are cut one by one, by what of them a kernel reaches
        crop = cut_many if self.device.type == "cpu" else crop_resize
        cut = [crop(pictures, box, size) for (size, _), box in zip(cuts, boxes)]
        return self._finish(epoch, index, cut, boxes)

    def _from_pictures(self, epoch: Tensor, index: Tensor) -> Batch:
        with ThreadPoolExecutor(THREADS) as pool:
            crops = self._crops.__getitems__(list(zip(epoch.tolist(), index.tolist())), pool.map)
        *pictures, boxes = map(torch.stack, zip(*crops))
        return self._finish(epoch, index, [self.send(crop) for crop in pictures], boxes.unbind(1))

    def _finish(self, epoch: Tensor, index: Tensor, cut: list[Tensor], boxes: Sequence[Tensor]) -> Batch:
        """Mirror, colour and normalise cut images in [0, 255], on the device."""
        images = tuple(
            normalize((pixels if view is None else self._augment(view, epoch, index, pixels)).float())
            for view, pixels in zip(self._cuts.of(epoch), cut)
        )
        # indexed on the CPU, where `index` is, and sent: to index on the device, it would have to be there first
        labels = None if self._labels is None else self.send(self._labels[index])
        crops = images[-len(self._cuts.views) :] if len(self._cuts.views) > 1 else ()
        places = tuple(Place(*map(self.send, place)) for place in self._cuts.places(epoch, index, boxes))
        at = Positions(epoch, index)
        return Batch(images[0], self.send(epoch), self.send(index), labels, crops, places, at)

    def _augment(self, view: Views, epoch: Tensor, index: Tensor, pixels: Float[Tensor, "B C h w"]) -> Tensor:
        pixels = flip(pixels, self.send(view.flips(epoch, index))) if view.mirror else pixels
        if not view.colours.any:
            return pixels
        return shade(pixels.float(), self.send(view.shades(epoch, index)), view.colours)

    def send(self, tensor: Tensor) -> Tensor:
        """To the device without waiting for it: the source is small and is staged before the call returns."""
        return tensor.to(self.device, non_blocking=True)
