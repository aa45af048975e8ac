"""One process a contestant: its own heap, threads and peak memory, and what breaks there leaves the others alone.

The processes live side by side and step in turns, so that whatever else the machine does meets all alike.
"""

import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from lcmae_core.bench.cases import Shape
from lcmae_core.bench.contestants import prepare
from lcmae_core.bench.floors import timed
from lcmae_core.config import LcmaeError
from lcmae_core.store.accelerator import peak, watch_peak
from lcmae_core.store.machine import keep_freed_memory

QUEUE = Path("/proc/self/schedstat")
"""Linux: nanoseconds that this thread ran, and that it waited for a core."""


class About(NamedTuple):
    """What a contestant is: FLOPs and tokens of a step, parameters, and whether it keeps freed memory."""

    flops: int
    tokens: tuple[int, int]
    parameters: int
    freed_memory_kept: bool


class Timeable(Protocol):
    """Whoever can be timed."""

    about: About

    def seconds(self) -> float:
        """Of one more step."""

    def peak_mib(self) -> float | None:
        """The most memory so far; None where it was not measured."""

    def stop(self) -> None:
        """Nothing more is asked."""


class BrokenError(LcmaeError):
    """A contestant that could not be built or whose step broke, and why in one line."""


def fair_clock() -> float:
    """Seconds less those in which this thread waited for a core that others had: who sleeps is not spared, who was
    kept from working is. The wall's where the system does not say it."""
    if torch.get_num_threads() > 1 or not QUEUE.exists():
        return time.perf_counter()
    before = waited()
    while True:  # one who was kept waiting between the two readings reads again
        now, after = time.perf_counter(), waited()
        if after == before:
            return now - after
        before = after


def waited() -> float:
    """Seconds in which this thread waited for a core, since it began."""
    return int(QUEUE.read_text().split()[1]) / 1e9


class Worker:
    """A contestant in a process of its own."""

    def __init__(self, name: str, shape: Shape, threads: int | None):
        """Start, and return when it is warm.

        Raises:
            BrokenError: it could not be built.
        """
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, shape, threads), daemon=True)
        self._process.start()
        theirs.close()
        self.about: About = self._ask(None)

    def seconds(self) -> float:
        """Of one more step."""
        return float(self._ask("step"))

    def peak_mib(self) -> float | None:
        """`max_memory_allocated` on CUDA, elsewhere the process's peak resident memory."""
        return float(self._ask("peak"))

    def stop(self) -> None:
        """End the process."""
        self._line.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.terminate()

    def _ask(self, word: str | None) -> Any:
        try:
            if word:
                self._line.send(word)
            answer = self._line.recv()
        except (EOFError, BrokenPipeError):
            self._process.join(5)
            raise BrokenError(f"bench: {self.name} ended with exit code {self._process.exitcode}") from None
        if isinstance(answer, BrokenError):
            self.stop()
            raise answer
        return answer


def _serve(line: Connection, name: str, shape: Shape, threads: int | None) -> None:
    """The child: build, then answer until nobody asks."""
    try:
        if threads:
            torch.set_num_threads(threads)
        kept = shape.device.type == "cpu" and keep_freed_memory()
        if shape.device.type == "cuda":
            watch_peak(shape.device)
        contestant = prepare(name, shape)
        line.send(About(contestant.flops, contestant.tokens, contestant.parameters, kept))
        while True:
            word = line.recv()
            if word == "step":
                line.send(timed(contestant.step, shape.device, fair_clock))
            else:
                line.send(peak(shape.device) if shape.device.type == "cuda" else _peak_rss())
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:  # whatever breaks in other people's code is a finding that is said by name
        why = (str(error).strip().splitlines() or ["?"])[0][:200]
        line.send(BrokenError(f"bench: {name} failed: {type(error).__name__}: {why}"))


def _peak_rss() -> float:
    """MiB."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def start(name: str, shape: Shape, threads: int | None) -> Timeable:
    """A contestant, warmed up.

    Raises:
        BrokenError: it could not be built.
    """
    return Worker(name, shape, threads)
