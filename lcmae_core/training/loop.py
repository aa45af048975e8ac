"""Pre-training, in the order in which it happens."""

import math
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import torch

from lcmae_core.config import Settings
from lcmae_core.data.loader import Batch
from lcmae_core.data.sources import open_source, source_identity
from lcmae_core.models.build import AnyModel
from lcmae_core.store.machine import leave_room, pick_device, provenance
from lcmae_core.store.runs import RESULTS, Run, open_run, refuse_untrained, run_folder
from lcmae_core.training.distributed import (
    gradients_later,
    mean_terms_over_ranks,
    opened_by_all,
    ranks,
    spread,
)  # fmt: skip
from lcmae_core.training.guards import refuse_too_large
from lcmae_core.training.held_out import evaluation_loader
from lcmae_core.training.micro_batches import micro_batches
from lcmae_core.training.objectives import OBJECTIVES, Objective, mean_terms
from lcmae_core.training.optim import build_optimizer, scheduled
from lcmae_core.training.sharding import whole
from lcmae_core.training.steps import Steps, Terms, run_steps


class Moment(NamedTuple):
    """What a callback sees at a logged step: steps done, the model as it stands, the batch just used."""

    step: int
    model: AnyModel
    batch: Batch


Callback = Callable[[Moment], Mapping[str, float] | None]
"""Measures something on the way; what it returns is logged with the step. It must not change the model."""


def pretrain(
    settings: Settings, *, resume: bool = True, callbacks: Iterable[Callback] = (), patience: float = -1
) -> Run:
    """Train these settings, or return the run at once if it was trained before.

    An interrupted run goes on from its last checkpoint, bit-equal on a CPU; `resume=False` starts it afresh. A run that
    another process is training is waited for, `patience` seconds, below 0 as long as it takes. Started by torchrun, the
    processes train it together (`distributed`); they go on from its checkpoint even if another number of processes
    wrote it.

    Raises:
        LcmaeError: data, settings or folder are not usable, or another process still trains the run.
        NotTrainedError: it is not trained yet, and `settings.runtime.train` is false.
        NonFiniteLossError: the loss became NaN or infinite.
        RunLostError: the run's folder was removed on the way.
        Stopped: SIGINT, SIGTERM or SIGUSR2 asked for a stop; a checkpoint was written.
    """
    identity = source_identity(settings.data.source)
    refuse_untrained(_untrained([settings]), settings)
    refuse_too_large(settings, pick_device(settings.runtime.device))
    opening, device = (lambda: open_run(settings, identity)), settings.runtime.device
    with opened_by_all(opening, device, resume=resume, patience=patience) as (run, _):
        if not run.done:
            train_run(run, settings, tuple(callbacks))
    return run


Name = TypeVar("Name", bound=Hashable)


def pretrain_all(rows: Mapping[Name, Settings]) -> dict[Name, Run]:
    """`pretrain` of several settings by name, one after the other.

    Raises:
        NotTrainedError: naming all that are not trained yet, where `settings.runtime.train` is false.
    """
    for settings in rows.values():
        refuse_untrained(_untrained(rows.values()), settings)
    return {name: pretrain(settings) for name, settings in rows.items()}


def _untrained(settings: Iterable[Settings]) -> list[str]:
    """Names of the runs that are not finished."""
    folders = [run_folder(s, source_identity(s.data.source)) for s in settings]
    return list(dict.fromkeys(folder.name for folder in folders if not (folder / RESULTS).exists()))


def train_run(run: Run, settings: Settings, callbacks: tuple[Callback, ...]) -> None:
    """Train a run from its newest checkpoint, or from its first weights, to its last step."""
    leave_room()
    began, runtime, optim = time.perf_counter(), settings.runtime, settings.optim
    device = pick_device(runtime.device)
    source = open_source(settings.data)
    objective = OBJECTIVES[settings.method](settings, source)
    loader = objective.loader(device)
    # a broken file shows before training, not after
    # at most 1024 images, spread evenly over the split: a cost that does not grow with the data
    validation = evaluation_loader(settings, 1024, source=source, crops=objective.crops)
    total = optim.steps or math.ceil((optim.epochs or 0) * loader.size / optim.batch_size)

    model = objective.build().to(device)
    forward: Any = spread(model, settings)  # before the optimiser, whose state is sharded as the weights are
    forward = torch.compile(forward) if runtime.compile else forward
    task = task_of(objective, model, forward, loader.batches, total, callbacks)
    task.streamed = not loader.held
    seconds = run_steps(run, settings, task, total, began)
    results = {"steps": total, "seconds": seconds, "skipped": source.skipped, "ranks": ranks().of}
    measured = objective.held_out(model, validation)  # by all ranks, in turn
    weights = whole(model.state_dict())  # by all ranks
    if not ranks().first:
        return
    run.finish(weights, results | {"held_out": measured} | provenance(device))


def task_of(
    objective: Objective,
    model: AnyModel,
    forward: Any,
    batches: Callable[[int, int], Iterator[Batch]],
    total: int,
    callbacks: tuple[Callback, ...] = (),
) -> Steps:
    """What the loop does of a pre-training of `total` steps; `forward` is the model, perhaps spread over ranks or
    compiled."""
    settings = objective.settings
    optimizer = build_optimizer(model, settings.optim)
    return Steps(
        model, optimizer, batches, scheduled(optimizer, total, settings.optim),
        backward=lambda batch, step: backward_pass(objective, model, forward, batch, step / total),
        clip_grad=settings.optim.clip_grad,
        after_step=lambda step: objective.after_step(model, step / total),
        logged=lambda done, batch: _measure(callbacks, Moment(done, model, batch)),
        snapshots=snapshot_steps(total, settings.runtime.snapshots),
    )  # fmt: skip


def backward_pass(objective: Objective, model: AnyModel, forward: Any, batch: Batch, progress: float) -> Terms:
    """Gradients of one step, in micro-batches; returns the terms averaged over them, and over ranks."""
    parts = objective.settings.optim.accum_steps
    measured: list[Terms] = []
    for chunk in micro_batches(batch.chunks(parts), model):
        with gradients_later(forward, len(measured) < parts - 1):
            terms = objective.terms(model, forward, chunk, progress)
            (terms["total"] / parts).backward()
        measured.append(terms)
    objective.after_backward(model, progress)
    return mean_terms_over_ranks(mean_terms(measured))


def snapshot_steps(total: int, count: int) -> set[int]:
    """Up to `count` steps from 0 (the initialisation) on, evenly spread on a logarithmic scale, all before `total`."""
    if count == 0:
        return set()
    spread = torch.logspace(0, math.log10(total), max(count - 1, 1), dtype=torch.float64).round().int().tolist()
    return {0, *spread} - {total}


def _measure(callbacks: tuple[Callback, ...], moment: Moment) -> dict[str, float]:
    with torch.no_grad():
        measured = [callback(moment) or {} for callback in callbacks]
    return {name: float(value) for values in measured for name, value in values.items()}
