"""Sources read through other people's libraries: the Hugging Face hub, torchvision's classes."""

import inspect
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from ..config import Data, LcmaeError, NoDataError, nearest
from ..config.places import hub_folder, is_path
from ..store.machine import REPOSITORY
from .fingerprint import fingerprint
from .labels import COLUMNS, number_labels
from .paths import VALIDATION_NAMES
from .splits import Found, Reader, Split, as_labels

PATIENCE = 10.0
"""Seconds after which a server that does not answer is given up."""


def need(package: str, extra: str = "sources") -> ModuleType:
    """Import an optional package.

    Raises:
        LcmaeError: it is not installed.
    """
    try:
        return __import__(package)
    except ImportError as error:
        raise LcmaeError(f"this source needs `{package}`: pip install lcmae-core[{extra}]") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@dataclass(frozen=True, eq=False)
class _Rows:
    """A `datasets.Dataset` whose image column is left undecoded, so that broken files are ours to name."""

    table: Any
    column: str
    root: Path | None
    """The folder of a local one: names of its pictures begin there, whatever machine they lie on."""

    def fetch(self, i: int) -> bytes | str | Path:
        value = self.table[i][self.column] or {}
        if value.get("bytes") is not None or not value.get("path"):
            return value.get("bytes") or b""
        return value["path"] if self.root is None else self.root / value["path"]

    def name(self, i: int) -> str:
        path = (self.table[i][self.column] or {}).get("path") or f"{self.table.split or 'row'}#{i}"
        return path.removeprefix(f"{self.root}{os.sep}") if self.root else path


def _image_column(table: Any, spec: str) -> str:
    images = [name for name, feature in table.features.items() if type(feature).__name__ == "Image"]
    if not images:
        raise LcmaeError(f"source {spec!r}: no image column, got {', '.join(table.column_names)}, expected one")
    return images[0]


def _hf_split(table: Any, name: str, spec: str, channels: int, root: Path | None) -> Split:
    import datasets

    column = _image_column(table, spec)
    rows = _Rows(table.select_columns([column]).cast_column(column, datasets.Image(decode=False)), column, root)
    return Split(name, len(table), None, Reader(rows.fetch, rows.name, channels), rows.name)


def _hf_found(tables: dict[str, Any], spec: str, channels: int, root: Path | None) -> Found:
    train_name = "train" if "train" in tables else next(iter(tables))
    held_out = next((n for n in VALIDATION_NAMES if n in tables and n != train_name), None)
    chosen = {"train": tables[train_name]} | ({"validation": tables[held_out]} if held_out else {})
    label = next((name for name in COLUMNS if name in chosen["train"].column_names), "")
    names = getattr(chosen["train"].features.get(label), "names", None)
    values = [list(t[label]) if label in t.column_names else None for t in chosen.values()]
    labels = number_labels(spec, values[0], values[1] if held_out else None, names)
    splits = [_hf_split(table, name, spec, channels, root) for name, table in chosen.items()]
    first, *others = (replace(split, labels=numbers) for split, numbers in zip(splits, labels[:2]))
    return Found(first, others[0] if others else None, labels.classes)


@contextmanager
def reached(spec: str, expected: Callable[[Exception], bool] = lambda error: False) -> Iterator[None]:
    """The hub's client has a dozen error classes: offline, gated, missing, renamed... `expected` ones are left as they
    are.

    Raises:
        NoDataError: what it says, in one line.
    """
    try:
        yield
    except Exception as error:
        if expected(error):
            raise
        raise NoDataError(
            f"source {spec!r} could not be loaded (hub or server not reachable, or no such name): {_first_line(error)}"
        ) from error


def open_hf(name: str, data: Data) -> Found:
    """`hf:NAME` or `hf:NAME@config`: a folder here in one of the hub's layouts, else a data set of the hub."""
    datasets, spec = need("datasets"), f"hf:{name}"
    here = _folder_here(name)
    if here is None:
        path, _, config = name.partition("@")
        with reached(spec):
            return _hf_found(dict(datasets.load_dataset(path, config or None)), spec, data.channels, None)
    root, config = here
    if odd := set("*?[") & set(str(root)):
        raise LcmaeError(
            f"source {spec!r}: got {min(odd)!r} in the path, which `datasets` takes for a pattern, "
            "expected a folder without it (or read it by folder:, parquet: or wds:, which take any name)"
        )
    try:
        tables = dict(datasets.load_dataset(str(root), config or None))
    except Exception as error:
        raise LcmaeError(f"source {spec!r}: not in a layout of the hub: {_first_line(error)}") from error
    return _hf_found(tables, spec, data.channels, root)


