"""Parameters: what a notebook's parameters cell declares, what the user typed, and whether the two agree."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.execute.discover import NotebookFile, cell_source

UNKNOWN = object()
"""The default of a parameter whose right side is no literal: it takes anything."""


@dataclass(frozen=True)
class Parameter:
    """One assignment of a parameters cell; choices come from a comment such as `# smoke | quick | lab`."""

    name: str
    default: Any
    choices: tuple[str, ...] = ()


def parse_value(text: str) -> Any:
    """A typed value as YAML 1.2 and Python read it: 0.5, 1e-4, true, null, [1, 2], "text"; all else is a string."""
    if text in ("None", "True", "False"):
        return ast.literal_eval(text)
    for read in (_json, ast.literal_eval):
        try:
            value = read(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, int | float | str | list | tuple | dict):
            return value
        if value is None:
            return None
    return text


def _json(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def parse_assignments(pairs: Sequence[str], option: str = "-p") -> dict[str, Any]:
    """NAME=VALUE texts as names and values; a name given twice keeps the last.

    Raises:
        LcmaeError: a text without '=', or a name that is no identifier.
    """
    assigned: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip().isidentifier():
            raise LcmaeError(f"{option}: got {pair!r}, expected name=value, such as mask_ratio=0.5")
        assigned[name.strip()] = parse_value(text)
    return assigned


def read_parameters(notebook: NotebookFile) -> dict[str, Parameter]:
    """The assignments of the cell tagged `parameters`, by name.

    Raises:
        LcmaeError: that cell is no Python.
    """
    for cell in notebook.content["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            try:
                return _assignments(cell_source(cell))
            except (SyntaxError, tokenize.TokenError) as error:
                raise LcmaeError(f"{notebook.name}: parameters cell: {error}, expected plain assignments") from None
    return {}


def _assignments(source: str) -> dict[str, Parameter]:
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    parameters = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name):
            try:
                default = ast.literal_eval(node.value)
            except ValueError:
                default = UNKNOWN
            choices = _choices(comments.get(node.end_lineno or 0, ""), default)
            parameters[target.id] = Parameter(target.id, default, choices)
    return parameters


def _choices(comment: str, default: Any) -> tuple[str, ...]:
    text = re.split(r"[;:]", comment.lstrip("# "), maxsplit=1)[0].strip()
    names = tuple(text.split(" | "))
    strict = len(names) > 1 and all(re.fullmatch(r"[\w.+-]+", n) for n in names)
    return names if strict and (default is None or default in names) else ()


def check_value(parameter: Parameter, value: Any, where: str) -> Any:
    """The value in the type of the parameter's default: an int becomes a float, a list a tuple, where one is due.

    Raises:
        LcmaeError: it is of another type, or none of the choices.
    """
    name, default = parameter.name, parameter.default
    if parameter.choices and value is not None and str(value) not in parameter.choices:
        raise LcmaeError(f"{name}: got {value!r} for {where}, {nearest(str(value), parameter.choices)}")
    if default is None or default is UNKNOWN:
        return value
    fitted = _fit(default, value)
    if fitted is UNKNOWN:
        quote = f"; to give text, quote it: {name}='\"{value}\"'" if isinstance(default, str) else ""
        raise LcmaeError(
            f"{name}: got {value!r} ({type(value).__name__}) for {where}, "
            f"expected {type(default).__name__} as its default {default!r}{quote}"
        )
    return fitted


def _fit(default: Any, value: Any) -> Any:
    """`value` in the type of `default`, or UNKNOWN where they do not agree."""
    if isinstance(default, bool) or isinstance(value, bool):
        return value if isinstance(default, bool) and isinstance(value, bool) else UNKNOWN
    if isinstance(default, float) and isinstance(value, int):
        return float(value)
    if isinstance(default, list | tuple) and isinstance(value, list | tuple):
        kind = type(default)
        items = [_fit(default[0], item) if default and default[0] is not None else item for item in value]
        return UNKNOWN if any(item is UNKNOWN for item in items) else kind(items)
    return value if isinstance(value, type(default)) else UNKNOWN


def assign(given: Mapping[str, Any], notebooks: Sequence[NotebookFile]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Each notebook's share of the parameters given, and one line for each that some of them do not have.

    Raises:
        LcmaeError: no notebook has a parameter of that name, or a value is of the wrong type.
    """
    declared = {n.name: read_parameters(n) for n in notebooks}
    known = {name: None for parameters in declared.values() for name in parameters}
    notes = []
    for name, value in given.items():
        if name not in known:
            raise LcmaeError(f"unknown parameter {name!r} (= {value!r}): {nearest(name, known)}")
        without = [n.number for n in notebooks if name not in declared[n.name]]
        if without:
            notes.append(f"{name}: not a parameter of {', '.join(without)}, passed to the others")
    shares = {
        n.name: {
            name: check_value(declared[n.name][name], value, n.name)
            for name, value in given.items()
            if name in declared[n.name]
        }
        for n in notebooks
    }
    return shares, notes
