"""One string names any source of pictures: `open_source` gives its train and validation splits."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ..config import Data, LcmaeError, nearest
from . import hub, paths, photos
from .splits import Found, Source, Split, hold_out, large_enough, renamed, without_unreadable

__all__ = ["Source", "Split", "open_source", "source_identity"]


_CROPS = ("image_size", "crop_scale", "crop_ratio", "flip")
"""Leaves that say how pictures are cut, not which they are."""


@dataclass(frozen=True)
class _Scheme:
    open: Callable[[str, Data], Found]
    identify: Callable[[str], str]


SCHEMES = {
    "photos": _Scheme(photos.open_photos, lambda rest: photos.IDENTITY),
    "folder": _Scheme(paths.open_folder, lambda rest: paths.identify("folder", rest, paths.EXTENSIONS)),
    "parquet": _Scheme(paths.open_parquet, lambda rest: paths.identify("parquet", rest, [".parquet"])),
    "wds": _Scheme(hub.open_wds, hub.wds_identity),
    "hf": _Scheme(hub.open_hf, lambda rest: f"hf:{rest}"),
    "torchvision": _Scheme(hub.open_torchvision, lambda rest: f"torchvision:{rest}"),
}


def _scheme(spec: str) -> _Scheme:
    name, colon, rest = spec.partition(":")
    if name not in SCHEMES:
        raise LcmaeError(f"unknown source {spec!r}: {nearest(name, SCHEMES)}")
    if bool(colon) if name == "photos" else not rest:
        expected = "'photos' alone" if name == "photos" else f"'{name}:' and what to read"
        raise LcmaeError(f"source: got {spec!r}, expected {expected}")
    return SCHEMES[name]


def source_identity(spec: str) -> str:
    """What the source holds, in a few characters, whatever machine it lies on; opens no picture.

    Names and sizes of the files for sources on disk, the string itself for hubs.
    """
    return _scheme(spec).identify(spec.partition(":")[2])


def open_source(settings: Data) -> Source:
    """Open `settings.source`; a source without a validation split gets one by `hold_out`.

    Raises:
        LcmaeError: unknown scheme, missing path, empty folder, missing package, unreachable hub.
    """
    pictures = settings.model_copy(update={leaf: Data.model_fields[leaf].default for leaf in _CROPS})
    where = (os.getcwd(), os.environ.get("LCMAE_DATA_ROOT"))  # what relative names are relative to
    return _opened(pictures, source_identity(settings.source), *where)


@lru_cache(maxsize=4)
def _opened(settings: Data, identity: str, *where: str | None) -> Source:
    """Opened once a process for the same settings, as long as it holds the same."""
    spec = settings.source
    found = _scheme(spec).open(spec.partition(":")[2], settings)
    train = large_enough(found.train, settings.min_side)
    validation = found.validation and large_enough(found.validation, settings.min_side)
    skipped: tuple[str, ...] = ()
    if settings.on_unreadable == "skip":
        train, skipped = without_unreadable(train)
        if validation:
            validation, more = without_unreadable(validation)
            skipped += more
        if not len(train):
            raise LcmaeError(f"source {spec!r}: none of {len(skipped)} images is readable, the first is {skipped[0]}")
    if validation is None:
        train, validation = hold_out(train, settings.validation_fraction)
    listed = [settings.channels, settings.min_side, settings.validation_fraction, skipped]
    train, validation = (
        renamed(split, name, json.dumps([identity, name, len(split), *listed]))
        for split, name in ((train, "train"), (validation, "validation"))
    )
    if settings.train_images is not None:
        train = train.first(settings.train_images)
    labelled = train.labels is not None
    return Source(spec, identity, found.classes if labelled else None, train, validation, skipped)
