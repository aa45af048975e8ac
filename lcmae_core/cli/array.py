"""`lcmae study --executor slurm --array N`: the tasks of one array job share out what is missing."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcmae_core.cli.study import missing
from lcmae_core.cli.words import without
from lcmae_core.config import Settings
from lcmae_core.store.stopping import stop_requests

OWN = ("--executor", "--array", "-s", "--slurm")
EVERY, PATIENCE = 2.0, 90.0
"""Seconds between two looks at the tasks, and for cancelled ones to save what they train."""


def submit_studies(
    names: Sequence[str],
    base: Settings,
    profile: str,
    *,
    seeds: int,
    tasks: int,
    slurm: Mapping[str, Any],
    words: Sequence[str],
    cluster: str = "slurm",
) -> int:
    """Submit `tasks` copies of this command as one array job and wait for them; returns the exit code.

    They share an output folder, and each takes what no other has: a finished run or measure is never done again, a task
    that is preempted or at its time limit is saved and goes on. At a signal they are cancelled, which saves them too.

    Raises:
        LcmaeError: submitit or SLURM is not there, or a parameter has a name that submitit does not know.
    """
    from lcmae_core.execute.cluster import ClusterExecutor

    todo = missing(names, base, profile, seeds)
    if not todo:
        return 0
    executor, command = ClusterExecutor(Path(base.runtime.out), slurm, cluster), without(words, *OWN)
    with stop_requests() as stop:
        handles = executor.start_array("study", [command] * min(tasks, len(todo)))
        number = handles[0].number.partition("_")[0]
        print(f"array job {number} of {len(handles)} tasks; lcmae study status says how far they are", flush=True)
        while any(handle.poll() is None for handle in handles) and not stop.is_set():
            time.sleep(EVERY)
        if stop.is_set():
            _cancel(handles)
            return stop.exit_code
    failed = [handle for handle in handles if handle.poll()]
    for handle in failed:
        print(f"task {handle.number} failed: see {handle.log}", file=sys.stderr)
    left = sum(not job.done for job in todo)
    print(f"{len(todo) - left} jobs done, {left} left", flush=True)
    return 1 if failed else 0


def _cancel(handles: Sequence[Any]) -> None:
    for handle in handles:
        handle.stop()
    end = time.monotonic() + PATIENCE
    while any(handle.poll() is None for handle in handles) and time.monotonic() < end:
        time.sleep(0.2)
