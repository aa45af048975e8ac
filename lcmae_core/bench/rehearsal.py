"""A few steps of the real loop, watched: losses, seconds, what waited for the device, what was compiled."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lcmae_core.bench.floors import clock_of, timed
from lcmae_core.bench.waits import Waits
from lcmae_core.config import Settings
from lcmae_core.data.sources import open_source
from lcmae_core.data.splits import Source
from lcmae_core.store.accelerator import waits_said
from lcmae_core.store.machine import pick_device
from lcmae_core.training.guards import LossGuard
from lcmae_core.training.log import Window
from lcmae_core.training.loop import task_of
from lcmae_core.training.objectives import OBJECTIVES
from lcmae_core.training.steps import Steps, one_step

METHODS: dict[str, dict[str, Any]] = {
    "MAE": {},
    "LC-MAE": {"cross_view": 1.0, "in_view": 1.0},
    "AE": {"method": "ae"},
    "DINO": {"method": "dino"},
    "supervised": {"method": "supervised"},
    "Siamese": {"method": "siamese"},
}
"""Name -> leaves."""
WARM_UP = 2
"""Steps in which libraries and compilers start, which is not held against a method."""


class Rehearsed(NamedTuple):
    """losses: of every step. waits: lines that waited for the device after the warm-up, where it was watched. graphs:
    how many were compiled by the end of the warm-up, and how many in all; both 0 of an eager model."""

    losses: list[float]
    waits: list[str]
    graphs: tuple[int, int]


class Graphs:
    """A compiler that counts what it is given."""

    def __init__(self, backend: str):
        self._backend, self.count = backend, 0

    def __call__(self, module: Any, inputs: Any, **more: Any) -> Callable[..., Any]:
        """Compile one graph."""
        self.count += 1
        compiled: Callable[..., Any] = torch._dynamo.lookup_backend(self._backend)(module, inputs, **more)
        return compiled


class Prepared:
    """Model, data and task of some settings, ready for `steps` steps of pre-training on their device."""

    def __init__(self, settings: Settings, source: Source | None = None, *, steps: int, backend: str = "inductor"):
        self.device, self.steps = pick_device(settings.runtime.device), steps
        objective = OBJECTIVES[settings.method](settings, source or open_source(settings.data))
        self.model = objective.build().to(self.device)
        self.graphs = Graphs(backend)
        forward: Any = self.model
        self.compiled = settings.runtime.compile
        if self.compiled:
            torch._dynamo.reset()
            forward = torch.compile(self.model, backend=self.graphs, fullgraph=True)
        self.task: Steps = task_of(objective, self.model, forward, objective.loader(self.device).batches, steps)

    def watched(self) -> Rehearsed:
        """All steps, of which those after the warm-up are watched; losses are read at the end."""
        guard, window, losses, places = LossGuard(), Window(), [], []
        by_marks = self.device.type == "cpu" and not self.compiled  # a graph is not looked into
        early, batches = 0, self.task.batches(0, self.steps)
        for step in range(self.steps):
            if step == WARM_UP:
                early = self.graphs.count
            marks = Waits() if by_marks and step >= WARM_UP else None
            with waits_said(self.device) as reported:
                batch = next(batches)
                losses.append(self._step(marks, batch, step, guard, window))
            places += (reported if step >= WARM_UP else []) + [wait.place for wait in (marks.noted if marks else [])]
        guard.settle()
        return Rehearsed([float(loss) for loss in losses], places, (early, self.graphs.count))

    def _step(self, marks: Waits | None, batch: Any, step: int, guard: LossGuard, window: Window) -> Tensor:
        if marks is None:
            terms = one_step(self.task, batch, step, guard.check).terms
            window.add(terms)
            return terms["total"].detach()
        marks.mark_model(self.model)
        with marks:  # a CPU's guard reads the loss at once, which is no wait there: it is left out
            terms = one_step(self.task, marks.mark_batch(batch), step).terms
        return terms["total"].detach()

    def seconds(self) -> float:
        """The median of a step after the warm-up, its batch included, by the clock of the floors."""
        guard, batches, clock = LossGuard(), self.task.batches(0, self.steps), clock_of(self.device)

        def one(step: int) -> None:
            one_step(self.task, next(batches), step, guard.check)

        taken = [timed(lambda step=step: one(step), self.device, clock) for step in range(self.steps)]  # type: ignore[misc]
        guard.settle()
        return statistics.median(taken[WARM_UP:])


def furthest(losses: Sequence[float], expected: Sequence[float]) -> float:
    """The largest difference of two curves, as a share of what was expected; NaN where one of them has it."""
    gaps = [abs(a - b) / max(abs(b), 1e-12) for a, b in zip(losses, expected, strict=True)]
    return math.nan if any(map(math.isnan, gaps)) else max(gaps)
