"""The images that checkpoints are measured on: those held out first, then, where they are too few, the others.

Letters (CONTRIBUTING.md): M images.
"""

from typing import NamedTuple

import torch

from lcmae_core.config import LcmaeError, Settings, replace
from lcmae_core.data.loader import Batch
from lcmae_core.data.sources import open_source
from lcmae_core.training.held_out import evaluation_loader


class Counted(NamedTuple):
    """How many images there are to measure on: of the validation split, and of the training split; and whether all of
    them have labels."""

    held_out: int
    training: int
    labelled: bool

    @property
    def total(self) -> int:
        """M."""
        return self.held_out + self.training


def count(settings: Settings, asked: int) -> Counted:
    """How many images a source gives of those asked for. Nothing is trained, so that a small source gives all it has.

    Raises:
        LcmaeError: the source cannot be read, or has fewer than two images.
    """
    source = open_source(settings.data)
    held = min(asked, len(source.validation))
    counted = Counted(held, min(asked - held, len(source.train)), source.classes is not None)
    if counted.total < 2:
        raise LcmaeError(f"data: got {counted.total} images in {settings.data.source!r}, expected at least two")
    return counted


def read(settings: Settings, asked: Counted) -> Batch:
    """The images themselves, centre view, each with a number of its own, from which its masks are drawn.

    Raises:
        LcmaeError: a picture cannot be read.
    """
    plain = replace(settings, {"cache_gb": 0, "device_cache_gb": 1.0, "progress": False})
    parts = []
    for split, wanted in (("validation", asked.held_out), ("train", asked.training)):
        if wanted:
            loader = evaluation_loader(plain, wanted, split=split)
            parts.append(next(iter(loader.evaluation(wanted))))
    first, *more = parts
    if not more:
        return first
    images, epoch = (torch.cat([getattr(part, name) for part in parts]) for name in ("images", "epoch"))
    index = torch.cat([first.index, more[0].index + len(first.index)])
    known = [part.labels for part in parts if part.labels is not None]
    labels = torch.cat(known) if len(known) == len(parts) else None
    return Batch(images, epoch, index, labels)
