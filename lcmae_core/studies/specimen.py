"""What a measure of a study is taken of: a finished run or an untrained encoder, with the images to look at.

Letters (CONTRIBUTING.md): M images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcmae_core.config import PROFILES, Settings, replace
from lcmae_core.config.downstream import vary
from lcmae_core.data.loader import Batch
from lcmae_core.data.sources import open_source
from lcmae_core.models.build import build_model, model_of
from lcmae_core.models.masking import Mask, no_mask
from lcmae_core.store.evaluations import Evaluation
from lcmae_core.store.runs import Run
from lcmae_core.studies.registry import references
from lcmae_core.studies.tables import short
from lcmae_core.training.downstream import Origin
from lcmae_core.training.held_out import evaluation_loader, examples
from lcmae_core.training.loop import pretrain
from lcmae_core.training.masked import view_masks
from lcmae_core.training.presets import clip_batch, recipe_of
from lcmae_core.training.probe import linear_probe

IMAGES = {name: one.images for name, one in PROFILES.items()}
"""Held-out images of the measures that train nothing, at most."""
SEARCHED = {name: one.searched for name, one in PROFILES.items()}
"""How many held-out images retrieval searches (C20): all of them, where they fit into memory."""
BLOCKS = 64
"""A record keeps at most so many values of a measure: one for each image, or, of more images than that, the means of so
many equal blocks of images. An interval needs no more, and a record stays below 100 kB."""
FEW = 64
"""Images of the measures that need few: collapse and receptive field."""
PART, SMALL_PART = 64, 16
"""Images run at once; fewer where a graph is kept or a prediction is large."""
DRAWS = 32
"""Masks that are tried for a second one that has hidden and visible patches in common with the first."""


def shuffled(count: int) -> Tensor:
    """One fixed order of `count` images in which neighbours are strangers: held-out images are sorted by class."""
    return torch.from_numpy(np.random.default_rng(0).permutation(count))


def blocked(values: Tensor) -> Tensor:
    """Numbers of M images (M, ...) as they are where M is at most `BLOCKS`, else the means of `BLOCKS` blocks of images
    in the order of `shuffled`: their spread is that of images over the root of a block's size."""
    if len(values) <= BLOCKS:
        return values
    parts = values[shuffled(len(values)).to(values.device)].tensor_split(BLOCKS)
    return torch.stack([part.double().mean(0) for part in parts])


@dataclass(frozen=True)  # what is cached is no field: `cached_property` writes past what is frozen
class Specimen:
    """What is measured: a finished run, or (run None) the untrained encoder of these settings."""

    settings: Settings
    profile: str
    run: Run | None

    @property
    def labelled(self) -> Settings:
        """What an evaluation reads: all images, however few the run was trained on (v2 Table A.1)."""
        return replace(self.settings, train_images=None)

    @property
    def origin(self) -> Origin:
        """Its encoder, for an evaluation."""
        return Origin.untrained(self.settings) if self.run is None else Origin.of_run(self.run)

    @property
    def trained(self) -> bool:
        """Whether it is more than an untrained encoder."""
        return self.run is not None

    def of_seed(self, seed: int) -> "Specimen":
        """The same of another seed, trained where it is not yet."""
        settings = replace(self.settings, seed=seed)
        return Specimen(settings, self.profile, None if self.run is None else pretrain(settings))

    def encoder(self) -> Any:
        """Its encoder, on the CPU."""
        return self.origin.load()

    def untrained_encoder(self) -> Any:
        """The encoder as its training began."""
        return self.control().encoder

    def reference(self) -> Any:
        """The encoder of a DINO of the same data and seed (Eq. 8), at the shorter horizon where a profile has two."""
        shorter = short(self.settings, self.profile)
        dino: Any = model_of(pretrain(references(shorter, self.profile)["DINO"]))
        return dino.encoder

    @property
    def radii(self) -> tuple[int, ...]:
        """Radii in patches within which `distance` also counts the attention of the encoder."""
        return ()

    def split(self, images: Tensor, *, small: bool = False) -> Sequence[Tensor]:
        """Images in batches that are run at once; smaller ones where a graph is kept."""
        return images.split(SMALL_PART if small else PART)

    def model(self, step: int | None = None) -> Any:
        """The whole model at a kept step, by default the last, on the CPU."""
        return build_model(self.settings).eval() if self.run is None else model_of(self.run, step)

    def control(self) -> Any:
        """The untrained model of the same settings, on the CPU."""
        return build_model(self.settings).eval()

    @property
    def hides(self) -> bool:
        """Whether its training hides patches."""
        return self.settings.method == "mae"

    def loader(self) -> Any:
        """Held-out images of the attention measures."""
        return evaluation_loader(self.settings, IMAGES[self.profile])

    @cached_property
    def held(self) -> Batch:
        """The same as one batch, read once for all measures of this specimen."""
        return examples(self.settings, IMAGES[self.profile])

    @cached_property
    def searched(self) -> Tensor:
        """All held-out images, or as many as `SEARCHED` allows."""
        most = SEARCHED[self.profile]
        if most is not None:
            return examples(self.settings, most).images
        return torch.cat([batch.images for batch in evaluation_loader(self.settings).evaluation()])

    def few(self, count: int = FEW) -> Batch:
        """So many of them (all, where there are fewer), evenly spread."""
        total = len(self.held.images)
        # spread: held-out images are sorted by class, and the first so many would be of one
        rows = torch.arange(total) if total <= count else torch.linspace(0, total - 1, count).round().long()
        return self._rows(rows)

    def examples(self, count: int) -> Batch:
        """So many held-out images, evenly spread over all that the source has."""
        return examples(self.settings, count)

    def parts(self, *, small: bool = False) -> list[Batch]:
        """All of them in batches that are run at once."""
        return [self._rows(rows) for rows in self.split(torch.arange(len(self.held.images)), small=small)]

    def _rows(self, rows: Tensor) -> Batch:
        # plain indexing of what was read once: another loader would decode every picture again
        held, rows = self.held, rows.to(self.held.images.device)
        labels = None if held.labels is None else held.labels[rows]
        return Batch(held.images[rows], held.epoch[rows], held.index[rows], labels)

    def mask(self) -> Mask:
        """One mask, shared by all images, as notebook 04 draws it; an autoencoder's hides nothing."""
        if self.settings.method == "ae":
            return no_mask(1, self.settings.num_patches)
        # masks are drawn by the image's number: those of the first image stand for all
        return view_masks(self.settings, self.examples(1), 1)[0]

    def masks(self) -> tuple[Mask, Mask]:
        """Two masks, each shared by all images: the views of one image in training, but that the second is drawn again
        until some patch is hidden in both and some is visible in both (at ratio .9 half of all pairs have none)."""
        first, *drawn = view_masks(self.settings, self.examples(1), DRAWS)
        # a grid of few patches may draw the first one again: a view that is another is taken where there is one
        others = [m for m in drawn if (m.hidden != first.hidden).any()] or drawn
        meet = (m for m in others if (m.hidden & first.hidden).any() and (~m.hidden & ~first.hidden).any())
        return first, next(meet, others[0])

    def recipe(self, measure: str) -> Any:
        """What a measure trains with: the profile's, with a batch that the source can fill."""
        recipe: Any = recipe_of(measure, self.profile, trained=self.run is not None)
        return clip_batch(recipe, len(open_source(self.labelled.data).train))

    def probe(self, token: str = "mean") -> Evaluation:
        """Its linear probe of one token ("mean" or "cls") with the profile's recipe, trained where it is not yet."""
        return linear_probe(self.origin, vary(self.recipe("probe"), token=token), settings=self.labelled)
