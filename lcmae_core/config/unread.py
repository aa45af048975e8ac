"""A setting that was asked for by name and that nothing reads is said, not swallowed."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, get_args

from lcmae_core.config.errors import LcmaeError, nearest
from lcmae_core.config.groups import Model
from lcmae_core.config.settings import LEAVES, Method, Settings, replace, unused

_SWITCHES: dict[str, tuple[Any, ...]] = {
    "decoder": get_args(Model.model_fields["decoder"].annotation),
    "positives": ("geometry", "position"),
    "token_average": (True, False),
    "siamese_cross_view": (1.0,),
    "siamese_in_view": (1.0,),
    "method": get_args(Method),
}
"""Settings on which it depends what else is read, and their values."""


def refuse_unread(settings: Settings, given: Mapping[str, Any]) -> None:
    """Nothing, where all settings that a user gave by name are read.

    What profiles and studies set for all methods does not count: it may well be left alone by one of them.

    Raises:
        LcmaeError: the method, the decoder or a switch of the Siamese network does not read one of them.
    """
    for name, value in given.items():
        if name in unused(settings):
            raise unread(name, value, why_unread(settings, name), LEAVES.keys() - unused(settings))


def unread(name: str, value: Any, reader: str, known: Collection[str]) -> LcmaeError:
    """The line for a setting that `reader` does not read; `known` are those that it does."""
    return LcmaeError(f"{name}: got {value!r}, which {reader}, {nearest(name, sorted(known))}")


def why_unread(settings: Settings, name: str) -> str:
    """What does not read a setting, and what would: "method='supervised' does not read (method='mae' does)"."""
    for switch, other in _others(settings):
        with suppress(LcmaeError):  # the other value may not fit the rest
            if name not in unused(replace(settings, {switch: other})):
                return f"{_with_value(settings, switch)} does not read ({switch}={other!r} does)"
    return f"{_with_value(settings, 'method')} does not read"


def _others(settings: Settings) -> Iterator[tuple[str, Any]]:
    for switch, values in _SWITCHES.items():
        yield from ((switch, value) for value in values if value != value_of(settings, switch))


def value_of(settings: Settings, name: str) -> Any:
    """The value of a leaf, whatever its group."""
    return getattr(getattr(settings, LEAVES[name]) if LEAVES[name] else settings, name)


def _with_value(settings: Settings, name: str) -> str:
    return f"{name}={value_of(settings, name)!r}"
