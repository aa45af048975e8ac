"""How long a training waits for its pictures, and what helps when it is long."""

import os
import time
from collections.abc import Iterator
from typing import Any

from lcmae_core.config import Settings
from lcmae_core.training.distributed import ranks

TOO_LONG = 0.05
"""Share of a step from which advice is given."""


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
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return here * max(1, ranks().of // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def advice(share: float, speed: float, settings: Settings) -> str:
    """One line on a training that waits for pictures that are decoded as they are needed."""
    workers, available = settings.runtime.workers, cores()
    side = 2 * max(settings.data.image_size)
    more = f"more `workers` (now {workers}, for {available} cores), " if workers < available else ""
    return (
        f"data: {share:.0%} of the time goes into waiting for pictures ({speed:.0f} images/s, "
        f"{speed / available:.0f} a core); what helps: {more}pictures made smaller once (lcmae prepare --size {side}), "
        "or `hold_gb` and `cache_gb` large enough to hold them decoded"
    )
