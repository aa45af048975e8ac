"""The words of a command line as other processes get them."""

from collections.abc import Sequence


def without(words: Sequence[str], *options: str) -> list[str]:
    """The words of a command without some options and their values: those of its helpers."""
    kept, skip = [], False
    for word in words:
        if not skip and word not in options and word.partition("=")[0] not in options:
            kept.append(word)
        skip = not skip and word in options
    return kept
