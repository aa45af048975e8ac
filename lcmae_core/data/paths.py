"""Sources that are files on this machine: where they lie, what identifies them, class folders."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import Data, LcmaeError, nearest
from ..store.machine import REPOSITORY
from .fingerprint import fingerprint
from .splits import Found, Reader, Split

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
)
"""What counts as an image inside a folder; other files are passed over."""
VALIDATION_NAMES = ("validation", "val", "valid", "test")


def resolve(path: str, scheme: str) -> Path:
    """An existing path: as given, else relative to the repository, wherever a notebook's kernel was started.

    Raises:
        LcmaeError: there is no such path.
    """
    for candidate in (Path(path).expanduser(), REPOSITORY / path):
        if path and candidate.exists():
            return candidate.resolve()
    raise LcmaeError(f"source '{scheme}:{path}': no such path, expected an existing folder (see data/README.md)")


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which img2 comes before img10."""
    parts = re.split(r"(\d+)", path.as_posix().lower())
    keys = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
    return [*keys, (2, 0, path.as_posix())]  # the spelling itself last, so that the order is total


def files_under(root: Path, extensions: Iterable[str]) -> list[Path]:
    """Relative paths below `root` with one of the extensions, links followed, hidden files not, in natural order."""
    wanted = set(extensions)
    found = []
    for folder, subfolders, names in os.walk(root, followlinks=True):
        subfolders[:] = [s for s in subfolders if not s.startswith(".")]
        relative = Path(folder).relative_to(root)
        found += [relative / n for n in names if Path(n).suffix.lower() in wanted and not n.startswith(".")]
    return sorted(found, key=_natural)


def path_identity(scheme: str, root: Path, files: Iterable[Path]) -> str:
    """scheme-fingerprint of files below `root`: the same on every machine, and under every path."""
    return f"{scheme}-{fingerprint((f.as_posix(), root / f) for f in files)}"


def identify(scheme: str, path: str, extensions: Iterable[str]) -> str:
    """Identity of a folder, or of a single file."""
    root = resolve(path, scheme)
    if root.is_file():
        return path_identity(scheme, root.parent, [root.relative_to(root.parent)])
    return path_identity(scheme, root, files_under(root, extensions))


@dataclass(frozen=True, eq=False)
class _Files:
    root: Path
    files: tuple[Path, ...]

    def path(self, i: int) -> Path:
        return self.root / self.files[i]

    def name(self, i: int) -> str:
        return self.files[i].as_posix()


def _class_names(files: Iterable[Path]) -> tuple[str, ...] | None:
    """First folder of each file; None unless every image lies in one."""
    first = {f.parts[0] if len(f.parts) > 1 else None for f in files}
    names = [Path(f) for f in first if f is not None]
    return tuple(str(n) for n in sorted(names, key=_natural)) if names and None not in first else None


def _folder_split(root: Path, name: str, channels: int, classes: tuple[str, ...] | None) -> Split:
    files = tuple(files_under(root, EXTENSIONS))
    labels = None
    if classes and _class_names(files):
        unknown = sorted({f.parts[0] for f in files} - set(classes))
        if unknown:
            raise LcmaeError(f"{root.name}/: class {unknown[0]!r} is not in train: {nearest(unknown[0], classes)}")
        number = {c: k for k, c in enumerate(classes)}
        labels = np.array([number[f.parts[0]] for f in files], dtype=np.int64)
    holder = _Files(root, files)
    return Split(name, len(files), labels, Reader(holder.path, holder.name, channels), holder.name)


def open_folder(path: str, data: Data) -> Found:
    """`folder:PATH`: class sub-folders give labels; `train/` with `validation/`, `val/` or `test/` give the splits."""
    root = resolve(path, "folder")
    train_root = root / "train" if (root / "train").is_dir() else root
    classes = _class_names(files_under(train_root, EXTENSIONS))
    train = _folder_split(train_root, "train", data.channels, classes)
    if not len(train):
        raise LcmaeError(f"source 'folder:{path}': no image in it, expected files such as name.jpg or class/name.png")
    if train_root == root:
        return Found(train, None, classes)
    for name in VALIDATION_NAMES:
        if (root / name).is_dir() and files_under(root / name, EXTENSIONS):
            return Found(train, _folder_split(root / name, "validation", data.channels, classes), classes)
    return Found(train, None, classes)
