"""Pictures of a folder or an archive, resized once, as webdataset shards with a manifest of what is in them.

A shard is written whole or not at all, and the manifest after it. Nothing of time or place is written, so work that was
killed and given again ends in the same bytes.
"""

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import PIL
from filelock import FileLock, Timeout
from PIL import Image

from ..config import LcmaeError
from ..config.names import plain
from ..store.files import read_json, sha256, write_atomic, write_json
from ..store.progress import Bar, progress_bar
from ..store.stopping import Stopped, StopRequest, stop_requests
from .contents import Contents
from .convert import UnreadableImage, decode, is_plain_jpeg
from .decoders import Decoding, shrunk
from .manifest import INDEX, MADE_BY, MANIFEST
from .shard_plan import Item, ShardPlan, ShardRecipe, planned
from .tars import BLOCK

FORMAT = 1
"""Of the shards: work of another one is not gone on with."""


class _Bad(NamedTuple):
    name: str
    reason: str


# ---- one picture


def resized(content: bytes, name: str, recipe: ShardRecipe) -> bytes:
    """A picture as a JPEG whose short side is at most `recipe.size`; one that is so already keeps its bytes.

    Raises:
        UnreadableImage: in one line.
    """
    image = decode(content, name, how=Decoding(least=recipe.size))
    short = min(image.size)
    if is_plain_jpeg(content, recipe.size):
        return content
    if short > recipe.size:
        image = image.resize(shrunk(image.size, recipe.size), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=recipe.quality)
    return buffer.getvalue()


# ---- shards


@dataclass
class _Work:
    contents: Contents
    classes: tuple[str, ...] | None
    recipe: ShardRecipe
    folder: Path
    stop: StopRequest
    bar: Bar

    def one(self, item: Item) -> bytes | _Bad:
        name = plain(self.contents.files[item.number].as_posix())
        try:
            return resized(self.contents.fetch(item.number), name, self.recipe)
        except UnreadableImage as error:
            return _Bad(name, str(error))
        except OSError as error:  # the file went away, or may not be read
            return _Bad(name, f"cannot read {name}: {error.strerror or error}")

    def shard(self, name: str, items: list[Item], pool: ThreadPoolExecutor) -> dict[str, Any]:
        """Write a shard; its entry in the manifest. Of pictures that are all bad there is an entry and no file."""
        bad: list[_Bad] = []
        counts: Counter[int | None] = Counter()
        index: dict[str, list[Any]] = {"names": [], "starts": [], "sizes": [], "labels": []}

        def fill(path: Path) -> None:
            with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
                for item, content in zip(items, pool.map(self.one, items)):
                    if self.stop.is_set():
                        raise Stopped("prepare: finished shards are kept", self.stop)
                    if isinstance(content, _Bad):
                        bad.append(content)
                    else:
                        counts[item.label] += 1
                        for column, value in zip(index.values(), _add(tar, item, content)):
                            column.append(value)
                    self.bar.update()

        path = self.folder / name
        write_atomic(path, fill)
        entry = {"bytes": path.stat().st_size, "sha256": sha256(path), "index": None}
        if counts:
            write_json(path.with_suffix(INDEX), index, indent=None)
            entry["index"] = sha256(path.with_suffix(INDEX))
        else:
            path.unlink()
            entry |= {"bytes": 0, "sha256": None}
        classes = self.classes or ()
        return entry | {
            "file": name,
            "images": sum(counts.values()),
            "classes": {classes[label]: count for label, count in counts.items() if label is not None},
            "left_out": [one._asdict() for one in bad],
        }


