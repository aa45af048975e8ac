"""Frozen, strictly validated settings, the profiles, and the digest that names a run.

Settings are grouped for the reader and flat for the user: every leaf name is unique, so that
`replace(settings, mask_ratio=0.5)` and `lcmae train -p mask_ratio=0.5` need no path. Only `runtime` affects no result.
"""

from lcmae_core.config.errors import (
    LabelsError,
    LcmaeError,
    NoDataError,
    NoLabelsError,
    NotTrainedError,
    nearest,
    one_line,
)
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
from lcmae_core.config.settings import GROUPS, LEAVES, READS, UNUSED, Method, Settings, digest, parse, replace, unused

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
