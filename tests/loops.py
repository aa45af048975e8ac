"""Cases that prove one claim are one test: it goes through all of them, and its failure names all that fail."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest


def over(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As `pytest.mark.parametrize`, but in one test; fixtures are those of the test, shared by its cases."""
    split = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    listed = [case if len(split) > 1 else (case,) for case in cases]
    assert listed, f"no case of {names}"

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def through(**fixtures: Any) -> None:
            failed = []
            for case in listed:
                try:
                    test(**dict(zip(split, case, strict=True)), **fixtures)
                except (Exception, pytest.fail.Exception) as error:
                    failed.append((case, error))
            if failed:
                lines = [f"{shown(case)}: {type(error).__name__}: {error}" for case, error in failed]
                first = failed[0][1]
                raise AssertionError(f"{len(failed)} of {len(listed)} cases:\n" + "\n".join(lines)) from first

        kept = [p for p in inspect.signature(test).parameters.values() if p.name not in split]
        through.__signature__ = inspect.Signature(kept)  # type: ignore[attr-defined]
        return through

    return decorate


def shown(case: tuple[Any, ...]) -> str:
    """A case in a line."""
    text = ", ".join(getattr(value, "__name__", None) or repr(value) for value in case)
    return text if len(text) < 300 else text[:300] + "..."
