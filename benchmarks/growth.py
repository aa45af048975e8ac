"""How cost grows: `python -m benchmarks.growth [--record DIR]`, some five minutes on one core.

Images/s and peak memory of an MAE's training step (forward, backward, AdamW; images given) against batch, model size,
image size, decoder depth and mask ratio, one at a time around one base, on one thread, less the time that it waited for
a core; for each the exponent of a step's seconds against its counted FLOPs, by least squares of logarithms. Then Eq. 7,
Eq. 8 and the measures of attention streamed over images of a ViT-B, batch by batch, and what 50 000 images would take
at that rate: extrapolated, not measured.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from benchmarks.memory import Peak
from lcmae_core.analysis.streams import attention_profile, attention_similarity, semantic_profile
from lcmae_core.bench.check import kind_of_processor
from lcmae_core.bench.company import Company, busy
from lcmae_core.bench.contestants import Inputs, build, count, step_of
from lcmae_core.bench.workers import fair_clock
from lcmae_core.config import Settings, profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.masking import random_mask
from lcmae_core.store.machine import keep_freed_memory, provenance

CPU = torch.device("cpu")
SIZES: dict[str, dict[str, int]] = {
    "Ti": {"width": 192, "heads": 3}, "S": {"width": 384, "heads": 6}, "B": {"width": 768, "heads": 12},
    "L": {"width": 1024, "heads": 16, "depth": 24},
}  # fmt: skip
BASE: dict[str, Any] = {**SIZES["S"], "batch_size": 4, "image_size": 224, "decoder_depth": 2, "mask_ratio": 0.75}
QUICK: dict[str, Any] = {"depth": 1, "decoder_width": 32, "decoder_heads": 2, "batch_size": 2, "image_size": 64}
AXES: dict[str, tuple[Any, ...]] = {
    "batch_size": (1, 2, 4, 8, 16),
    "model": tuple(SIZES),
    "image_size": (96, 160, 224, 320, 448),
    "decoder_depth": (1, 2, 4, 8, 12),
    "mask_ratio": (0.1, 0.25, 0.5, 0.75, 0.9),
}
"""What is changed, one at a time."""
WORDS = {"batch_size": "batch", "model": "model", "image_size": "image size, px", "decoder_depth": "decoder depth",
         "mask_ratio": "mask ratio"}  # fmt: skip
IMAGES = 50_000
STEPS, ENOUGH = 5, 3.0
"""Timed steps of a point, fewer (but three) where they take more than so many seconds."""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny models: a smoke test, no measurement")
    parser.add_argument("--batches", type=int, default=8, metavar="N", help="of 8 images, a stream (default 8)")
    parser.add_argument("--record", type=Path, metavar="DIR", help="write growth.json there")
    options = parser.parse_args()
    company = Company()
    torch.set_num_threads(1)
    kept = keep_freed_memory()
    points = {axis: [point(axis, value, options.quick) for value in values] for axis, values in AXES.items()}
    found = {
        "base": dict(BASE), "quick": options.quick, "points": points,
        "exponents": {axis: exponent(rows) for axis, rows in points.items()}
        | {"all": exponent([row for rows in points.values() for row in rows])},
        "streams": streams(options.batches, options.quick), "extrapolated_images": IMAGES,
        "freed_memory_kept": kept, "threads": torch.get_num_threads(), "processor": kind_of_processor(),
    } | company.record() | provenance(CPU)  # fmt: skip
    print(report(found))
    if options.record:
        (options.record / "growth.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def settings_of(axis: str, value: Any, quick: bool) -> Settings:
    """The base with one thing changed."""
    changed = SIZES[value] if axis == "model" else {axis: value}
    plain = {"compile": False, "precision": "fp32", "source": "photos", "epochs": None, "steps": 1000, "base_lr": 1e-5}
    return replace(profile("paper"), BASE | (QUICK if quick else {}) | changed | plain)


def point(axis: str, value: Any, quick: bool) -> dict[str, Any]:
    """One setting: seconds and FLOPs of a step, images/s, and the memory that model and steps took at most."""
    settings = settings_of(axis, value, quick)
    batch, side = settings.optim.batch_size, settings.data.image_size[0]
    generator = torch.Generator().manual_seed(0)
    with Peak() as peak:
        noise = torch.rand(batch, settings.num_patches, generator=generator)
        inputs = Inputs(torch.randn(batch, 3, side, side, generator=generator), (noise, noise))
        built = build("mae", settings, inputs)
        step = step_of(built, settings, CPU)
        flops, tokens = count(step, built.blocks)
        step()
        seconds = several(step)
        del built, step, inputs
    middle = statistics.median(seconds)
    print(f"{WORDS[axis]} {value}: {batch / middle:.2f} images/s, {peak.mib:.0f} MiB", flush=True)
    return {"value": value, "seconds": middle, "all_seconds": seconds, "images_per_s": batch / middle, "flops": flops,
            "tokens": tokens, "batch": batch, "peak_mib": peak.mib}  # fmt: skip


def several(step: Callable[[], Any]) -> list[float]:
    """Seconds of a few steps."""
    seconds: list[float] = []
    while len(seconds) < 3 or (len(seconds) < STEPS and sum(seconds) < ENOUGH):
        began = fair_clock()
        step()
        seconds.append(fair_clock() - began)
    return seconds


def exponent(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The slope b of seconds ~ FLOPs^b with its 95 % interval by Student's t, and the share of variance explained."""
    x, y = ([math.log(row[name]) for row in rows] for name in ("flops", "seconds"))
    line = stats.linregress(x, y)
    half = float(stats.t.ppf(0.975, len(rows) - 2)) * float(line.stderr)
    return {"slope": float(line.slope), "low": float(line.slope) - half, "high": float(line.slope) + half,
            "r2": float(line.rvalue) ** 2, "points": len(rows)}  # fmt: skip


