"""Runs a plan: skips what is up to date, keeps several jobs going, reports failures, and ends with the report."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from lcmae_core.execute.committed import store_executed
from lcmae_core.execute.discover import NotebookFile, project_root
from lcmae_core.execute.job import FULL_DISK, Job
from lcmae_core.execute.ledger import WORK, Ledger, expected_seconds, job_digest
from lcmae_core.execute.local import Executor, Handle, LocalExecutor
from lcmae_core.execute.plan import Plan
from lcmae_core.execute.progress import Board, in_words, make_console, numbers_table, training_now
from lcmae_core.execute.watch import SAVING
from lcmae_core.store.files import DiskFullError
from lcmae_core.store.stopping import Stopped, stop_requests
from lcmae_core.viewer.report.page import Scoreboard

ExecutorName = Literal["local", "slurm", "submitit-local"]


def run_notebooks(
    plan: Plan,
    *,
    jobs: int = 1,
    executor: ExecutorName = "local",
    slurm: Mapping[str, Any] | None = None,
    force: bool = False,
    store: bool = False,
) -> int:
    """Execute a plan and (re)build <out>/report.html; with `store`, write the notebooks back where they came from.

    Returns 0 if every notebook is up to date afterwards, or incomplete for want of runs that it may not train; 2 if all
    that failed did so by the user's mistake (a data set or a setting that cannot be used), else 1; the others are
    executed all the same.

    Raises:
        LcmaeError: the executor is not there, or does not know a parameter.
        Stopped: SIGINT, SIGTERM or SIGUSR2 asked for a stop, and the running jobs were told to stop and did.
    """
    batch = _Batch(plan, jobs, _executor(plan, jobs, executor, slurm or {}), force)
    with batch.board:
        for note in plan.notes:
            batch.board.say(note)
        batch.run()
    if store and not batch.failed and not batch.incomplete:
        for notebook in plan.notebooks:
            store_executed(plan.out / f"{notebook.name}.ipynb", notebook.path)
    _conclude(plan, batch, store)
    return 0 if not batch.failed else 2 if batch.mistaken == len(batch.failed) else 1


def _executor(plan: Plan, jobs: int, name: ExecutorName, slurm: Mapping[str, Any]) -> Executor:
    if name == "local":
        return LocalExecutor(jobs)
    from lcmae_core.execute.cluster import ClusterExecutor

    return ClusterExecutor(plan.out, slurm, cluster="slurm" if name == "slurm" else "local")


class _Batch:
    """The notebooks of a plan on their way from waiting to done."""

    def __init__(self, plan: Plan, jobs: int, executor: Executor, force: bool):
        self.plan, self.force, self.executor = plan, force, executor
        # a cluster queues by itself: it gets all that is ready at once
        self.limit = jobs if executor.threads else len(plan.notebooks)
        self.ledger = Ledger(plan.out)
        self.waiting = list(plan.notebooks)
        self.running: dict[NotebookFile, Handle] = {}
        self.failed: list[NotebookFile] = []
        self.incomplete: dict[NotebookFile, str] = {}
        self.mistaken = 0
        self.began = time.monotonic()
        self.console = make_console()
        estimates = {
            n.name: expected_seconds(n, plan.profile, self.ledger, plan.parameters[n.name]) for n in plan.notebooks
        }
        if self.limit > 1:
            self.waiting = longest_first(plan, estimates)
        after = {n.name: [u.name for u in plan.upstream(n)] for n in plan.notebooks}
        self.board = Board(self.console, {n.name: estimates[n.name] for n in self.waiting}, self.limit, after)
        self._began: dict[NotebookFile, float] = {}

    def run(self) -> None:
        """Until nothing waits or runs."""
        with stop_requests() as stop:
            try:
                while (self.waiting or self.running) and not stop.is_set():
                    self._start_ready()
                    self._collect()
                    self.board.tick(lambda: training_now(self.plan.out))
                    if self.running:  # polled: processes and SLURM jobs have nothing in common to wait on
                        time.sleep(0.1)
            finally:
                self._stop()
            if stop.is_set():
                raise Stopped("the notebooks that ran were stopped", stop)

    def _start_ready(self) -> None:
        for notebook in list(self.waiting):  # a copy, for what starts leaves the list
            pending = [n for n in self.plan.upstream(notebook) if n in self.waiting or n in self.running]
            if len(self.running) >= self.limit:
                return
            if pending and not self._deadlock():
                continue
            self.waiting.remove(notebook)
            job = self._job(notebook)
            if not self.force and self.ledger.current(notebook.name, job.digest):
                self.board.finish(notebook.name, "up to date")
                continue
            # what an earlier attempt left must not pass for the outcome of this one
            (self.plan.out / WORK / f"{notebook.name}.outcome.json").unlink(missing_ok=True)
            self.board.start(notebook.name)
            self._began[notebook] = time.monotonic()
            self.running[notebook] = self.executor.start(job)

    def _deadlock(self) -> bool:
        """Whether all that wait do so for each other, which two notebooks that say after: "all" would do."""
        blocked = (any(u in self.waiting for u in self.plan.upstream(n)) for n in self.waiting)
        return not self.running and all(blocked)

    def _job(self, notebook: NotebookFile) -> Job:
        parameters = self.plan.parameters[notebook.name]
        # the dates of those before it are part of its digest: if one ran again, this one is out of date
        upstream = {n.name: self.ledger.entry(n.name).get("date") for n in self.plan.upstream(notebook)}
        return Job(
            name=notebook.name,
            source=str(notebook.path),
            out=str(self.plan.out),
            parameters=dict(parameters),
            digest=job_digest(notebook, parameters, upstream),
            cwd=str(project_root()),
            threads=self.executor.threads,
        )

    def _collect(self) -> None:
        for notebook, handle in list(self.running.items()):
            code = handle.poll()
            if code is None:
                continue
            del self.running[notebook]
            seconds = time.monotonic() - self._began[notebook]
            outcome = self._take(notebook)
            if code == 0 and outcome.get("status") == "ok":
                self.board.finish(notebook.name, "ok", seconds)
                continue
            if code == 0 and outcome.get("status") == "incomplete":
                self.incomplete[notebook] = str(outcome.get("error", "")).partition(": ")[2]
                self.board.finish(notebook.name, "incomplete", seconds)
                self.board.say(f"    {self.incomplete[notebook]}")
                continue
            self.failed.append(notebook)
            if not outcome:
                outcome = {"status": "failed", "cell": None, "line": "", "error": _ending(code), "seconds": seconds}
                self._note(notebook, outcome)
            self.mistaken += _mistake(outcome)
            self.board.finish(notebook.name, "FAILED", seconds)
            for line in self._explain(notebook, outcome):
                self.board.say("    " + line)

    def _take(self, notebook: NotebookFile) -> dict[str, Any]:
        """What a job left; nothing where there was no room for it."""
        try:
            return self.ledger.take(notebook.name)
        except DiskFullError as error:
            self.board.say(f"    {error}")
            return {}

    def _note(self, notebook: NotebookFile, outcome: Mapping[str, Any]) -> None:
        """Keep an outcome, if there is room for it: the other notebooks go on without."""
        try:
            self.ledger.put(notebook.name, outcome)
        except DiskFullError as error:
            self.board.say(f"    {error}")

    def _explain(self, notebook: NotebookFile, outcome: Mapping[str, Any]) -> list[str]:
        where = f"cell {outcome['cell']}: " if outcome.get("cell") else ""
        error = str(outcome.get("error", "")).strip().splitlines() or [""]
        if _mistake(outcome):
            return [error[0].partition(": ")[2]]
        lines = [f"{where}{outcome.get('line', '')}".rstrip(), *error[:4]]
        partial = self.plan.out / f"{notebook.name}.failed.ipynb"
        if partial.exists():
            lines.append(f"notebook so far: {_short(partial)}")
        log = self.plan.out / "logs" / f"{notebook.name}.log"
        return [line for line in [*lines, f"log: {_short(log)}" if log.exists() else ""] if line]

    def _stop(self) -> None:
        """Tell the running jobs to stop, give them time for a checkpoint, and end those that did not."""
        if not self.running:
            return
        self.board.say("stopping ...")
        for handle in self.running.values():
            handle.stop()
        # a kernel may take SAVING after each of two signals (`watch`); the rest is for the job itself
        deadline = time.monotonic() + 2 * SAVING + 10
        while time.monotonic() < deadline and any(h.poll() is None for h in self.running.values()):
            time.sleep(0.1)
        for notebook, handle in self.running.items():
            if handle.poll() is None:
                handle.kill()
            self._take(notebook)


def _mistake(outcome: Mapping[str, Any]) -> bool:
    """Whether a cell ended with an error of the user's making, which says itself what to do."""
    return str(outcome.get("error", "")).startswith(("LcmaeError: ", "UnreadableImage: "))


