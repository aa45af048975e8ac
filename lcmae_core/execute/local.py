"""Jobs as processes of this machine."""

import signal
import subprocess
import sys
from typing import Protocol

from lcmae_core.execute.job import START, Job, literal
from lcmae_core.store.cores import usable_cores


class Handle(Protocol):
    """A job that was started, wherever it runs."""

    @property
    def called(self) -> str:
        """What it is where it runs: process 4711, job 12."""
        ...

    @property
    def waits(self) -> bool:
        """Whether it stands in a cluster's queue."""
        ...

    def poll(self) -> int | None:
        """Its exit code, or None while it runs or waits."""
        ...

    def stop(self) -> None:
        """Ask it to end; `poll` tells when it did."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Executor(Protocol):
    """Starts jobs; `threads` is the share of the cores that one of them gets, None where the cluster decides."""

    threads: int | None

    def start(self, job: Job) -> Handle:
        """Start a job and return at once."""
        ...


def start_process(job: Job) -> subprocess.Popen[bytes]:
    """A job in a process and session of its own, so that Ctrl-C does not reach it; its output goes to the job's log."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-c", START, literal(job)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=job.cwd,
        )


class LocalHandle:
    """A job on this machine, which is told to end only through `stop`."""

    def __init__(self, job: Job):
        self._process = start_process(job)

    @property
    def called(self) -> str:
        """Its process, which ends with the command."""
        return f"process {self._process.pid}"

    @property
    def waits(self) -> bool:
        """Never: what is started runs."""
        return False

    def poll(self) -> int | None:
        """Its exit code, negative if a signal ended it, or None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """SIGTERM: the kernel gets time to write a checkpoint."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; the kernel notices within a second that its parent is gone."""
        self._process.kill()


class LocalExecutor:
    """Up to `jobs` processes at once, each with its share of the cores."""

    def __init__(self, jobs: int):
        cores = usable_cores()
        self.threads: int | None = max(1, cores // jobs)

    def start(self, job: Job) -> LocalHandle:
        """Start a job."""
        return LocalHandle(job)