def streams(batches: int, quick: bool) -> dict[str, dict[str, Any]]:
    """Each measure over so many batches of a ViT-B with random weights, on which speed does not depend."""
    base = replace(profile("paper"), {"compile": False} | (QUICK | {"width": 64, "heads": 2} if quick else {}))
    side, size = base.data.image_size[0], 4 if quick else 8
    model, reference = build_model(base).eval(), build_model(base).eval()
    mask = random_mask(1, base.num_patches, 0.75, generator=torch.Generator().manual_seed(0))
    images = torch.randn(size, 3, side, side, generator=torch.Generator().manual_seed(1))

    def eq7(source: Callable[[], Iterator[Tensor]]) -> None:
        attention_similarity(model, source, mask)

    def eq8(source: Callable[[], Iterator[Tensor]]) -> None:
        semantic_profile(model, reference.encoder, source(), mask)

    def distance(source: Callable[[], Iterator[Tensor]]) -> None:
        attention_profile(model, source())

    works = {"S_attn, Eq. 7": eq7, "S_sim, Eq. 8": eq8, "attention distance and six measures more": distance}
    with torch.no_grad():
        return {name: stream(work, images, batches) for name, work in works.items()}


def stream(work: Callable[[Callable[[], Iterator[Tensor]]], None], images: Tensor, batches: int) -> dict[str, Any]:
    """Seconds of every batch, all passes over the images together, the first batch of a pass left out; the hours that
    `IMAGES` would take at their mean, with its 95 % interval by Student's t; memory after the first batch and at last.
    """
    passes: list[list[float]] = []
    resident: list[float] = []

    def source() -> Iterator[Tensor]:
        taken: list[float] = []
        passes.append(taken)
        for _ in range(batches + 1):
            began = fair_clock()
            yield images
            taken.append(fair_clock() - began)  # until the next batch is asked for
            resident.append(Peak.resident())

    work(source)
    taken = [sum(parts) for parts in zip(*(one[1:] for one in passes), strict=True)]
    mean, error = statistics.mean(taken), statistics.stdev(taken) / math.sqrt(len(taken))
    half, times = float(stats.t.ppf(0.975, len(taken) - 1)) * error, IMAGES / len(images) / 3600
    return {"images": len(images) * batches, "passes": len(passes), "batch_seconds": taken,
            "images_per_s": len(images) / mean, "hours": mean * times, "hours_low": (mean - half) * times,
            "hours_high": (mean + half) * times, "rss_mib": [resident[0], resident[-1]]}  # fmt: skip


def report(found: dict[str, Any]) -> str:
    """The numbers in words."""
    lines = [f"{found['device']}, {found['processor']}, commit {found['commit']}, {busy(found) or 'no other work'}"]
    for axis, one in found["exponents"].items():
        lines.append(f"{WORDS.get(axis, axis)}: seconds of a step ~ FLOPs^{one['slope']:.2f} [{one['low']:.2f}, "
                     f"{one['high']:.2f}], {one['points']} points, R2 {one['r2']:.3f}")  # fmt: skip
    for name, one in found["streams"].items():
        hours = f"{one['hours']:.2f} h [{one['hours_low']:.2f}, {one['hours_high']:.2f}]"
        lines.append(f"{name}: {one['images_per_s']:.2f} images/s over {one['images']}; {IMAGES} would take {hours}")
    return "\n".join([*lines, f"{found['seconds']:.0f} s in all"])


if __name__ == "__main__":
    main()
