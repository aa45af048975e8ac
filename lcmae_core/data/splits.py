"""What every source becomes: numbered pictures with names and perhaps labels, and the hold-out where none was given.

Letters (CONTRIBUTING.md): M images.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from os import cpu_count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ..config import LcmaeError
from .convert import PLAIN, UnreadableImage, decode, to_rgb
from .decoders import Decoding

THREADS = min(16, (cpu_count() or 1))
"""Decoding threads: Pillow's decoders release the GIL."""


@dataclass(frozen=True, eq=False)  # `==` of arrays is an array: a split equals itself alone
class Split:
    """M pictures. `read` and `names` are picklable, because decoding processes get copies of them."""

    name: str
    size: int
    labels: np.ndarray | None
    """(M,) int64, or None where the source has no labels."""
    read: Callable[[int], Image.Image]
    """Number -> the decoded picture in mode RGB or L."""
    names: Callable[[int], str]
    period: int | None = None
    """Pictures repeat after so many; None where all differ."""
    identity: str | None = None
    """A digest of the pictures themselves, wherever they lie; the name under which `data.cache` keeps them. None:
    unknown, so they are not kept."""
    rows: np.ndarray | None = None
    """Numbers of these pictures among those that `identity` names; None for all of them."""

    def __len__(self) -> int:
        return self.size

    def file_name(self, i: int) -> str:
        """Name of picture i inside its source, for messages and captions."""
        return self.names(i)

    def subset(self, indices: Sequence[int] | np.ndarray, name: str | None = None) -> "Split":
        """The pictures at `indices`, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        labels = None if self.labels is None else self.labels[chosen]
        rows = chosen if self.rows is None else self.rows[chosen]
        read, names = _At(self.read, chosen), _At(self.names, chosen)
        # without a period: those chosen need not repeat
        return Split(name or self.name, len(chosen), labels, read, names, identity=self.identity, rows=rows)

    def at_least(self, side: int) -> "Split":
        """The same pictures, of which large JPEGs may come reduced to a short side of `side` pixels or more."""
        return replace(self, read=_changed(self.read, "at_least", side))

    def copied(self, cache: Any) -> "Split":
        """The same pictures, read from a copy on disk (`data.encoded`) where their source is slow in random order."""
        return replace(self, read=_changed(self.read, "copied", cache))

    def first(self, count: int) -> "Split":
        """The first `count` pictures over and over, as many as there were, so that an epoch keeps its length.

        Every repetition has a number of its own, from which its crops, flips and masks are drawn.

        Raises:
            LcmaeError: the split has fewer pictures.
        """
        if count > self.size:
            raise LcmaeError(f"train_images: got {count}, expected at most the {self.size} of split {self.name!r}")
        return replace(self.subset(np.arange(self.size) % count), period=count)


@dataclass(frozen=True)
class Source:
    """Training and validation pictures of one source string."""

    spec: str
    identity: str
    """What the source holds, whatever machine it lies on."""
    classes: tuple[str, ...] | None
    train: Split
    validation: Split
    skipped: tuple[str, ...] = ()
    """Unreadable files left out on request."""
    left_out: str = ""
    """One line on all that is not read (other formats, repeated links, unreadable files), or nothing."""


@dataclass(frozen=True)
class Found:
    """What a scheme's opener returns."""

    train: Split
    validation: Split | None
    classes: tuple[str, ...] | None
    left_out: tuple[str, ...] = ()
    """What the source holds but does not give, each in a few words."""


@dataclass(frozen=True, eq=False)  # a class and no closure: decoding processes get it pickled
class _At:
    """f(indices[i])."""

    function: Callable[[int], Any]
    indices: np.ndarray

    def __call__(self, i: int) -> Any:
        return self.function(int(self.indices[i]))

    def at_least(self, side: int) -> "_At":
        """Of pictures that may come reduced."""
        return replace(self, function=_changed(self.function, "at_least", side))

    def copied(self, cache: Any) -> "_At":
        """Of pictures read from a copy."""
        return replace(self, function=_changed(self.function, "copied", cache))


Read = TypeVar("Read", bound=Callable[[int], Any])


