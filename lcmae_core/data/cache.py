"""Decoded pictures kept on disk: each source is read once for each size, and every process maps the same bytes.

A kept canvas is two files below `<out>/cache/`: the pixels (an .npy file) and a manifest that says what they are and
what their sha256 is; the manifest is written last. Whatever is wrong with the folder costs one line and the time to
decode again, never the work.
Letters (CONTRIBUTING.md): C channels, H x W pixels of a canvas, M images of the split.
"""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from jaxtyping import Int64, UInt8
from torch import Tensor

from ..config.groups import Runtime
from ..store.files import DiskFullError, remove_begun, write_atomic, write_json
from ..store.locks import wait_for
from ..store.machine import absolute_folder
from ..store.progress import say_once
from .splits import Split

VERSION = 2
"""Of the files: another one has other names, so its canvases are never taken for these."""
T = TypeVar("T")
SUFFIXES = (".npy", ".bytes")
"""Of canvases, and of copies of encoded pictures (`data.encoded`)."""
PATIENCE = 1800.0
"""Seconds that a process waits for another one that makes the same canvas, before it decodes for itself."""
_STALE = 3600.0  # seconds after which a temporary file belongs to nobody


class Canvas(NamedTuple):
    """All pictures of a split, each in the top left corner of its own H x W."""

    pixels: UInt8[Tensor, "M C H W"]
    heights: Int64[Tensor, "M"]
    widths: Int64[Tensor, "M"]


class Cache(NamedTuple):
    """Where canvases are kept, and how many bytes of them."""

    folder: Path
    limit: float


def cache_of(runtime: Runtime) -> Cache | None:
    """The cache below the output folder; None where `cache_gb` is 0."""
    limit = runtime.cache_gb * 1e9
    return Cache(absolute_folder(runtime.out) / "cache", limit) if limit else None


def canvas_of(
    cache: Cache | None, split: Split, shortest: int, largest: float, make: Callable[[], Canvas | None]
) -> Canvas | None:
    """The pictures of a split as `make` decodes them, from the cache where they lie there, else kept for next time.

    `shortest` is the short side to which large pictures were shrunk; a canvas of more than `largest` bytes is None. A
    part of a split is taken out of the whole where that is kept, else it is kept by itself.
    """
    if cache is None or split.identity is None:
        return make()
    kept = _whole(cache, split, shortest, largest)
    if kept is not None:
        return kept
    entry = _KeptCanvas(cache, _name(split, shortest, split.rows))
    with entry.alone() as mine:  # whoever waited finds what the other one made
        kept = entry.read() if mine else None
        if kept is not None:
            return kept if kept.pixels.numel() <= largest else None
        canvas = make()
        return entry.write(canvas) if mine and canvas is not None else canvas


def taken(folder: Path) -> tuple[int, int]:
    """Number of canvases and copies in a cache folder, and bytes of all its files."""
    files = [entry for entry in folder.glob("*") if entry.is_file()] if folder.is_dir() else []
    kept = [file for file in files if file.suffix in SUFFIXES and not file.name.startswith(".")]
    return len(kept), sum(file.stat().st_size for file in files)


def _whole(cache: Cache, split: Split, shortest: int, largest: float) -> Canvas | None:
    """The split out of the canvas of all its pictures, or out of its own, if that lies there."""
    whole = None if split.rows is None else _KeptCanvas(cache, _name(split, shortest, None)).read()
    if whole is None:
        return None
    rows = torch.from_numpy(split.rows)
    fits = whole.pixels[:1].numel() * len(rows) <= largest
    return Canvas(whole.pixels[rows], whole.heights[rows], whole.widths[rows]) if fits else None


def _name(split: Split, shortest: int, rows: np.ndarray | None) -> dict[str, Any]:
    """Everything that the pixels depend on, as plain data."""
    part = "all" if rows is None else hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()
    return {"version": VERSION, "pictures": split.identity, "shortest": shortest, "part": part}


