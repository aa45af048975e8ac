"""Parquet tables of pictures: their bytes, or the paths where they lie."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..config import Data, LcmaeError
from .cache import Cache
from .convert import UnreadableImage
from .encoded import Copy, copy_of
from .fingerprint import fingerprint
from .image_column import Held, OnDisk, column_of, fits, image_column
from .labels import COLUMNS, number_labels
from .manifest import checked
from .paths import files_under, resolve
from .shard_files import by_split
from .splits import Found, Reader, Split


@dataclass(frozen=True, eq=False, repr=False)
class _Table:
    """The column `image` of some files; numbers run through all of them. Called with a number it gives the picture."""

    root: Path
    files: tuple[Path, ...]
    starts: tuple[int, ...]
    columns: tuple[Held | OnDisk, ...]
    copy: Copy | None = None

    def _place(self, i: int) -> tuple[int, int]:
        k = bisect_right(self.starts, i) - 1
        return k, i - self.starts[k]

    def content(self, i: int) -> bytes | None:
        """Bytes of the picture, from its table."""
        k, row = self._place(i)
        return self.columns[k].content(row)

    def __call__(self, i: int) -> bytes | Path:
        data = self.copy(i) if self.copy else self.content(i)
        if data:
            return data
        k, row = self._place(i)
        file, path = self.files[k], self.columns[k].path(row)
        if path and (place := _outside(self.root, file, path)):
            return place
        if data is not None:
            return data
        why = f"no file at {path!r}, looked for from {file.parent.name}/" if path else "neither bytes nor a path"
        raise UnreadableImage(f"cannot read {file.name}#{row}: {why}")

    def name(self, i: int) -> str:
        k, row = self._place(i)
        return self.columns[k].path(row) or f"{self.files[k].name}#{row}"

    def copied(self, cache: Cache | None) -> "_Table":
        """With pictures from a copy, unless they are held or it cannot be kept."""
        groups = [column.groups for column in self.columns if isinstance(column, OnDisk)]
        if len(groups) < len(self.columns):
            return self
        return replace(self, copy=copy_of(cache, groups, self.content))


def _outside(root: Path, file: Path, path: str) -> Path | None:
    """Where the picture of a row lies: absolute, beside the table, or below the source."""
    try:
        return next((p for p in (file.parent / path, root / path) if p.is_file()), None)
    except (OSError, ValueError):  # a path longer than any can be, a null byte
        return None


def _split(root: Path, files: Sequence[Path], name: str, channels: int, *, hold: bool) -> Split:
    columns = [image_column(file, hold=hold) for file in files]
    *starts, size = accumulate((len(column) for column in columns), initial=0)
    if all(column.empty for column in columns):
        raise LcmaeError(f"{files[0].name}: column 'image' holds neither bytes nor a path in any row")
    held = _Table(root, tuple(files), tuple(starts), tuple(columns))
    return Split(name, size, None, Reader(held, held.name, channels), held.name)


def _label_column(files: Sequence[Path]) -> str | None:
    import pyarrow.parquet as pq

    known = {name for file in files for name in pq.read_schema(file).names}
    return next((name for name in COLUMNS if name in known), None)


def _labels(files: Sequence[Path], column: str | None) -> list[Any] | None:
    """What a column says of each row; None for the rows of a file that lacks it."""
    import pyarrow.parquet as pq

    labels: list[Any] = []
    for file in files:
        schema = pq.read_schema(file)
        if column is not None and column in schema.names:
            labels += column_of(file, column).to_pylist()
        else:
            labels += [None] * pq.read_metadata(file).num_rows
    return labels if column and files else None


def _class_names(root: Path, first: Path, column: str) -> list[str] | None:
    """Class names from the schema's HF metadata, else from manifest.json."""
    import pyarrow.parquet as pq

    metadata = json.loads((pq.read_schema(first).metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(column, {}).get("names")
    manifest = root / "manifest.json"
    if not names and manifest.is_file():
        names = json.loads(manifest.read_text()).get("classes")
    return names or None


def _files(path: str) -> tuple[Path, list[Path]]:
    """Folder and tables of a source.

    Raises:
        LcmaeError: there are none.
    """
    root = resolve(path, "parquet")
    if root.is_file():
        return root.parent, [root]
    files = [root / f for f in files_under(root, [".parquet"])]
    if not files:
        raise LcmaeError(f"source 'parquet:{path}': no *.parquet in it, expected train-00000-of-00001.parquet...")
    return root, files


def open_parquet(path: str, data: Data) -> Found:
    """`parquet:PATH`: *.parquet with `image: {bytes, path}` and perhaps `label`; the file's name says the split.

    `image` may be bytes or text (a path) alone; a path is absolute, or relative to its table or to PATH. Files that
    manifest.json lists must be as it says, and pages that have checksums too. Pictures are held in memory up to `SHARE`
    of it, else read as they are asked for.
    """
    root, files = _files(path)
    checked(f"parquet:{path}", files, whole=resolve(path, "parquet").is_dir())
    with _one_line(path):
        train, held_out = by_split(root, files)
        column = _label_column(train)
        names = _class_names(root, train[0], column) if column else None
        labels = number_labels(f"parquet:{path}", _labels(train, column), _labels(held_out, column), names)
        named = [(name, part) for name, part in (("train", train), ("validation", held_out)) if part]
        hold = fits([*train, *held_out])
        splits = [_split(root, part, name, data.channels, hold=hold) for name, part in named]
    first, *others = (replace(split, labels=numbers) for split, numbers in zip(splits, labels[:2]))
    return Found(first, others[0] if others else None, labels.classes)


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """pyarrow's errors are of many lines."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise LcmaeError(f"source 'parquet:{path}': got {' '.join(str(error).split())[:200]}") from None


# ---- identity


def parquet_identity(path: str) -> str:
    """Content of the tables, and of the pictures of which they only say the path."""
    root, files = _files(path)
    listing = [(file.relative_to(root).as_posix(), file) for file in files]
    with _one_line(path):
        for file in files:
            seen = file.stat()
            listing += _pictures_outside(root, file, seen.st_size, seen.st_mtime_ns)
    return f"parquet-{fingerprint(listing)}"


@lru_cache(maxsize=2**10)
def _pictures_outside(root: Path, file: Path, size: int, changed: int) -> list[tuple[str, Path]]:
    """(path as the table says it, where it lies) of rows that may have no bytes; `size` and `changed` say when to look
    again."""
    return [(path, place) for path in _paths(file) if path and (place := _outside(root, file, path))]


def _paths(file: Path) -> list[str | None]:
    """What the column `image` says of paths, where a row of it may have no bytes; reads no bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file)
    schema = table.schema_arrow
    if "image" not in schema.names:
        return []
    kind = schema.field("image").type
    if not pa.types.is_struct(kind):
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        return table.read(["image"])["image"].to_pylist() if "string" in str(inner) else []
    if "path" not in {field.name for field in kind} or not _lacking_bytes(table.metadata):
        return []
    return [(value or {}).get("path") for value in table.read(["image.path"])["image"].to_pylist()]


def _lacking_bytes(metadata: Any) -> bool:
    """Whether some row has no bytes, or the table does not say."""
    groups = [metadata.row_group(k) for k in range(metadata.num_row_groups)]
    columns = [group.column(c) for group in groups for c in range(group.num_columns)]
    statistics = [column.statistics for column in columns if column.path_in_schema == "image.bytes"]
    return not statistics or any(one is None or not one.has_null_count or one.null_count for one in statistics)
