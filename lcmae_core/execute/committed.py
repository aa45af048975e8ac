"""Makes an executed notebook fit to commit: figures stay, everything that differs from run to run goes."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from lcmae_core.execute.discover import project_root
from lcmae_core.store.files import write_text
from lcmae_core.viewer.report.notebooks import BAR

WIDGETS = ("application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json")
CELL_NOISE = ("papermill", "execution", "ExecuteTime", "widgets")


def store_executed(output: Path, target: Path) -> Path:
    """Write the executed notebook `output` over its source `target`, atomically.

    Dropped: the injected parameters, widget state and outputs that are nothing but a widget, progress bars, papermill's
    and timing metadata, absolute paths. Cells keep the ids of the source, so that a difference shows only what changed.
    """
    import nbformat

    notebook = nbformat.read(output, 4)
    source = nbformat.read(target, 4) if target.exists() else notebook
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    notebook.metadata = _metadata(source.metadata, notebook.metadata)
    same_length = len(source.cells) == len(notebook.cells)
    count = 0
    for index, cell in enumerate(notebook.cells):
        cell.id = source.cells[index].id if same_length and "id" in source.cells[index] else f"cell-{index:02d}"
        cell.metadata = type(cell.metadata)({k: v for k, v in cell.metadata.items() if k not in CELL_NOISE})
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            count += bool(cell.source.strip())
            cell.execution_count = count if cell.source.strip() and cell.execution_count else None
            cell.outputs = [kept for out in cell.outputs if (kept := _output(out, cell.execution_count))]
    notebook.nbformat_minor = max(5, notebook.nbformat_minor)
    return _write(nbformat.writes(notebook), target)


def _metadata(source: Any, executed: Any) -> Any:
    """The source's own metadata; kernel and language without the version of the machine that ran it."""
    kept = {k: v for k, v in source.items() if k not in (*CELL_NOISE, "kernelspec", "language_info")}
    language = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return type(executed)({**kept, "kernelspec": kernel, "language_info": language})


def _output(output: Any, count: int | None) -> Any | None:
    """The output without what must not be kept, or None if nothing is left."""
    if output.output_type == "stream":
        if output.name == "stderr" and BAR.search(output.text):
            return None
        output.text = _relative(_last_lines(output.text))
        return output if output.text.strip() else None
    if "data" in output:
        had_widget = [output.data.pop(kind) for kind in WIDGETS if kind in output.data]
        if had_widget and not set(output.data) - {"text/plain"}:
            return None
        for kind, content in output.data.items():
            if kind.startswith("text/") and isinstance(content, str):
                output.data[kind] = _relative(content)
        output.metadata = type(output.metadata)({k: v for k, v in output.metadata.items() if k in output.data})
    if output.output_type == "execute_result":
        output.execution_count = count
    return output


def _last_lines(text: str) -> str:
    """What a terminal would show: of a line that rewrites itself, only its last state."""
    return "\n".join(line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n"))


def _relative(text: str) -> str:
    """Paths of this machine as seen from the project, the home folder or the temporary one."""
    places = {str(project_root()): ".", str(Path.home()): "~", tempfile.gettempdir(): "<tmp>"}
    for place, short in places.items():
        if len(place) > 1:
            text = text.replace(place + os.sep, short + "/")
            text = re.sub(re.escape(place) + r"(?![\w/-])", short, text)
    return text


def _write(text: str, target: Path) -> Path:
    write_text(target, text.rstrip("\n") + "\n")
    return target
