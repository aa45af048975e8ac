"""What a measure of a study is taken of: a finished run or an untrained encoder, with the images to look at."""

from dataclasses import dataclass
from typing import Any

from lcmae_core.config import Settings, replace
from lcmae_core.config.downstream import vary
from lcmae_core.data.sources import open_source
from lcmae_core.models.build import build_model, model_of
from lcmae_core.models.masking import Mask
from lcmae_core.store.evaluations import Evaluation
from lcmae_core.store.runs import Run
from lcmae_core.training.downstream import Origin
from lcmae_core.training.evaluate import evaluation_loader, examples
from lcmae_core.training.objective import view_masks
from lcmae_core.training.presets import fitted, recipe_of
from lcmae_core.training.probe import linear_probe

IMAGES = {"smoke": 16, "quick": 64, "lab": 128, "paper": 256}
"""Held-out images of the attention measures, at most."""


@dataclass(frozen=True)
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

    def model(self, step: int | None = None) -> Any:
        """The whole model at a kept step, by default the last, on the CPU."""
        return build_model(self.settings).eval() if self.run is None else model_of(self.run, step)

    def loader(self) -> Any:
        """Held-out images of the attention measures."""
        return evaluation_loader(self.settings, IMAGES[self.profile])

    def mask(self) -> Mask:
        """One mask, shared by all images, as notebook 04 draws it."""
        return view_masks(self.settings, examples(self.settings, 1), 1)[0]

    def recipe(self, measure: str) -> Any:
        """What a measure trains with: the profile's, with a batch that the source can fill."""
        recipe: Any = recipe_of(measure, self.profile, trained=self.run is not None)
        return fitted(recipe, len(open_source(self.labelled.data).train))

    def probe(self, token: str = "mean") -> Evaluation:
        """Its linear probe of one token ("mean" or "cls") with the profile's recipe, trained where it is not yet."""
        return linear_probe(self.origin, vary(self.recipe("probe"), token=token), settings=self.labelled)
