"""Progress on stderr: a bar where somebody watches, a line at the start and one at the end where nobody does."""

import os
import sys
import time
from typing import Any, Protocol, Self

DELAY = 3.0
"""Seconds of work before anything is said of it."""


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
    """A line once the work has taken `delay` seconds, and another when it ends; nothing for what is done sooner."""

    def __init__(self, title: str, total: int, unit: str, *, done: int = 0, delay: float = DELAY) -> None:
        self._title, self._total, self._unit, self._done, self._delay = title, total, unit, done, delay
        self._began, self._said, self._beside = time.monotonic(), False, ""

    def update(self, n: int = 1) -> None:
        """So many more are done."""
        self._done += n
        if not self._said and time.monotonic() - self._began >= self._delay:
            self._said = True
            self._say(f"{self._title}: {self._total} {self._unit}s ...")

    def set_postfix_str(self, s: str) -> None:
        """What the last line ends with."""
        self._beside = s

    def close(self) -> None:
        """Say what was done, if it was begun aloud; once."""
        if self._said:
            seconds = f"{time.monotonic() - self._began:.0f} s"
            counted = f"{self._done} of {self._total} {self._unit}s"
            self._say(f"{self._title}: {', '.join(part for part in (counted, seconds, self._beside) if part)}")
        self._said, self._delay = False, float("inf")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def progress_bar(
    title: str, total: int, unit: str, *, wanted: bool = True, done: int = 0, delay: float = DELAY, leave: bool = False
) -> Bar:
    """The one place that decides who sees progress: `wanted` is the setting `progress`.

    Nothing where it is not wanted, or a notebook runs with nobody at it ($LCMAE_HEADLESS); a bar at a terminal or in a
    notebook; two lines where stderr goes to a file or a pipe. A bar that `leave`s stays, and begins without delay.
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
