"""Names in the code say which quantity they hold.

Claims: no variable, argument, attribute or function of the package is called by a word that would fit any of them; no
two public classes have one name, but for the two below; no module asks for a profile's name, where its object says
what hangs on it.
"""

import ast
from collections import Counter
from collections.abc import Iterable

import pytest

from lcmae_core.config import PROFILES
from tests.loops import over
from tests.test_layering import MODULES, every_module, tree

EMPTY = {"found", "said", "_found", "_said"}
"""Words that fit whatever a function has at hand."""
TWICE = {
    "Dino": "the settings of the method, and its model",
    "Siamese": "the settings of the method, and its model",
}
"""Names of two public classes -> what both are."""


def names_of(node: ast.AST) -> list[str]:
    """Names that a node of a syntax tree binds or reads."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.arg | ast.keyword):
        return [node.arg or ""]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    return []


def lines_with(parsed: ast.AST, words: set[str]) -> list[int]:
    """Lines on which one of these words is a name."""
    return [node.lineno for node in ast.walk(parsed) if words & {*names_of(node)}]  # type: ignore[attr-defined]


@every_module
def test_names_say_a_quantity(module: str) -> None:
    assert not lines_with(tree(module), EMPTY)


@pytest.mark.parametrize("source", ["found = 1", "def f(said): pass", "x.found", "f(found=1)", "for said in x: pass",
                                    "class A:\n    found: int", "def said(): pass", "f'{found}'"])  # fmt: skip
def test_the_search_would_notice(source: str) -> None:
    assert lines_with(ast.parse(source), EMPTY)
    assert len(MODULES) > 100, "and it is the whole package that is searched"


def classes_of(parsed: ast.Module) -> list[str]:
    """The public classes that a module defines."""
    return [node.name for node in parsed.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def doubles(modules: Iterable[ast.Module]) -> set[str]:
    """Names of public classes that several of these modules define."""
    return {name for name, count in Counter(name for one in modules for name in classes_of(one)).items() if count > 1}


def test_a_public_class_has_a_name_of_its_own() -> None:
    assert doubles(map(tree, MODULES)) == set(TWICE)
    planted = ast.parse("class Run: pass")
    assert "Run" in doubles([*map(tree, MODULES), planted])


def compared_profiles(parsed: ast.Module) -> list[int]:
    """Lines on which something is compared with the name of a profile, or looked for among such names."""
    return [
        node.lineno
        for node in ast.walk(parsed)
        if isinstance(node, ast.Compare)
        and any(isinstance(part, ast.Constant) and part.value in PROFILES for side in (node.left, *node.comparators)
                for part in ast.walk(side) if not isinstance(side, ast.Subscript))
    ]  # fmt: skip


@over("module", [module for module in MODULES if not module.startswith("lcmae_core.config.")])
def test_what_hangs_on_a_profile_stands_in_its_object(module: str) -> None:
    assert not compared_profiles(tree(module))


def test_a_compared_profile_would_be_noticed() -> None:
    for source in ("x == 'desk'", "'smoke' != f(x)", "name in ('quick', 'other')", "1 if a.b == 'paper' else 2"):
        assert compared_profiles(ast.parse(source)), source
    assert not compared_profiles(ast.parse("committed['quick'] != shape.quick"))
