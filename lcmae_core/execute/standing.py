"""How far a batch of notebooks is: what its command says of it while it runs, and what can be told of each notebook
from that, from the ledger and, where that command is gone, from SLURM."""

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lcmae_core.execute.ledger import WORK, read_json
from lcmae_core.execute.local import Handle
from lcmae_core.store.files import DiskFullError, write_json
from lcmae_core.store.outputs import read_ledger

BEAT, LOST = 5.0, 60.0
"""Seconds after which a command says again that it is there, and after which one of another machine counts as gone."""
STATES = ("failed", "running", "waiting", "stopped", "incomplete", "ok")


class Standing:
    """What the command of a batch says of it, in <out>/.work, until `close`."""

    def __init__(self, out: Path):
        self._file = out / WORK / f"batch-{platform.node()}-{os.getpid()}.json"
        self._jobs: dict[str, Any] = {}
        self._when = float("-inf")

    def say(self, waiting: Iterable[str], running: Mapping[str, Handle]) -> None:
        """Names of those that wait to be started, and those that were; written where something changed, or for a sign
        of life. A full disk is no reason to stop."""
        jobs = {name: self._job(name, "waiting", "") for name in waiting}
        jobs |= {name: self._job(name, "waiting" if h.waits else "running", h.called) for name, h in running.items()}
        if jobs == self._jobs and time.monotonic() - self._when < BEAT:
            return
        self._jobs, self._when = jobs, time.monotonic()
        try:
            self._file.parent.mkdir(exist_ok=True)
            write_json(self._file, {"host": platform.node(), "pid": os.getpid(), "jobs": jobs})
        except DiskFullError:
            pass

    def _job(self, name: str, state: str, called: str) -> dict[str, Any]:
        before = self._jobs.get(name, {})
        same = before.get("state") == state
        return {"state": state, "since": before["since"] if same else time.time(), "called": called}

    def close(self) -> None:
        """The batch is over."""
        self._file.unlink(missing_ok=True)


class NotebookState(NamedTuple):
    """A notebook: its state, since when (seconds since 1970; None: not known) and how long it took or runs, where, and
    what there is to say of it."""

    name: str
    state: str
    since: float | None
    seconds: float | None
    where: str
    note: str


def rows(out: Path) -> list[NotebookState]:
    """Every notebook that was executed into a folder or is to be, by name. Nothing is written."""
    known = dict(read_ledger(out))
    for file in (out / WORK).glob("*.outcome.json"):
        known[file.name.removesuffix(".outcome.json")] = read_json(file)
    table = {name: _ended(name, entry) for name, entry in known.items() if isinstance(entry, Mapping)}
    for file in sorted((out / WORK).glob("batch-*.json")):
        table |= _going_on(file, table)
    return [table[name] for name in sorted(table)]


def _ended(name: str, entry: Mapping[str, Any]) -> NotebookState:
    """What the ledger says."""
    try:
        since = datetime.fromisoformat(str(entry.get("date"))).timestamp()
    except ValueError:
        since = None
    cell = f"cell {entry['cell']}: " if entry.get("cell") else ""
    error = str(entry.get("error", "")).strip().partition("\n")[0]
    where = ", ".join(str(entry[key]) for key in ("host", "job") if entry.get(key))
    seconds = entry.get("seconds")
    seconds = float(seconds) if isinstance(seconds, int | float) else None
    return NotebookState(name, str(entry.get("status", "?")), since, seconds, where, cell + error if error else "")


def _going_on(file: Path, ended: Mapping[str, NotebookState]) -> dict[str, NotebookState]:
    """What a command says that it does. Of one that is gone: what SLURM still does for it; what it left undone counts
    as stopped, unless it ended after the command's last word."""
    try:
        word, heard = json.loads(file.read_text()), file.stat().st_mtime
        jobs, host = dict(word["jobs"]), str(word["host"])
    except (OSError, ValueError, LookupError, TypeError):  # just removed
        return {}
    alive, table = _alive(host, int(word["pid"]), heard), {}
    for name, job in jobs.items():
        state, note = str(job["state"]), ""
        where = ", ".join(filter(None, (host if job["state"] == "running" else "", str(job["called"]))))
        if not alive:
            before = ended.get(name)
            if before is not None and (before.since or 0.0) >= float(job["since"]) - 1:  # the ledger has whole seconds
                continue
            state, note = _without_a_command(str(job["called"])), "the command that started it is gone"
        passed = time.time() - float(job["since"]) if state in ("running", "waiting") else None
        table[name] = NotebookState(name, state, float(job["since"]), passed, where, note)
    return table


def _alive(host: str, pid: int, heard: float) -> bool:
    if host != platform.node():
        return time.time() - heard < LOST
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def _without_a_command(called: str) -> str:
    if not called.startswith("job "):
        return "stopped"
    from lcmae_core.execute.cluster import ALIVE, QUEUED, Queue

    state = Queue().state(called.removeprefix("job "))
    return "waiting" if state in QUEUED else "running" if state in ALIVE else "stopped"
