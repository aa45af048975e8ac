"""Which folders are splits and which are classes, from the relative paths of the pictures alone."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..config import LcmaeError

TRAIN = ("train", "training")
HELD_OUT = ("validation", "val", "valid", "dev", "development", "eval", "evaluation", "test", "testing")
"""Names of split folders, the preferred ones first, in any case, also as train_set, test-images, val2017."""
_MORE = r"[ _-]?(?:set|data|images|split|\d{1,4})?"
_WRAPPER = re.compile(r"(?:jpeg|all)?_?(?:images?|imgs?|pictures|photos)")
"""A folder around the pictures that says nothing about them."""


class Splits(NamedTuple):
    """Folders, relative to the root, whose sub-folders are classes; the root itself where there are no splits."""

    train: Path
    held_out: Path | None


def _spelt(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _ranked(folders: Iterable[str], names: Sequence[str]) -> list[str]:
    """The folders called by one of the names, best first; the plain spelling before all others."""
    pattern = re.compile(f"({'|'.join(names)}){_MORE}")
    matches = {folder: match for folder in folders if (match := pattern.fullmatch(_spelt(folder)))}
    return sorted(matches, key=lambda folder: (names.index(matches[folder][1]), folder not in names, folder))


def below(files: Iterable[Path], folder: Path) -> list[Path]:
    """The files in a folder, relative to it."""
    depth = len(folder.parts)
    return [Path(*f.parts[depth:]) for f in files if f.parts[:depth] == folder.parts] if depth else list(files)


def _tops(files: Iterable[Path]) -> dict[str, set[str]]:
    """First folder -> the second folders in it; '' stands for none, so for pictures that lie there themselves."""
    tops: dict[str, set[str]] = {}
    for file in files:
        first, second, *_ = (*file.parts[:-1], "", "")
        tops.setdefault(first, set()).add(second)
    return tops


def find_splits(files: Sequence[Path]) -> Splits:
    """Where training and held-out pictures lie: in folders called so, perhaps within one folder around them.

    `train` is a split without any other beside it too, unless it lies flat among two or more further folders with
    pictures: then it is a class (of vehicles, say). Without a folder for training there are no splits.

    Raises:
        LcmaeError: there are folders of held-out pictures and nothing else.
    """
    tops = _tops(files)
    folders = set(tops) - {""}
    training, held_out = _ranked(folders, TRAIN), _ranked(folders, HELD_OUT)
    if training:
        is_class = not held_out and "" in tops[training[0]] and len(folders - set(training)) >= 2
        return Splits(Path(), None) if is_class else _unwrapped(files, training[0], *held_out[:1])
    if held_out and set(tops) == set(held_out):
        raise LcmaeError(
            f"got images in {held_out[0]}/ but in no train/, expected both, or that folder alone as source"
        )
    around = list(folders) if len(tops) == 1 else [name for name in folders if _WRAPPER.fullmatch(_spelt(name))]
    inner = below(files, Path(*around)) if len(around) == 1 else []
    if _ranked({part for file in inner for part in file.parts[:-1]}, TRAIN):
        splits = find_splits(inner)
        if splits.train != Path():
            return Splits(around[0] / splits.train, splits.held_out and around[0] / splits.held_out)
    return Splits(Path(), None)


def _unwrapped(files: Sequence[Path], train: str, held_out: str | None = None) -> Splits:
    """The splits' folders; where all of a split lies in one more folder called like a split, or `images`, that one."""
    classes = _tops(below(files, Path(train)))
    inner = _inner(classes)
    if held_out is None:
        return Splits(Path(train, inner), None)
    other = _inner(_tops(below(files, Path(held_out))))
    if other in classes and not inner:
        other = ""  # training has it as a class
    return Splits(Path(train, inner), Path(held_out, other))


def _inner(tops: Mapping[str, set[str]]) -> str:
    only = next(iter(tops)) if len(tops) == 1 else ""
    return only if only and (_ranked([only], TRAIN + HELD_OUT) or _WRAPPER.fullmatch(_spelt(only))) else ""
