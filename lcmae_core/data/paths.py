"""Sources that are files on this machine: where they lie, what identifies them, class folders."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import Data, LcmaeError, NoDataError, nearest
from ..config.names import plain, spellings
from ..store.machine import REPOSITORY
from .fingerprint import fingerprint
from .layout import Splits, below, find_splits
from .listing import list_files, natural
from .splits import Found, Reader, Split

EXTENSIONS = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".pcx", ".qoi", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx",
])  # fmt: skip
"""What counts as an image inside a folder, all read by Pillow itself; other files are passed over, and counted."""
VALIDATION_NAMES = ("validation", "val", "valid", "test")


def resolve(path: str, scheme: str) -> Path:
    """An existing path: as given, else relative to the repository, wherever a notebook's kernel was started.

    Letters may be composed or decomposed, and bytes that are no UTF-8 spelt out, unlike on the disk.

    Raises:
        LcmaeError: there is no such path.
    """
    for spelling in spellings(path):
        for candidate in (Path(spelling).expanduser(), REPOSITORY / spelling):
            if path and candidate.exists():
                return candidate.resolve()
    raise NoDataError(f"source '{scheme}:{path}': no such path, expected an existing folder (see data/README.md)")


def files_under(root: Path, extensions: Iterable[str]) -> list[Path]:
    """Relative paths below `root` with one of the extensions, in natural order, as `list_files` gives them."""
    return list(list_files(root, frozenset(extensions)).files)


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
        return plain(self.files[i].as_posix())


def class_names(files: Iterable[Path]) -> tuple[str, ...] | None:
    """First folder of each file, letters composed; None unless every image lies in one."""
    first = {f.parts[0] if len(f.parts) > 1 else None for f in files}
    names = {Path(plain(f)) for f in first if f is not None}
    return tuple(str(n) for n in sorted(names, key=natural)) if names and None not in first else None


def _folder_split(root: Path, name: str, files: list[Path], channels: int, classes: tuple[str, ...] | None) -> Split:
    labels = None
    if classes and (names := class_names(files)):
        unknown = [c for c in names if c not in classes]
        if unknown:
            raise LcmaeError(f"{root.name}/: class {unknown[0]!r} is not in train: {nearest(unknown[0], classes)}")
        number = {c: k for k, c in enumerate(classes)}
        labels = np.array([number[plain(f.parts[0])] for f in files], dtype=np.int64)
    holder = _Files(root, tuple(files))
    return Split(name, len(files), labels, Reader(holder.path, holder.name, channels), holder.name)


def _outside(files: Iterable[Path], splits: Splits) -> tuple[str, ...]:
    """How many images lie in no split, and where."""
    used = [folder.parts for folder in splits if folder is not None]
    outside = [f for f in files if not any(f.parts[: len(parts)] == parts for parts in used)]
    if not outside:
        return ()
    where = sorted({plain(f.parts[0]) + "/" if len(f.parts) > 1 else "the folder itself" for f in outside})
    return (f"{len(outside)} image{'s' * (len(outside) > 1)} outside the splits (in {', '.join(where)})",)


def open_folder(path: str, data: Data) -> Found:
    """`folder:PATH`: class sub-folders give labels; folders called `train` and `val` or the like (`layout`) splits.

    Raises:
        LcmaeError: no such folder, no image in it, a class that is held out but not trained on.
    """
    root = resolve(path, "folder")
    if root.is_file():
        raise LcmaeError(f"source 'folder:{path}': got a file, expected the folder that it lies in")
    listing = list_files(root, EXTENSIONS)
    if not listing.files:
        passed = f" (left out: {', '.join(listing.left_out())})" if listing.left_out() else ""
        raise LcmaeError(
            f"source 'folder:{path}': no image in it, expected files such as name.jpg or class/name.png{passed}"
        )
    splits = find_splits(listing.files)
    files = below(listing.files, splits.train)
    classes = class_names(files)
    train = _folder_split(root / splits.train, "train", files, data.channels, classes)
    validation = None
    if splits.held_out is not None:
        held_out = below(listing.files, splits.held_out)
        validation = _folder_split(root / splits.held_out, "validation", held_out, data.channels, classes)
    return Found(train, validation, classes, (*listing.left_out(), *_outside(listing.files, splits)))
