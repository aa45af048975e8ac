"""The checkpoints of one call, measured one after the other: each has a record, and what is in it is not done again.

A record is written after every measure, in one move: whatever ends the process, no more is lost than the measure that
was under way, and the same call goes on.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lcmae_core.data.loader import Batch
from lcmae_core.data.sources import source_identity
from lcmae_core.store.files import write_atomic
from lcmae_core.store.machine import provenance
from lcmae_core.store.progress import Silent, progress_bar
from lcmae_core.store.records import Record, Values, plain_settings
from lcmae_core.store.stopping import Stopped, StopRequest, stop_requests
from lcmae_core.studies.checkpoints import pictures
from lcmae_core.studies.checkpoints.meter import Meter
from lcmae_core.studies.checkpoints.opened import Checkpoint
from lcmae_core.studies.checkpoints.specimen import CheckpointSpecimen
from lcmae_core.studies.checkpoints.work import (
    EVERY,
    NO_DECODER,
    NO_DINO,
    NO_LABELS,
    OF_DECODERS,
    Speed,
    Work,
    planned,
    rebuilt,
)

FOLDER = Path("results") / "published"
"""Where the records lie below an output folder."""
Say = Callable[[str], None]


class CheckpointRecord(Record):
    """What is known of a checkpoint: <out>/results/published/<name>-<digest>.json."""

    def describe(self, checkpoint: Checkpoint, images: pictures.Counted) -> None:
        """Keep what it is; measures that are there stay."""
        held = {"name": checkpoint.name, "role": checkpoint.role, "sha256": checkpoint.sha256,
                "commit": checkpoint.named.commit, "decodes": checkpoint.decodes}  # fmt: skip
        description = {"run": None, "checkpoint": held, "settings": plain_settings(checkpoint.settings),
                "images": images._asdict(), "fingerprint": self.fingerprint}  # fmt: skip
        self._write(self.content | description)


@dataclass
class Lane:
    """checkpoints: in the order asked for. images: how many of the source, all measured on the same. out: the output
    folder. profile: whose settings they departed from."""

    checkpoints: Sequence[Checkpoint]
    images: pictures.Counted
    out: Path
    profile: str
    _read: dict[tuple[Any, ...], Batch] = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """What the source holds."""
        return source_identity(self.checkpoints[0].settings.data.source)

    def record(self, checkpoint: Checkpoint) -> CheckpointRecord:
        """Where a checkpoint is kept: by its name, its bytes, the images, and how they are masked."""
        settings = checkpoint.settings
        kept = settings.model_dump(mode="json", include={"seed", "masking", "loss", "model", "data"})
        kept["data"].pop("source")
        counted = [checkpoint.sha256, checkpoint.role, checkpoint.heads, self.identity, list(self.images), kept]
        digest = hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:10]
        return CheckpointRecord(self.out / FOLDER / f"{checkpoint.name}-{digest}.json", self.identity)

    def other(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """The first DINO with the same grid of patches on the same pixels."""
        alike = (c for c in self.checkpoints if c.role == "DINO" and c.settings.grid == checkpoint.settings.grid)
        return next((c for c in alike if c.settings.data.image_size == checkpoint.settings.data.image_size), None)

    def recipe(self, checkpoint: Checkpoint, measure: str) -> Values | None:
        """What a measure depends on beside the record's name."""
        if measure != "semantic" or not checkpoint.decodes:
            return None
        other = self.other(checkpoint)
        return {"reference": None if other is None else other.sha256, "name": other and other.name}

    def missing(self, checkpoint: Checkpoint) -> tuple[str, ...]:
        """Measures that were not taken yet, or against another DINO."""
        taken = self.record(checkpoint).measures
        return tuple(
            m for m in EVERY if m not in taken or taken[m].get("recipe") != self.recipe(checkpoint, m)
        )  # fmt: skip

    def left_out(self, checkpoint: Checkpoint, measure: str) -> str | None:
        """Why a measure cannot be taken of a checkpoint; None where it can."""
        if measure in OF_DECODERS and not checkpoint.decodes:
            return NO_DECODER
        if measure == "knn" and not self.images.labelled:
            return NO_LABELS
        return NO_DINO if measure == "semantic" and self.other(checkpoint) is None else None

    def specimen(self, checkpoint: Checkpoint, meter: Meter) -> CheckpointSpecimen:
        """The checkpoint with its images, which are read once for all of one size."""
        data = checkpoint.settings.data
        key = (data.image_size, data.channels)
        if key not in self._read:
            self._read.clear()  # those of another size need not lie in memory beside them
            self._read[key] = pictures.read(checkpoint.settings, self.images)
        return CheckpointSpecimen(
            checkpoint.settings, self.profile, None, checkpoint, self._read[key], self.other(checkpoint), meter
        )  # fmt: skip


