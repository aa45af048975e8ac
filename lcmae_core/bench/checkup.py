"""The first minutes on a GPU: every method trained for a few steps in float32, bf16 and compiled, and judged.

Losses are compared with the CPU's (crops, masks and first weights are the same on every device), what waits for the
device and what is compiled anew is looked for, and a step is timed against its floor. What breaks is a finding, not the
end.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch

from lcmae_core.bench.counts import cost
from lcmae_core.bench.floors import Floors, floor, measure_floors
from lcmae_core.bench.rehearsal import METHODS, WARM_UP, Prepared, Rehearsed, furthest
from lcmae_core.config import Settings, profile, replace
from lcmae_core.data.sources import open_source
from lcmae_core.data.splits import Source
from lcmae_core.store.accelerator import card

BUDGET = 180.0
"""Seconds that all may take."""
LAST_TIMING, LAST_COMPILATION = 120.0, 150.0
"""Seconds after which no more is begun."""
STEPS, PICTURES = 6, 64
NEAR = {"fp32": 1e-3, "bf16": 0.03, "compiled": 1e-3}
"""How far a loss may be, as a share: of float32 from the CPU's, of bf16 and compiled from the same device's float32."""
SMALL: dict[str, Any] = {
    "depth": 1, "decoder_depth": 1, "batch_size": 16, "local_crops": 2, "dino_dim": 256, "steps": STEPS,
    "cache_gb": 0.0, "workers": 0, "progress": False, "clip_grad": 1.0,
}  # fmt: skip
"""Leaves over `quick` of the models that are compared: small enough for the CPU beside."""
TINY = {"image_size": 32, "width": 32, "heads": 2, "decoder_width": 16, "decoder_heads": 2, "batch_size": 4,
        "local_size": 16, "dino_dim": 32, "dino_hidden": 24, "dino_bottleneck": 12, "projector_dim": 32}  # fmt: skip
"""And over that, where there is no GPU and only the checks themselves are tried."""


Result = TypeVar("Result")


@dataclasses.dataclass
class MethodRow:
    """What is found of a method. away: by how much losses differ, by kind. graphs: compiled by the end of the warm-up,
    and in all. waits: lines that waited, of all steps after it. share: of the floor. problems: what to report, a line
    each. left_out: what there was no time for. None: not found out."""

    method: str
    away: dict[str, float] = dataclasses.field(default_factory=dict)
    graphs: tuple[int, int] | None = None
    waits: int | None = None
    milliseconds: float | None = None
    images_per_s: float | None = None
    share: float | None = None
    problems: list[str] = dataclasses.field(default_factory=list)
    left_out: list[str] = dataclasses.field(default_factory=list)


class Checkup(NamedTuple):
    """rows: one a method. floors: the device's own rates, in the type that steps are timed in. seconds: of all."""

    rows: list[MethodRow]
    floors: Floors | None
    seconds: float


class Bench(NamedTuple):
    """Where and with what is checked: the settings compared, those timed, and the compiler."""

    device: torch.device
    small: Settings
    timed: Settings
    backend: str


def bench_of(device: torch.device) -> Bench:
    """Small models against the CPU, and ViT-B/16 in bf16 against its floor; on a CPU tiny ones, captured alone."""
    small = replace(profile("quick"), SMALL | {"device": str(device)})
    if device.type == "cpu":
        tiny = replace(small, TINY)
        return Bench(device, tiny, tiny, "eager")
    memory = card(device).memory if device.type == "cuda" else 16e9
    batch = 128 if memory > 38e9 else 32 if memory > 15e9 else 8
    plain = {"compile": False, "batch_size": batch, "steps": 100, "epochs": None, "source": "photos"}
    timed = replace(profile("paper"), plain | {k: SMALL[k] for k in ("cache_gb", "workers", "progress")})
    return Bench(device, small, replace(timed, device=str(device)), "inductor")


