"""What a run says while it trains: JSON lines, TensorBoard events, and a progress bar."""

import json
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lcmae_core.config import Settings
from lcmae_core.store.files import room_for, write_text
from lcmae_core.store.progress import in_notebook, progress_bar
from lcmae_core.store.runs import HISTORY, Run
from lcmae_core.training.waiting import TOO_LONG, Advice, cores


class Window:
    """Mean of every term since the last log line, gathered on the device without waiting for it."""

    def __init__(self, state: Mapping[str, Tensor] | None = None):
        self._sums, self._count = dict(state or {}), 0
        self._count = int(self._sums.pop("count", 0))

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Take in the terms of a step."""
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._count += 1

    def mean(self) -> dict[str, float]:
        """The means as plain numbers, the total first, called loss; the window starts anew."""
        means = {"loss" if name == "total" else name: float(value) / self._count for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, so that a resumed run logs what an uninterrupted one does."""
        return self._sums | {"count": torch.tensor(self._count)}


def _nothing(*_: float) -> None:
    """Of a run whose pictures are held."""


class RunLog:
    """Writes each logged step to history.jsonl, and on request to TensorBoard and a progress bar.

    Opened at `start`, it drops what an interrupted process logged after its last checkpoint: those steps come again.
    """

    def __init__(self, run: Run, settings: Settings, start: int, total: int, *, streamed: bool = False):
        kept = [entry for entry in run.history if entry["step"] <= start]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        self._path = run.path / HISTORY
        write_text(self._path, text)
        self._file = self._path.open("a", buffering=1)
        self._images, self._since, self._from = settings.optim.batch_size, time.perf_counter(), start
        self._start, self._advise = start, Advice(settings) if streamed else _nothing
        self._board = _tensorboard(run, start) if settings.runtime.tensorboard else None
        wanted = settings.runtime.progress
        title = run.words if in_notebook() else f"{run.words} ({run.name})"
        self._bar = progress_bar(title, total, "step", wanted=wanted, done=start, leave=True)

    def tick(self) -> None:
        """One step is done."""
        self._bar.update()

    def write(self, step: int, values: Mapping[str, float], waited: float = 0.0) -> None:
        """Log the values of a step (steps done so far), with the speed since the last one and the share of the time in
        which pictures were waited for."""
        now, steps = time.perf_counter(), step - self._from
        spent = now - self._since
        speed, share = steps * self._images / spent, waited / spent
        if self._from > self._start:  # before, decoding processes start
            self._advise(steps, waited, spent)
        self._since, self._from = now, step
        timings = {"images_per_s": speed, "images_per_core_s": speed / cores()}
        entry = {"step": step, **values, **{k: round(v, 1) for k, v in timings.items()}, "data_wait": round(share, 3)}
        line = json.dumps(entry) + "\n"
        with room_for(self._path, len(line)):
            self._file.write(line)
        late = f", {share:.0%} waiting for data" if share > TOO_LONG else ""
        self._bar.set_postfix_str(f"loss {values['loss']:.3f}, {speed:.0f} images/s{late}")
        if self._board is not None:
            for name, value in entry.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close everything."""
        self._file.close()
        self._bar.close()
        if self._board is not None:
            self._board.close()


class NoLog:
    """Of a rank that is not the first."""

    def tick(self) -> None:
        """One step is done."""

    def write(self, step: int, values: Mapping[str, float], waited: float = 0.0) -> None:
        """Nothing: the first rank does."""

    def close(self) -> None:
        """Nothing is open."""


def _tensorboard(run: Run, start: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.path / "tensorboard"), purge_step=start + 1)
