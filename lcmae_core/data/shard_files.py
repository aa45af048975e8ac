"""Which files shards or tables are, by a folder, a pattern or a wildcard, and which split each of them belongs to."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from ..config import LcmaeError, NoDataError
from ..config.places import expanded
from ..store.machine import REPOSITORY
from .hub import need
from .paths import files_under

_SPLITS = {"train": "train", "training": "train", "validation": "validation", "val": "validation",
           "valid": "validation", "test": "test", "testing": "test"}  # fmt: skip


def split_of(root: Path, file: Path) -> str:
    """train, validation or test by the first word of the file's name that says one, else by its folders' below root."""
    for part in reversed(file.relative_to(root).parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return "train"


def by_split(root: Path, files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Files of train and of the held-out split, which is validation, else test; without train files all are train."""
    files_of: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    for file in files:
        files_of[split_of(root, file)].append(file)
    if not files_of["train"]:
        return [*files], []
    return files_of["train"], files_of["validation"] or files_of["test"]


def shards(address: str) -> tuple[Path, list[Path]]:
    """Folder and .tar files that a folder, a file, a brace expression or a wildcard on this machine names.

    What exists under a name is taken as it is, whatever signs are in it: only the rest can be a pattern.

    Raises:
        LcmaeError: it names nothing, or one of several that is not there.
    """
    for base in (Path.cwd(), REPOSITORY):
        root, pattern = _existing(base / expanded(address))
        if not pattern and root.is_file():
            return root.parent, [root]
        tars = [root / f for f in files_under(root, [".tar"])] if not pattern else _matching(root, pattern, address)
        if tars:
            return root, tars
    raise NoDataError(f"source 'wds:{address}': no such shards, expected a folder of *.tar or train-{{000..009}}.tar")


def is_folder(address: str) -> bool:
    """Whether an address on this machine means all shards of a folder."""
    return any((base / expanded(address)).is_dir() for base in (Path.cwd(), REPOSITORY))


def _existing(path: Path) -> tuple[Path, str]:
    """The longest part of a path that exists, resolved, and the rest."""
    here = next(place for place in (path, *path.parents) if place.exists())
    rest = path.relative_to(here).as_posix()
    return here.resolve(), "" if rest == "." else rest


def _matching(root: Path, pattern: str, address: str) -> list[Path]:
    matching: list[str] = []
    missing = []
    for one in braces(pattern):
        there = [one] if (root / one).exists() else sorted(glob.glob(one, root_dir=root))
        matching += there
        missing += [one] if not there else []
    if matching and missing:
        raise LcmaeError(f"source 'wds:{address}': no such shards, {missing[0]!r} is not in {root.name!r}")
    return [root / name for name in dict.fromkeys(matching)]


def braces(text: str) -> list[str]:
    """train-{000..009}.tar written out.

    Raises:
        LcmaeError: a brace without its other half.
    """
    if "{" not in text:
        return [text]
    need("braceexpand")
    import braceexpand

    try:
        return list(braceexpand.braceexpand(text, escape=False))
    except ValueError as error:
        raise LcmaeError(f"source 'wds:{text}': {error}, expected such as train-{{000..009}}.tar") from None