def _add(tar: tarfile.TarFile, item: Item, content: bytes) -> tuple[str, int, int, str | None]:
    """Write a picture and its label; name, place and size of the picture, and the label."""
    name, label = f"{item.key}.jpg", None if item.label is None else str(item.label)
    _write(tar, name, content)
    start = tar.offset - -(-len(content) // BLOCK) * BLOCK
    if label is not None:
        _write(tar, f"{item.key}.cls", label.encode())
    return name, start, len(content), label


def _write(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def prepare(contents: Contents, folder: Path, recipe: ShardRecipe, *, workers: int = 1) -> dict[str, Any]:
    """Write the shards into `folder`, or the rest of them; returns the manifest.

    Whole shards of earlier work with the same recipe and pictures are kept; at most one is done again.

    Raises:
        LcmaeError: the folder holds something else, another process is at it, or no picture is readable.
        Stopped: SIGINT, SIGTERM or SIGUSR2 asked for a stop.
        DiskFullError: no room; finished shards are kept.
    """
    plan = planned(contents, recipe)
    about = asdict(recipe) | {"format": FORMAT, "source": contents.identity, "pillow": PIL.__version__}
    _refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LcmaeError(
            f"--to: got {str(folder)!r}, expected a folder that can be written ({error.strerror})"
        ) from None
    total = sum(map(len, plan.shards.values()))
    with alone_in(folder), stop_requests() as stop, progress_bar("preparing", total, "image", leave=True) as bar:
        for pattern in (".*.tar-*.tar", ".*.json-*.json"):  # of a process that was killed
            for lost in folder.glob(pattern):
                lost.unlink()
        entries = _kept(folder, about, plan, bar)
        work = _Work(contents, plan.classes, recipe, folder, stop, bar)
        pool = ThreadPoolExecutor(workers)
        try:
            for name, items in plan.shards.items():
                if name not in entries:
                    _write_manifest(folder, about, plan, entries)
                    entries[name] = work.shard(name, items, pool)
        finally:  # what is not begun is not wanted when a stop is asked for
            pool.shutdown(cancel_futures=True)
    if not any(entry["images"] for entry in entries.values()):
        first = next(bad["reason"] for entry in entries.values() for bad in entry["left_out"])
        raise LcmaeError(f"none of {total} images is readable, the first: {first}")
    return _write_manifest(folder, about, plan, entries)


def _write_manifest(
    folder: Path, about: dict[str, Any], plan: ShardPlan, entries: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    listed = [entries[name] for name in plan.shards if name in entries]
    content = {
        "made_by": MADE_BY,
        "complete": len(listed) == len(plan.shards),
        "about": about,
        "classes": plan.classes,
        "images": sum(entry["images"] for entry in listed),
        "left_out": sum(len(entry["left_out"]) for entry in listed),
        "passed_over": plan.left_out,
        "files": listed,
    }
    write_json(folder / MANIFEST, content)
    return content


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise LcmaeError(f"--to: got {str(folder)!r}, which is a file, expected a folder")
    there = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []
    if there and MANIFEST not in there:
        raise LcmaeError(f"--to: got {str(folder)!r}, in which {there[0]!r} lies, expected a new or empty folder")


def _kept(folder: Path, about: dict[str, Any], plan: ShardPlan, bar: Bar) -> dict[str, dict[str, Any]]:
    """Entries of the shards that earlier work left whole."""
    if not (folder / MANIFEST).exists():
        return {}
    known = read_json(folder / MANIFEST)
    if known.get("made_by") != MADE_BY:
        raise LcmaeError(f"--to: got {str(folder)!r}, whose {MANIFEST} is not ours, expected a new or empty folder")
    differ = [f"{k} {known['about'].get(k)}, now {v}" for k, v in about.items() if known["about"].get(k) != v]
    if differ:
        raise LcmaeError(f"--to: {str(folder)!r} holds shards of {'; '.join(differ)}: expected another folder")
    kept = {entry["file"]: entry for entry in known["files"] if entry["file"] in plan.shards and _whole(folder, entry)}
    bar.update(sum(entry["images"] + len(entry["left_out"]) for entry in kept.values()))
    return kept


def _whole(folder: Path, entry: dict[str, Any]) -> bool:
    path = folder / entry["file"]
    wanted = {path: entry["sha256"], path.with_suffix(INDEX): entry["index"]}
    return not entry["images"] or all(file.is_file() and sha256(file) == digest for file, digest in wanted.items())


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Inside, this process alone fills the folder.

    Raises:
        LcmaeError: another process is at it.
    """
    lock = FileLock(folder / ".prepare.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        line = f"--to: got {str(folder)!r}, which another process is filling, expected one at a time"
        raise LcmaeError(line) from None
    try:
        yield
    finally:
        lock.release()
