"""The one kind of error that a user can make, its line, and the hint at the end of it."""

import difflib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError  # which the losses need not load


class LcmaeError(ValueError):
    """An error of the user's making, said in one line: what, got, expected, nearest valid name."""


class NotTrainedError(LcmaeError):
    """A run or an evaluation is needed that is not there, where nothing may be trained: work is missing, nothing is
    wrong."""


class NoDataError(LcmaeError):
    """The pictures of a source are not on this machine and cannot be fetched."""


class LabelsError(LcmaeError):
    """Labels are asked for where some are missing."""


class NoLabelsError(LabelsError):
    """Labels are asked for where there are none at all: what needs them can be left out."""


def one_line(error: "ValidationError", names: Collection[str]) -> LcmaeError:
    """The first thing that pydantic found wrong; `names` are the settings that its line may name."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").replace("Input should be ", "")
    if first["type"] == "value_error":
        return LcmaeError(message)
    name = next((str(part) for part in reversed(first["loc"]) if part in names), "")
    return LcmaeError(f"{name}: got {first['input']!r}, expected {message}")


def nearest(name: str, valid: Iterable[str], shown_by: str = "") -> str:
    """The tail of an error line: the nearest valid name, or those of which it is a word (lr of base_lr), or all of them
    when nothing is near; where they are many, the command that shows them."""
    valid = list(valid)
    of_words = [one for one in valid if name and name in one.split("_")]
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5 if len(name) < 4 else 0.6) or of_words
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"expected one of those that {shown_by} shows" if shown_by else f"expected one of: {', '.join(valid)}"
