"""How long a training waits for its pictures, and what helps when it is long."""

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from lcmae_core.config import Settings
from lcmae_core.store.cores import usable_cores
from lcmae_core.training.distributed import ranks

TOO_LONG = 0.05
"""Share of a step from which advice is given."""
PATIENCE = 20
"""Steps after which it is given, so that one slow batch says nothing."""


class Waiting:
    """An iterator that remembers how long its user waited for what came next."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches, self._seconds = batches, 0.0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        begun = time.perf_counter()
        try:
            return next(self._batches)
        finally:
            self._seconds += time.perf_counter() - begun

    def take(self) -> float:
        """Seconds since the last time it was asked."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def close(self) -> None:
        """Nothing more is wanted."""
        if hasattr(self._batches, "close"):
            self._batches.close()


def cores() -> int:
    """Processor cores of all machines that train together."""
    here = usable_cores()
    return here * max(1, ranks().of // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class Advice:
    """Says in one line what helps, once, when a training has waited too long over `PATIENCE` steps."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._advised = settings, False
        self._steps, self._waited, self._spent = 0, 0.0, 0.0

    def __call__(self, steps: int, waited: float, spent: float) -> None:
        """So many steps more took `spent` seconds, of which `waited` were waited for pictures."""
        self._steps, self._waited, self._spent = self._steps + steps, self._waited + waited, self._spent + spent
        if not self._advised and self._steps >= PATIENCE and self._waited > TOO_LONG * self._spent:
            self._advised = True
            print(self._line(), file=sys.stderr)

    def _line(self) -> str:
        workers, available = self._settings.runtime.workers, cores()
        speed = self._steps * self._settings.optim.batch_size / self._spent
        more = f"more `workers` (now {workers}, for {available} cores), " if workers < available else ""
        smaller = f"pictures made smaller once (lcmae prepare --size {2 * max(self._settings.data.image_size)})"
        return (
            f"data: {self._waited / self._spent:.0%} of the time goes into waiting for pictures ({speed:.0f} images/s, "
            f"{speed / available:.0f} a core); what helps: {more}{smaller}, or `device_cache_gb` and `cache_gb` large "
            "enough to hold them decoded"
        )
