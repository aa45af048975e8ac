"""How a job's kernel is ended: it is asked to save what it trains, then interrupted, then killed."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from lcmae_core.store.stopping import TRAINING

KERNEL_PID = "LCMAE_KERNEL_PID"
"""Environment variable: the file in which the kernel says its number."""
GRACE, SAVING = 3.0, 30.0
"""Seconds that a kernel gets between one signal and the next: GRACE where it trains nothing, SAVING where it trains and
has to end a step and write a checkpoint."""
STOPPING, TIMED_OUT = threading.Event(), threading.Event()
"""Set when this process was told to stop, and when its notebook took too long."""
OUT_OF_TIME = 124
"""Exit code of a job that took too long and could not say so itself: that of `timeout` of coreutils."""


def watch() -> None:
    """Look out, from threads, for SIGTERM and for the death of the command that started this job.

    A time limit's SIGUSR2 is left to the kernel and to who started the job.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_stop_on_request, daemon=True).start()
        threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def _stop_on_request() -> None:
    """Wait for SIGTERM, then end the kernel: ask it to save (if it trains), interrupt it, kill it. A kernel that stops
    when asked ends the job in the ordinary way, and with it this thread. It is a thread because nbclient takes over the
    process's signal handlers."""
    signal.sigwait({signal.SIGTERM})
    STOPPING.set()
    _end_kernel()
    os._exit(143)


def _end_kernel() -> None:
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        try:
            os.kill(int(Path(os.environ[KERNEL_PID]).read_text()), name)
        except (KeyError, OSError, ValueError):
            break
        if name != signal.SIGKILL:
            _wait_while_it_saves()


def end_after(seconds: float, spent: Path) -> None:
    """From a thread, end the kernel as a stop does when the notebook has taken so many seconds: those of earlier turns,
    before SLURM requeued the job, stand in the file `spent` and count."""
    threading.Thread(target=_count, args=(seconds, spent), daemon=True).start()


def _count(limit: float, spent: Path) -> None:
    try:
        before = float(spent.read_text())
    except (OSError, ValueError):
        before = 0.0
    began = time.monotonic()
    while (left := limit - before - (time.monotonic() - began)) > 0:
        with suppress(OSError):  # a full disk: the count begins anew when the job is requeued
            spent.write_text(f"{limit - left:.1f}")
        time.sleep(min(left, 5.0))
    TIMED_OUT.set()
    _end_kernel()
    time.sleep(SAVING)  # for the executed notebook, and for what is said of it
    os._exit(OUT_OF_TIME)


def _wait_while_it_saves() -> None:
    began = time.monotonic()
    while (passed := time.monotonic() - began) < SAVING:
        if passed >= GRACE and not Path(os.environ.get(TRAINING, "")).is_file():
            return
        time.sleep(0.05)


def _watch_parent(parent: int) -> None:
    """Stop when the command that started this job is gone, even if it was killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
