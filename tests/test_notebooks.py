"""Every notebook keeps the form that makes it readable, executable headless and honest about where it was executed."""

import ast
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat

from lcmae_core.execute.discover import PATTERN, NotebookFile, cell_source
from lcmae_core.execute.parameters import read_parameters
from tests.loops import over

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HEADER = ("Question", "Paper", "Needs", "Writes", "Time")
ABSOLUTE = re.compile(
    r"(?<![\w.~>])/(?:home|root|Users|tmp|work|mnt|opt|usr|var|private|content|scratch)/|\b[A-Z]:\\\\"
)

every_notebook = over("path", NOTEBOOKS)


def cells(path: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """A notebook's cells, of one type or all."""
    content = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [c for c in content if kind in (None, c["cell_type"])]


def tagged(path: Path, tag: str) -> list[dict[str, Any]]:
    """The cells that carry a tag."""
    return [c for c in cells(path) if tag in c["metadata"].get("tags", [])]


def outputs(path: Path) -> list[dict[str, Any]]:
    """Every stored output."""
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


def texts(path: Path) -> str:
    """All that can be read in a notebook: sources and outputs, without pictures."""
    shown = [o.get("text", "") for o in outputs(path)]
    shown += [v for o in outputs(path) for k, v in o.get("data", {}).items() if k.startswith("text/")]
    shown += [v for o in outputs(path) for v in o.get("traceback", [])]
    return "\n".join(["".join(s) for s in shown] + [cell_source(c) for c in cells(path)])


def committed(path: Path) -> bool:
    """Whether git tracks the file; where there is no git, everything counts."""
    name = path.relative_to(ROOT).as_posix()
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", name], capture_output=True, text=True)
    return listed.returncode != 0 or bool(listed.stdout.strip())


@every_notebook
def test_name_title_and_header(path: Path) -> None:
    assert path in (ROOT / "notebooks").glob(PATTERN)
    assert re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name)
    assert [p.stem[:2] for p in NOTEBOOKS].count(path.stem[:2]) == 1
    first = cells(path)[0]
    assert first["cell_type"] == "markdown"
    assert cell_source(first).startswith(f"# {path.stem[:2]} · ")
    places = [cell_source(first).find(f"**{word}.**") for word in HEADER]
    assert -1 not in places, f"expected {HEADER} in the first cell"
    assert places == sorted(places)


@every_notebook
def test_one_cell_of_parameters(path: Path) -> None:
    assert len(tagged(path, "parameters")) == 1
    assert cells(path)[1] == tagged(path, "parameters")[0]
    parameters = read_parameters(NotebookFile(path))
    assert [*parameters][:4] == ["profile", "data", "seed", "out"]
    assert parameters["profile"].choices == ("smoke", "quick", "desk", "lab", "paper")
    assert all(parameters[name].default is None for name in ("profile", "data", "out")), "the user's machine decides"


@every_notebook
def test_cells_are_short_and_define_little(path: Path) -> None:
    for cell in cells(path, "code"):
        source = cell_source(cell)
        assert len(source.strip().splitlines()) <= 25, source
        nodes = list(ast.walk(ast.parse(source)))
        assert not any(isinstance(n, ast.ClassDef) for n in nodes), source
        assert all(n.end_lineno - n.lineno < 10 for n in nodes if isinstance(n, ast.FunctionDef)), source


@every_notebook
def test_numbers_are_asserted_and_recorded_at_the_end(path: Path) -> None:
    sources = [cell_source(c) for c in cells(path, "code")]
    assert any(isinstance(n, ast.Assert) for s in sources for n in ast.walk(ast.parse(s)))
    assert ".record(" in sources[-1]
    last = cells(path)[-1]
    assert last["cell_type"] == "markdown"
    assert cell_source(last).startswith("**What this does not show.**")


@every_notebook
def test_nothing_of_one_machine(path: Path) -> None:
    found = ABSOLUTE.search(texts(path))
    assert not found, f"absolute path: ...{texts(path)[found.start() : found.start() + 60]!r}"
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
    assert metadata["kernelspec"]["name"] == "python3"
    assert "version" not in metadata.get("language_info", {})
    assert not any("execution" in c["metadata"] or "papermill" in c["metadata"] for c in cells(path))


@every_notebook
def test_valid_with_unique_ids(path: Path) -> None:
    nbformat.validate(nbformat.read(path, nbformat.NO_CONVERT))
    ids = [c["id"] for c in cells(path)]
    assert len(ids) == len(set(ids))
    assert path.stat().st_size < 2_500_000  # figures have twice the pixels that they take on a page


@every_notebook
def test_stored_executed(path: Path) -> None:
    if not committed(path):
        return
    assert not [o for o in outputs(path) if o["output_type"] == "error"]
    counts = [c["execution_count"] for c in cells(path, "code") if cell_source(c).strip()]
    assert counts == list(range(1, len(counts) + 1)), "execute it from top to bottom: make notebooks"
    assert any("image/png" in o.get("data", {}) for o in outputs(path)), "no figure is stored"
    checked = tagged(path, "nbval-check-output")
    assert all(c["outputs"] for c in checked), "a cell whose output is compared has none"