def longest_first(plan: Plan, estimates: Mapping[str, float]) -> list[NotebookFile]:
    """The notebooks by the time from their start to the end of all that waits for them, longest first, so that nothing
    long begins when everything else is done; equals stay in their order."""

    def path(notebook: NotebookFile, before: tuple[NotebookFile, ...] = ()) -> float:
        seen = (*before, notebook)
        after = [n for n in plan.notebooks if n not in seen and notebook in plan.upstream(n)]
        return estimates[notebook.name] + max((path(n, seen) for n in after), default=0.0)

    lengths = {notebook.name: path(notebook) for notebook in plan.notebooks}
    return sorted(plan.notebooks, key=lambda notebook: -lengths[notebook.name])


def _ending(code: int) -> str:
    if code == FULL_DISK:
        return "the disk is full: there was no room for the executed notebook"
    return f"the process was ended by signal {-code}" if code < 0 else f"the process ended with exit code {code}"


def _short(path: Path) -> str:
    """A path as seen from the current folder, where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _conclude(plan: Plan, batch: _Batch, store: bool) -> None:
    """The numbers that matter, how it went in a line, and what is missing."""
    from lcmae_core.viewer.report import build_report

    table = numbers_table(plan.out, {n.number for n in plan.notebooks})
    if table:
        batch.console.print(table)
    if store and not batch.failed and not batch.incomplete:
        batch.console.print("stored: the executed notebooks were written back", markup=False)
    total, good = len(plan.notebooks), len(plan.notebooks) - len(batch.failed) - len(batch.incomplete)
    took = in_words(time.monotonic() - batch.began)
    page = _short(build_report(plan.out, board=_board(plan)))
    batch.console.print(f"{good} of {total} ok in {took}; open {page}", markup=False, soft_wrap=True)
    if batch.failed:
        names = ", ".join(n.number for n in batch.failed)
        batch.console.print(f"{len(batch.failed)} of {total} failed: {names}", markup=False)
    if batch.incomplete:
        names = ", ".join(n.number for n in batch.incomplete)
        missing = "; ".join(dict.fromkeys(batch.incomplete.values()))
        line = f"{len(batch.incomplete)} of {total} incomplete: {names}. Missing: {missing}"
        batch.console.print(line, markup=False, soft_wrap=True)


def _board(plan: Plan) -> Scoreboard | None:
    """The claims, where notebook 10 has recorded them; asked first, because reading the other records loads torch."""
    if not (plan.out / "results" / "10.json").is_file():
        return None
    from lcmae_core.studies.front import scoreboard

    return scoreboard(plan.out, plan.profile)
