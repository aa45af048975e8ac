"""What a study keeps of a run, small enough to commit: <out>/results/runs/<name>.json, one file a run.

It outlives the weights: settings, digest, device, commit, seconds, speed, curves, and every measure taken of the run,
image by image where an interval over images is wanted. It outlives the data too: its name ends in the digest of the
settings and of what the data hold, and its content says both, so that it is found again where the data are not.

Letters (CONTRIBUTING.md): M images.
"""

import base64
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Bool
from torch import Tensor

from lcmae_core.config import LcmaeError, Settings, nearest
from lcmae_core.config.names import former_keywords
from lcmae_core.config.places import plain_name
from lcmae_core.store.files import DamagedError, read_json, write_json
from lcmae_core.store.kept import note_kept
from lcmae_core.store.locks import wait_for
from lcmae_core.store.machine import REPOSITORY
from lcmae_core.store.runs import TIMINGS, Run

POINTS = 60
"""Points of a curve that a record keeps, spread over its length."""
FRESH = 100_000_000
"""Nanoseconds in which a file may change again without its time telling."""
Values = dict[str, Any]
"""What a measure found: numbers, and lists of them."""


@dataclass(frozen=True)
class Record:
    """The record of one run, or of what needs no run, such as an encoder that was never trained."""

    path: Path
    fingerprint: str | None = None
    """What the data hold (`data.source_identity`), where that is known."""

    @property
    def name(self) -> str:
        """The run's name, or <label>-s<seed>-<digest> of what needs no run, such as untrained-s0-0123456789."""
        return self.path.stem

    @property
    def content(self) -> dict[str, Any]:
        """All that is known; empty before anything is. A file is parsed again only after it has changed: what is
        inside the dictionary is shared by all who ask, and must not be modified.

        Raises:
            DamagedError: the file is broken.
        """
        try:
            seen = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        if time.time_ns() - seen.st_mtime_ns < FRESH:
            return read_json(self.path)
        return dict(_parsed(self.path, seen.st_ino, seen.st_mtime_ns, seen.st_size))

    @property
    def measures(self) -> dict[str, Values]:
        """What was measured, by the measure's name."""
        return self.content.get("measures", {})

    def array(self, measure: str, key: str) -> np.ndarray:
        """What a measure found, its first axis over images (or groups of them) where it has one; a share of right
        answers comes as booleans.

        Raises:
            LcmaeError: it was not measured, or found nothing of that name.
        """
        if measure not in self.measures:
            raise LcmaeError(f"record: got measure {measure!r} of {self.name}, {nearest(measure, self.measures)}")
        values = self.measures[measure]["values"]
        if key not in values:
            raise LcmaeError(f"record: got {key!r} of measure {measure!r}, {nearest(key, values)}")
        stored = values[key]
        return unpacked(stored) if isinstance(stored, dict) else np.asarray(stored, dtype=np.float64)

    def begin(self, run: Run | None, settings: Settings) -> None:
        """Keep what is known of a finished run, or of an encoder that is never trained; a record of another run, or
        of the same one on data that changed since, is begun afresh."""
        name = None if run is None else run.name
        old = self.content if self.content.get("run") == name else {}
        fields = {
            "run": name,
            "settings": plain_settings(settings),
            "training": None if run is None else _training(run),
        }
        self._write(old | fields | ({} if self.fingerprint is None else {"fingerprint": self.fingerprint}))

    @former_keywords({"where": "provenance"})
    def note(self, measure: str, values: Values, seconds: float, provenance: Mapping[str, Any]) -> None:
        """Keep a measure with the time it took and what it comes from: device, versions, commit, recipe."""
        entry = {"values": values, "seconds": round(seconds, 2), **provenance}
        self._write(self.content | {"measures": self.measures | {measure: entry}})
        note_kept(seconds)

    @contextmanager
    def claimed(self, *, wait: bool = False) -> Iterator[bool]:
        """Whether this process may work on the record now; several share out a study's work by asking."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # beside the record: that is another file after every write, and a lock on it would go with the old one
        lock = FileLock(self.path.with_name(f".{self.name}.lock"))
        try:
            held = wait_for(lock, f"waiting for the writer of {self.name}") if wait else lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        with held:
            yield True

    def _write(self, content: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # on one line: indented, every number of a list would have a line of its own
        write_json(self.path, content, indent=None, sealed=True)


@lru_cache(maxsize=2**9)
def _parsed(path: Path, *_: int) -> dict[str, Any]:
    """A record as it was at some moment, which the other words tell from any other: a report asks for each of its
    records some two hundred times."""
    return read_json(path)


def open_record(out: Path, name: str, fingerprint: str | None = None) -> Record:
    """The record of a run below an output folder."""
    return Record(Path(out) / "results" / "runs" / f"{name}.json", fingerprint)


def recorded_fingerprint(out: Path, source: str) -> str | None:
    """What the data of a source held when the records below an output folder were made: for reading them where the data
    are not, by the name that they say (`plain_name`). Where several data sets had that name, the one of most records.
    """
    folder = Path(out) / "results" / "runs"
    # its time changes with each record, which is renamed into it
    known = _fingerprints(folder, folder.stat().st_mtime_ns) if folder.is_dir() else {}
    return known.get(plain_name(source, REPOSITORY))


def recorded_sources(out: Path) -> set[str]:
    """The data, as records name them, of which there are any below an output folder. One that is damaged or has just
    gone is passed over: whoever needs it will say so."""
    # glob finds hidden names too: those of records that are being written
    files = [file for file in (Path(out) / "results" / "runs").glob("*.json") if not file.name.startswith(".")]
    sources = set()
    for file in files:
        with suppress(DamagedError, FileNotFoundError):
            sources.add(_data_of(file, file.stat().st_mtime_ns)[0])
    return sources - {""}


@lru_cache(maxsize=8)
def _fingerprints(folder: Path, changed: int) -> dict[str, str]:
    """Plain name of a source -> fingerprint; `changed` says when to look again."""
    counts: dict[str, Counter[str]] = {}
    for file in sorted(folder.glob("*.json")):
        name, held = _data_of(file, file.stat().st_mtime_ns)
        counts.setdefault(name, Counter())[held] += 1
    for name, count in counts.items():
        if len(count) > 1:
            (first, most), *_ = count.most_common(1)
            rest = f"not the {count.total() - most} of other data"
            print(f"records: {name!r} names several data sets: read are the {most} of {first}, {rest}", file=sys.stderr)
    return {name: count.most_common(1)[0][0] for name, count in counts.items()}


@lru_cache(maxsize=2**12)
def _data_of(file: Path, changed: int) -> tuple[str, str]:
    content = Record(file).content
    name = content.get("settings", {}).get("data", {}).get("source", "")
    return name, content.get("fingerprint", name)


def _training(run: Run) -> Values:
    results = run.results
    kept = {key: results[key] for key in ("steps", "seconds", "held_out", "device", "versions", "commit", "date")}
    speed = results["steps"] * run.settings.optim.batch_size / results["seconds"]
    return kept | {"images_per_s": round(speed, 2), "curves": curves(run)}


def curves(run: Run) -> dict[str, list[list[float]]]:
    """Every logged quantity as [steps, values], thinned."""
    history = run.history
    names = sorted({key for entry in history for key in entry} - {"step", "time", *TIMINGS})
    series = {}
    for name in names:
        steps, values = run.curve(name)
        keep = np.unique(np.linspace(0, len(steps) - 1, min(POINTS, len(steps))).round().astype(int))
        # five digits are more than a plotted curve shows, in a third of the bytes: records are committed
        series[name] = [[steps[i] for i in keep], [float(f"{values[i]:.5g}") for i in keep]]
    return series


def averaged(values: Sequence[float]) -> list[list[float]]:
    """A number of every step as [last steps, means] of at most `POINTS` stretches."""
    steps = np.array_split(np.arange(len(values)), min(POINTS, len(values)))
    means = [float(f"{np.mean([values[i] for i in part]):.5g}") for part in steps]
    return [[float(part[-1]) for part in steps], means]


def plain_settings(settings: Settings) -> dict[str, Any]:
    """The departures from the defaults, without what only says how a run is made; of a path on this machine its last
    part alone, so that a record names no folder of it."""
    kept = settings.model_dump(mode="json", exclude={"runtime": True}, exclude_defaults=True)
    source = plain_name(settings.data.source, REPOSITORY)
    return kept | {"data": kept.get("data", {}) | {"source": source}}


def rounded(values: Tensor, digits: int) -> list[Any]:
    """Numbers as nested lists."""
    return np.round(values.double().cpu().numpy(), digits).tolist()


def packed(right: Bool[np.ndarray, "M"]) -> dict[str, Any]:
    """Yes or no for each image in a few bytes: {"bits": base64, "count": M}."""
    return {"bits": base64.b64encode(np.packbits(right).tobytes()).decode(), "count": len(right)}


def unpacked(kept: Mapping[str, Any]) -> Bool[np.ndarray, "M"]:
    """What `packed` made."""
    bits = np.frombuffer(base64.b64decode(kept["bits"]), dtype=np.uint8)
    return np.unpackbits(bits, count=kept["count"]).astype(bool)
