"""What lies in an output folder beside its runs: the ledger of notebooks and the numbers they recorded, read where
they may be missing or damaged. What is damaged is left out, and said; the rest goes on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lcmae_core.store.files import DamagedError, read_json
from lcmae_core.store.progress import say_once

LEDGER = "ledger.json"


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object, or an empty one where there is none, or it is damaged (which is said)."""
    return _read(path, lambda content: content)


def read_ledger(out: Path) -> dict[str, dict[str, Any]]:
    """Name of a notebook -> its entry. Entries that are none are left out; of a damaged ledger, all are."""
    return _read(Path(out) / LEDGER, _entries)


def read_result(path: Path) -> dict[str, Any]:
    """What a notebook recorded; empty where there is nothing, or it is damaged."""
    return _read(path, _result)


def read_results(out: Path) -> list[dict[str, Any]]:
    """What the notebooks recorded below a folder, in their order."""
    return [content for path in sorted((Path(out) / "results").glob("*.json")) if (content := read_result(path))]


def say_left_out(what: object) -> None:
    """A line on stderr, once in a process however often a file is read."""
    say_once(f"left out: {what}")


def _read(path: Path, checked: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = read_json(path)
    except DamagedError as error:
        say_left_out(error)
        return {}
    try:
        return checked(content)
    except ValueError as error:
        say_left_out(f"{path.name}: got {str(path)!r} with {error}")
        return {}


def _entries(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    broken = sorted(name for name, entry in content.items() if not _is_entry(entry))
    if broken:
        say_left_out(f"{LEDGER}: got {', '.join(map(repr, broken))} with no entry of a notebook, expected an object")
    return {name: entry for name, entry in content.items() if name not in broken}


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, Mapping) and all(_is_number(entry.get(name)) for name in ("seconds", "kept_seconds"))


def _is_number(value: Any) -> bool:
    """Whether it is one, or not said."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _result(content: dict[str, Any]) -> dict[str, Any]:
    for name in ("values", "versions"):
        if not isinstance(kind := content.get(name, {}), Mapping):
            raise ValueError(f"{name} that are a {type(kind).__name__}, expected an object")
    for name, entry in content.get("values", {}).items():
        if not isinstance(entry, Mapping) or "value" not in entry or not _is_number(entry.get("sd")):
            raise ValueError(f"values of which {name!r} is {entry!r:.40}, expected an object with a value")
    return content
