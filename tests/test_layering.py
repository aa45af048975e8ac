"""The package is layered, lean and documented, as its source says.

Claims: no module imports from a later layer, lazily or not, and none imports itself on a detour; the eleven layers are
all that a reader finds in the package; old paths of modules still work; the core trains without Jupyter; files and
functions are short; every public function and class says what it is.
"""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.loops import over

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lcmae_core"
LAYERS = (
    "config", "store", "data", "models", "losses", "training", "analysis", "viewer", "studies", "execute bench", "cli",
)  # fmt: skip
ROOMS = 13
"""Entries of the package, at most: its `__init__`, losses.py and the folders."""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
EXCEPTIONS: dict[tuple[str, str], str] = {}
"""(module, imported module) -> why this one import may go against the order."""
JUPYTER = {
    "IPython", "anywidget", "ipykernel", "ipywidgets", "jupyter_client", "jupyter_core", "matplotlib", "nbclient",
    "nbconvert", "nbformat", "papermill", "traitlets",
}  # fmt: skip
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted(PACKAGE.rglob("*.py"))}
every_module = over("module", MODULES)


def tree(module: str) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Every module of the package that a module imports, anywhere in it."""
    package = module.removesuffix(".__init__") if module.endswith(".__init__") else module.rpartition(".")[0]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "lcmae_core")
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base == "lcmae_core":
                yield from (f"{base}.{alias.name}" for alias in node.names)
            elif base.startswith("lcmae_core."):
                yield base


def layer(module: str) -> str:
    """The first part below the package."""
    return module.split(".")[1]


def test_every_part_has_a_place_in_the_order() -> None:
    parts = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()} - {"__init__"}
    assert parts <= set(RANK)


@every_module
def test_imports_point_to_the_left(module: str) -> None:
    check_imports(module)


def check_imports(module: str) -> None:
    """Whether a module imports from its left alone."""
    if module == "lcmae_core.__init__":
        assert not list(imports(module)), "importing the package loads nothing"
        return
    found = {name for name in imports(module) if layer(name) in RANK and RANK[layer(name)] > RANK[layer(module)]}
    beside = {name for name in imports(module) if layer(name) in RANK and layer(name) != layer(module)
              and RANK[layer(name)] == RANK[layer(module)]}  # fmt: skip
    wrong = {name for name in found | beside if (module, name) not in EXCEPTIONS}
    assert not wrong, f"{module} imports from its right: {', '.join(sorted(wrong))}"


def test_few_rooms_and_each_is_a_layer() -> None:
    found = sorted(p.name for p in PACKAGE.iterdir() if p.name != "__pycache__")
    assert len(found) <= ROOMS, found
    assert len(LAYERS) == 11
    assert {name.removesuffix(".py") for name in found} - {"__init__"} == set(RANK)


def module_graph() -> dict[str, set[str]]:
    """Module -> modules that it imports, anywhere in it, less the packages that it lies in, which always come first."""
    names = {m.removesuffix(".__init__"): m for m in MODULES}
    wanted = {m: [*imports(m), *(f"{i}.{n}" for i, n in given(m))] for m in MODULES}
    return {m: {names[i] for i in found if i in names and not m.startswith(f"{i}.")} for m, found in wanted.items()}


def given(module: str) -> Iterator[tuple[str, str]]:
    """(package, name) of every `from package import name`."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.module, alias.name) for alias in node.names)


def test_no_module_imports_itself_on_a_detour() -> None:
    graph = module_graph()
    assert len([*TopologicalSorter(graph).static_order()]) == len(MODULES)
    with pytest.raises(CycleError):
        TopologicalSorter({**graph, "lcmae_core.losses": {"lcmae_core.training.loop"}}).prepare()


def test_old_paths_give_the_same_modules() -> None:
    from lcmae_core import MOVED

    script = "import sys, importlib\n" + "\n".join(
        f"a, b = (importlib.import_module('lcmae_core.' + m) for m in {pair!r}); assert a is b, {pair!r}\n"
        f"assert a.__spec__.name == 'lcmae_core.{pair[1]}'"
        for pair in [*MOVED.items(), ("judge.rule", "studies.judge.rule")]
    )
    done = subprocess.run([sys.executable, "-W", "always", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "DeprecationWarning: lcmae_core.jobs is now lcmae_core.studies.trials" in done.stderr
    wrong = subprocess.run([sys.executable, "-c", "import lcmae_core.jobz"], capture_output=True, text=True)
    assert "No module named 'lcmae_core.jobz'" in wrong.stderr


def test_exceptions_are_still_needed() -> None:
    assert all(name in imports(module) for module, name in EXCEPTIONS)


def test_the_order_would_notice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for source in ("from lcmae_core.training import loop", "from ..training.loop import pretrain",
                   "def late():\n    import lcmae_core.training.loop"):  # fmt: skip
        path = tmp_path / "planted.py"
        path.write_text(source)
        monkeypatch.setitem(MODULES, "lcmae_core.models.planted", path)
        with pytest.raises(AssertionError, match=r"imports from its right: lcmae_core\.training"):
            check_imports("lcmae_core.models.planted")


def test_the_core_loads_no_jupyter_package() -> None:
    core = [m.removesuffix(".__init__") for m in MODULES if layer(m) in ("models", "losses", "data", "training")]
    script = f"import importlib, sys\nfor m in {core!r}: importlib.import_module(m)\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    parts = {name.partition(".")[0] for name in loaded.split()}
    assert "torch" in parts
    assert not parts & JUPYTER


@every_module
def test_files_and_functions_are_short(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= 300
    long = {
        f"{node.name} ({length} lines)"
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > 60
    }
    assert not long


@every_module
def test_public_names_are_documented(module: str) -> None:
    found = tree(module)
    assert ast.get_docstring(found), "the module says no purpose"
    silent = {
        node.name
        for node in found.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    }
    assert not silent


def test_every_module_can_be_imported() -> None:
    for module in MODULES:
        if not module.endswith(".__main__"):  # a command, which would start
            importlib.import_module(module.removesuffix(".__init__"))
