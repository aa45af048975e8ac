"""Notebooks executed in this process, cell by cell, with what their cells show: no kernel to wait for."""

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lcmae_core.execute.discover import cell_source

FOLDER = Path(__file__).parents[1] / "notebooks"


class Shown(NamedTuple):
    """cell: its place, from 0. source: of the code or the text. values: what it displays, the last expression too."""

    cell: int
    kind: str
    source: str
    values: list[Any]


def notebook(number: str) -> list[dict[str, Any]]:
    """The cells of the notebook with this number."""
    (path,) = FOLDER.glob(f"{number}_*.ipynb")
    return list(json.loads(path.read_text(encoding="utf-8"))["cells"])


def executed(number: str, parameters: Mapping[str, Any]) -> Iterator[Shown]:
    """Every cell in order with what it shows, under these parameters; LCMAE_HEADLESS is for the caller to set."""
    shown: list[Any] = []
    names: dict[str, Any] = {"__name__": f"notebook_{number}", "display": lambda *values: shown.extend(values)}
    for place, cell in enumerate(notebook(number)):
        source = cell_source(cell)
        shown.clear()
        if cell["cell_type"] == "code":
            _run(source, names, shown)
            if "parameters" in cell["metadata"].get("tags", []):
                assert not set(parameters) - set(names), f"notebook {number} has no such parameter"
                names |= parameters
        yield Shown(place, cell["cell_type"], source, list(shown))


def _run(source: str, names: dict[str, Any], shown: list[Any]) -> None:
    """As IPython does: the value of a last expression is shown."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if last is not None:
        shown.append(eval(compile(ast.Expression(last.value), "<cell>", "eval"), names))
