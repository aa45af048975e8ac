"""`lcmae study`: do what is missing of some studies, within a budget, alone or shared out; and say where they stand."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from lcmae_core.config import LcmaeError, Settings, nearest
from lcmae_core.jobs import Job, jobs
from lcmae_core.studies import STUDIES

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(budget: str | None) -> float | None:
    """ "90s", "25m", "1.5h" in seconds.

    Raises:
        LcmaeError: another form, or no time at all.
    """
    if budget is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    if not found or not float(found[1]):
        raise LcmaeError(f"--budget: got {budget!r}, expected a time such as 90s, 25m or 1.5h")
    return float(found[1]) * UNITS[found[2]]


def chosen_studies(names: Sequence[str]) -> list[str]:
    """Names of studies in their order; none or "all" means all.

    Raises:
        LcmaeError: there is no such study.
    """
    for name in names:
        if name not in STUDIES and name != "all":
            raise LcmaeError(f"unknown study {name!r}: {nearest(name, [*STUDIES, 'all', 'status'])}")
    return [name for name in STUDIES if not names or "all" in names or name in names]


def run_studies(
    names: Sequence[str], base: Settings, profile: str, *, seeds: int, budget: float | None = None, workers: int = 1
) -> int:
    """Do what is missing, one study with all its seeds after the other; returns the exit code.

    At the end of the budget (or at SIGTERM and SIGUSR2) training stops after a checkpoint, and the same command goes
    on. Several processes, here `workers` of them or on several machines with one output folder, share the jobs out.
    """
    todo = [job for job in _ordered(names, base, profile, seeds) if not job.done]
    print(f"{len(todo)} of {_count(names, base, profile, seeds)} jobs to do at {profile}", flush=True)
    if workers > 1 and todo:
        return _spawn(workers - 1, lambda: _work(todo, budget))
    return _work(todo, budget)


def _ordered(names: Sequence[str], base: Settings, profile: str, seeds: int) -> list[Job]:
    return jobs(chosen_studies(names), base, profile, range(base.seed, base.seed + seeds))


def _count(names: Sequence[str], base: Settings, profile: str, seeds: int) -> int:
    return len(_ordered(names, base, profile, seeds))


def _work(todo: Sequence[Job], budget: float | None) -> int:
    from lcmae_core.training.watch import Stopped, stop_requests

    began, done, skipped = time.monotonic(), 0, 0
    with _deadline(budget), stop_requests() as stop:
        for job in todo:
            if stop.is_set():
                break
            started = time.monotonic()
            try:
                mine = job.do()
            except Stopped as asked:
                print(f"{_title(job)}: {asked}", flush=True)
                break
            done, skipped = done + mine, skipped + (not mine)
            if mine:
                print(f"{_title(job)}: {time.monotonic() - started:.1f} s", flush=True)
    left = sum(not job.done for job in todo)
    said = f"{done} jobs done in {time.monotonic() - began:.0f} s, {left} left"
    print(said + (f", {skipped} of them with other processes" if skipped else ""))
    return 0


def _title(job: Job) -> str:
    return f"{job.study} · {job.row} · seed {job.case.settings.seed}"


@contextmanager
def _deadline(budget: float | None) -> Iterator[None]:
    """After `budget` seconds the process asks itself to stop, as a cluster would."""
    if budget is None:
        yield
        return
    timer = threading.Timer(budget, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _spawn(others: int, work: Callable[[], int]) -> int:
    """This process and copies of it, which all take from the same jobs."""
    command = [sys.executable, "-m", "lcmae_core.cli", *_without_jobs(sys.argv[1:])]
    children = [subprocess.Popen(command) for _ in range(others)]
    codes = [work(), *(child.wait() for child in children)]
    return max(codes)


def _without_jobs(argv: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for word in argv:
        if skip:
            skip = False
        elif word == "--jobs":
            skip = True
        elif not word.startswith("--jobs="):
            kept.append(word)
    return kept


# ---- status


def print_status(names: Sequence[str], base: Settings, profile: str, *, seeds: int) -> int:
    """A line for each study: what is done and missing, and the time that will take by the speed measured so far."""
    from rich.table import Table

    from lcmae_core.execute.progress import make_console

    table = Table(show_edge=False, pad_edge=False)
    for column, justify in (
        ("study", "left"),
        ("in the paper", "left"),
        ("done", "right"),
        ("missing", "right"),
        ("time to go", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    everything, seen = _ordered(names, base, profile, seeds), set[Path]()
    speed = _speed(everything)
    for name in chosen_studies(names):
        mine = [job for job in everything if job.study == name]
        left = [job for job in mine if not job.done]
        table.add_row(name, STUDIES[name].title, str(len(mine) - len(left)), str(len(left)), _to_go(left, seen, speed))
    make_console().print(table)
    print(
        f"profile {profile}, {seeds} seeds, {base.runtime.out}; what studies share is counted once, where first needed"
    )
    if not speed:
        print("no run of this profile has been finished here, so there is no measured speed to tell the time from")
    return 0


def _speed(every: Sequence[Job]) -> dict[str, float]:
    """Median seconds an image of training ("train") and of each measure, over what is finished."""
    known = {job.record.path: job.record.content for job in every}
    found: dict[str, list[float]] = {}
    for content in known.values():
        if training := content.get("training"):
            found.setdefault("train", []).append(1 / training["images_per_s"])
        for name, entry in content.get("measures", {}).items():
            found.setdefault(name, []).append(entry["seconds"])
    return {name: median(times) for name, times in found.items()}


def _to_go(left: Sequence[Job], seen: set[Path], speed: Mapping[str, float]) -> str:
    """Time of the runs and measures that are missing and no study above asks for too."""
    total, unknown = 0.0, False
    for job in left:
        record = job.record
        parts = dict.fromkeys(job.missing, 1)
        if job.case.trained and not record.content.get("training") and record.path not in seen:
            parts["train"] = trained_images(job)
        seen.add(record.path)
        unknown |= not parts.keys() <= speed.keys()
        total += sum(count * speed.get(name, 0.0) for name, count in parts.items())
    return "-" if not left else "?" if not total else f"{'over ' * unknown}{total / 3600:.2f} h"


def trained_images(job: Job) -> int:
    """Images that a job's training sees (an epoch counted as Imagenette's or ImageNet's, by the profile)."""
    optim = job.case.settings.optim
    return optim.steps * optim.batch_size if optim.steps else round((optim.epochs or 0) * EPOCH[job.profile])


EPOCH = {"smoke": 0, "quick": 0, "lab": 9469, "paper": 1_281_167}
"""Training images of a profile's data set, for the cost of runs that are measured in epochs."""
