"""The column `image` of a parquet table: held in memory, or read as it is asked for."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import LcmaeError
from ..store.machine import machine_memory
from .row_groups import BUFFER, MOST, RowGroups, bytes_of, damaged, leaf_of

SHARE = 1 / 8
"""Share of the machine's memory, divided among its ranks, up to which a source's pictures are held, encoded as they are
in the source; larger ones are read from disk."""


@dataclass(frozen=True, eq=False, repr=False)
class Held:
    """The column `image` of a file in memory."""

    column: Any  # pyarrow.ChunkedArray of struct<bytes, path>, binary or text

    def __len__(self) -> int:
        return len(self.column)

    def _value(self, row: int) -> dict[str, Any]:
        value = self.column[row].as_py()
        return value if isinstance(value, dict) else {"path" if isinstance(value, str) else "bytes": value}

    def content(self, row: int) -> bytes | None:
        """Bytes of a row's picture."""
        return self._value(row).get("bytes")

    @property
    def empty(self) -> bool:
        """Whether no row has anything."""
        column = self.column
        if column.type.num_fields == 0 or column.null_count == len(column):
            return column.null_count == len(column)
        return all(
            part.field(k).null_count == len(part) for part in column.chunks for k in range(column.type.num_fields)
        )

    def path(self, row: int) -> str | None:
        """What the table says of where it lies, which is also its name."""
        return self._value(row).get("path")


@dataclass(frozen=True, eq=False, repr=False)
class OnDisk:
    """The column `image` of a file of which only the paths, where it has them, are in memory."""

    groups: RowGroups
    paths: Any  # pyarrow.ChunkedArray of text, or None

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def empty(self) -> bool:
        """No: only what is large is left on disk."""
        return False

    def content(self, row: int) -> bytes | None:
        """Bytes of a row's picture."""
        return self.groups.row(row)

    def path(self, row: int) -> str | None:
        """What the table says of where it lies, which is also its name."""
        return None if self.paths is None else self.paths[row].as_py()


def image_column(file: Path, *, hold: bool) -> Held | OnDisk:
    """The column of a file; left on disk only if it is bytes, with a path or without.

    Raises:
        LcmaeError: there is none, or it is no column of pictures, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(file)
    if "image" not in schema.names:
        got = ", ".join(schema.names)
        raise LcmaeError(f"{file.name}: no column 'image', got {got}, expected image and label")
    kind = schema.field("image").type
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_struct(inner):
        good = bool({"bytes", "path"} & {field.name for field in inner})
    else:
        good = str(inner).removeprefix("large_").removesuffix("_view") in ("binary", "string", "null")
    if not good:
        raise LcmaeError(f"{file.name}: column 'image' is {kind}, expected {{bytes, path}}, bytes or paths")
    leaf = leaf_of(schema)
    if hold or leaf is None:
        return Held(column_of(file, "image"))
    has_paths = pa.types.is_struct(kind) and "path" in {field.name for field in kind}
    return OnDisk(RowGroups(file, leaf), column_of(file, "image", "image.path") if has_paths else None)


def fits(files: Sequence[Path]) -> bool:
    """Whether the pictures of a source may lie in memory."""
    import pyarrow.parquet as pq

    memory, ranks = machine_memory(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if memory is None:
        return True
    leaves = ((pq.read_metadata(file), leaf) for file in files for leaf in ("image", "image.bytes"))
    return sum(bytes_of(metadata, leaf) for metadata, leaf in leaves) <= SHARE * memory / ranks


def column_of(file: Path, name: str, part: str | None = None) -> Any:
    """A column, or one part of one of structs, its pages compared with their checksums where the table has them.

    It is read piece by piece, which takes little more memory than it fills: at once it takes twice as much.

    Raises:
        LcmaeError: they differ, or the file is damaged in another way.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True) as table:
            pieces = [batch.column(0) for batch in table.iter_batches(MOST, columns=[part or name], use_threads=False)]
            column = pa.chunked_array(pieces) if pieces else table.read([part or name])[name]
    except (OSError, pa.ArrowException) as error:
        raise damaged(file, name, error) from None
    return column if part is None else pa.chunked_array([c.field(0) for c in column.chunks], column.type[0].type)