def check(
    bench: Bench, methods: Sequence[str] = tuple(METHODS), say: Callable[[str], None] = lambda _: None
) -> Checkup:
    """Everything, in the order of what matters if time runs out; `say` is told what comes next."""
    began = time.perf_counter()
    source, rows = few_pictures(bench.small), [MethodRow(name) for name in methods]
    eager: dict[str, Rehearsed] = {}
    for row in rows:
        say(f"{row.method}: float32 and bf16")
        rehearsed = tried(row, "eager", partial(compare, bench, row, source))
        if rehearsed is not None:
            eager[row.method] = rehearsed
    floors = tried(rows[0], "floors", partial(rates_of, bench))
    for row in rows:
        if time.perf_counter() - began > LAST_TIMING:
            row.left_out.append("timing")
        elif floors is not None:
            say(f"{row.method}: time of a step")
            tried(row, "timing", partial(time_step, bench, row, source, floors))
    for row in rows:
        if time.perf_counter() - began > LAST_COMPILATION:
            row.left_out.append("compiled")
        elif row.method in eager:
            say(f"{row.method}: compiled")
            tried(row, "compiled", partial(compile_and_compare, bench, row, source, eager[row.method]))
    return Checkup(rows, floors, time.perf_counter() - began)


def few_pictures(settings: Settings) -> Source:
    """The source with `PICTURES` training images, evenly spread, so that holding them takes no time."""
    source = open_source(settings.data)
    count = len(source.train)
    return dataclasses.replace(source, train=source.train.subset(range(0, count, max(1, count // PICTURES))))


def tried(row: MethodRow, what: str, work: Callable[[], Result]) -> Result | None:
    """What work gives, or None and a problem that says how it broke."""
    try:
        return work()
    except Exception as error:  # whatever breaks on a new machine is what is looked for
        line = (str(error).strip().splitlines() or ["?"])[0]
        row.problems.append(f"{what} failed: {type(error).__name__}: {line[:200]}")
        return None


def compare(bench: Bench, row: MethodRow, source: Source) -> Rehearsed:
    """Losses in float32 against the CPU's and in bf16 against float32, and what waited in either."""
    leaves = METHODS[row.method]
    here = replace(bench.small, leaves)
    expected = Prepared(replace(here, device="cpu"), source, steps=STEPS).watched()
    fine = Prepared(here, source, steps=STEPS).watched()
    coarse = Prepared(replace(here, precision="bf16"), source, steps=STEPS).watched()
    judge(row, "fp32", fine.losses, expected.losses, "the CPU's")
    judge(row, "bf16", coarse.losses, fine.losses, "float32's")
    places = [*fine.waits, *coarse.waits]
    row.waits = None if bench.device.type == "mps" else len(places)  # which nobody tells of MPS
    row.problems += [f"waits for the device at {place}" for place in dict.fromkeys(places)]
    return fine


def compile_and_compare(bench: Bench, row: MethodRow, source: Source, eager: Rehearsed) -> None:
    """Losses compiled against eager, and how often was compiled."""
    settings = replace(bench.small, METHODS[row.method] | {"compile": True})
    compiled = Prepared(settings, source, steps=STEPS, backend=bench.backend).watched()
    judge(row, "compiled", compiled.losses, eager.losses, "the eager ones")
    row.graphs = compiled.graphs
    if compiled.graphs != (1, 1):
        early, late = compiled.graphs
        row.problems.append(
            f"compiled {early} graphs in the first steps and {late - early} after, expected one and none"
        )
    row.problems += [f"compiled, waits for the device at {place}" for place in dict.fromkeys(compiled.waits)]


def judge(row: MethodRow, kind: str, losses: Sequence[float], expected: Sequence[float], whose: str) -> None:
    """Note how far losses are from others, and that they are too far."""
    away = row.away[kind] = furthest(losses, expected)
    if not away <= NEAR[kind]:  # NaN is not near
        row.problems.append(f"losses in {kind} are {away:.1e} from {whose}, expected at most {NEAR[kind]:.0e}")


def time_step(bench: Bench, row: MethodRow, source: Source, floors: Floors) -> None:
    """The time of a step and its share of the floor. No time is a problem, but a floor that is beaten is one."""
    settings = replace(bench.timed, METHODS[row.method])
    if settings.method == "dino":
        settings = replace(settings, batch_size=max(1, settings.optim.batch_size // 4))
    images = settings.optim.batch_size
    seconds = Prepared(settings, source, steps=WARM_UP + 8).seconds()
    row.milliseconds, row.images_per_s = 1e3 * seconds, images / seconds
    row.share = floor(cost(settings, len(source.classes or ())), floors).share(seconds / images)
    if row.share > 1:
        row.problems.append(f"a step is at {row.share:.0%} of its floor, expected below: rates or formulas are wrong")


def rates_of(bench: Bench) -> Floors:
    """The device's own, in the type of the products that a timed step is made of."""
    dtype = torch.bfloat16 if bench.timed.optim.precision == "bf16" else torch.float32
    return measure_floors(bench.device, dtype, quick=bench.device.type == "cpu")
