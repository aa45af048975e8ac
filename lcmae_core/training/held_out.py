"""Held-out images and the losses on them, under masks that are a function of the seed and the image alone."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lcmae_core.config import LcmaeError, NoLabelsError, Settings, replace
from lcmae_core.data.cache import cache_of
from lcmae_core.data.loader import Batch, Loader
from lcmae_core.data.sources import open_source
from lcmae_core.data.splits import Source
from lcmae_core.data.views import Views
from lcmae_core.models.mae import MAE
from lcmae_core.store.machine import pick_device
from lcmae_core.training.distributed import my_part, parts_of_all
from lcmae_core.training.masked import forward_views, loss_terms, view_masks

ALL_TERMS = {"reconstruction": 1.0, "cross_view": 1.0, "in_view": 1.0, "reduction": "mean", "views": 2}
"""Leaves that measure all three losses, whatever a run optimised."""


def evaluation_loader(
    settings: Settings,
    limit: int | None = None,
    *,
    split: str = "validation",
    source: Source | None = None,
    crops: tuple[Views, ...] = (),
) -> Loader:
    """Whole images (centre view) of a split, on the run's device; with `limit`, that many, evenly spread over it.

    `source` saves opening the settings' source again. `crops` are cut beside the centre view, for DINO's loss.

    Raises:
        LcmaeError: the source cannot be read.
    """
    images = getattr(source or open_source(settings.data), split)
    if limit is not None and limit < len(images):
        images = images.subset(np.linspace(0, len(images) - 1, limit).round().astype(int))
    return Loader(
        images,
        settings.data,
        seed=settings.seed,
        batch_size=settings.optim.batch_size // settings.optim.accum_steps,
        device=pick_device(settings.runtime.device),
        device_cache_gb=settings.runtime.device_cache_gb,
        workers=settings.runtime.workers,
        progress=settings.runtime.progress,
        crops=crops,
        cache=cache_of(settings.runtime),
    )


def examples(settings: Settings, count: int) -> Batch:
    """A batch of `count` held-out images (all, where there are fewer), evenly spread over the validation split.

    Raises:
        LcmaeError: the source cannot be read, or holds no validation image.
    """
    return named_examples(settings, count).batch


class NamedImages(NamedTuple):
    """Images with the names that they have in their source."""

    batch: Batch
    names: list[str]


Named = NamedImages
"""Its former name."""


def named_examples(settings: Settings, count: int) -> NamedImages:
    """As `examples`, with the name of every image inside its source: that of its file in a folder.

    Raises:
        LcmaeError: the source cannot be read, or holds no validation image.
    """
    loader = evaluation_loader(settings, count)
    if not loader.size:
        raise LcmaeError(f"data: got no validation image in {settings.data.source!r}, expected at least one held out")
    batch = next(iter(loader.evaluation(count)))
    return NamedImages(batch, [loader.split.file_name(int(i)) for i in batch.index])


def named_pictures(settings: Settings, count: int) -> NamedImages:
    """As `named_examples`, but where fewer are held out, pictures of the training split come after them: for a model
    that was not trained on this source, to which none of them is known. Labels are left out.

    Raises:
        LcmaeError: the source cannot be read, or holds no picture.
    """
    loaders = [evaluation_loader(settings, count)]
    if loaders[0].size < count:
        loaders.append(evaluation_loader(settings, count - loaders[0].size, split="train"))
    if not sum(loader.size for loader in loaders):
        raise LcmaeError(f"data: got no picture in {settings.data.source!r}, expected at least one")
    batches = [(loader, next(iter(loader.evaluation(loader.size)))) for loader in loaders if loader.size]
    names = [loader.split.file_name(int(i)) for loader, batch in batches for i in batch.index]
    images, epoch, index = (torch.cat(parts) for parts in zip(*(batch[:3] for _, batch in batches)))
    return NamedImages(Batch(images, epoch, index, None), names)


def known_labels(labels: Tensor | None) -> Tensor:
    """The labels themselves.

    Raises:
        NoLabelsError: there are none.
    """
    if labels is None:
        raise NoLabelsError("labels: got a source without labels, expected one class a photograph")
    return labels


def held_out(model: MAE, settings: Settings, loader: Loader) -> dict[str, float]:
    """All three losses, weighted 1 and with reduction "mean", whatever the run optimised; averaged over images.

    Where nothing is held out (a source of one image), only the count of 0 is returned.

    Each image is seen under two masks. Without a trained projector v is the prediction itself (plain MAE): the terms
    are then measurements of what was never optimised.
    """
    measured = replace(settings, ALL_TERMS)

    def measure(batch: Batch) -> dict[str, Tensor]:
        masks = view_masks(measured, batch, 2)
        output = forward_views(model, batch.images, masks)
        terms = loss_terms(output, batch.images, masks, settings.model.patch_size, measured.loss)
        return {name: getattr(terms, name) for name in ("reconstruction", "cross_view", "in_view")}

    model.eval()
    means = averaged(loader, measure)
    model.train()
    return means


class _Measured(NamedTuple):
    """Terms of a batch, how many images it has, and the number of its first one."""

    first: int
    images: int
    terms: dict[str, float]


@torch.no_grad()
def averaged(loader: Loader, measure: Callable[[Batch], Mapping[str, Tensor]]) -> dict[str, float]:
    """Means over the held-out images of what a batch measures, and their number (alone, where nothing is held out).

    Ranks take batches in turn and sum them in the order of one process, whose numbers these are to the last bit
    wherever a batch gives the same numbers on each of them. Every rank has to call it, and passes equally many batches.
    """
    mine = []
    for batch in loader.evaluation_in_turn(my_part()):
        terms = {name: float(value) for name, value in measure(batch).items()}
        mine.append(_Measured(batch.first[1], len(batch.index), terms))
    every = {one.first: one for one in parts_of_all(mine)}  # once, if two ranks took the last one
    sums: dict[str, float] = {}
    for _, one in sorted(every.items()):
        for name, value in one.terms.items():
            sums[name] = sums.get(name, 0.0) + value * one.images
    count = sum(one.images for one in every.values())
    return {name: value / count for name, value in sums.items()} | {"images": count}
