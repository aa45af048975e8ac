"""A checkpoint where the measures of the studies expect a run: the same functions measure both.

Letters (CONTRIBUTING.md): M images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor

from lcmae_core.config import LcmaeError
from lcmae_core.data.loader import Batch
from lcmae_core.models.mae import MAE
from lcmae_core.studies.checkpoints.meter import Meter
from lcmae_core.studies.checkpoints.opened import Checkpoint, Model
from lcmae_core.studies.specimen import Specimen

TOKENS, SMALL_TOKENS = 8 * 197, 2 * 197
"""Tokens of an encoder that are run at once, and where a graph is kept: of ViT-B, 8 and 2 images of 224 px, with which
a process stays below 3 GB."""


@dataclass(frozen=True)
class CheckpointSpecimen(Specimen):
    """What is measured: a checkpoint on these images. other: the DINO that S_sim compares with. Weights are read anew
    by every measure, so that no more than two models are in memory at once."""

    checkpoint: Checkpoint
    pictures: Batch
    other: Checkpoint | None
    meter: Meter

    @property
    def trained(self) -> bool:
        """Always."""
        return True

    @property
    def hides(self) -> bool:
        """Whether its training hid patches."""
        return self.checkpoint.role == "MAE"

    @property
    def radii(self) -> tuple[int, ...]:
        """1, 2 and 3 patches."""
        return (1, 2, 3)

    @property
    def held(self) -> Batch:
        """All images."""
        return self.pictures

    @property
    def searched(self) -> Tensor:
        """All images."""
        return self.pictures.images

    def encoder(self) -> Any:
        """Its encoder, watched by the meter."""
        return _encoder(self._watched(self.checkpoint.load()))

    def model(self, step: int | None = None) -> Any:
        """The whole model; at step 0 its untrained twin."""
        return self.control() if step == 0 else self._watched(self.checkpoint.load())

    def control(self) -> Any:
        """The untrained model of the same shape."""
        return self._watched(self.checkpoint.untrained(self.checkpoint.load()))

    def untrained_encoder(self) -> Any:
        """The encoder of the untrained model."""
        return _encoder(self.control())

    def reference(self) -> Any:
        """The encoder of the DINO among the checkpoints.

        Raises:
            LcmaeError: there is none of the same grid.
        """
        if self.other is None:
            raise LcmaeError("S_sim: got no DINO of the same grid, expected one among the models")
        return _encoder(self._watched(self.other.load()))

    def split(self, images: Tensor, *, small: bool = False) -> Sequence[Tensor]:
        """Images in batches of as many tokens as memory allows, none of a single image where there are several: S_sim's
        control compares with the next image of a batch."""
        tokens, least = (SMALL_TOKENS, 1) if small else (TOKENS, 2)
        size = max(least, tokens // (self.settings.num_patches + 1))
        return images.tensor_split(max(1, min(ceil(len(images) / size), len(images) // least)))

    def examples(self, count: int) -> Batch:
        """So many of the images, evenly spread."""
        total = len(self.pictures.images)
        return self._rows(torch.linspace(0, total - 1, min(count, total)).round().long())

    def _watched(self, model: Model) -> Model:
        self.meter.watch(_encoder(model))
        return model


def _encoder(model: Model) -> Any:
    return model.encoder if isinstance(model, MAE) else model
