"""Jobs on a SLURM cluster, through submitit; a job that is requeued or preempted goes on where its runs stopped."""

import logging
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from lcmae_core.config import LcmaeError
from lcmae_core.execute.job import Job
from lcmae_core.execute.local import start_process
from lcmae_core.execute.submission import ALIASES, OWN, check_parameters, sbatch_is_there, submitting
from lcmae_core.execute.watch import SAVING

ALIVE = {"PENDING", "RUNNING", "REQUEUED", "REQUEUE_HOLD", "RESIZING", "SUSPENDED", "STOPPED", "COMPLETING",
         "CONFIGURING", "PREEMPTED", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "REQUEUE_FED"}  # fmt: skip
"""States from which SLURM may still run a job to its end."""
QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "CONFIGURING"}
"""Those of them in which it does not run."""
ASK, PATIENCE = 2.0, 10.0
"""Seconds between two questions to SLURM, and for a result to appear after a job has left the queue."""


W = TypeVar("W")


class ProcessJob(Generic[W]):
    """A picklable call that does its work in a process of its own; submitit makes it again after a requeue."""

    def __init__(self, start: Callable[[W], "subprocess.Popen[bytes]"]) -> None:
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_start": self._start, "_process": None}  # a process is not for another machine

    def __call__(self, work: W) -> int:
        """Do the work and return its exit code."""
        cores = os.environ.get("SLURM_CPUS_PER_TASK")
        if cores:
            os.environ.setdefault("OMP_NUM_THREADS", cores)
        self._process = self._start(work)
        return self._process.wait()

    def checkpoint(self, work: W) -> Any:
        """What to submit when the job is preempted or its time is up: the same, after its training was saved."""
        import submitit

        if self._process is not None:
            self._process.terminate()
            _wait_for(self._process.pid, 2 * SAVING + 5)  # it waits that long for its kernel, after TERM and after INT
        return submitit.helpers.DelayedSubmission(ProcessJob(self._start), work)


def start_command(words: Sequence[str]) -> "subprocess.Popen[bytes]":
    """`lcmae` with these words, in a session of its own: SLURM's signals reach it through `ProcessJob.checkpoint`."""
    return subprocess.Popen([sys.executable, "-m", "lcmae_core.cli", *words], start_new_session=True)


def _wait_for(pid: int, seconds: float) -> None:
    """Until a child has ended. This runs in a signal handler, and what it interrupted may hold the lock of
    `Popen.wait`."""
    end = time.monotonic() + seconds
    with suppress(ChildProcessError):
        while time.monotonic() < end and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.05)


class Queue:
    """What SLURM says of jobs, asked for all of them at once and not more often than every `ASK` seconds."""

    def __init__(self) -> None:
        self._asked, self._states = float("-inf"), dict[str, str]()

    def state(self, number: str) -> str:
        """A job's state, such as PENDING or CANCELLED; empty where SLURM knows it no more, UNKNOWN if it is silent."""
        if time.monotonic() - self._asked > ASK:
            self._asked = time.monotonic()
            try:
                told = subprocess.run(
                    ["squeue", "--noheader", "--states=all", "--me", "--array", "--format=%i %T"],
                    capture_output=True, text=True, timeout=30, check=True,
                )  # fmt: skip
            except (OSError, subprocess.SubprocessError):
                self._asked += 10 * ASK
                return "UNKNOWN"
            self._states = dict(line.split()[:2] for line in told.stdout.splitlines() if line.strip())
        return self._states.get(number, "")


class ClusterHandle:
    """A submitted job."""

    def __init__(self, job: Any, queue: Queue | None):
        self._job, self._queue = job, queue
        self._left: float | None = None

    @property
    def number(self) -> str:
        """What SLURM calls it; of an array's task, 12_0."""
        return str(self._job.job_id)

    @property
    def called(self) -> str:
        """Its number among all jobs of the cluster."""
        return f"job {self.number}"

    @property
    def waits(self) -> bool:
        """Whether SLURM has not started it, or holds it to start it again."""
        return self._queue is not None and self._queue.state(self.number) in QUEUED

    @property
    def log(self) -> Path:
        """What it says goes here."""
        return Path(self._job.paths.stderr)

    def poll(self) -> int | None:
        """Its exit code; a job that was cancelled, timed out or died counts as 1."""
        if self._has_result():
            return self._result()
        if not self._gone():
            return None
        self._note(f"{self._job.job_id}: the job left SLURM's queue without a result (cancelled, killed, or no time)\n")
        return 1

    def _has_result(self) -> bool:
        return self._job.paths.result_pickle.exists() if self._queue is not None else self._job.done()

    def _gone(self) -> bool:
        """Whether SLURM will not run it any more; a file system may show a result seconds after the job has ended."""
        if self._queue is None or self._queue.state(self._job.job_id) in ALIVE | {"UNKNOWN"}:
            self._left = None
            return False
        self._left = self._left or time.monotonic()
        return time.monotonic() - self._left > PATIENCE

    def _result(self) -> int:
        try:
            return int(self._job.result())
        except Exception:
            self._note(traceback.format_exc())
            return 1

    def _note(self, text: str) -> None:
        self._job.paths.folder.mkdir(parents=True, exist_ok=True)
        with self._job.paths.stderr.open("a") as log:
            log.write(text)

    def stop(self) -> None:
        """Cancel it: SLURM sends SIGTERM, at which training is saved, and SIGKILL later."""
        self._job.cancel()

    kill = stop


class ClusterExecutor:
    """Submits every job at once and leaves the order to the cluster."""

    threads: int | None = None

    def __init__(self, out: Path, parameters: Mapping[str, Any], cluster: str = "slurm"):
        """Check the parameters against SLURM's names. `cluster` may be submitit's "local" or "debug", for tests.

        Raises:
            LcmaeError: submitit or SLURM is not there, or a parameter has a name that submitit does not know, or a
                value of another kind.
        """
        known = check_parameters(parameters)  # which sees whether submitit is there
        import submitit

        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns at each poll where SLURM has no accounting
        sbatch_is_there(cluster)
        options = {n if n in ALIASES else f"slurm_{n}": value for n, value in known.items() if n not in OWN}
        own = {f"{cluster}_{name}": known.get(name, value) for name, value in OWN.items()}
        try:
            self._executor = submitit.AutoExecutor(folder=out / "logs" / "slurm-%j", cluster=cluster, **own)
        except RuntimeError as error:
            raise LcmaeError(f"executor: got 'slurm', expected a cluster ({error}); try --executor local") from None
        self._executor.update_parameters(**options)
        self._queue = Queue() if cluster == "slurm" else None

    def start(self, job: Job) -> ClusterHandle:
        """Submit a job.

        Raises:
            LcmaeError: SLURM refuses it.
        """
        self._executor.update_parameters(name=f"lcmae-{job.name}")
        with submitting():
            submitted = self._executor.submit(ProcessJob(start_process), job)
        return ClusterHandle(submitted, self._queue)

    def start_array(self, name: str, commands: Sequence[Sequence[str]]) -> list[ClusterHandle]:
        """Submit commands of `lcmae`, each without its own name, as the tasks of one array job.

        Raises:
            LcmaeError: SLURM refuses it.
        """
        self._executor.update_parameters(name=f"lcmae-{name}")
        with submitting():
            tasks = self._executor.map_array(ProcessJob(start_command), commands)
        return [ClusterHandle(job, self._queue) for job in tasks]
