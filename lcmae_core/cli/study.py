"""`lcmae study`: do what is missing of some studies, within a budget, alone or shared out; and say where they stand."""

import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lcmae_core.cli.words import chosen_studies, without
from lcmae_core.config import LcmaeError, Settings, replace
from lcmae_core.config.names import MARKS
from lcmae_core.config.places import plain_name
from lcmae_core.config.profiles import profile_of
from lcmae_core.execute.plan import check_writable
from lcmae_core.store.machine import REPOSITORY, absolute_folder
from lcmae_core.store.stopping import Stopped, StopRequest, stop_requests
from lcmae_core.studies import STUDIES, mask_units
from lcmae_core.studies.costs import epoch_of, measured_speed, to_go
from lcmae_core.studies.published import HLV_UNITS
from lcmae_core.studies.trials import Trial, UnmeasuredError, trials, unusable


def run_studies(
    names: Sequence[str],
    base: Settings,
    profile: str,
    *,
    seeds: int,
    budget: float | None = None,
    workers: int = 1,
    words: Sequence[str] = (),
) -> int:
    """Do what is missing, one study with all its seeds after the other; returns the exit code.

    At the end of the budget (or at SIGINT, SIGTERM and SIGUSR2) training stops after a checkpoint, a measure is
    finished, and the same command goes on. Several processes, here `workers` of them (started with the command line
    `words`) or on several machines with one output folder, share the trials out.
    """
    todo = missing(names, base, profile, seeds)
    if not todo:
        return 0
    with stop_requests() as stop, _deadline(budget, stop), _helpers(workers - 1, words) as helpers:
        code = _work(todo, stop)
        return stop.exit_code or max(code, _await(helpers, stop))


def missing(names: Sequence[str], base: Settings, profile: str, seeds: int) -> list[Trial]:
    """What is to be done of some studies, said in a line, with what these settings leave out.

    Raises:
        LcmaeError: the output folder cannot be written.
    """
    check_writable(Path(base.runtime.out))
    every = _ordered(names, base, profile, seeds)
    todo = [trial for trial in every if not trial.done]
    print(f"{len(todo)} of {len(every)} jobs to do at {profile}", flush=True)
    say_what_is_left_out(names, base, profile)
    return todo


def say_what_is_left_out(names: Sequence[str], base: Settings, profile: str) -> None:
    """Print a line for each mask unit that does not fit these settings and each measure that cannot be made here."""
    if "hlv_units" in chosen_studies(names):
        fitting = mask_units(base, profile)
        for unit in HLV_UNITS:
            if f"{unit}x" not in fitting:
                print(f"left out of hlv_units: unit {unit}, which does not fit the grid of {base.grid}", flush=True)
    wanted = {measure for name in chosen_studies(names) for measure in STUDIES[name].measures}
    for measure in sorted(wanted):
        if reason := unusable(measure):
            print(f"left out on this machine: {reason}", flush=True)


def _ordered(names: Sequence[str], base: Settings, profile: str, seeds: int) -> list[Trial]:
    return trials(chosen_studies(names), base, profile, range(base.seed, base.seed + seeds), complete=True)


def _work(todo: Sequence[Trial], stop: StopRequest) -> int:
    began, done, failed, left = time.monotonic(), 0, set[Path](), list(todo)
    before = -1
    while left and done > before:  # again, for what another process had at the first time, while there is something
        before = done
        for trial in left:
            if stop.is_set():
                break
            if not trial.done and trial.record.path not in failed:
                done += _attempt(trial, stop, failed)
        left = [trial for trial in left if not trial.done]
        if stop.is_set():
            break
    print(f"{done} jobs done in {time.monotonic() - began:.0f} s, {len(left)} left", flush=True)
    return 1 if failed else 0


