"""Several models before the same images and mask: two to hold side by side, or the kept steps of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from timm.models.vision_transformer import VisionTransformer

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

    def scenes(self, choice: Choice) -> list[Scene]:
        """The same image, part and mask in every model. Layers and heads that a model lacks are left out of it; where
        none is left, all of its own are shown.

        Raises:
            LcmaeError: as `Browsed.scene`.
        """
        found = [self.all[0].scene(choice)]
        for other in self.all[1:]:
            layers, heads = other.size(choice.part)
            own = {"layers": _within(choice.layers, layers), "heads": _within(choice.heads, heads)}
            found.append(other.scene(replace(choice, **own)))  # type: ignore[arg-type]
        return found


def _within(chosen: Sequence[int] | None, count: int) -> tuple[int, ...] | None:
    return None if chosen is None else tuple(i for i in chosen if i < count) or None


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
