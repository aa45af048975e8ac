"""One notebook executed by papermill in a process of its own; exit code 0 means that every cell ran.

Started as `python -c START JOB`, where JOB is the literal of a Job's fields, or called by a cluster job.
"""

import ast
import json
import os
import platform
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lcmae_core.execute.kernels import environment, kernel
from lcmae_core.execute.ledger import WORK, read_json
from lcmae_core.execute.watch import STOPPING, TIMED_OUT, end_after, watch
from lcmae_core.store.files import DiskFullError, room_for, write_json
from lcmae_core.store.kept import KEPT, kept_seconds
from lcmae_core.store.progress import in_words

START = "from lcmae_core.execute.job import main; from lcmae_core.store.leaving import left_after; left_after(main)"
ADDED = {"injected-parameters", "papermill-error-cell-tag"}
ANSI = re.compile(r"\x1b\[[0-9;]*m")
FULL_DISK = 74
"""Exit code of a job that could not even write its outcome: `EX_IOERR` of sysexits.h."""


@dataclass(frozen=True)
class Job:
    """What to execute, with which parameters, into which folder."""

    name: str
    source: str
    out: str
    parameters: dict[str, Any]
    digest: str
    cwd: str
    threads: int | None = None
    timeout: float | None = None

    @property
    def partial(self) -> Path:
        """The notebook while it is being executed."""
        return Path(self.out, WORK, f"{self.name}.ipynb")

    @property
    def output(self) -> Path:
        """The executed notebook."""
        return Path(self.out, f"{self.name}.ipynb")

    @property
    def failed(self) -> Path:
        """What there is of it when a cell failed."""
        return Path(self.out, f"{self.name}.failed.ipynb")

    @property
    def log(self) -> Path:
        """Output of the job's process."""
        return Path(self.out, "logs", f"{self.name}.log")


def execute(job: Job) -> int:
    """Execute a job, put the notebook in its place, leave an outcome file for the ledger, and return the exit code."""
    began = time.monotonic()
    job.partial.parent.mkdir(parents=True, exist_ok=True)
    failure: dict[str, Any] = {}
    kept = 0.0
    try:
        _prepare(job)
        kept = _papermill(job)
        failure = _unfinished(job.partial)
    except Exception as error:
        failure = _failure(job.partial) or _ended(job.partial, error)
    if failure and TIMED_OUT.is_set():
        failure["error"] = f"timeout: not done after {in_words(job.timeout or 0.0)}; what it trained until then is kept"
    return _conclude(job, failure, time.monotonic() - began, kept)


def _conclude(job: Job, failure: dict[str, Any], seconds: float, kept: float) -> int:
    """Put the notebook in its place and leave the outcome."""
    status = _status(job, failure)
    if read_json(job.partial):
        _tidy(job.partial)
        if status == "incomplete":
            _end_here(job.partial, failure)
        job.partial.replace(job.output if status in ("ok", "incomplete") else job.failed)
    job.partial.unlink(missing_ok=True)
    if status != "failed":
        job.failed.unlink(missing_ok=True)
    outcome = {
        "status": status,
        "digest": job.digest,
        "seconds": round(seconds, 1),
        "kept_seconds": round(kept, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "job": f"job {os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else "",
        "parameters": {name: repr(value) for name, value in job.parameters.items()},
        **failure,
    }
    write_json(Path(job.out, WORK, f"{job.name}.outcome.json"), outcome)
    return 1 if status in ("failed", "stopped") else 0


def _status(job: Job, failure: Mapping[str, Any]) -> str:
    """ok, failed, stopped, or incomplete: a run that the notebook may not train is missing, or the data of the profile
    itself (whoever names data that are not there is mistaken)."""
    error = str(failure.get("error", ""))
    if failure and TIMED_OUT.is_set():
        return "failed"
    if failure and (STOPPING.is_set() or error.startswith("Stopped: ")):
        return "stopped"
    named = job.parameters.get("data") or os.environ.get("LCMAE_DATA")
    missing = error.startswith("NotTrainedError: ") or (error.startswith("NoDataError: ") and not named)
    return "incomplete" if failure and missing else "failed" if failure else "ok"


def _end_here(path: Path, failure: Mapping[str, Any]) -> None:
    """End an incomplete notebook in words at the cell that could not run: what stands after it describes figures that
    are not there."""
    import nbformat

    notebook = nbformat.read(path, 4)
    raised = [any(o["output_type"] == "error" for o in cell.get("outputs", [])) for cell in notebook.cells]
    last = raised.index(True) if True in raised else len(raised) - 1
    reason = str(failure["error"]).partition(": ")[2]
    end = nbformat.v4.new_markdown_cell(
        f"**This notebook ends here.** What follows needs what is not there yet. {reason}"
    )
    notebook.cells = [*notebook.cells[:last], end]
    nbformat.write(notebook, path)


def _prepare(job: Job) -> None:
    """Copy the notebook with a cell of injected parameters after the declared ones.

    Papermill could do that, but turns tuples into text and only warns of unknown names.
    """
    import nbformat

    notebook = nbformat.read(job.source, 4)
    lines = [f"{name} = {value!r}" for name, value in job.parameters.items()]
    injected = nbformat.v4.new_code_cell("\n".join(["# Parameters", *lines]), id="injected")
    injected.metadata["tags"] = ["injected-parameters"]
    cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    tagged = [i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", [])]
    at = tagged[0] + 1 if tagged else 0
    notebook.cells = [*cells[:at], injected, *cells[at:]]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, job.partial)


def _papermill(job: Job) -> float:
    """Execute the notebook; the seconds that went into runs and measures which the next execution finds."""
    import papermill

    began = time.time()
    with kernel() as told, environment(_variables(job)):
        papermill.execute_notebook(job.partial, job.partial, cwd=job.cwd, progress_bar=False, start_timeout=180, **told)
        return kept_seconds(Path(os.environ[KEPT]), began)


def _variables(job: Job) -> dict[str, str]:
    """What the kernel is to find in its environment."""
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(job.threads))} if job.threads else {}
    return {"LCMAE_HEADLESS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", **threads}


