"""Tests reach into no module: what several need is public there, everything else is tested through what is.

Claim: no test imports a private name of a module of the package, asks one for it, or replaces it, by whatever alias.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.loops import over

TESTS = sorted(Path(__file__).parent.rglob("*.py"))
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Public, whatever they begin with; as is what Jupyter asks for, `_repr_png_`."""


def private(name: str) -> bool:
    """Whether a name is one that its owner keeps for itself."""
    return name.startswith("_") and not name.endswith("_") and name not in OF_NAMED_TUPLES


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(what a file calls it, where it comes from) of every import from the package, anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.asname or a.name.partition(".")[0], a.name) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)


def reached_into(source: str) -> list[str]:
    """Every private name of the package that a file uses."""
    tree = ast.parse(source)
    ours = {name: origin for name, origin in imported(tree) if origin.partition(".")[0] == "lcmae_core"}
    found = [origin for origin in ours.values() if any(map(private, origin.split(".")))]
    for node in ast.walk(tree):
        owner, name = None, ""
        if isinstance(node, ast.Attribute):
            owner, name = node.value, node.attr
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("setattr", "getattr", "delattr")):
            match node.args:  # monkeypatch.setattr(module, "_name", ...) and the built-in ones
                case [given, ast.Constant(value=str(text)), *_]:
                    owner, name = given, text
        if owner is not None and private(name) and (root := ast.unparse(owner)).partition(".")[0] in ours:
            found.append(f"{root}.{name}")
    return found


@over("path", TESTS)
def test_no_test_reaches_into_a_module(path):
    assert not reached_into(path.read_text(encoding="utf-8"))


@over(
    ("source", "name"),
    [
        ("from lcmae_core.losses import _reduce", "lcmae_core.losses._reduce"),
        ("from lcmae_core import losses as L\nL._reduce()", "L._reduce"),
        ("import lcmae_core.losses\nlcmae_core.losses._reduce()", "lcmae_core.losses._reduce"),
        ("from lcmae_core.models.mae import MAE\ndef test():\n    MAE._embed", "MAE._embed"),
        ("def f(m):\n    from lcmae_core import losses\n    m.setattr(losses, '_reduce', None)", "losses._reduce"),
    ],
)
def test_each_way_in_is_noticed(source, name):
    assert reached_into(source) == [name]


def test_what_is_public_or_of_others_is_left_alone():
    assert reached_into("import torch\nfrom lcmae_core import losses\ntorch._dynamo\nlosses.__name__\nx._y") == []
