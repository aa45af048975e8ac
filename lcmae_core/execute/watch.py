"""How a job's kernel is ended: it is asked to save what it trains, then interrupted, then killed."""

import os
import signal
import threading
import time
from pathlib import Path

from lcmae_core.store.stopping import TRAINING

KERNEL_PID = "LCMAE_KERNEL_PID"
"""Environment variable: the file in which the kernel says its number."""
GRACE, SAVING = 3.0, 30.0
"""Seconds that a kernel gets between one signal and the next: GRACE where it trains nothing, SAVING where it trains and
has to end a step and write a checkpoint."""
STOPPING = threading.Event()
"""Set when this process was told to stop."""


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
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        try:
            os.kill(int(Path(os.environ[KERNEL_PID]).read_text()), name)
        except (KeyError, OSError, ValueError):
            break
        if name != signal.SIGKILL:
            _wait_while_it_saves()
    os._exit(143)


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
