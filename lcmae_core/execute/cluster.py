"""Jobs on a SLURM cluster, through submitit; a job that is requeued or preempted goes on where its runs stopped."""

import logging
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.execute.job import Job, execute

ALIASES = ("mem_gb", "timeout_min", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name")
"""Names that submitit understands on any cluster; the others go to SLURM alone."""


class NotebookJob:
    """A picklable call of `execute`, which submitit calls again after a requeue."""

    def __call__(self, job: Job) -> int:
        """Execute the notebook in this process and return its exit code."""
        cores = os.environ.get("SLURM_CPUS_PER_TASK")
        if cores:
            os.environ.setdefault("OMP_NUM_THREADS", cores)
        return execute(job)

    def checkpoint(self, job: Job) -> Any:
        """What to submit when the job's time is up: the same job; its training resumes from the last checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, job)


class ClusterHandle:
    """A submitted job."""

    def __init__(self, job: Any):
        self._job = job

    def poll(self) -> int | None:
        """Its exit code; a job that was cancelled, timed out or died counts as 1."""
        if not self._job.done():
            return None
        try:
            return int(self._job.result())
        except Exception:
            with self._job.paths.stderr.open("a") as log:
                traceback.print_exc(file=log)
            return 1

    def stop(self) -> None:
        """Cancel it."""
        self._job.cancel()

    kill = stop


class ClusterExecutor:
    """Submits every job at once and leaves the order to the cluster."""

    threads: int | None = None

    def __init__(self, out: Path, parameters: Mapping[str, Any], cluster: str = "slurm"):
        """Check the parameters against SLURM's names. `cluster` may be submitit's "local" or "debug", for tests.

        Raises:
            LcmaeError: submitit or SLURM is not there, or a parameter has a name that submitit does not know.
        """
        try:
            import submitit

            logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns at each poll where SLURM has no accounting
        except ImportError:
            raise LcmaeError("executor: got 'slurm', expected submitit: pip install 'lcmae-core[cluster]'") from None
        options = _options(parameters)
        try:
            self._executor = submitit.AutoExecutor(folder=out / "logs" / "slurm-%j", cluster=cluster)
        except RuntimeError as error:
            raise LcmaeError(f"executor: got 'slurm', expected a cluster ({error}); try --executor local") from None
        self._executor.update_parameters(**options)

    def start(self, job: Job) -> ClusterHandle:
        """Submit a job."""
        self._executor.update_parameters(name=f"lcmae-{job.name}")
        return ClusterHandle(self._executor.submit(NotebookJob(), job))


def _options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    from submitit.slurm.slurm import SlurmExecutor

    names = [*ALIASES, *sorted(SlurmExecutor._valid_parameters())]
    for name, value in parameters.items():
        if name not in names:
            raise LcmaeError(f"unknown SLURM parameter {name!r} (= {value!r}): {nearest(name, names)}")
    return {name if name in ALIASES else f"slurm_{name}": value for name, value in parameters.items()}
