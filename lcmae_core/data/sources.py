"""One string names any source of pictures: `open_source` gives its train and validation splits."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache

from ..config import Data, LcmaeError, nearest
from ..config.names import printable
from ..store.progress import say_once
from . import hub, paths, photos, shards, tables
from .decoders import Decoding, check_decoder
from .splits import Found, Source, Split, decoded_by, hold_out, large_enough, renamed, without_unreadable

__all__ = ["Source", "Split", "open_source", "source_identity"]


_CROPS = ("image_size", "crop_scale", "crop_ratio", "flip")
"""Leaves that say how pictures are cut, not which they are."""


@dataclass(frozen=True)
class _Scheme:
    open: Callable[[str, Data], Found]
    identify: Callable[[str], str]


SCHEMES = {
    "photos": _Scheme(photos.open_photos, photos.identify),
    "folder": _Scheme(paths.open_folder, lambda rest: paths.identify("folder", rest, paths.EXTENSIONS)),
    "parquet": _Scheme(tables.open_parquet, tables.parquet_identity),
    "wds": _Scheme(shards.open_wds, shards.wds_identity),
    "hf": _Scheme(hub.open_hf, hub.hf_identity),
    "torchvision": _Scheme(hub.open_torchvision, lambda rest: f"torchvision:{rest}"),
}


def _scheme(spec: str) -> _Scheme:
    name, colon, rest = spec.partition(":")
    if name not in SCHEMES:
        raise LcmaeError(f"unknown source {spec!r}: {nearest(name, SCHEMES)}")
    if not rest and (colon or name != "photos"):
        expected = "'photos' alone or with a number" if name == "photos" else f"'{name}:' and what to read"
        raise LcmaeError(f"source: got {spec!r}, expected {expected}")
    return SCHEMES[name]


def source_identity(spec: str) -> str:
    """What the source holds, in a few characters, whatever machine it lies on.

    The `fingerprint` of the files for sources on disk, wherever and under whatever name they lie; the string itself for
    hubs.
    """
    return printable(_scheme(spec).identify(spec.partition(":")[2]))


NAMED = 8
"""Unreadable files that the line on what is left out names; a run's results name them all."""


def _left_out(spec: str, others: Sequence[str], unreadable: Sequence[str]) -> str:
    """One line on what is not read, or nothing."""
    count, more = len(unreadable), len(unreadable) - NAMED
    names = ", ".join(unreadable[:NAMED]) + (f" and {more} more" if more > 0 else "")
    all_said = [*others, *([f"{count} unreadable image{'s' * (count > 1)} ({names})"] if count else [])]
    return printable(f"left out of {spec}: {', '.join(all_said)}") if all_said else ""


def known_identity(spec: str) -> str | None:
    """`source_identity`, looked up once a process (until `forget_identities`); None where the source is not to be had
    here."""
    try:
        return _identity_from(spec, os.getcwd())
    except LcmaeError:
        return None


@cache
def _identity_from(spec: str, folder: str) -> str:
    return source_identity(spec)


forget_identities = look_again = _identity_from.cache_clear
"""What was looked up is looked up anew; `look_again` is the former name."""


def open_source(settings: Data) -> Source:
    """Open `settings.source`; a source without a validation split gets one by `hold_out`.

    Files and pictures that it holds and that are not used are counted in one line on stderr, once a process, and kept
    as `left_out`.

    Raises:
        LcmaeError: unknown scheme, missing path, empty folder, missing package, unreachable hub.
    """
    pictures = settings.model_copy(update={leaf: Data.model_fields[leaf].default for leaf in _CROPS})
    where = (os.getcwd(), os.environ.get("LCMAE_DATA_ROOT"))  # what relative names are relative to
    return opened_once(pictures, source_identity(settings.source), *where)


@lru_cache(maxsize=4)
def opened_once(settings: Data, identity: str, *where: str | None) -> Source:
    """Opened once a process for the same settings, as long as it holds the same. Four are kept: a process that compares
    models has the same pictures with other settings beside them, and each holds an index of all its files."""
    spec = settings.source
    check_decoder(settings.image_decoder)
    source = _scheme(spec).open(spec.partition(":")[2], settings)
    how = Decoding(settings.image_decoder, most=settings.max_megapixels * 1e6)
    train = large_enough(decoded_by(source.train, how), settings.min_side)
    validation = source.validation and large_enough(decoded_by(source.validation, how), settings.min_side)
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
    listed = [settings.channels, settings.min_side, settings.validation_fraction, skipped, asdict(how)]
    train, validation = (
        renamed(split, name, json.dumps([identity, name, len(split), *listed]))
        for split, name in ((train, "train"), (validation, "validation"))
    )
    for split in (train, validation):
        if split.labels is not None:
            split.labels.setflags(write=False)  # all who open the same source share them
    if settings.train_images is not None:
        train = train.first(settings.train_images)
    labelled = train.labels is not None
    left_out = _left_out(spec, source.left_out, skipped)
    if left_out:
        say_once(left_out)
    return Source(spec, identity, source.classes if labelled else None, train, validation, skipped, left_out)
