"""Webdataset shards: tar archives whose members belong together by name, read where they lie.

A sample is the members that share all before the first dot of their names; of each the picture and the label count.
"""

import json
import sys
import tarfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from ..config import Data, LcmaeError
from ..config.names import printable
from ..config.places import is_remote
from .fingerprint import fingerprint
from .labels import COLUMNS, number_labels, numbers_or_names
from .manifest import Known, checked
from .paths import EXTENSIONS
from .remote import fetch
from .shard_files import braces, by_split, is_folder, shards
from .splits import Found, Reader, Split
from .tars import FAULTS, WHOLE, refuse_what_leads_out, walk


def wds_identity(address: str) -> str:
    """Content of shards on this machine; the address itself for remote ones."""
    if is_remote(address):
        return f"wds:{address}"
    root, files = shards(address)
    return f"wds-{fingerprint((file.relative_to(root).as_posix(), file) for file in files)}"


# ---- what is in them


@dataclass
class _Sample:
    key: str
    picture: tuple[str, int, int] | None = None
    """Name of the member, and where its bytes lie."""
    more: list[str] = field(default_factory=list)
    """Names of further pictures."""
    texts: dict[str, bytes] = field(default_factory=dict)
    extensions: list[str] = field(default_factory=list)

    @property
    def label(self) -> Any:
        """What .cls says, else a label in .json; None where there is neither."""
        if "cls" in self.texts:
            return self.texts["cls"].decode("utf-8", "surrogateescape").strip()
        try:
            fields = json.loads(self.texts.get("json", b"null"))
        except ValueError:
            return None
        value = next((fields[name] for name in COLUMNS if name in fields), None) if isinstance(fields, dict) else None
        return value if isinstance(value, str) or value is None else str(value)


@dataclass(frozen=True, repr=False)
class _Shard:
    """Pictures of an archive: names, places of their bytes, labels as texts. A compressed archive cannot be read from
    the middle: its pictures are held."""

    names: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    labels: tuple[str | None, ...]
    held: tuple[bytes, ...] | None


@lru_cache(maxsize=2**12)
def _read_shard(path: Path, size: int, changed: int) -> _Shard:
    """Index of an archive; `size` and `changed` say when to read it again."""
    try:
        with tarfile.open(path, "r:*", errors="surrogateescape") as tar:
            samples = [sample for sample in _samples(tar, path) if sample.extensions]
            pictures = [sample.picture for sample in samples if sample.picture]
            held = None if _is_plain(path) else tuple(_bytes(tar, name) for name, _, _ in pictures)
    except FAULTS as error:
        raise LcmaeError(f"{path.name}: got {' '.join(str(error).split())}, {WHOLE}") from None
    _say_what_is_left_out(path, samples)
    names, places = tuple(name for name, _, _ in pictures), tuple((start, size) for _, start, size in pictures)
    return _Shard(names, places, tuple(sample.label for sample in samples if sample.picture), held)


def _part(path: Path, index: Path | None) -> _Shard:
    """Index of an archive, from a file that says it where there is one."""
    if index is None:
        seen = path.stat()
        return _read_shard(path, seen.st_size, seen.st_mtime_ns)
    seen = index.stat()
    return _read_index(index, seen.st_size, seen.st_mtime_ns)


@lru_cache(maxsize=2**12)
def _read_index(path: Path, size: int, changed: int) -> _Shard:
    index = json.loads(path.read_bytes())
    places = tuple(zip(index["starts"], index["sizes"], strict=True))
    return _Shard(tuple(index["names"]), places, tuple(index["labels"]), None)


