"""Command lines that say one line when they are wrong: a parser with the nearest valid name instead of its usage."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says one line and the nearest valid name, instead of its usage."""

    def __init__(self, **keywords: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **keywords)

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with 2."""
        if "invalid choice: " in message:
            what, _, rest = message.partition("invalid choice: ")
            given, _, choices = rest.partition(" (choose from ")
            valid = [c.strip(" ')") for c in choices.split(",")]
            what = what.removeprefix("argument ").rstrip(": ")
            message = f"unknown {what} {given}: {nearest(given.strip(chr(39)), valid)}"
        fail(message)

    def option_names(self) -> list[str]:
        """Every long and short option."""
        return list(self._option_string_actions)


def nearest(name: str, valid: Sequence[str]) -> str:
    """A guess at what was meant, else everything that is valid (config.nearest does the same, but loads pydantic)."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"expected one of: {', '.join(valid)}"


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line on stderr and exit."""
    print(f"lcmae: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)
