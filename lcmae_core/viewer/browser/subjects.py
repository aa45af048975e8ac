"""Several models before the same images and mask: two to hold side by side, or the kept steps of a run.

Letters (CONTRIBUTING.md): C channels, h x w pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from lcmae_core.config import LcmaeError
from lcmae_core.models.build import model_of
from lcmae_core.models.mae import MAE
from lcmae_core.store.runs import Run
from lcmae_core.viewer.browser.scene import Choice, Scene
from lcmae_core.viewer.browser.subject import Browsed


class Subjects:
    """Models that are asked the same: the first says which layers and heads there are to choose.

    Raises:
        LcmaeError: as `Browsed`, or a model that divides the images into another grid.
    """

    def __init__(self, first: Browsed, others: Mapping[str, MAE | VisionTransformer]):
        kept = {"names": first.names, "statistics": first.statistics, "budget_mb": first.budget_mb}
        self.all = [first]
        for title, model in others.items():
            other = Browsed(model, first.images, title=title, **kept)  # type: ignore[arg-type]
            if other.grid != first.grid:
                raise LcmaeError(
                    f"others: got {title!r} on {other.grid[0]}x{other.grid[1]} patches, expected "
                    f"{first.grid[0]}x{first.grid[1]} as {first.title}"
                )
            self.all.append(other)
        self.parts = tuple(part for part in first.parts if all(part in other.parts for other in self.all))

    def __len__(self) -> int:
        return len(self.all)

    def add(self, image: Float[Tensor, "1 C h w"], name: str) -> None:
        """One more image, the same for every model."""
        images = torch.cat([self.all[0].images, image.to(self.all[0].images)])
        for model in self.all:
            model.replace_images(images, (*model.names, name))

    def scenes(self, choice: Choice, measured: bool = False) -> list[Scene]:
        """The same image, part and mask in every model. Layers and heads that a model lacks are left out of it; where
        none is left, all of its own are shown. measured: with S_attn of every head.

        Raises:
            LcmaeError: as `Browsed.scene`.
        """
        scenes = [self.all[0].scene(choice)]
        for other in self.all[1:]:
            scenes.append(other.scene(_within(choice, *other.size(choice.part))))
        return self.with_similarities(scenes, choice) if measured else scenes

    def with_similarities(self, scenes: Sequence[Scene], choice: Choice) -> list[Scene]:
        """The scenes of a choice with S_attn of every head.

        Raises:
            LcmaeError: there is one image.
        """
        choices = [choice, *(_within(choice, *other.size(choice.part)) for other in self.all[1:])]
        return [replace(scene, alike=model.similarities(own)) for scene, model, own in zip(scenes, self.all, choices)]


def _within(choice: Choice, layers: int, heads: int) -> Choice:
    """What of the chosen layers and heads a model has that has so many."""

    def own(chosen: Sequence[int] | None, count: int) -> tuple[int, ...] | None:
        return None if chosen is None else tuple(i for i in chosen if i < count) or None

    return replace(choice, layers=own(choice.layers, layers), heads=own(choice.heads, heads))


def kept_steps(run: Run) -> dict[str, MAE]:
    """Title -> model for every step of a run whose weights are kept, untrained first.

    Raises:
        LcmaeError: the run keeps no step, or its model is not an MAE.
    """
    steps = sorted(set(run.snapshots))
    if not steps:
        raise LcmaeError(f"run: got {run.path.name}, which keeps no weights yet, expected a run that was trained")
    models = {f"step {step}" if step else "untrained": model_of(run, step) for step in steps}
    wrong = [type(model).__name__ for model in models.values() if not isinstance(model, MAE)]
    if wrong:
        raise LcmaeError(f"run: got {run.path.name} with a {wrong[0]}, expected the run of an MAE")
    return {title: model for title, model in models.items() if isinstance(model, MAE)}