def _folder_here(name: str) -> tuple[Path, str] | None:
    """Folder and configuration; None where the hub is meant.

    Raises:
        LcmaeError: it is written as a path, and nothing is there.
    """
    here = hub_folder(name, REPOSITORY)
    if here is None and is_path(name):
        raise NoDataError(f"source 'hf:{name}': no such path, expected an existing folder (see data/README.md)")
    return None if here is None else (here[0].resolve(), here[1])


def hf_identity(name: str) -> str:
    """Content of a folder here, whatever its files are; the name itself of what the hub has."""
    here = _folder_here(name)
    if here is None:
        return f"hf:{name}"
    root, config = here
    files = [Path(folder) / n for folder, _, names in os.walk(root) for n in names]
    visible = [f for f in files if not any(part.startswith(".") for part in f.relative_to(root).parts)]
    return f"hf-{fingerprint((f.relative_to(root).as_posix(), f) for f in visible)}{config and '@'}{config}"


def download(spec: str, urls: Sequence[str]) -> list[Path]:
    """Where copies of remote files lie, in the cache of `datasets`; fetched where they are not there yet."""
    datasets = need("datasets")
    with reached(spec):
        return [Path(file) for file in datasets.DownloadManager().download([*urls])]


@dataclass(frozen=True, eq=False)
class _Vision:
    """A torchvision data set, which decodes for itself."""

    dataset: Any
    title: str

    def fetch(self, i: int) -> Image.Image:
        return self.dataset[i][0]

    def name(self, i: int) -> str:
        return f"{self.title}#{i}"


def _vision_labels(dataset: Any) -> Any:
    """Labels without decoding a picture; torchvision's classes keep them under different names."""
    for attribute in ("targets", "labels", "_labels"):
        if getattr(dataset, attribute, None) is not None:
            return list(getattr(dataset, attribute))
    samples = getattr(dataset, "_samples", None) or getattr(dataset, "samples", None)
    return [label for _, label in samples] if samples else None


def _vision_class(name: str) -> Callable[..., Any]:
    need("torchvision")
    import torchvision.datasets as vision

    known = [n for n in vision.__all__ if {"split", "train"} & set(inspect.signature(getattr(vision, n)).parameters)]
    if name not in known:
        raise LcmaeError(f"source 'torchvision:{name}': unknown data set: {nearest(name, known)}")
    return getattr(vision, name)


def _vision_dataset(name: str, root: str, choice: dict[str, Any]) -> Any:
    """What lies under `root`, else after a download."""
    cls = _vision_class(name)
    try:
        return cls(root, **choice)
    except (RuntimeError, FileNotFoundError):
        if "download" not in inspect.signature(cls).parameters:
            raise NoDataError(
                f"source 'torchvision:{name}': not found under {root}, expected its files there"
            ) from None
    try:
        with _patience(PATIENCE):
            return cls(root, download=True, **choice)
    except Exception as error:
        reason = f"not under {root} and not reachable: {_first_line(error)}"
        fetch = f"from torchvision.datasets import {name}; {name}('data/torchvision', download=True)"
        raise NoDataError(
            f"source 'torchvision:{name}': {reason}; where there is a network: python -c \"{fetch}\""
        ) from error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """A server that does not answer is given up after so long, also in libraries that set no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _vision_splits(name: str) -> Iterable[tuple[dict[str, Any], list[dict[str, Any]]]]:
    if "train" in inspect.signature(_vision_class(name)).parameters:
        return [({"train": True}, [{"train": False}])]
    return [({"split": "train"}, [{"split": s} for s in ("val", "valid", "validation", "test")])]


def open_torchvision(name: str, data: Data) -> Found:
    """`torchvision:Imagenette`: any class of torchvision.datasets with a `split` or `train` argument.

    Files lie in, or are downloaded to, LCMAE_DATA_ROOT (default data/torchvision in the repository).
    """
    root = os.environ.get("LCMAE_DATA_ROOT") or str(REPOSITORY / "data" / "torchvision")
    (train_choice, others), *_ = _vision_splits(name)
    train = _vision_dataset(name, root, train_choice)
    validation = None
    for choice in others:
        try:
            validation = _vision_dataset(name, root, choice)
            break
        except ValueError as error:  # this class calls its splits otherwise
            if isinstance(error, LcmaeError):
                raise
    classes = getattr(train, "classes", None)
    names = tuple(c if isinstance(c, str) else c[0] for c in classes) if classes else None
    held_out = None if validation is None else _vision_split(validation, "validation", name, data.channels)
    return Found(_vision_split(train, "train", name, data.channels), held_out, names)


def _vision_split(dataset: Any, title: str, name: str, channels: int) -> Split:
    rows = _Vision(dataset, f"{name}/{title}")
    labels = as_labels(_vision_labels(dataset))
    return Split(title, len(dataset), labels, Reader(rows.fetch, rows.name, channels), rows.name)
