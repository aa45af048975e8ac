"""What the linear probe and fine-tuning share: where an encoder comes from, what is refused, and the loop.

Letters: B images, K classes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from timm.scheduler import CosineLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, Settings, replace
from lcmae_core.config.downstream import Recipe
from lcmae_core.data.cache import cache_of
from lcmae_core.data.loader import Batch, Loader
from lcmae_core.data.sources import open_source, source_identity
from lcmae_core.data.splits import Source
from lcmae_core.models.build import build_model, model_of
from lcmae_core.models.encoder import Encoder
from lcmae_core.models.reference import class_count
from lcmae_core.store.checkpoint import load_checkpoint, save_checkpoint
from lcmae_core.store.evaluations import PREDICTIONS, Evaluation, Predictions, open_evaluation, save_predictions
from lcmae_core.store.machine import pick_device, provenance
from lcmae_core.store.runs import Run
from lcmae_core.training.evaluate import evaluation_loader
from lcmae_core.training.log import RunLog, Window
from lcmae_core.training.loop import Restored
from lcmae_core.training.methods import Terms
from lcmae_core.training.watch import LossGuard, Stopped, refuse_broken, stop_requests


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


@dataclass
class Task:
    """What the loop trains. `backward` leaves the gradients of a step and returns its terms, the total among them."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Callable[[int, int], Iterator[Batch]]
    backward: Callable[[Batch, int], Terms]
    average: ModelEmaV3 | None = None
    clip_grad: float | None = None

    @property
    def judged(self) -> nn.Module:
        """The model whose predictions count: the averaged one, if there is one."""
        return self.model if self.average is None else self.average.module


Prepare = Callable[[Encoder, Source, int], Task]
"""From the encoder, the data and the number of classes to the task."""


def evaluate(
    origin: Origin,
    recipe: Recipe,
    settings: Settings,
    prepare: Prepare,
    held_out: Callable[[Task, Encoder, Loader], Predictions],
    *,
    resume: bool = True,
) -> Evaluation:
    """Train and judge once; an evaluation that was finished before is returned as it is, an interrupted one goes on.

    Raises:
        LcmaeError: labels are missing or of one class, a batch larger than the split, an encoder of another shape.
        NonFiniteLossError: the loss became NaN or infinite.
        Stopped: SIGTERM or SIGUSR2 asked for a stop; a checkpoint was written.
    """
    identity = source_identity(settings.data.source)
    evaluation = open_evaluation(settings, recipe, origin.name, identity)
    with evaluation.lock():
        if not resume:
            evaluation.clear()
            evaluation = open_evaluation(settings, recipe, origin.name, identity)
        if not evaluation.done:
            source = open_source(settings.data)
            classes = count_classes(settings, source, recipe)
            encoder = fitting(origin.load(), settings).to(pick_device(settings.runtime.device)).eval()
            validation = evaluation_loader(settings, source=source)  # a broken file shows before training, not after
            task = prepare(encoder, source, classes)
            total = recipe.total(len(source.train))
            seconds = fit(evaluation, task, total)
            _conclude(evaluation, task, held_out(task, encoder, validation), classes, total, seconds, source)
    return evaluation


def _conclude(
    evaluation: Evaluation, task: Task, said: Predictions, classes: int, total: int, seconds: float, source: Source
) -> None:
    save_predictions(evaluation.path / PREDICTIONS, said)
    results = {"steps": total, "seconds": seconds, "skipped": source.skipped, "classes": classes}
    judged = {"accuracy": float(said.right.mean()), "images": len(said.label), "origin": evaluation.origin}
    where = provenance(pick_device(evaluation.settings.runtime.device))
    evaluation.finish(task.judged.state_dict(), results | judged | where)


def count_classes(settings: Settings, source: Source, recipe: Recipe) -> int:
    """Classes of a source that can be trained on and judged.

    Raises:
        LcmaeError: labels are missing, all images are of one class, there are fewer of them than a batch, or none is
            held out.
    """
    classes, name = several_classes(settings, source), settings.data.source
    if len(source.train) < recipe.batch_size:
        count = len(source.train)
        raise LcmaeError(f"batch_size: got {recipe.batch_size} for {count} training images, expected at most {count}")
    if not len(source.validation):
        raise LcmaeError(f"data: got no validation image in {name!r}, expected at least one held out")
    if source.validation.labels is None or (source.validation.labels < 0).any():
        raise LcmaeError(f"labels: got validation images without one in {name!r}, expected a label for every image")
    return classes


