"""Sources read through other people's libraries: webdataset shards, the Hugging Face hub, torchvision's classes."""

import glob
import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from ..config import Data, LcmaeError, nearest
from ..store.machine import REPOSITORY
from .paths import VALIDATION_NAMES, path_identity
from .splits import Found, Reader, Split, as_labels

_LABELS = ("label", "cls", "labels", "fine_label", "coarse_label", "target")


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

    def fetch(self, i: int) -> bytes | str:
        value = self.table[i][self.column]
        return value["bytes"] if value["bytes"] is not None else value["path"] or b""

    def name(self, i: int) -> str:
        return self.table[i][self.column]["path"] or f"{self.table.split or 'row'}#{i}"


def _image_column(table: Any, spec: str) -> str:
    images = [name for name, feature in table.features.items() if type(feature).__name__ == "Image"]
    if not images:
        raise LcmaeError(f"source {spec!r}: no image column, got {', '.join(table.column_names)}, expected one")
    return images[0]


def _hf_split(table: Any, name: str, spec: str, channels: int) -> Split:
    import datasets

    column = _image_column(table, spec)
    label = next((c for c in _LABELS if c in table.column_names), None)
    labels = as_labels(table[label][:]) if label and None not in table[label][:] else None
    rows = _Rows(table.select_columns([column]).cast_column(column, datasets.Image(decode=False)), column)
    return Split(name, len(table), labels, Reader(rows.fetch, rows.name, channels), rows.name)


def _hf_found(splits: dict[str, Any], spec: str, channels: int) -> Found:
    train_name = "train" if "train" in splits else next(iter(splits))
    held_out = next((n for n in VALIDATION_NAMES if n in splits and n != train_name), None)
    feature = next((splits[train_name].features[c] for c in _LABELS if c in splits[train_name].features), None)
    names = getattr(feature, "names", None)
    train = _hf_split(splits[train_name], "train", spec, channels)
    validation = _hf_split(splits[held_out], "validation", spec, channels) if held_out else None
    return Found(train, validation, tuple(names) if names else None)


def _load_hf(spec: str, *arguments: Any, **more: Any) -> dict[str, Any]:
    datasets = need("datasets")
    try:
        return dict(datasets.load_dataset(*arguments, **more))
    except Exception as error:  # the hub's client has a dozen error classes: offline, gated, missing, renamed...
        raise LcmaeError(
            f"source {spec!r} could not be loaded (hub or server not reachable, or no such name): {_first_line(error)}"
        ) from error


def open_hf(name: str, data: Data) -> Found:
    """`hf:NAME` or `hf:NAME@config`: a data set of the hub, or a local folder in one of its layouts (memory-mapped)."""
    path, _, config = name.partition("@")
    return _hf_found(_load_hf(f"hf:{name}", path, config or None), f"hf:{name}", data.channels)


def _is_remote(url: str) -> bool:
    return "://" in url or url.startswith("pipe:")


def shards(url: str) -> list[str]:
    """The .tar files that a folder, a brace expression or a wildcard names.

    Raises:
        LcmaeError: a local one that names nothing.
    """
    if _is_remote(url):
        return _braces(url)
    for root in (Path(), REPOSITORY):
        pattern = root / Path(url).expanduser()
        found = sorted(glob.glob(str(pattern / "*.tar"))) if pattern.is_dir() else []
        found = found or [f for part in _braces(str(pattern)) for f in sorted(glob.glob(part))]
        if found:
            return found
    raise LcmaeError(f"source 'wds:{url}': no such shards, expected a folder of *.tar or train-{{000..009}}.tar")


def _braces(text: str) -> list[str]:
    if "{" not in text:
        return [text]
    need("braceexpand")
    import braceexpand

    return list(braceexpand.braceexpand(text))


def wds_identity(url: str) -> str:
    """Names and sizes of local shards; the address itself for remote ones."""
    if _is_remote(url):
        return f"wds:{url}"
    files = [Path(f) for f in shards(url)]
    root = files[0].parent
    return path_identity("wds", root.resolve(), [Path(os.path.relpath(f, root)) for f in files])


def open_wds(url: str, data: Data) -> Found:
    """`wds:URL`: webdataset shards (image jpg, png or webp; label cls), indexed by `datasets` for random access.

    Shards whose names begin with validation, val, valid or test are the validation split.
    """
    files = shards(url)
    held_out = [f for f in files if Path(f).name.startswith(VALIDATION_NAMES)]
    train = [f for f in files if f not in held_out] or files
    data_files = {"train": train} | ({"validation": held_out} if held_out and train != files else {})
    return _hf_found(_load_hf(f"wds:{url}", "webdataset", data_files=data_files), f"wds:{url}", data.channels)


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
            raise LcmaeError(f"source 'torchvision:{name}': not found under {root}, expected its files there") from None
    try:
        return cls(root, download=True, **choice)
    except Exception as error:
        reason = f"not under {root} and not reachable: {_first_line(error)}"
        raise LcmaeError(f"source 'torchvision:{name}': {reason}") from error


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
