"""Waiting for a lock that another process holds, as long as it lasts, without missing a stop."""

import sys
from contextlib import suppress
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from lcmae_core.config import LcmaeError
from lcmae_core.store.stopping import stop_if_asked, stop_requests

LOOK = 1.0
"""Seconds after which a process that waits looks whether it is asked to stop."""


def wait_for(lock: FileLock, what: str) -> AcquireReturnProxy:
    """Take a lock, whenever that is; `what` is done meanwhile, for who stops it.

    Raises:
        Stopped: a stop was asked for.
    """
    with stop_requests():
        while True:
            stop_if_asked(what)
            with suppress(Timeout):
                return lock.acquire(timeout=LOOK)


def become_writer(lock: FileLock, holder: Path, run: str, timeout: float) -> None:
    """Take the lock of a run; a file beside it, `holder`, has the number of the process that holds it.

    timeout: seconds that another process is given to end; below 0: as long as that takes, which is said.

    Raises:
        LcmaeError: it still holds it then.
        Stopped: a stop was asked for while this one waited.
    """
    try:
        lock.acquire(timeout=LOOK if timeout < 0 else timeout)
    except Timeout:
        who = holder.read_text().strip() if holder.exists() else "unknown"
        message = f"run: {run!r} is being written by process {who}, expected no other writer"
        if timeout >= 0:
            raise LcmaeError(message) from None
        with stop_requests():
            print(f"{message}: waiting for it", file=sys.stderr)
            wait_for(lock, f"waiting for the writer of {run}")
