"""The one loop: steps of a task from its last checkpoint to the end, whatever is trained.

Pre-training (`loop`), fine-tuning and probes (`downstream`) and the MAEs of C19 (`latents`) are tasks of it.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from lcmae_core.config import Settings
from lcmae_core.store.checkpoint import WEIGHTS, Shards, load_rest, load_tensors, newest, save_checkpoint, save_shared
from lcmae_core.store.runs import Run
from lcmae_core.store.stopping import Stopped, stop_requests
from lcmae_core.training.distributed import agree, ranks, wait_for_all
from lcmae_core.training.guards import LossGuard, refuse_broken
from lcmae_core.training.log import NoLog, RunLog, Window
from lcmae_core.training.micro_batches import StepDroppedError
from lcmae_core.training.sharding import bytes_of_shards, load_shards, load_whole, save_shards, sharded, whole
from lcmae_core.training.waiting import Waiting

Terms = Mapping[str, Tensor]
"""Of a step: `total` is minimised, the rest is logged."""


def _nothing(*_: Any) -> None:
    """For what a task does not do."""


def _no_values(*_: Any) -> dict[str, float]:
    """For a task that logs nothing of its own."""
    return {}


@dataclass
class Steps:
    """What there is to train and how: the loop (`run_steps`) calls these, in this order, at every step.

    batches(start, end): the batches of steps start to end - 1. rate(step): sets that step's learning rate and returns
    it. backward(batch, step): leaves the gradients in the weights and returns the loss's terms. after_step(step): what
    follows the optimiser, such as the update of a teacher; `average`, a moving average of the weights, is updated and
    saved with it. logged(steps done, last batch): values to log beside the loss's terms. snapshots: steps after which
    the weights are kept. streamed: whether pictures are decoded while it trains, instead of held from the start.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Callable[[int, int], Iterator[Any]]
    rate: Callable[[int], float]
    backward: Callable[[Any, int], Terms]
    clip_grad: float | None = None
    after_step: Callable[[int], None] = _nothing
    average: ModelEmaV3 | None = None
    logged: Callable[[int, Any], dict[str, float]] = _no_values
    snapshots: Collection[int] = ()
    streamed: bool = False

    @property
    def trained(self) -> nn.Module:
        """The model that counts at the end: the averaged one, if there is one."""
        return self.model if self.average is None else self.average.module


class Restored(NamedTuple):
    """Where training goes on: steps done, seconds spent, and the means for the next log line, which were begun."""

    step: int
    seconds: float
    window: Window


class Stepped(NamedTuple):
    """What a step was made with, and its terms."""

    rate: float
    terms: Terms


def one_step(
    task: Steps, batch: Any, step: int, check: Callable[[int, Any, Tensor, float], None] = _nothing
) -> Stepped:
    """A step of the optimiser; `check` looks at the loss before anything is changed by it."""
    rate, terms = task.rate(step), task.backward(batch, step)
    check(step, batch, terms["total"], rate)
    if task.clip_grad is not None:
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), task.clip_grad)
    task.optimizer.step()
    task.optimizer.zero_grad(set_to_none=True)  # here, so that no gradients lie in memory during the next forward pass
    task.after_step(step)
    if task.average is not None:
        task.average.update(task.model)
    return Stepped(rate, terms)


def run_steps(run: Run, settings: Settings, task: Steps, total: int, began: float) -> float:
    """Train to the end, from the last checkpoint if there is one. `settings` say how often is logged and saved.

    Returns the seconds of training in all: those that the checkpoint says were spent before, and those since `began`.

    Raises:
        NonFiniteLossError: the loss or a weight became NaN or infinite.
        RunLostError: the run's folder was removed on the way.
        Stopped: SIGINT, SIGTERM or SIGUSR2 asked for a stop; a checkpoint was written.
    """
    runtime, guard = settings.runtime, LossGuard()
    start, spent, window = _restore(run, task)

    def check_finite(step: int) -> None:
        guard.settle()
        refuse_broken(step, task.model)

    def save(step: int) -> None:
        check_finite(step)  # from a checkpoint that holds a NaN every later attempt would go on
        if ranks().first:
            run.refuse_lost()
        if sharded(task.model) or ranks().first:  # spread weights: each has a share to write
            # with the means that were begun, so that the next line of the log is that of a run that never stopped
            _save(run, task, step, {"window": window.state, "seconds": seconds()})

    def keep(step: int) -> None:
        weights = whole(task.model.state_dict())  # by all ranks
        if ranks().first:
            run.keep_snapshot(step, weights)

    def seconds() -> float:
        return spent + time.perf_counter() - began

    if start == 0 and 0 in task.snapshots:
        keep(0)
    log_of = closing(RunLog(run, settings, start, total, streamed=task.streamed) if ranks().first else NoLog())
    # closed also after an error, for worker processes read ahead
    with stop_requests() as stop, log_of as log, closing(Waiting(task.batches(start, total))) as batches:
        for step, batch in enumerate(batches, start):
            try:
                stepped, done = one_step(task, batch, step, guard.check), step + 1
            except StepDroppedError:
                save(step)
                raise Stopped(f"stopped at step {step} of {total} after a checkpoint", stop) from None
            window.add(stepped.terms)
            log.tick()
            if (done % runtime.log_every == 0 or done == total) and ranks().first:
                run.refuse_lost()
                values = window.mean() | {"lr": stepped.rate} | task.logged(done, batch)
                log.write(done, values, batches.take())
            if done in task.snapshots:
                check_finite(done)
                keep(done)
            stopping = agree(stop)  # all ranks or none: one that stopped alone would leave the others waiting for it
            if done % runtime.checkpoint_every == 0 or done == total or stopping:
                save(done)
            if stopping and done < total:  # after the last step there is nothing to stop: the run ends as any other
                raise Stopped(f"stopped at step {done} of {total} after a checkpoint", stop)
    return seconds()


def run_unsaved(task: Steps, total: int) -> list[float]:
    """The same steps from the first to the last in one go, of a training so short that nothing of it is kept or
    logged; the loss of each."""
    return [one_step(task, batch, step).terms["total"].item() for step, batch in enumerate(task.batches(0, total))]


def _save(run: Run, task: Steps, step: int, rest: dict[str, Any]) -> None:
    """A checkpoint: by all ranks where the model is spread over them, else by this one alone."""
    folder, model, optimizer = run.path / "checkpoints", task.model, task.optimizer
    if sharded(model):
        size = bytes_of_shards(model, optimizer)
        shards = Shards(lambda place: save_shards(place, model, optimizer), size, ranks().first, wait_for_all)
        return save_shared(folder, step, rest | {"groups": optimizer.state_dict()["param_groups"]}, shards)
    average = {} if task.average is None else {"average": task.average.module.state_dict()}
    return save_checkpoint(folder, step, model.state_dict(), {"optimizer": optimizer.state_dict(), **rest, **average})


def _restore(run: Run, task: Steps) -> Restored:
    """Load the newest whole checkpoint, if there is one, whatever ranks wrote it."""
    folder = newest(run.path / "checkpoints")
    if folder is None:
        return Restored(0, 0.0, Window())
    rest = load_rest(folder)
    if (folder / WEIGHTS).exists():
        load_whole(task.model, load_tensors(folder / WEIGHTS), task.optimizer, rest["optimizer"])
    else:
        load_shards(folder, task.model, task.optimizer, rest["groups"])
    if task.average is not None:
        task.average.module.load_state_dict(rest["average"])
    return Restored(rest["step"], rest["seconds"], Window(rest["window"]))