class Entry(Generic[T]):
    """One thing in the folder, there or not: a file, and a manifest that is written after it."""

    suffix = ".npy"
    without = "pictures are decoded again"
    """What is done where it cannot be kept."""
    patience = PATIENCE
    """Seconds for another process that makes it; below 0: as long as that lives."""

    def __init__(self, cache: Cache, name: dict[str, Any]) -> None:
        self._cache, self._about = cache, name
        stem = hashlib.sha256(json.dumps(name, sort_keys=True).encode()).hexdigest()[:16]
        self.file, self._manifest = (cache.folder / f"{stem}{end}" for end in (self.suffix, ".json"))

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Nobody else makes this one meanwhile; False where that cannot be had, and nothing is to be written."""
        lock = FileLock(self._cache.folder / f".{self.file.stem}.lock")
        try:
            self._cache.folder.mkdir(parents=True, exist_ok=True)
            held = self._acquired(lock)
        except (OSError, Timeout) as error:
            say_once(f"cache: {self._cache.folder} is left out, {self.without}: {_reason(error)}")
            yield False
            return
        with held:
            yield True

    def _acquired(self, lock: FileLock) -> AcquireReturnProxy:
        if self.patience >= 0:
            return lock.acquire(timeout=self.patience)
        return wait_for(lock, "another process filled the cache")

    def read(self) -> T | None:
        """What is kept, if it is there and whole: one that is not is said and made anew."""
        if not self._manifest.exists():
            return None
        try:
            known = json.loads(self._manifest.read_text())
            kept = self._whole(known) if known["about"] == self._about else None
        except (OSError, ValueError, KeyError, TypeError):
            kept = None
        if kept is None:
            say_once(f"cache: {self.file.name} is damaged, and is made anew")
            return None
        with contextlib.suppress(OSError):
            self._manifest.touch()  # the one used longest ago makes room first
        return kept

    def _whole(self, known: dict[str, Any]) -> T | None:
        """The file opened by what its manifest says; None if it differs from that."""
        raise NotImplementedError

    def _cannot_be_kept(self, error: Exception, size: int) -> None:
        full = isinstance(error, DiskFullError)
        reason = f"no room on the disk for {size:,} bytes" if full else _reason(error)
        say_once(f"cache: {self._cache.folder} is left out, {self.without}: {reason}")

    def make_room(self, size: int) -> bool:
        """Whether so many bytes more may be kept, after dropping what was used longest ago."""
        folder, limit = self._cache
        remove_begun(self.file)  # the lock is ours
        for left in (file for end in SUFFIXES for file in folder.glob(f".*{end}")):
            if time.time() - left.stat().st_mtime > _STALE:  # of a process that was killed
                left.unlink(missing_ok=True)
        if size > min(limit, shutil.disk_usage(folder).free + taken(folder)[1]):
            say_once(f"cache: {size / 1e9:.2g} GB do not fit into {folder} (cache_gb {limit / 1e9:g}): {self.without}")
            return False
        for oldest in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
            if taken(folder)[1] + size <= limit and size <= shutil.disk_usage(folder).free:
                break
            with contextlib.suppress(PermissionError):  # Windows: somebody reads it
                for file in (*(oldest.with_suffix(end) for end in SUFFIXES), oldest):
                    file.unlink(missing_ok=True)
        return True


class _KeptCanvas(Entry[Canvas]):
    """A canvas, mapped."""

    def _whole(self, known: dict[str, Any]) -> Canvas | None:
        return self._open(known["sizes"]) if known["sha256"] == self._digest(known["sizes"]) else None

    def write(self, canvas: Canvas) -> Canvas:
        """Keep a canvas and give it back, mapped; as it came where it cannot be kept."""
        sizes = [canvas.heights.tolist(), canvas.widths.tolist()]
        try:
            if not self.make_room(canvas.pixels.numel()):
                return canvas
            write_atomic(self.file, lambda path: np.save(path, canvas.pixels.numpy()))
            write_json(self._manifest, {"about": self._about, "sizes": sizes, "sha256": self._digest(sizes)})
            return self._open(sizes)
        except (OSError, ValueError) as error:
            self._cannot_be_kept(error, canvas.pixels.numel())
            return canvas

    def _digest(self, sizes: list[list[int]]) -> str:
        with self.file.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
        digest.update(json.dumps(sizes).encode())
        return digest.hexdigest()

    def _open(self, sizes: list[list[int]]) -> Canvas:
        mapped = np.load(self.file, mmap_mode="c")  # copy-on-write: torch wants a writable array
        heights, widths = (torch.tensor(side, dtype=torch.int64) for side in sizes)
        return Canvas(torch.from_numpy(mapped), heights, widths)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
