"""Parquet tables of encoded pictures."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Data, LcmaeError
from .paths import VALIDATION_NAMES, files_under, resolve
from .splits import Found, Reader, Split, as_labels


@dataclass(frozen=True, eq=False)
class _Table:
    """Encoded images as they lie in parquet files, held in memory; numbers run through all files."""

    images: Any  # pyarrow.ChunkedArray of struct<bytes, path> or binary
    places: tuple[str, ...]

    def fetch(self, i: int) -> bytes:
        value = self.images[i].as_py()
        return (value.get("bytes") if isinstance(value, dict) else value) or b""

    def name(self, i: int) -> str:
        value = self.images[i].as_py() if self.images.type.num_fields else None
        return (value or {}).get("path") or self.places[i]


def _parquet_split(files: list[Path], name: str, channels: int) -> Split:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, places = [], []
    for file in files:
        columns = pq.read_schema(file).names
        if "image" not in columns:
            raise LcmaeError(f"{file.name}: no column 'image', got {', '.join(columns)}, expected image and label")
        tables.append(pq.read_table(file, columns=[c for c in ("image", "label") if c in columns]))
        places += [f"{file.name}#{row}" for row in range(len(tables[-1]))]
    table = pa.concat_tables([t.replace_schema_metadata(None) for t in tables], promote_options="default")
    labels = table["label"].fill_null(-1).to_numpy() if "label" in table.column_names else None
    held = _Table(table["image"], tuple(places))
    return Split(name, len(table), as_labels(labels), Reader(held.fetch, held.name, channels), held.name)


def _parquet_classes(root: Path, first: Path) -> tuple[str, ...] | None:
    """Class names from the schema's HF metadata, else from manifest.json."""
    import pyarrow.parquet as pq

    metadata = json.loads((pq.read_schema(first).metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get("label", {}).get("names")
    manifest = root / "manifest.json"
    if not names and manifest.is_file():
        names = json.loads(manifest.read_text()).get("classes")
    return tuple(names) if names else None


def open_parquet(path: str, data: Data) -> Found:
    """`parquet:PATH`: *.parquet with `image: {bytes, path}` and perhaps `label`; the file's name says the split."""
    root = resolve(path, "parquet")
    files = [root / f for f in files_under(root, [".parquet"])] if root.is_dir() else [root]
    if not files:
        raise LcmaeError(f"source 'parquet:{path}': no *.parquet in it, expected train-00000-of-00001.parquet...")
    held_out: list[Path] = []
    for name in VALIDATION_NAMES:
        held_out = held_out or [f for f in files if re.match(rf"{name}\b|{name}_", f.name)]
    all_held_out = [f for f in files if re.match(rf"({'|'.join(VALIDATION_NAMES)})(\b|_)", f.name)]
    train = [f for f in files if f not in all_held_out] or files
    validation = _parquet_split(held_out, "validation", data.channels) if held_out and train != files else None
    return Found(_parquet_split(train, "train", data.channels), validation, _parquet_classes(root, train[0]))