def _is_plain(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.ReadError:
        return False


def _bytes(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.extractfile(name)
    return member.read() if member else b""


def _samples(tar: tarfile.TarFile, path: Path) -> Iterator[_Sample]:
    """Members grouped by what stands before the first dot of their names; a sample's members follow each other."""
    sample = _Sample("")
    for member in walk(tar, path.name):
        if member.issym() or member.islnk():
            refuse_what_leads_out(member, path.name)
        folder, slash, name = member.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        if not member.isfile() or not stem or not dot:  # folders, hidden files such as ._0001.jpg of a Mac
            continue
        key, extension = f"{folder}{slash}{stem}", extension.lower()
        if key != sample.key:
            yield sample
            sample = _Sample(key)
        if extension in sample.extensions:
            raise LcmaeError(f"{path.name}: got {member.name!r} twice, expected members with names of their own")
        _add(sample, extension, member, tar)
    yield sample


def _add(sample: _Sample, extension: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
    sample.extensions.append(extension)
    last = extension.rpartition(".")[2]
    if f".{last}" in EXTENSIONS and sample.picture:
        sample.more.append(member.name)
    elif f".{last}" in EXTENSIONS:
        sample.picture = (member.name, member.offset_data, member.size)
    elif last in ("cls", "json") and last not in sample.texts:
        stream = tar.extractfile(member)
        sample.texts[last] = stream.read() if stream else b""


def _say_what_is_left_out(path: Path, samples: list[_Sample]) -> None:
    if not any(sample.picture for sample in samples):
        got = sorted({e for sample in samples for e in sample.extensions}) or ["nothing"]
        known = ", ".join(sorted(e[1:] for e in EXTENSIONS))
        raise LcmaeError(f"{path.name}: no picture in it, got extensions {', '.join(got)}, expected one of: {known}")
    without = [f"{sample.key}.{sample.extensions[0]}" for sample in samples if not sample.picture]
    further = [name for sample in samples for name in sample.more]
    for names, what in ((without, "samples without a picture"), (further, "further pictures of one sample")):
        if names:
            print(printable(f"{path.name}: left out {len(names)} {what}, such as {names[0]}"), file=sys.stderr)


# ---- the source


NOT_OURS = Known(None, None)


@dataclass(frozen=True, eq=False, repr=False)
class _Shards:
    files: tuple[Path, ...]
    starts: tuple[int, ...]
    parts: tuple[_Shard, ...]

    def fetch(self, i: int) -> bytes:
        k = bisect_right(self.starts, i) - 1
        part, row = self.parts[k], i - self.starts[k]
        if part.held is not None:
            return part.held[row]
        start, size = part.places[row]
        with self.files[k].open("rb") as file:
            file.seek(start)
            return file.read(size)

    def name(self, i: int) -> str:
        k = bisect_right(self.starts, i) - 1
        return self.parts[k].names[i - self.starts[k]]


def _split(
    files: Iterable[Path], name: str, channels: int, known: Mapping[Path, Known]
) -> tuple[Split, list[str | None]]:
    """Pictures of some shards, and what is said of each: the name of its class where a manifest has one."""
    files = tuple(files)
    parts = tuple(_part(file, known.get(file, NOT_OURS).members) for file in files)
    *starts, size = accumulate((len(part.names) for part in parts), initial=0)
    held = _Shards(files, tuple(starts), parts)
    split = Split(name, size, None, Reader(held.fetch, held.name, channels), held.name)
    classes = {file: known.get(file, NOT_OURS).classes for file in files}
    return split, [_named(label, classes[file], file) for file, part in zip(files, parts) for label in part.labels]


def _named(label: str | None, classes: tuple[str, ...] | None, file: Path) -> str | None:
    if label is None or classes is None:
        return label
    if not label.isdecimal() or int(label) >= len(classes):
        raise LcmaeError(
            f"{file.name}: got the label {label!r}, expected 0 to {len(classes) - 1}, as its manifest says"
        )
    return classes[int(label)]


def open_wds(address: str, data: Data) -> Found:
    """`wds:ADDRESS`: webdataset shards (a picture of any kind; label cls, a number or a name).

    Local ones are read where they lie; remote ones are downloaded first, once. Both must be as manifest.json beside
    them says. Words in the names of the shards (or of their folders) say the split: train, validation, val, test...
    """
    root, names, places, ours = _here(address)
    train, held_out = by_split(root, names)
    named = [(name, part) for name, part in (("train", train), ("validation", held_out)) if part]
    parts = [_split([places[f] for f in part], name, data.channels, ours) for name, part in named]
    values: list[list[Any]] = [part[1] for part in parts]
    lists = {ours.get(file, NOT_OURS).classes for file in places.values()}
    if None in lists:  # some say numbers: all that do are read as such
        known = iter(numbers_or_names([text for each in values for text in each]))
        values = [[next(known) for _ in each] for each in values]
    one = lists.pop() if len(lists) == 1 else None
    labels = number_labels(f"wds:{address}", values[0], values[1] if held_out else None, one)
    first, *others = (replace(part[0], labels=numbers) for part, numbers in zip(parts, labels[:2]))
    return Found(first, others[0] if others else None, labels.classes)


class _Here(NamedTuple):
    """Folder and names of shards, where each lies on this machine, and what their manifests say of those places."""

    root: Path
    names: list[Path]
    places: dict[Path, Path]
    ours: dict[Path, Known]


def _here(address: str) -> _Here:
    if not is_remote(address):
        root, files = shards(address)
        ours = checked(f"wds:{address}", files, whole=is_folder(address))
        return _Here(root, files, {file: file for file in files}, ours)
    if address.startswith("pipe:"):
        raise LcmaeError(f"source 'wds:{address}': got a command to run, expected a path or URL of shards")
    urls = braces(address)
    names = [Path(url) for url in urls]
    copies, ours = fetch(address, urls)
    return _Here(Path(), names, dict(zip(names, copies)), ours)
