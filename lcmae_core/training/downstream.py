"""What the linear probe and fine-tuning share: where an encoder comes from, what is refused, the rate, what is kept.

Letters (CONTRIBUTING.md): B images.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from timm.scheduler import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, Settings, replace
from lcmae_core.config.downstream import AnyRecipe, Recipe
from lcmae_core.data.cache import cache_of
from lcmae_core.data.loader import Batch, Loader
from lcmae_core.data.sources import open_source, source_identity
from lcmae_core.data.splits import Source
from lcmae_core.models.build import build_model, model_of
from lcmae_core.models.encoder import Encoder
from lcmae_core.store.evaluations import (
    PREDICTIONS,
    Evaluation,
    Predictions,
    evaluation_folder,
    open_evaluation,
    save_predictions,
)
from lcmae_core.store.machine import pick_device, provenance
from lcmae_core.store.runs import RESULTS, Run, refuse_untrained
from lcmae_core.training.distributed import my_part, opened_by_all, parts_of_all, share_of
from lcmae_core.training.held_out import evaluation_loader, known_labels
from lcmae_core.training.labels import count_classes, labelled_part
from lcmae_core.training.steps import Steps, run_steps


class Origin(NamedTuple):
    """An encoder to evaluate: a name that counts in the digest, how to get it, and the settings it was made with."""

    name: str
    load: Callable[[], Encoder]
    settings: Settings

    @classmethod
    def of_run(cls, run: Run, step: int | None = None) -> "Origin":
        """The encoder of a pre-training run (of DINO the teacher's) at a kept step, by default the last."""
        name = run.name if step is None else f"{run.name}-at{step}"
        return cls(name, lambda: model_of(run, step).encoder, run.settings)

    @classmethod
    def untrained(cls, settings: Settings) -> "Origin":
        """The encoder as pre-training with these settings would begin: random weights from the seed alone."""
        plain = replace(settings, method="mae")
        return cls(f"untrained{settings.seed}", lambda: build_model(plain).encoder, settings)

    @classmethod
    def of_model(cls, encoder: Encoder, settings: Settings) -> "Origin":
        """An encoder from elsewhere (`load_mae(path).encoder`), named by its weights; `settings` say data and seed."""
        hashed = sha256(b"".join(value.cpu().numpy().tobytes() for value in encoder.state_dict().values()))
        first: Any = encoder.blocks[0]
        return cls(f"weights-{hashed.hexdigest()[:10]}-h{first.attn.num_heads}", lambda: encoder, settings)


class Training(NamedTuple):
    """steps: what is trained, and how. predict: what the trained model makes of the held-out images."""

    steps: Steps
    predict: Callable[[nn.Module], Predictions]


@dataclass
class Examined:
    """What an evaluation works on; encoder and held-out images are opened when they are first asked for."""

    origin: Origin
    settings: Settings
    source: Source
    classes: int

    @cached_property
    def encoder(self) -> Encoder:
        """On the device, in evaluation mode."""
        encoder = check_encoder(self.origin.load(), self.settings)
        return encoder.to(pick_device(self.settings.runtime.device)).eval()

    @cached_property
    def held_out(self) -> Loader:
        """The images that are judged."""
        return evaluation_loader(self.settings, source=self.source)


class EvaluationResult(NamedTuple):
    """What an evaluation leaves: weights of the classifier, what it says, how long it took, and what else is noted."""

    weights: dict[str, Tensor]
    predictions: Predictions
    steps: int
    seconds: float
    noted: Mapping[str, Any] = MappingProxyType({})


Outcome = EvaluationResult
"""Its former name."""


def evaluate(
    origin: Origin, recipe: Recipe, settings: Settings, prepare: Callable[[Examined], Training], *, resume: bool = True
) -> Evaluation:
    """Train step by step and predict, `once`; an interrupted training goes on.

    Raises:
        LcmaeError: labels are missing or of one class, a batch larger than the split, an encoder of another shape.
        NonFiniteLossError: the loss became NaN or infinite.
        Stopped: SIGINT, SIGTERM or SIGUSR2 asked for a stop; a checkpoint was written.
    """

    def work(evaluation: Evaluation, subject: Examined) -> EvaluationResult:
        (steps, predict), total = prepare(subject), recipe.total(len(subject.source.train))
        shown = replace(evaluation.settings, batch_size=recipe.batch_size, accum_steps=1)  # for images/s
        seconds = run_steps(evaluation, shown, steps, total, time.perf_counter())
        return EvaluationResult(steps.trained.state_dict(), predict(steps.trained.eval()), total, seconds)

    return once(origin, recipe, settings, work, resume=resume)


def once(
    origin: Origin,
    recipe: AnyRecipe,
    settings: Settings,
    work: Callable[[Evaluation, Examined], EvaluationResult],
    *,
    resume: bool = True,
) -> Evaluation:
    """Do the work of an evaluation and keep what it leaves; one that was finished before is returned as it is. Started
    by torchrun, all ranks do it together (`distributed`).

    Raises:
        LcmaeError: labels are missing or of one class, a batch larger than the split, an encoder of another shape.
        NotTrainedError: it was not done yet, and `settings.runtime.train` is false.
    """
    identity = source_identity(settings.data.source)
    known = evaluation_folder(settings, recipe, origin.name, identity)
    refuse_untrained([] if (known / RESULTS).exists() else [known.name], settings)

    def opening() -> Evaluation:
        return open_evaluation(settings, recipe, origin.name, identity)

    with opened_by_all(opening, settings.runtime.device, resume=resume) as (evaluation, group):
        if not evaluation.done:
            source = labelled_part(open_source(settings.data), recipe, settings.seed)
            subject = Examined(origin, settings, source, count_classes(settings, source, recipe))
            outcome = work(evaluation, subject)
            if group.first:
                _conclude(evaluation, subject, outcome)
    return evaluation


def _conclude(evaluation: Evaluation, subject: Examined, outcome: EvaluationResult) -> None:
    predictions = outcome.predictions
    save_predictions(evaluation.path / PREDICTIONS, predictions)
    results = {"steps": outcome.steps, "seconds": outcome.seconds, "classes": subject.classes} | dict(outcome.noted)
    judged = {
        "accuracy": float(predictions.right.mean()),
        "images": len(predictions.label),
        "origin": evaluation.origin,
    }
    where = provenance(pick_device(evaluation.settings.runtime.device)) | {"skipped": subject.source.skipped}
    evaluation.finish(outcome.weights, results | judged | where)


def check_encoder(encoder: Encoder, settings: Settings) -> Encoder:
    """The encoder itself.

    Raises:
        LcmaeError: its patches, its images or their channels are not those of the settings.
    """
    data, patch = settings.data, settings.model.patch_size
    if encoder.patch != patch:
        raise LcmaeError(f"patch_size: got {patch}, expected {encoder.patch}, that of the checkpoint")
    if encoder.image_size != data.image_size:
        raise LcmaeError(f"image_size: got {data.image_size}, expected {encoder.image_size}, that of the checkpoint")
    if encoder.in_chans != data.channels:
        raise LcmaeError(f"channels: got {data.channels}, expected {encoder.in_chans}, those of the checkpoint")
    return encoder


def crop_loader(settings: Settings, recipe: Recipe, source: Source) -> Loader:
    """Random crops of the training images, cut and mirrored as the recipe says, on the device."""
    crops = {"crop_scale": recipe.crop_scale, "crop_ratio": recipe.crop_ratio, "flip": recipe.flip}
    runtime = settings.runtime
    return Loader(
        source.train, settings.data.model_copy(update=crops), seed=settings.seed, batch_size=recipe.batch_size,
        device=pick_device(runtime.device), device_cache_gb=runtime.device_cache_gb, workers=runtime.workers,
        progress=runtime.progress, cache=cache_of(runtime), share=share_of(recipe.batch_size),
    )  # fmt: skip


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, total: int) -> Scheduler:
    """timm's: a linear warm-up from 0, then half a cosine to `min_lr`, both per step; groups keep their `lr_scale`."""
    warmup = round(recipe.warmup * total)
    return CosineLRScheduler(
        optimizer, t_initial=max(1, total - warmup), lr_min=recipe.min_lr, warmup_t=warmup, warmup_prefix=True,
        t_in_epochs=False,
    )  # fmt: skip


def rates_of(optimizer: torch.optim.Optimizer, recipe: Recipe, source: Source) -> Callable[[int], float]:
    """Sets the rate of a step in an optimiser, by `schedule`, and returns the first group's. Made before a checkpoint's
    rates come in, which are not the peak."""
    rates = schedule(optimizer, recipe, recipe.total(len(source.train)))

    def rate(step: int) -> float:
        rates.step_update(step)
        return rates._get_lr(step)[0]

    return rate


def predictions_of(scores: Float[Tensor, "B classes"], labels: Int64[Tensor, "B"]) -> Predictions:
    """The class with the highest score of each image, and its share in the softmax."""
    best = scores.float().softmax(dim=1).max(dim=1)
    return Predictions(*(part.cpu().numpy() for part in (labels, best.indices, best.values)))


@torch.no_grad()
def predict(scores: Callable[[Batch], Float[Tensor, "B classes"]], loader: Loader) -> Predictions:
    """What a classifier says of whole images (central view), in their order; each of several ranks sees its part."""
    mine = loader.evaluation(share=my_part())
    parts = [predictions_of(scores(batch), known_labels(batch.labels)) for batch in mine]
    return Predictions(*(np.concatenate(part) for part in zip(*parts_of_all(parts))))
