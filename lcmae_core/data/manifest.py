"""manifest.json beside shards or tables: sha256 of each, so that one that is cut off or flipped is refused by name."""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..config import LcmaeError
from ..store.files import read_json, sha256
from ..store.progress import progress_bar

MANIFEST = "manifest.json"
MADE_BY = "lcmae prepare"
INDEX = ".index.json"
"""In place of .tar: what lies where in a shard of ours, which is some 100 times as fast to read as its headers."""
THREADS = 4
"""hashlib leaves the interpreter to others; more than a few readers make a disk slower."""


class Known(NamedTuple):
    """What the manifest of ours says of a shard."""

    classes: tuple[str, ...] | None
    members: Path | None
    """The index of what is in it; None where it did not come along."""


def checked(title: str, files: Sequence[Path], *, whole: bool) -> dict[Path, Known]:
    """Compare files with the manifests beside them; what is known of those that `lcmae prepare` made.

    Digests are taken once a process (about a second a gigabyte and thread). `whole`: what a manifest lists must all be
    there. Files without a manifest are taken as they are.

    Raises:
        LcmaeError: a file differs from its manifest, is missing or not listed, or the manifest is not complete.
    """
    folders = {file.parent for file in files}
    manifests = {folder: content for folder in sorted(folders) if (content := _manifest(folder)) is not None}
    expected: dict[Path, dict[str, Any]] = {}
    known: dict[Path, Known] = {}
    for folder, manifest in manifests.items():
        listed = listed_in(manifest)
        expected |= {folder / name: entry for name, entry in listed.items()}
        there = [file for file in files if file.parent == folder]
        refuse_incomplete(title, folder, manifest, listed, [file.name for file in there], whole=whole)
        if manifest.get("made_by") == MADE_BY:
            classes = classes_of(manifest)
            indices = {file: file.with_suffix(INDEX) for file in there}
            expected |= {indices[file]: {"sha256": listed[file.name]["index"]} for file in there}
            known |= {file: Known(classes, index if index.is_file() else None) for file, index in indices.items()}
    wanted = [*files, *(one.members for one in known.values() if one.members)]
    refuse_different(title, [(file.name, file, expected[file]) for file in wanted if file in expected])
    return known


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None where there is none, or one of another kind (a list, say)."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError):
        return read_json(path)  # which says what is wrong with it
    return content if isinstance(content, dict) else None


def listed_in(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Entries by file name, of those that say a digest."""
    files = manifest.get("files")
    entries = [entry for entry in files if isinstance(entry, dict)] if isinstance(files, list) else []
    return {entry["file"]: entry for entry in entries if entry.get("file") and entry.get("sha256")}


def classes_of(manifest: dict[str, Any]) -> tuple[str, ...] | None:
    """Names of the classes that a manifest of ours lists."""
    return tuple(manifest.get("classes") or ()) or None


def refuse_incomplete(
    title: str, folder: Path, manifest: dict[str, Any], listed: Iterable[str], there: Collection[str], *, whole: bool
) -> None:
    """One line on what a manifest lists and is not there, or on shards of ours that it does not list or finish.

    Raises:
        LcmaeError: that line.
    """
    missing = [name for name in listed if name not in there and not (folder / name).is_file()] if whole else []
    if missing:
        raise LcmaeError(f"source {title!r}: {missing[0]} is not there ({len(missing)} that {MANIFEST} lists are not)")
    if manifest.get("made_by") != MADE_BY:
        return
    if not manifest.get("complete"):
        raise LcmaeError(f"source {title!r}: {folder.name}/ is not finished, expected `lcmae prepare` given once more")
    strange = [name for name in there if name not in listed]
    if strange:
        raise LcmaeError(f"source {title!r}: {strange[0]} is not in {folder.name}/{MANIFEST}, expected only what is")


def refuse_different(
    title: str, known: Sequence[tuple[str, Path, dict[str, Any]]], forget: Callable[[Path], object] | None = None
) -> None:
    """One line that names the first of (name, file, entry of a manifest) whose bytes differ, and counts them; `forget`
    is called of each that does.

    Raises:
        LcmaeError: that line.
    """
    wrong = [(name, f, e, f"{s:,} bytes") for name, f, e in known if (s := f.stat().st_size) != e.get("bytes", s)]
    if not wrong:
        with ThreadPoolExecutor(THREADS) as pool, progress_bar(f"checking {title}", len(known), "file") as bar:
            for (name, file, entry), digest in zip(known, pool.map(_digest, (file for _, file, _ in known))):
                bar.update()
                if digest != entry["sha256"]:
                    wrong.append((name, file, entry, f"sha256 {digest[:12]}..."))
    if not wrong:
        return
    name, _, entry, got = wrong[0]
    more = f" ({len(wrong)} files differ)" if len(wrong) > 1 else ""
    expected = f"{entry['bytes']:,} bytes" if "bytes" in got else f"{entry['sha256'][:12]}... of {MANIFEST}"
    removed = ""
    if forget:
        for _, file, _, _ in wrong:
            forget(file)
        removed = ", and removed here: the next attempt fetches it again"
    raise LcmaeError(f"source {title!r}: {name}: got {got}, expected {expected}: damaged{more}{removed}")


def _digest(file: Path) -> str:
    seen = file.stat()
    return digest_of(file, seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=2**16)
def digest_of(file: Path, size: int, changed: int) -> str:
    """SHA-256 of a file, read again when its size or the time of its last change (`changed`, ns) is another."""
    return sha256(file)
