"""Toy notebooks for the tests of execution, command line and report."""

from pathlib import Path

import nbformat

PARAMETERS = """profile = None  # smoke | quick | desk | lab | paper; None: $LCMAE_PROFILE, else quick
data = None  # source string; None: $LCMAE_DATA, else the profile's
seed = 0
out = None  # None: outputs/<profile>
mask_ratio = 0.75
"""
RECORD = """import json, pathlib
folder = pathlib.Path(out) / "results"
folder.mkdir(exist_ok=True)
value = {"value": mask_ratio, "unit": "px", "n": 3, "sd": 0.01, "paper": "0.6", "note": "a toy"}
result = {"notebook": "NN", "title": "toy", "profile": profile, "seed": seed, "values": {"toy_value": value}}
_ = (folder / "NN.json").write_text(json.dumps(result))"""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FIGURE = f"""from IPython.display import display
display({{"image/png": "{PIXEL}", "text/plain": "<Figure>"}}, raw=True)"""


def code(source: str, *tags: str) -> nbformat.NotebookNode:
    """A code cell."""
    return nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


def prose(source: str) -> nbformat.NotebookNode:
    """A markdown cell."""
    return nbformat.v4.new_markdown_cell(source)


def make_notebook(folder: Path, name: str, *cells: nbformat.NotebookNode, more: str = "", **hints: object) -> Path:
    """A numbered notebook with a title, a parameters cell, and the given cells."""
    folder.mkdir(parents=True, exist_ok=True)
    first = [prose(f"# {name[:2]} · {name[3:].title()}"), code(PARAMETERS + more, "parameters")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[*first, *cells], metadata={"kernelspec": kernel, "lcmae": hints})
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    return path


def recording(number: str) -> nbformat.NotebookNode:
    """The cell that writes results/NN.json."""
    return code(RECORD.replace("NN", number))
