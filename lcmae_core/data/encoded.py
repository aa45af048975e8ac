"""A copy of encoded pictures in the cache, one after the other, where any of them is read in one step.

Parquet is made to be read in order: in random order every picture costs a part of a row group. So a table that is not
held in memory is read once, in order, when a training begins, and its pictures' bytes are kept in `<out>/cache` (within
`cache_gb`) for this and every later training. A copy is one file: the bytes, then where each picture begins (int64) and
the CRC-32 of each (uint32). A picture that differs from its sum is taken from the table, which costs only time.

Letters (CONTRIBUTING.md): M images.
"""

import hashlib
import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..store.files import DiskFullError, write_atomic, write_json
from ..store.progress import Bar, progress_bar, say_once
from ..store.stopping import stop_if_asked
from .cache import Cache, Entry
from .fingerprint import fingerprint
from .row_groups import RowGroups

VERSION = 1


@dataclass(frozen=True, eq=False, repr=False)
class Copy:
    """Number -> bytes, None for a row without any; picklable, for each decoding process reads for itself."""

    file: Path
    ends: np.ndarray
    """(M + 1,) int64."""
    sums: np.ndarray
    """(M,) uint32."""
    otherwise: Callable[[int], bytes | None]

    def __call__(self, i: int) -> bytes | None:
        start, stop = (int(end) for end in self.ends[i : i + 2])
        if start == stop:
            return self.otherwise(i)
        try:
            with self.file.open("rb") as file:
                file.seek(start)
                data = file.read(stop - start)
        except OSError:  # another run made room for itself
            data = b""
        if zlib.crc32(data) == self.sums[i]:
            return data
        say_once(f"cache: {self.file.name} is damaged or gone, some of its pictures are read from the table")
        return self.otherwise(i)


class _KeptCopy(Entry[Copy]):
    suffix = ".bytes"
    without = "pictures in random order are read from row groups, each in the time of many"
    patience = -1.0  # a copy may take an hour, and without it all that is trained takes many

    def __init__(self, cache: Cache, name: dict[str, Any], otherwise: Callable[[int], bytes | None]) -> None:
        super().__init__(cache, name)
        self._otherwise = otherwise

    def write(self, rows: Iterable[bytes | None], size: int) -> bool:
        """Keep all rows, of about `size` bytes; whether that could be done."""
        index: list[Any] = []
        try:
            if not self.make_room(size):
                return False
            write_atomic(self.file, lambda path: index.extend(_written(path, rows)), size)
            write_json(self._manifest, {"about": self._about, "rows": index[0], "sha256": index[1]})
            return True
        except (OSError, DiskFullError) as error:
            self._cannot_be_kept(error, size)
            return False

    def _whole(self, known: dict[str, Any]) -> Copy | None:
        rows = known["rows"]
        length = 8 * (rows + 1) + 4 * rows
        with self.file.open("rb") as file:
            file.seek(-length, 2)
            start, index = file.tell(), file.read()
        ends, sums = np.frombuffer(index[: 8 * (rows + 1)], "<i8"), np.frombuffer(index[8 * (rows + 1) :], "<u4")
        whole = hashlib.sha256(index).hexdigest() == known["sha256"] and ends[-1] == start
        return Copy(self.file, ends, sums, self._otherwise) if whole else None


def _written(path: Path, rows: Iterable[bytes | None]) -> tuple[int, str]:
    """Number of rows, and sha256 of the index behind their bytes."""
    ends, sums = array("q", [0]), array("L")  # 16 bytes a row, not a hundred
    with path.open("wb") as file:
        for row in rows:
            data = row or b""
            file.write(data)
            ends.append(ends[-1] + len(data))
            sums.append(zlib.crc32(data))
        index = np.asarray(ends, "<i8").tobytes() + np.asarray(sums, "<u4").tobytes()
        file.write(index)
    return len(sums), hashlib.sha256(index).hexdigest()


def copy_of(cache: Cache | None, tables: Sequence[RowGroups], otherwise: Callable[[int], bytes | None]) -> Copy | None:
    """The copy of some tables one after the other, made by one pass over them where it is not there; None where it
    cannot be kept. `otherwise` reads a row from the tables.

    Raises:
        Stopped: a stop was asked for before the copy was made.
    """
    if cache is None:
        say_once(f"cache: none is kept (cache_gb 0), {_KeptCopy.without}")
        return None
    names = [(f"{number}/{table.file.name}", table.file) for number, table in enumerate(tables)]
    about = {"version": VERSION, "tables": fingerprint(names), "rows": [len(table) for table in tables]}
    entry = _KeptCopy(cache, about, otherwise)
    if (copy := entry.read()) is not None:
        return copy
    with entry.alone() as mine:  # whoever waited finds what the other one made
        if not mine or (copy := entry.read()) is not None:
            return copy if mine else None
        total = sum(len(table) for table in tables)
        with progress_bar("copying pictures to the cache", total, "image") as bar:
            rows = (_counted(row, bar) for row in chain.from_iterable(table.everything() for table in tables))
            kept = entry.write(rows, sum(table.bytes for table in tables) + 12 * total)
        return entry.read() if kept else None


def _counted(row: bytes | None, bar: Bar) -> bytes | None:
    stop_if_asked("copying pictures to the cache")  # of a large table, for an hour
    bar.update()
    return row