class CheckpointPlan(NamedTuple):
    """What is left to do of a checkpoint: the measures with their work."""

    checkpoint: Checkpoint
    work: Mapping[str, Work]

    @property
    def seconds(self) -> float:
        """By the measured speed."""
        return sum(one.seconds for one in self.work.values())

    @property
    def passes(self) -> int:
        """Of an image through an encoder."""
        return sum(one.passes for one in self.work.values())


def plan(lane: Lane, checkpoint: Checkpoint) -> CheckpointPlan:
    """What is left to do, timed on a batch; what cannot be done is noted at once."""
    left = lane.missing(checkpoint)
    record = lane.record(checkpoint)
    if left:
        record.describe(checkpoint, lane.images)
    for measure in left:
        if reason := lane.left_out(checkpoint, measure):
            record.note(measure, {"left_out": reason}, 0.0, _where(lane.recipe(checkpoint, measure)))
    todo = [measure for measure in left if lane.left_out(checkpoint, measure) is None]
    if not todo:
        return CheckpointPlan(checkpoint, {})
    specimen = lane.specimen(checkpoint, Meter(Silent()))
    speed = Speed(specimen)
    return CheckpointPlan(checkpoint, {measure: planned(measure, specimen, speed) for measure in todo})


def carry_out(lane: Lane, todo: CheckpointPlan, meter: Meter, stop: StopRequest) -> Iterator[tuple[str, float]]:
    """Take the measures of a plan; each with the seconds that it took, once it is in the record. Nothing, where another
    process is at it. What a decoder makes of hidden patches is also drawn, beside the record.

    Raises:
        Stopped: a stop was asked for; what was measured is kept.
    """
    record = lane.record(todo.checkpoint)
    with record.claimed() as mine:
        if mine:
            yield from _carry_out(lane, todo, meter, stop)


def _carry_out(lane: Lane, todo: CheckpointPlan, meter: Meter, stop: StopRequest) -> Iterator[tuple[str, float]]:
    record, specimen = lane.record(todo.checkpoint), lane.specimen(todo.checkpoint, meter)
    for measure, work in todo.work.items():
        if stop.is_set():
            raise Stopped(f"{todo.checkpoint.name}: stopped before its measure {measure!r}", stop)
        began = time.perf_counter()
        meter.begin(work.passes, work.seconds)
        values = EVERY[measure](specimen)
        passes, seconds = meter.end(), time.perf_counter() - began
        counted = {"passes": passes, "counted_seconds": round(work.plain, 2)}
        if measure == "reconstruction":
            drawn = rebuilt(specimen)._repr_png_()
            write_atomic(record.path.with_suffix(".png"), partial(Path.write_bytes, data=drawn))
        record.note(measure, values, seconds, _where(lane.recipe(todo.checkpoint, measure)) | counted)
        yield measure, seconds


def measure(lane: Lane) -> list[CheckpointRecord]:
    """Everything that is missing of a lane, under one bar; the records in the order of the checkpoints.

    Raises:
        Stopped: a stop was asked for; what was measured is kept.
    """
    plans = [plan(lane, checkpoint) for checkpoint in lane.checkpoints]
    passes, seconds = sum(one.passes for one in plans), sum(one.seconds for one in plans)
    with stop_requests() as stop, progress_bar("measuring", passes, "image") as bar:
        meter = Meter(bar, passes / seconds if seconds else 1.0)
        for todo in plans:
            list(carry_out(lane, todo, meter, stop))
    return [lane.record(checkpoint) for checkpoint in lane.checkpoints]


def _where(recipe: Values | None) -> dict[str, Any]:
    return provenance(torch.device("cpu")) | ({} if recipe is None else {"recipe": recipe})
