"""Names: of settings and arguments, today's and those before them; and of files, as text that can be stored and shown
whatever bytes a disk has for them, and back again. And the marks that stand for a paper, where something of it is
printed."""

import functools
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from lcmae_core.config.errors import LcmaeError

MARKS = (
    "[open] means that the paper does not say and we chose; v1 and v2 are the versions of arXiv 2310.01994; HLV is the "
    "hierarchical latent variable model of arXiv 2306.04898."
)
"""What the marks mean: stands wherever one is printed, as a newcomer knows none of them."""
_ON_DISK = {
    "accum_steps": "accumulate",
    "device_cache_gb": "hold_gb",
    "siamese_cross_view": "siamese_cross",
    "siamese_in_view": "siamese_in",
}
"""Setting -> what it was called when the first runs were stored. Files and digests keep that name, so that what was
trained stays valid; commands, notebooks and Python take both."""
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters, and those that break lines or turn the direction of what follows."""
_SPELT_OUT = re.compile(r"\\u(dc[89a-f][0-9a-f]|202[89a-e]|206[6-9])|\\x([01][0-9a-f]|7f|[89][0-9a-f])")
_TODAY = {old: name for name, old in _ON_DISK.items()}
P = ParamSpec("P")
Result = TypeVar("Result")


def on_disk(name: str) -> str:
    """What files and digests call a setting."""
    return _ON_DISK.get(name, name)


def todays(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same values by the names that settings have today.

    Raises:
        LcmaeError: one is given twice, by its old and by its new name.
    """
    for old, name in _TODAY.items():
        if old in settings and name in settings:
            raise LcmaeError(f"{name}: got it as {old!r} too, its former name, expected one of the two")
    return {_TODAY.get(name, name): value for name, value in settings.items()}


def former_keywords(names: Mapping[str, str]) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """For a public function whose arguments were renamed: it takes the former keywords too, with a warning that says
    today's. names: former -> today's."""

    def taking(function: Callable[P, Result]) -> Callable[P, Result]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Result:
            for old in names.keys() & kwargs.keys():
                if names[old] in kwargs:
                    raise LcmaeError(f"{names[old]}: got it as {old!r} too, its former name, expected one of the two")
                warnings.warn(f"{function.__name__}({old}=) is now {names[old]}=", DeprecationWarning, stacklevel=2)
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return taking


def printable(name: str) -> str:
    """A name in which each byte that is no UTF-8 (a lone surrogate in Python) is spelt out, \\udce9 for E9, and each
    character that a terminal obeys instead of showing it: \\x1b for ESC, \\u202e for what turns text around.

    Such a name can be printed, hashed and written to JSON and HTML; other names stay as they are.
    """
    return _OBEYED.sub(_spelt, name.encode("utf-8", "backslashreplace").decode())


def _spelt(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


def plain(name: str) -> str:
    """The printable name with composed letters (NFC), as a Mac and any other machine agree on it."""
    return unicodedata.normalize("NFC", printable(name))


def spellings(name: str) -> Iterable[str]:
    """What a disk may call a file so named: as said, with the bytes that `printable` spells out, NFC, NFD."""
    raw = _SPELT_OUT.sub(lambda escape: chr(int(escape[1] or escape[2], 16)), name)
    return dict.fromkeys((name, raw, unicodedata.normalize("NFC", raw), unicodedata.normalize("NFD", raw)))