def _attempt(trial: Trial, stop: StopRequest, failed: set[Path]) -> bool:
    """Do a trial and say so; whether it was done here. A training that breaks down, or a measure, does not keep the
    others waiting."""
    from lcmae_core.training.guards import NonFiniteLossError

    started, settings = time.monotonic(), trial.case.settings
    title = f"{trial.study} · {trial.row} · seed {settings.seed}"
    try:
        mine = trial.attempt(stop=stop)
    except Stopped as asked:
        print(f"{title}: {asked}", flush=True)
        return False
    except (NonFiniteLossError, UnmeasuredError) as error:
        failed.add(trial.record.path)
        for cause in error.errors.values() if isinstance(error, UnmeasuredError) else ():
            if not isinstance(cause, LcmaeError):  # a fault of ours: where it is
                traceback.print_exception(cause)
        print(f"{title}: failed: {error}", file=sys.stderr, flush=True)
        return False
    if mine:
        print(f"{title}: {time.monotonic() - started:.1f} s", flush=True)
    return mine is True


@contextmanager
def _deadline(budget: float | None, stop: StopRequest) -> Iterator[None]:
    """After `budget` seconds a stop is asked for, as a cluster's signal would."""
    timer = threading.Timer(budget or 0, stop.set)
    timer.daemon = True
    if budget is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _helpers(count: int, words: Sequence[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Copies of this command that take from the same trials; those still at it at the end are asked to stop."""
    command = [sys.executable, "-m", "lcmae_core.cli", *without(words, "--jobs")]
    helpers = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield helpers
    finally:
        for helper in helpers:
            helper.terminate()
        for helper in helpers:
            helper.wait()


def _await(helpers: Sequence[subprocess.Popen[bytes]], stop: StopRequest) -> int:
    """Wait until all have ended, or a stop is asked for; 1 if one of them failed."""
    while any(helper.poll() is None for helper in helpers) and not stop.is_set():
        time.sleep(0.1)
    codes = {helper.poll() for helper in helpers} - {None, 0}
    if codes and not stop.is_set():
        print(f"a process of this command ended with {', '.join(map(str, codes))}", file=sys.stderr)
        return 1
    return 0


# ---- status


def print_status(names: Sequence[str], base: Settings, profile: str, *, seeds: int, data_asked: bool = True) -> int:
    """A line for each study: what is done and missing, and the time that will take by the speed measured so far.

    Where the data were not asked for and all records are of others than the profile's own, those are counted.
    """
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
    base = _of_the_records(base, asked=data_asked)
    everything, seen = _ordered(names, base, profile, seeds), set[tuple[Path, str]]()
    speed, epoch = measured_speed(everything), epoch_of(everything, profile)
    for name in chosen_studies(names):
        mine = [trial for trial in everything if trial.study == name]
        left = [trial for trial in mine if not trial.done]
        table.add_row(
            name,
            STUDIES[name].title,
            str(len(mine) - len(left)),
            str(len(left)),
            str(to_go(left, seen, speed, epoch)) if left else "-",
        )
    make_console().print(table)
    print(MARKS)
    counted = f"{seeds} seed{'s' * (seeds > 1)}"
    print(f"profile {profile}, {counted}, {base.runtime.out}; what studies share is counted once, where first needed")
    print("hours: of runs and measures of the same kind that are finished; about: some from a plain MAE's")
    one = profile_of(profile)
    print(f"{profile}: {one.purpose}; {one.cost}; expect {one.expect}")
    if not speed:
        print(
            f"no run of this profile has been finished here on {plain_name(base.data.source, REPOSITORY)}, "
            "so there is no measured speed to tell the time from"
        )
    return 0


def _of_the_records(base: Settings, *, asked: bool) -> Settings:
    """The settings, with the data of the records below the output folder where those are of one source and no other was
    asked for. A line says so, and that there are none of the source that is counted."""
    from lcmae_core.store.records import recorded_sources
    from lcmae_core.studies.registry import TREE

    there, mine = recorded_sources(absolute_folder(base.runtime.out)) - {TREE}, plain_name(base.data.source, REPOSITORY)
    if not there or mine in there:
        return base
    names = " and ".join(sorted(there))
    if asked or len(there) > 1:
        print(f"the records there are of {names}, none of {mine}: give --data with the place of what is to be counted")
        return base
    instead = f"not of the profile's own {mine}"
    print(f"counted: the records there, of {names}, {instead}; to go on with them give their data's place by --data")
    return replace(base, source=names)
