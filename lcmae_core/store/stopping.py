"""Signals that ask for an orderly stop, and the exit code with which each of them ends a command.

SIGINT (Ctrl-C, Jupyter's interrupt), SIGTERM (a scheduler's end or preemption) and SIGUSR2 (SLURM's warning before a
time limit) set a flag that is looked at after every step, so that a checkpoint is written first.
"""

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lcmae_core.store.progress import in_notebook

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR2": 75}
"""By signal: 128 + its number, as shells have it; after SIGUSR2 `EX_TEMPFAIL` of sysexits.h: there is more to do."""

TRAINING = "LCMAE_TRAINING"
"""Environment variable: a file that is there while a stop would be looked at, for who executes a notebook and wants to
stop it."""
ONCE_MORE = b"\nlcmae: stopping after this step or measure (Ctrl-C once more: at once)\n"


class StopRequest:
    """Whether a stop is asked for, and by which signal (None: by a budget).

    A plain flag and no `threading.Event`: that one's lock may be held just when a signal handler wants to set it.
    """

    def __init__(self) -> None:
        self._asked = False
        self.signal: str | None = None

    def set(self, name: str | None = None) -> None:
        """Ask for a stop; the first signal decides the exit code."""
        self._asked = True
        self.signal = self.signal or name

    def is_set(self) -> bool:
        """Whether a stop is asked for."""
        return self._asked

    @property
    def exit_code(self) -> int:
        """What a command ends with that was stopped: 130, 143 or 75; 0 at the end of a budget."""
        return CODES[self.signal] if self.signal else 0


class Stopped(SystemExit):
    """Work was asked to stop, and did so after keeping what there is; the same command goes on."""

    def __init__(self, message: str, asked: StopRequest | None = None) -> None:
        super().__init__(f"{message}; {'run the cell again to go on' if in_notebook() else 'the same command resumes'}")
        self.exit_code = 1 if asked is None else asked.exit_code


GO_ON = "interrupted: run the cell again to go on"


def say_interrupts() -> None:
    """In a notebook with somebody at it: an interrupt ends a cell with a line that says how to go on, in place of a
    traceback. What was trained is kept by `stop_requests`, what was measured by the record of it."""
    if not in_notebook() or os.environ.get("LCMAE_HEADLESS"):
        return
    shell = sys.modules["IPython"].get_ipython()
    shell.set_custom_exc((KeyboardInterrupt,), lambda *_, **__: print(GO_ON, file=sys.stderr))
    warnings.filterwarnings("ignore", "To exit: use", UserWarning)  # IPython's, to whoever sees `Stopped`


class _Handler:
    """A signal handler that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked = StopRequest()

    def __call__(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        if name == "SIGINT" and self.asked.is_set():
            raise KeyboardInterrupt
        if name == "SIGINT" and sys.stderr is not None and sys.stderr.isatty():
            os.write(2, ONCE_MORE)
        self.asked.set(name)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """A flag that SIGINT, SIGTERM and SIGUSR2 set, in the main thread only; a SIGINT after that interrupts at once.

    Inside another `stop_requests` it is that one's flag, so that no request is lost between two trainings: one that
    begins after the request stops at its first step, and who began them sees it too.
    """
    outer, handler = signal.getsignal(signal.SIGTERM), _Handler()
    main = threading.current_thread() is threading.main_thread()
    if not main or isinstance(outer, _Handler):
        yield outer.asked if main and isinstance(outer, _Handler) else handler.asked
        return
    names = [getattr(signal, name) for name in CODES if hasattr(signal, name)]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: Ctrl-C is meant for others
        names.remove(signal.SIGINT)
    before = {name: signal.signal(name, handler) for name in names}
    mark = Path(os.environ[TRAINING]) if os.environ.get(TRAINING) else None
    try:
        if mark is not None:
            mark.touch()
        yield handler.asked
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)
        for name, earlier in before.items():
            signal.signal(name, earlier)


def stop_asked() -> StopRequest | None:
    """The request of the `stop_requests` around this, if a stop is asked for."""
    around = signal.getsignal(signal.SIGTERM)
    return around.asked if isinstance(around, _Handler) and around.asked.is_set() else None


def stop_if_asked(what: str) -> None:
    """For work that nobody hands a flag, and that keeps nothing: end it if a `stop_requests` around it was asked to.

    Raises:
        Stopped: "stopped while" doing `what`.
    """
    if (asked := stop_asked()) is not None:
        raise Stopped(f"stopped while {what}", asked)


def leave_signals_to_the_parent(_: int = 0) -> None:
    """For a worker: a terminal or scheduler signals the whole process group, and the parent, which keeps what there is
    first, needs its workers until then."""
    for name in CODES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