def _cells(path: Path) -> list[dict[str, Any]]:
    """The executed cells, counted as in the source: without injected parameters and papermill's error banners. None
    where a full disk tore the file."""
    cells = read_json(path).get("cells", [])
    return [c for c in cells if not ADDED & set(c["metadata"].get("tags", []))]


def _failure(path: Path) -> dict[str, Any]:
    """Number (from 1), source line and error of the first cell that failed; empty if none did."""
    for number, cell in enumerate(_cells(path), start=1):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                frames = ANSI.sub("", "\n".join(output.get("traceback", []))).splitlines()
                arrows = [arrow for line in frames if (arrow := re.match(r"-+> (\d+) ?(.*)", line))]
                line = f"line {arrows[0][1]}: {arrows[0][2].strip()}" if arrows else ""
                error = f"{output['ename']}: {output['evalue']}"
                return {"cell": number, "line": line, "error": ANSI.sub("", error)}
    return {}


def _unfinished(path: Path) -> dict[str, Any]:
    """An error, or the first code cell that never ran: papermill reports the cells of a dead kernel as completed."""
    failure = _failure(path)
    for number, cell in enumerate(_cells(path), start=1):
        source = "".join(cell["source"]).strip()
        if not failure and cell["cell_type"] == "code" and source and cell.get("execution_count") is None:
            failure = {"cell": number, "line": source.splitlines()[0], "error": "the cell did not run: kernel died"}
    return failure


def _ended(path: Path, error: Exception) -> dict[str, Any]:
    """An error that no cell raised, such as a kernel's death, with the last cell that had begun."""
    cells = enumerate(_cells(path), start=1)
    begun = [(n, c) for n, c in cells if c["metadata"].get("papermill", {}).get("start_time")]
    number, cell = begun[-1] if begun else (None, {"source": ""})
    first = "".join(cell["source"]).strip().partition("\n")[0]
    return {"cell": number, "line": f"begins: {first}" if first else "", "error": f"{type(error).__name__}: {error}"}


def _tidy(path: Path) -> None:
    """Drop papermill's error banners, and say python3 in the output, so that any Jupyter opens it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    banner = "papermill-error-cell-tag"
    content["cells"] = [c for c in content["cells"] if banner not in c["metadata"].get("tags", [])]
    content["metadata"]["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Execute the job in argv."""
    job = Job(**ast.literal_eval((sys.argv[1:] if argv is None else argv)[0]))
    watch()
    if job.timeout:
        end_after(job.timeout, Path(job.out, WORK, f"{job.name}.spent"))
    try:
        with room_for(job.partial):
            return execute(job)
    except DiskFullError:
        job.partial.unlink(missing_ok=True)  # it is the others' room
        return FULL_DISK


def literal(job: Job) -> str:
    """A job as the text that main reads."""
    return repr(asdict(job))
