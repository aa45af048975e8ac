"""Names of files as text that can be stored and shown, whatever bytes a disk has for them, and back again."""

import re
import unicodedata
from collections.abc import Iterable


def printable(name: str) -> str:
    """A name in which each byte that is no UTF-8 (Python reads it as a lone surrogate) is spelt out: \\udce9 for E9.

    Such a name can be printed, hashed and written to JSON and HTML; other names stay as they are.
    """
    return name.encode("utf-8", "backslashreplace").decode()


def plain(name: str) -> str:
    """The printable name with composed letters (NFC), as a Mac and any other machine agree on it."""
    return unicodedata.normalize("NFC", printable(name))


def spellings(name: str) -> Iterable[str]:
    """What a disk may call a file so named: as said, with the bytes that `printable` spells out, NFC, NFD."""
    raw = re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda found: chr(int(found[1], 16)), name)
    return dict.fromkeys((name, raw, unicodedata.normalize("NFC", raw), unicodedata.normalize("NFD", raw)))