def _changed(read: Read, name: str, value: Any) -> Read:
    """A reader that knows how to be changed so is; others are as they are."""
    change = getattr(read, name, None)
    return change(value) if change else read


@dataclass(frozen=True, eq=False)
class Reader:
    """Number -> picture, from whatever `fetch` gives: bytes, a path or a picture."""

    fetch: Callable[[int], bytes | str | Path | Image.Image]
    names: Callable[[int], str]
    channels: int
    how: Decoding = PLAIN

    def __call__(self, i: int) -> Image.Image:
        data = self.fetch(i)
        if isinstance(data, Image.Image):
            return to_rgb(data, self.channels)
        return decode(data, self.names(i), self.channels, self.how)

    def at_least(self, side: int) -> "Reader":
        """The same, which may reduce what is larger."""
        return replace(self, how=replace(self.how, least=side))

    def copied(self, cache: Any) -> "Reader":
        """The same, of bytes from a copy."""
        return replace(self, fetch=_changed(self.fetch, "copied", cache))


@dataclass(frozen=True, eq=False)
class LargeEnough:
    """A reader that refuses pictures smaller than a patch can be."""

    read: Callable[[int], Image.Image]
    names: Callable[[int], str]
    min_side: int

    def __call__(self, i: int) -> Image.Image:
        picture = self.read(i)
        if min(picture.size) < self.min_side:
            size = f"{picture.width}x{picture.height} px"
            raise UnreadableImage(
                f"cannot use {self.names(i)}: got {size}, expected at least {self.min_side} px a side"
            )
        return picture

    def at_least(self, side: int) -> "LargeEnough":
        """Never reduced below what is large enough."""
        return replace(self, read=_changed(self.read, "at_least", max(side, self.min_side)))

    def copied(self, cache: Any) -> "LargeEnough":
        """Of pictures read from a copy."""
        return replace(self, read=_changed(self.read, "copied", cache))


def decoded_by(split: Split, how: Decoding) -> Split:
    """The same pictures; those that are decoded here are decoded so."""
    return replace(split, read=replace(split.read, how=how)) if isinstance(split.read, Reader) else split


def large_enough(split: Split, min_side: int) -> Split:
    """The same pictures, read by `LargeEnough`."""
    return replace(split, read=LargeEnough(split.read, split.names, min_side))


def as_labels(values: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
    """(M,) int64, or None when nothing is labelled (hubs write -1 for a hidden label)."""
    if values is None:
        return None
    labels = np.asarray(values, dtype=np.int64)
    return None if len(labels) and (labels < 0).all() else labels


def _fraction(name: str) -> float:
    # not hash(): Python salts that anew in every process
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def hold_out(split: Split, fraction: float) -> tuple[Split, Split]:
    """(train, validation): each picture's side depends on its own name, so adding files moves no other one.

    Every class keeps a picture in train, and validation gets one whenever there are two.
    """
    place = np.array([_fraction(split.file_name(i)) for i in range(len(split))])
    held = place < fraction
    labels = np.zeros(len(split), np.int64) if split.labels is None else split.labels
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # the last to be held as the fraction grows: the others' sides do not hang on this rule
        held[members[place[members].argmax()]] = False
    if len(split) > 1 and not held.any():
        # of a class that keeps another picture in train, where there is one
        spare = [i for i in range(len(split)) if (labels == labels[i]).sum() > 1] or range(len(split))
        held[min(spare, key=lambda i: place[i])] = True
    return split.subset(np.flatnonzero(~held), "train"), split.subset(np.flatnonzero(held), "validation")


def without_unreadable(split: Split) -> tuple[Split, tuple[str, ...]]:
    """The pictures that decode, and the names of those that do not; reads every file once."""

    def readable(i: int) -> bool:
        try:
            split.read(i)
        except UnreadableImage:
            return False
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        good = np.array(list(pool.map(readable, range(len(split)))), dtype=bool)
    bad = tuple(split.file_name(int(i)) for i in np.flatnonzero(~good))
    return (split.subset(np.flatnonzero(good)) if bad else split), bad


def renamed(split: Split, name: str, identity: str) -> Split:
    """The same pictures as a split of a source, which has an identity of its own."""
    return replace(split, name=name, identity=identity, rows=None)
