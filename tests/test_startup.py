"""What has to be loaded before anything happens, counted in modules, which no busy machine changes.

Claims: `lcmae --help` and a plan of notebooks load no array library; the losses load torch and annotations alone; the
first cell of a notebook and `lcmae report` leave out what is only needed later; every lazy import does come when it is
needed.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import lcmae_core.config
from tests.loops import over

ROOT = Path(__file__).parents[1]
ARRAYS = {"torch", "numpy", "scipy", "matplotlib", "pandas", "sklearn", "timm", "torchvision", "networkx"}
LATER = {"pandas", "sklearn", "networkx", "skimage", "tensorboard", "transformers", "lightly", "piq", "datasets"}
"""Which no first cell needs, and each of which takes a tenth of a second or more."""
HELP = "from lcmae_core.cli.main import build_parser; build_parser()[0].format_help()"
PLAN = """
from lcmae_core.execute import Request, make_plan
make_plan(Request(("00",), {}, "smoke", None, None, OUT, None))
"""
REPORT = "import lcmae_core.cli.report, lcmae_core.studies.front, lcmae_core.studies.readers, lcmae_core.viewer.report"


def loaded(source: str, *, less: str = "pass") -> set[str]:
    """Modules that a fresh interpreter has after some source, but not after another."""
    found = [
        subprocess.run(
            [sys.executable, "-c", f"{text}\nimport sys; print('loaded:', *sys.modules)"],
            capture_output=True, text=True, check=True, cwd=ROOT,
        ).stdout.rpartition("loaded:")[2].split()
        for text in (source, less)
    ]  # fmt: skip
    return set(found[0]) - set(found[1])


def roots(modules: set[str]) -> set[str]:
    """The packages that they belong to."""
    return {name.partition(".")[0] for name in modules}


def first_imports(notebook: str) -> str:
    """What a notebook imports in its first cells."""
    (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"][:3]
    return next(source for source in sources if source.startswith(("import", "from")))


def test_help_loads_little() -> None:
    found = loaded(HELP)
    assert not roots(found) & (ARRAYS | {"pydantic", "rich", "PIL", "IPython"})
    assert len({name for name in found if name.startswith("lcmae_core")}) <= 13
    assert len(found) < 200, "it was 112 with those of the interpreter"


def test_a_plan_of_notebooks_loads_no_array_library(tmp_path: Path) -> None:
    assert not roots(loaded(PLAN.replace("OUT", repr(str(tmp_path))))) & (ARRAYS | {"nbformat", "papermill", "IPython"})


def test_losses_load_torch_and_annotations_alone() -> None:
    found = loaded("import lcmae_core.losses", less="import torch")
    assert not roots(found) & {"timm", "torchvision", "scipy", "matplotlib", "pydantic", "PIL", "sklearn", "yaml"}
    assert {name for name in found if name.startswith("lcmae_core.")} == {
        "lcmae_core.config", "lcmae_core.config.errors", "lcmae_core.losses",
    }  # fmt: skip
    assert len(found) < 40


@over(("source", "most"), [(first_imports("00"), 3600), (REPORT, 3700)])
def test_what_comes_later_is_loaded_later(source: str, most: int) -> None:
    """It was 3191 for notebook 00 and 3297 for the report, with torch's own 1200 and timm's 1700; 4500 before."""
    found = loaded(source)
    assert not roots(found) & LATER
    assert len(found) < most


def test_notebooks_are_checked_without_a_grammar_of_addresses() -> None:
    checks = """
import nbformat
from nbformat.v4 import new_notebook
nbformat.validate(new_notebook())
try:
    nbformat.validate(new_notebook(cells=[{"cell_type": "poem"}]))
except nbformat.ValidationError:
    import colorsys
"""
    found = loaded(f"from lcmae_core.store.leaving import begin_lightly; begin_lightly(){checks}")
    assert {"nbformat", "jsonschema", "colorsys"} <= found
    assert "lark" not in found
    assert "lark" in loaded(checks), "what it costs where nothing is done about it"


def test_settings_come_when_they_are_asked_for() -> None:
    assert "lcmae_core.config.settings" in loaded("from lcmae_core.config import Settings; Settings()")
    assert all(hasattr(lcmae_core.config, name) for name in lcmae_core.config.__all__)
    with pytest.raises(AttributeError, match=r"'lcmae_core\.config' has no attribute 'Setings'"):
        _ = lcmae_core.config.Setings


def test_a_heavy_import_would_be_seen() -> None:
    assert "matplotlib" in roots(loaded(f"{HELP}\nimport matplotlib")) & ARRAYS
