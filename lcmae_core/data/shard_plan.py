"""Which picture goes into which shard, under which name and with which label: a function of names alone."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ..config import LcmaeError, nearest
from ..config.names import plain
from .contents import Contents
from .layout import below, find_splits
from .paths import class_names


@dataclass(frozen=True)
class ShardRecipe:
    """What the shards depend on besides the pictures."""

    size: int
    """Short side in pixels to which larger pictures are reduced; none is enlarged."""
    quality: int = 95
    """Of JPEG."""
    shard_images: int = 1000
    split: str | None = None
    """What shards are called where the source has no splits of its own: train."""


Recipe = ShardRecipe
"""Its former name."""


class Item(NamedTuple):
    """A picture of a shard."""

    number: int
    """In the contents."""
    key: str
    label: int | None


class ShardPlan(NamedTuple):
    """Which picture goes where: a function of names alone."""

    shards: dict[str, list[Item]]
    classes: tuple[str, ...] | None
    left_out: tuple[str, ...]


Plan = ShardPlan
"""Its former name."""


def planned(contents: Contents, recipe: ShardRecipe) -> ShardPlan:
    """Shards of each split, in an order that mixes classes (by digest of the names): each is a fair sample.

    Raises:
        LcmaeError: held-out pictures without others, or of a class that training lacks.
    """
    number = {file: i for i, file in enumerate(contents.files)}
    splits = find_splits(contents.files)
    parts = {recipe.split or "train": splits.train}
    if splits.held_out is not None:
        if recipe.split:
            raise LcmaeError(
                f"--split: got {recipe.split!r} of a source that has {splits.train}/ and {splits.held_out}/"
            )
        parts = {"train": splits.train, "validation": splits.held_out}
    classes = class_names(below(contents.files, splits.train))
    shards: dict[str, list[Item]] = {}
    used = 0
    for split, folder in parts.items():
        items = list(_items(below(contents.files, folder), folder, number, classes))
        items.sort(key=lambda item: sha256(item.key.encode()).digest())
        used += len(items)
        for k, start in enumerate(range(0, len(items), recipe.shard_images)):
            shards[f"{split}-{k:06d}.tar"] = items[start : start + recipe.shard_images]
    outside = len(contents.files) - used
    lines = [f"{outside} image{'s' * (outside > 1)} outside the splits"] if outside else []
    return ShardPlan(shards, classes, (*contents.left_out, *lines))


def _items(
    files: Iterable[Path], folder: Path, number: Mapping[Path, int], classes: tuple[str, ...] | None
) -> Iterator[Item]:
    """Names without suffix and dots, as webdataset takes everything from the first dot on for a suffix."""
    taken: set[str] = set()
    label = {name: k for k, name in enumerate(classes or ())}
    for file in files:
        name = "".join(c if c.isprintable() else "_" for c in file.stem).replace(".", "_")
        key = stem = plain((file.parent / name).as_posix())
        more = 1
        while key in taken:
            more += 1
            key = f"{stem}-{more}"
        taken.add(key)
        of = plain(file.parts[0]) if len(file.parts) > 1 else None
        if classes and of not in label:
            raise LcmaeError(f"{folder}/: class {of!r} is not in train: {nearest(of or '', classes)}")
        yield Item(number[folder / file], key, label[of] if classes and of else None)
