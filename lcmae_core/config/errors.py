"""The one kind of error that a user can make, and the hint at the end of its line."""

import difflib
from collections.abc import Iterable


class LcmaeError(ValueError):
    """An error of the user's making, said in one line: what, got, expected, nearest valid name."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The tail of an error line: the nearest valid name, or all of them when nothing is near."""
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"expected one of: {', '.join(valid)}"
