"""Sources that are files on this machine: where they lie, what identifies them, class folders and parquet tables."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Data, LcmaeError, nearest
from ..config.names import plain, spellings
from ..store.machine import REPOSITORY
from .layout import Splits, below, find_splits
from .listing import list_files, natural
from .splits import Found, Reader, Split, as_labels

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
    raise LcmaeError(f"source '{scheme}:{path}': no such path, expected an existing folder (see data/README.md)")


def files_under(root: Path, extensions: Iterable[str]) -> list[Path]:
    """Relative paths below `root` with one of the extensions, in natural order, as `list_files` gives them."""
    return list(list_files(root, frozenset(extensions)).files)


def path_identity(scheme: str, root: Path, files: Iterable[Path]) -> str:
    """scheme-folder-hash, where the hash covers sorted (relative name, size): the same on every machine."""
    listing = sorted((f.as_posix(), (root / f).stat().st_size) for f in files)
    digest = hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:10]
    return f"{scheme}-{root.name}-{digest}"


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


def _class_names(files: Iterable[Path]) -> tuple[str, ...] | None:
    """First folder of each file, letters composed; None unless every image lies in one."""
    first = {f.parts[0] if len(f.parts) > 1 else None for f in files}
    names = {Path(plain(f)) for f in first if f is not None}
    return tuple(str(n) for n in sorted(names, key=natural)) if names and None not in first else None


def _folder_split(root: Path, name: str, files: list[Path], channels: int, classes: tuple[str, ...] | None) -> Split:
    labels = None
    if classes and (found := _class_names(files)):
        unknown = [c for c in found if c not in classes]
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
    classes = _class_names(files)
    train = _folder_split(root / splits.train, "train", files, data.channels, classes)
    validation = None
    if splits.held_out is not None:
        held_out = below(listing.files, splits.held_out)
        validation = _folder_split(root / splits.held_out, "validation", held_out, data.channels, classes)
    return Found(train, validation, classes, (*listing.left_out(), *_outside(listing.files, splits)))


@dataclass(frozen=True, eq=False)
class _Table:
    """Encoded images as they lie in parquet files, held in memory; numbers run through all files."""

    images: Any  # pyarrow.ChunkedArray of struct<bytes, path> or binary
    places: tuple[str, ...]

    def fetch(self, i: int) -> bytes:
        value = self.images[i].as_py()
        return (value.get("bytes") if isinstance(value, dict) else value) or b""

    def name(self, i: int) -> str:
        value = self.images[i].as_py() if self.images.type.num_fields else None
        return (value or {}).get("path") or self.places[i]


def _parquet_split(files: list[Path], name: str, channels: int) -> Split:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, places = [], []
    for file in files:
        columns = pq.read_schema(file).names
        if "image" not in columns:
            raise LcmaeError(f"{file.name}: no column 'image', got {', '.join(columns)}, expected image and label")
        tables.append(pq.read_table(file, columns=[c for c in ("image", "label") if c in columns]))
        places += [f"{file.name}#{row}" for row in range(len(tables[-1]))]
    table = pa.concat_tables([t.replace_schema_metadata(None) for t in tables], promote_options="default")
    labels = table["label"].fill_null(-1).to_numpy() if "label" in table.column_names else None
    held = _Table(table["image"], tuple(places))
    return Split(name, len(table), as_labels(labels), Reader(held.fetch, held.name, channels), held.name)


def _parquet_classes(root: Path, first: Path) -> tuple[str, ...] | None:
    """Class names from the schema's HF metadata, else from manifest.json."""
    import pyarrow.parquet as pq

    metadata = json.loads((pq.read_schema(first).metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get("label", {}).get("names")
    manifest = root / "manifest.json"
    if not names and manifest.is_file():
        names = json.loads(manifest.read_text()).get("classes")
    return tuple(names) if names else None


def open_parquet(path: str, data: Data) -> Found:
    """`parquet:PATH`: *.parquet with `image: {bytes, path}` and perhaps `label`; the file's name says the split."""
    root = resolve(path, "parquet")
    files = [root / f for f in files_under(root, [".parquet"])] if root.is_dir() else [root]
    if not files:
        raise LcmaeError(f"source 'parquet:{path}': no *.parquet in it, expected train-00000-of-00001.parquet...")
    held_out: list[Path] = []
    for name in VALIDATION_NAMES:
        held_out = held_out or [f for f in files if re.match(rf"{name}\b|{name}_", f.name)]
    all_held_out = [f for f in files if re.match(rf"({'|'.join(VALIDATION_NAMES)})(\b|_)", f.name)]
    train = [f for f in files if f not in all_held_out] or files
    validation = _parquet_split(held_out, "validation", data.channels) if held_out and train != files else None
    return Found(_parquet_split(train, "train", data.channels), validation, _parquet_classes(root, train[0]))
