"""What the trials of a study cost, from the records of trials of their own kind that are finished."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from lcmae_core.config import Settings
from lcmae_core.config.profiles import profile_of
from lcmae_core.studies.trials import Trial

PLAIN = "mae"
RELATIVE = {"mae, 2 views": 1.95, "mae, deep decoder": 2.8, "ae, block 1": 2.1, "ae, block 3": 2.5, "ae, block 5": 5.0,
            "ae, block 7": 8.5, "dino": 4.9, "supervised": 1.4}  # fmt: skip
"""Seconds an image of a kind over those of a plain MAE, measured once at desk's size on one CPU core: for kinds of
which no run is finished yet."""


class Time(NamedTuple):
    """Seconds to go. about: some of them are by `RELATIVE`. unknown: something is left out for want of any measure."""

    seconds: float
    about: bool = False
    unknown: bool = False

    def __str__(self) -> str:
        if not self.seconds:
            return "?" if self.unknown else "counted above"
        text = f"{self.seconds / 3600:.2f} h" if self.seconds >= 360 else f"{self.seconds:.0f} s"
        return "over " * self.unknown + "about " * (self.about and not self.unknown) + text


def kind_of(settings: Settings) -> str:
    """Which runs take the same time an image at the same size."""
    if settings.method == "ae":
        return f"ae, block {settings.predicted_block}"
    if settings.method != "mae":
        return settings.method
    parts = ["mae"]
    if settings.loss.num_views > 1:
        parts.append(f"{settings.loss.num_views} views")
    if settings.model.decoder_depth > 4:
        parts.append("deep decoder")
    if settings.masking.mask_ratio != 0.75 or settings.masking.erased:
        parts.append("all tokens" if settings.masking.erased else f"ratio {settings.masking.mask_ratio}")
    return ", ".join(parts)


def epoch_of(every: Sequence[Trial], profile: str) -> int:
    """Training images of the data: as the finished runs have it, which may be of anybody's pictures; without one as
    Imagenette or ImageNet, by the profile."""
    sizes = [
        round(training["steps"] * optim.batch_size / optim.epochs)
        for job in every
        if (optim := job.case.settings.optim).epochs and (training := job.record.content.get("training"))
    ]
    return round(median(sizes)) if sizes else profile_of(profile).epoch


def trained_images(job: Trial, epoch: int) -> int:
    """Images that a job's training sees, with so many in an epoch."""
    optim = job.case.settings.optim
    return optim.steps * optim.batch_size if optim.steps else round((optim.epochs or 0) * epoch)


def measured_speed(every: Sequence[Trial]) -> dict[str, float]:
    """Median seconds an image of training of each kind ("train <kind>") and of each measure, over what is finished."""
    known = {job.record.path: job for job in every}
    seconds: dict[str, list[float]] = {}
    for job in known.values():
        content = job.record.content
        if (training := content.get("training")) and training["images_per_s"]:
            seconds.setdefault(f"train {kind_of(job.case.settings)}", []).append(1 / training["images_per_s"])
        for name, entry in content.get("measures", {}).items():
            seconds.setdefault(name, []).append(entry["seconds"])
    return {name: median(times) for name, times in seconds.items()}


def to_go(left: Sequence[Trial], seen: set[tuple[Path, str]], speed: Mapping[str, float], epoch: int) -> Time:
    """Time of the runs and measures that are missing and that no study before asks for too; `seen` remembers them.
    epoch: training images in one."""
    total, about, unknown = 0.0, False, False
    for job in left:
        path = job.record.path
        parts = {measure: (speed.get(measure), False, 1) for measure in job.missing}
        if job.case.trained and not job.record.content.get("training"):
            parts["train"] = (*_an_image(job, speed), trained_images(job, epoch))
        for part, (seconds, estimated, count) in parts.items():
            if (path, part) in seen:
                continue
            seen.add((path, part))
            unknown |= seconds is None
            about |= estimated
            total += count * (seconds or 0.0)
    return Time(total, about, unknown)


def _an_image(job: Trial, speed: Mapping[str, float]) -> tuple[float | None, bool]:
    """Seconds an image of a job's training, and whether they are estimated from a plain MAE's."""
    kind = kind_of(job.case.settings)
    if f"train {kind}" in speed:
        return speed[f"train {kind}"], False
    plain = speed.get(f"train {PLAIN}")
    return (plain * RELATIVE[kind], True) if plain is not None and kind in RELATIVE else (None, False)
