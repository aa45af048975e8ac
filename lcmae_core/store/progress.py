"""Progress on stderr: a bar where somebody watches; else lines at the start, every minute and at the end."""

import os
import sys
import time
from functools import cache
from typing import Any, Protocol, Self

from lcmae_core.config.names import printable

DELAY = 3.0
"""Seconds of work before anything is said of it."""
HEARTBEAT = 60.0
"""Seconds between two lines of work that nobody watches."""


@cache
def say_once(line: str) -> None:
    """A line on stderr, the first time that this process says it."""
    print(printable(line), file=sys.stderr, flush=True)


class Bar(Protocol):
    """What work says of itself; `tqdm` is one."""

    def update(self, n: int = 1) -> Any:
        """So many more are done."""

    def set_postfix_str(self, s: str) -> Any:
        """What to show beside the count."""

    def close(self) -> Any:
        """Nothing more will be done."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: Any) -> Any: ...


class Silent:
    """Says nothing."""

    def update(self, n: int = 1) -> None:
        """So many more are done."""

    def set_postfix_str(self, s: str) -> None:
        """What to show beside the count."""

    def close(self) -> None:
        """Nothing more will be done."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Lines(Silent):
    """A line once the work has taken `delay` seconds, one every `beat` seconds with what is done and the time left, and
    another when it ends; nothing for what is done sooner."""

    def __init__(
        self, title: str, total: int, unit: str, *, done: int = 0, delay: float = DELAY, beat: float = HEARTBEAT
    ) -> None:
        self._title, self._total, self._unit, self._done, self._delay = title, total, unit, done, delay
        self._began, self._beside, self._beat = time.monotonic(), "", beat
        self._last_line: float | None = None
        self._first: tuple[float, int] | None = None

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        self._done += n
        now = time.monotonic()
        self._first = self._first or (now, self._done)  # what comes before the first is no part of the speed
        if self._last_line is None and now - self._began >= self._delay:
            self._last_line = now
            self._say(f"{self._title}: {self._total} {self._unit}s ...")
        elif self._last_line is not None and now - self._last_line >= self._beat and self._done < self._total:
            self._last_line = now
            self._say(self._with(self._beside, self._left()))

    def set_postfix_str(self, s: str) -> None:
        """What the lines end with."""
        self._beside = s

    def close(self) -> None:
        """Say what was done, if it was begun aloud; once."""
        if self._last_line is not None:
            self._say(self._with(f"{time.monotonic() - self._began:.0f} s", self._beside))
        self._last_line, self._delay = None, float("inf")

    def _with(self, *more: str) -> str:
        counted = f"{self._done} of {self._total} {self._unit}s"
        return f"{self._title}: {', '.join(part for part in (counted, *more) if part)}"

    def _left(self) -> str:
        """The time that the rest takes at the mean speed since the first; nothing while that is not known."""
        since, before = self._first or (0.0, self._done)
        if self._done == before:
            return ""
        return f"about {in_words((self._total - self._done) * (time.monotonic() - since) / (self._done - before))} left"

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def in_words(seconds: float) -> str:
    """A duration as a person says it: 8 s, 3 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def progress_bar(
    title: str, total: int, unit: str, *, wanted: bool = True, done: int = 0, delay: float = DELAY, leave: bool = False
) -> Bar:
    """The one place that decides who sees progress: `wanted` is the setting `progress`.

    Nothing where it is not wanted, or a notebook runs with nobody at it ($LCMAE_HEADLESS); a bar at a terminal or in a
    notebook; lines where stderr goes to a file or a pipe. A bar that `leave`s stays, and begins without delay.
    """
    if not wanted or os.environ.get("LCMAE_HEADLESS"):
        return Silent()
    if not (sys.stderr.isatty() or in_notebook()):
        return Lines(title, total, unit, done=done, delay=delay)
    from tqdm.auto import tqdm

    wait = 0.0 if leave else delay
    return tqdm(total=total, initial=done, desc=title, unit=unit, delay=wait, leave=leave, dynamic_ncols=True)


def in_notebook() -> bool:
    """Whether a kernel with a front end runs us; IPython is not loaded to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")
