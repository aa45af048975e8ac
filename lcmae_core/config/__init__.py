"""Frozen, strictly validated settings, the profiles, and the digest that names a run.

Settings are grouped for the reader and flat for the user: every leaf name is unique, so that
`replace(settings, mask_ratio=0.5)` and `lcmae train -p mask_ratio=0.5` need no path. Only `runtime` affects no result.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lcmae_core.config.errors import (
    LabelsError,
    LcmaeError,
    NoDataError,
    NoLabelsError,
    NotTrainedError,
    nearest,
    one_line,
)

if TYPE_CHECKING:
    from lcmae_core.config.groups import (
        Autoencoder,
        Data,
        Dino,
        Group,
        Loss,
        Masking,
        Model,
        Optim,
        Range,
        Runtime,
        Siamese,
        Size,
        Supervision,
    )
    from lcmae_core.config.profiles import PROFILES, profile
    from lcmae_core.config.settings import (
        GROUPS,
        LEAVES,
        READS,
        UNUSED,
        Method,
        Settings,
        digest,
        parse,
        replace,
        unused,
    )

__all__ = [
    "GROUPS",
    "LEAVES",
    "PROFILES",
    "READS",
    "UNUSED",
    "Autoencoder",
    "Data",
    "Dino",
    "Group",
    "LabelsError",
    "LcmaeError",
    "Loss",
    "Masking",
    "Method",
    "Model",
    "NoDataError",
    "NoLabelsError",
    "NotTrainedError",
    "Optim",
    "Range",
    "Runtime",
    "Settings",
    "Siamese",
    "Size",
    "Supervision",
    "digest",
    "nearest",
    "one_line",
    "parse",
    "profile",
    "replace",
    "unused",
]

_PLACES = ("groups", "profiles", "settings")
"""Modules that are loaded when a name of theirs is first asked for: an error alone costs no validation library."""


def __getattr__(name: str) -> Any:
    """The names above that are not errors."""
    if name in __all__:
        for place in _PLACES:
            module = import_module(f"{__name__}.{place}")
            if hasattr(module, name):
                return globals().setdefault(name, getattr(module, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
