"""The ledger: what was executed into a folder, from what, how long it took, and whether it is still up to date."""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from lcmae_core.config.profiles import DEFAULT
from lcmae_core.execute.discover import PACKAGE, NotebookFile, cell_source
from lcmae_core.store.files import write_json
from lcmae_core.store.outputs import LEDGER, read_ledger

WORK = ".work"
LEAST = 1.0
"""Seconds that a notebook takes at least: its kernel has to start."""
WITHOUT_EFFECT = ("execute", "cli", "cli.py", "doctor.py", "notebooks", "viewer/report")
"""Parts of the package that cannot change what a notebook shows."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object, or an empty one where there is none or it is broken."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@cache
def code_digest() -> str:
    """Digest of the package's source and of the torch version: what, beside the notebook itself, shapes its output."""
    digest = hashlib.sha256()
    for path in sorted(p for p in PACKAGE.rglob("*") if p.suffix in (".py", ".js", ".css", ".html", ".npz", ".zip")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(WITHOUT_EFFECT):
            digest.update(name.encode() + path.read_bytes())
    try:
        digest.update(importlib.metadata.version("torch").encode())
    except importlib.metadata.PackageNotFoundError:
        digest.update(b"no torch")
    return digest.hexdigest()


def job_digest(notebook: NotebookFile, parameters: Mapping[str, Any], upstream: Mapping[str, Any] | None = None) -> str:
    """Digest of cells, parameters, environment, code, and the executions that the notebook reads the results of."""
    cells = [[cell["cell_type"], cell_source(cell)] for cell in notebook.content["cells"]]
    environment = os.environ.get("LCMAE_DATA", "")
    text = json.dumps(
        [cells, sorted((k, repr(v)) for k, v in parameters.items()), environment, code_digest(), upstream]
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Ledger:
    """<out>/ledger.json: notebook name -> digest, status, seconds, date, parameters."""

    def __init__(self, out: Path):
        self.out = out
        for outcome in sorted((out / WORK).glob("*.outcome.json")):
            self.take(outcome.name.removesuffix(".outcome.json"))

    def entry(self, name: str) -> dict[str, Any]:
        """What is known of a notebook; empty if it never ran here."""
        return read_ledger(self.out).get(name, {})

    def current(self, name: str, digest: str) -> bool:
        """Whether the notebook ran well from exactly this, and its output is still there."""
        entry = self.entry(name)
        return entry.get("digest") == digest and entry.get("status") == "ok" and (self.out / f"{name}.ipynb").exists()

    def put(self, name: str, entry: Mapping[str, Any]) -> None:
        """Replace a notebook's entry, under a lock because other commands may work in the same folder."""
        from filelock import FileLock

        (self.out / WORK).mkdir(exist_ok=True)
        with FileLock(self.out / WORK / "ledger.lock"):
            write_json(self.out / LEDGER, {**read_ledger(self.out), name: dict(entry)}, sealed=True)

    def take(self, name: str) -> dict[str, Any]:
        """Move the outcome that a job left into the ledger and return it; empty if the job left none."""
        path = self.out / WORK / f"{name}.outcome.json"
        outcome = read_json(path)
        if outcome:
            self.put(name, outcome)
            path.unlink(missing_ok=True)
        return outcome


def expected_seconds(
    notebook: NotebookFile, profile: str, ledger: Ledger, parameters: Mapping[str, Any] | None = None
) -> float:
    """How long the notebook will take: with the same parameters as last time, without what was trained and measured
    then and is there now; else what its metadata says of a first time, or last time if that took longer; else a minute.
    """
    hint = notebook.hints.get("seconds", 60.0)
    if isinstance(hint, Mapping):
        hint = hint.get(profile, hint.get(DEFAULT, 60.0))
    last = ledger.entry(notebook.name)
    if last.get("status") != "ok":
        return float(hint)
    given = {name: repr(value) for name, value in (parameters or {}).items()}
    if last.get("parameters", {}) != given:
        return max(float(hint), float(last["seconds"]))
    return max(LEAST, float(last["seconds"]) - float(last.get("kept_seconds", 0.0)))