def several_classes(settings: Settings, source: Source) -> int:
    """Classes of a source whose images are of more than one.

    Raises:
        LcmaeError: labels are missing, or all images are of one class.
    """
    classes = class_count(settings, source)
    assert source.train.labels is not None and source.classes is not None  # noqa: PT018
    found = np.unique(source.train.labels)
    if len(found) < 2:
        only, name = source.classes[int(found[0])], settings.data.source
        raise LcmaeError(f"labels: got one class ({only!r}) in {name!r}, expected at least two")
    return classes


def fitting(encoder: Encoder, settings: Settings) -> Encoder:
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
        device=pick_device(runtime.device), hold_gb=runtime.hold_gb, workers=runtime.workers,
        cache=cache_of(runtime),
    )  # fmt: skip


def schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, total: int) -> Scheduler:
    """timm's: a linear warm-up from 0, then half a cosine to `min_lr`, both per step; groups keep their `lr_scale`."""
    warmup = round(recipe.warmup * total)
    return CosineLRScheduler(
        optimizer, t_initial=max(1, total - warmup), lr_min=recipe.min_lr, warmup_t=warmup, warmup_prefix=True,
        t_in_epochs=False,
    )  # fmt: skip


def fit(evaluation: Evaluation, task: Task, total: int) -> float:
    """Train to the end, from the last checkpoint if there is one; returns the seconds spent in all.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
        Stopped: SIGTERM or SIGUSR2 asked for a stop; a checkpoint was written.
    """
    began, runtime, recipe = time.perf_counter(), evaluation.settings.runtime, evaluation.recipe
    rates = schedule(task.optimizer, recipe, total)  # before a checkpoint's rates come in, which are not the peak
    start, spent, window = _restore(evaluation, task)
    guard = LossGuard(pick_device(runtime.device))

    def save(step: int) -> None:
        guard.settle()
        refuse_broken(step, task.model)
        rest = {"optimizer": task.optimizer.state_dict(), "window": window.state, "seconds": seconds()}
        average = {} if task.average is None else {"average": task.average.module.state_dict()}
        save_checkpoint(evaluation.path / "checkpoints", step, task.model.state_dict(), rest | average)

    def seconds() -> float:
        return spent + time.perf_counter() - began

    shown = replace(evaluation.settings, batch_size=recipe.batch_size, accumulate=1)  # for images/s
    log_of = closing(RunLog(evaluation, shown, start, total))
    with stop_requests() as stop, log_of as log, closing(task.batches(start, total)) as batches:  # type: ignore[type-var]
        for step, batch in enumerate(batches, start):
            rates.step_update(step)
            terms = task.backward(batch, step)
            guard.check(step, batch, terms["total"])
            if task.clip_grad is not None:
                torch.nn.utils.clip_grad_norm_(task.model.parameters(), task.clip_grad)
            task.optimizer.step()
            task.optimizer.zero_grad(set_to_none=True)
            if task.average is not None:
                task.average.update(task.model)
            done = step + 1
            log.tick()
            window.add(terms)
            if done % runtime.log_every == 0 or done == total:
                log.write(done, window.mean() | {"lr": rates._get_lr(step)[0]})
            if done % runtime.checkpoint_every == 0 or done == total or stop.is_set():
                save(done)
            if stop.is_set() and done < total:
                raise Stopped(f"stopped at step {done} of {total} after a checkpoint; the same command resumes")
    return seconds()


def _restore(evaluation: Evaluation, task: Task) -> Restored:
    found = load_checkpoint(evaluation.path / "checkpoints")
    if found is None:
        return Restored(0, 0.0, Window())
    weights, rest = found
    task.model.load_state_dict(weights)
    task.optimizer.load_state_dict(rest["optimizer"])
    if task.average is not None:
        task.average.module.load_state_dict(rest["average"])
    return Restored(rest["step"], rest["seconds"], Window(rest["window"]))


@torch.no_grad()
def judge(scores: Callable[[Batch], Float[Tensor, "B K"]], loader: Loader) -> Predictions:
    """What a classifier says of whole images (central view), in their order."""
    label, predicted, confidence = [], [], []
    for batch in loader.evaluation():
        assert batch.labels is not None
        best = scores(batch).float().softmax(dim=1).max(dim=1)
        label.append(batch.labels.cpu())
        predicted.append(best.indices.cpu())
        confidence.append(best.values.cpu())
    return Predictions(*(torch.cat(part).numpy() for part in (label, predicted, confidence)))
