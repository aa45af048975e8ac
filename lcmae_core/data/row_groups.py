"""A column of bytes read from parquet as it is asked for, so that a table larger than memory is never held.

A process keeps a few blocks of consecutive rows and the place up to which it has read a row group; whatever the size of
row groups, it holds no more. In order that costs one pass; in random order every row costs half a row group on average,
which is what `data.encoded` is for.
"""

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..config import LcmaeError

BLOCK, BLOCKS = 2**22, 4
"""Bytes of a block, as the table says them, and how many are kept."""
BUFFER = 2**20
"""Bytes read from the file at a time."""
FEWEST, MOST = 16, 1024
"""Rows of a block, whatever their size: as many as there may be threads that go through them side by side."""


def damaged(file: Path, column: str, error: Exception) -> LcmaeError:
    """What pyarrow says in many words, in a line that names the file."""
    got = " ".join(str(error).split())[:200]
    return LcmaeError(f"{file.name}: column {column!r}: got {got}, expected a whole table: damaged")


def leaf_of(schema: Any) -> str | None:
    """The column that holds bytes, `image` or `image.bytes`; None where none can be read piece by piece."""
    import pyarrow as pa

    kind = schema.field("image").type
    for name, one in [("image", kind)] if not pa.types.is_struct(kind) else [(f"image.{f.name}", f.type) for f in kind]:
        if name in ("image", "image.bytes") and (pa.types.is_binary(one) or pa.types.is_large_binary(one)):
            return name
    return None


def bytes_of(metadata: Any, leaf: str) -> int:
    """Bytes that a column takes in memory, as the table says it."""
    groups = (metadata.row_group(k) for k in range(metadata.num_row_groups))
    columns = (group.column(c) for group in groups for c in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == leaf)


class RowGroups:
    """Bytes of the rows of one table, read when asked for; picklable, and safe among threads and after a fork."""

    def __init__(self, file: Path, leaf: str) -> None:
        import pyarrow.parquet as pq

        metadata = pq.read_metadata(file)
        counts = [metadata.row_group(k).num_rows for k in range(metadata.num_row_groups)]
        *self.starts, self.size = accumulate(counts, initial=0)
        self.file, self.leaf, self.bytes = file, leaf, bytes_of(metadata, leaf)
        self.rows = max(FEWEST, min(MOST, BLOCK * self.size // max(1, self.bytes)))

    def __len__(self) -> int:
        return self.size

    def blocks(self, group: int) -> Iterator[list[bytes | None]]:
        """A row group in blocks of `rows`, the last one shorter; pages with checksums are compared with them.

        Raises:
            LcmaeError: the file is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.ParquetFile(self.file, buffer_size=BUFFER, pre_buffer=False, page_checksum_verification=True)
            how = {"batch_size": self.rows, "row_groups": [group], "columns": [self.leaf], "use_threads": False}
            with table:
                for batch in table.iter_batches(**how):
                    column = batch.column(0)
                    yield (column.field(0) if pa.types.is_struct(column.type) else column).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise damaged(self.file, "image", error) from None

    def everything(self) -> Iterator[bytes | None]:
        """All rows in order, in one pass."""
        for group in range(len(self.starts)):
            for block in self.blocks(group):
                yield from block

    def row(self, i: int) -> bytes | None:
        """Row i.

        Raises:
            LcmaeError: the file is damaged where it lies.
        """
        group = bisect_right(self.starts, i) - 1
        block, place = divmod(i - self.starts[group], self.rows)
        return RECENT.block(self, group, block)[place]


class Recent:
    """The blocks that a process has read last, of all tables together, and the row group that it is reading."""

    def __init__(self) -> None:
        self.start_over()

    def __len__(self) -> int:
        return len(self._kept)

    def start_over(self) -> None:
        """With nothing kept."""
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._kept: OrderedDict[tuple[Path, int, int], list[bytes | None]] = OrderedDict()
        self._reading: tuple[Path, int] | None = None
        self._at = 0
        self._ahead: Iterator[list[bytes | None]] = iter(())

    def block(self, table: RowGroups, group: int, number: int) -> list[bytes | None]:
        """A block, from those kept, else by reading on, else by reading the row group from its start."""
        key = (table.file, group, number)
        with self._lock:
            if key not in self._kept:
                self._read(table, group, number)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _read(self, table: RowGroups, group: int, number: int) -> None:
        if self._reading != (table.file, group) or self._at > number:
            self._reading, self._at, self._ahead = (table.file, group), 0, table.blocks(group)
        try:
            while self._at <= number:
                block = next(self._ahead, None)
                if block is None:  # a StopIteration would end a training as if it were done
                    raise damaged(table.file, "image", EOFError("it has fewer rows than when it was opened"))
                self._kept[table.file, group, self._at] = block
                self._at += 1
                while len(self._kept) > BLOCKS:
                    self._kept.popitem(last=False)
        except BaseException:
            self._forget()
            raise


RECENT = Recent()
"""This process's."""
if hasattr(os, "register_at_fork"):  # what the parent was reading is its own, and so is its lock
    os.register_at_fork(after_in_child=RECENT.start_over)
