"""All contestants of a case, step by step in turns."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch

from lcmae_core.bench import workers
from lcmae_core.bench.cases import CASES, MODELS, Shape
from lcmae_core.bench.floors import products
from lcmae_core.bench.peers import PEERS
from lcmae_core.bench.ratios import PAIRS, compare, interval
from lcmae_core.bench.workers import About, BrokenError, Timeable, fair_clock
from lcmae_core.store.cores import usable_cores

Say = Callable[[str], None]


class Timed(NamedTuple):
    """Of every contestant: seconds of its steps, what it is, the most memory that it took; why others are left out."""

    seconds: dict[str, list[float]]
    about: dict[str, About]
    peaks: dict[str, float | None]
    left_out: dict[str, str]


def measure(shape: Shape, models: Sequence[str], rounds: int, say: Say = lambda _: None) -> dict[str, Any]:
    """Everything that is said of a case, as plain data; a peer that is not there or breaks is left out by name.

    Raises:
        LcmaeError: a model of ours broke.
    """
    case, threads = CASES[shape.case], threads_of(shape)
    before = ceiling(shape, threads)
    timed = Timed({}, {}, {}, {})
    for heat in heats(shape.case, models):
        run_heat(shape, heat, rounds, timed, say)
    top = {name: max(rate, before[name]) for name, rate in ceiling(shape, threads).items()}
    ordered = [name for name in models if name in timed.seconds]
    return {
        "title": case.title, "batch": shape.batch, "image_size": shape.image_size, "rounds": rounds,
        "threads": threads, "precision": "bf16" if shape.device.type == "cuda" else "fp32",
        "freed_memory_kept": any(one.freed_memory_kept for one in timed.about.values()),
        "matmul_ceiling_gflops": top, "left_out": timed.left_out,
        "models": {n: row(timed.seconds[n], timed.about[n], timed.peaks[n], shape.batch, max(top.values()))
                   for n in ordered},
        "ratios": compare(shape.case, timed.seconds, timed.about),
    }  # fmt: skip


def heats(case: str, models: Sequence[str]) -> list[list[str]]:
    """Who must be there at the same time: those that pairs connect. The others need not fill the memory meanwhile."""
    groups = [{name} for name in models]
    for pair in PAIRS[case]:
        joined = [one for one in groups if one & {pair.ours, pair.theirs}]
        if {pair.ours, pair.theirs} <= set(models):
            groups = [one for one in groups if one not in joined] + [set().union(*joined)]
    ordered = [[name for name in models if name in one] for one in groups]
    return sorted(ordered, key=lambda heat: models.index(heat[0]))


def run_heat(shape: Shape, models: Sequence[str], rounds: int, timed: Timed, say: Say) -> None:
    """Start some, step them in turns, stop them; what is found is added.

    Raises:
        LcmaeError: a model of ours broke.
    """
    title, threads = CASES[shape.case].title, threads_of(shape)
    with ExitStack() as stack:
        subjects: dict[str, Timeable] = {}
        for name in models:
            if package := missing(name):
                timed.left_out[name] = f"{package} is not installed"
                continue
            say(f"{title}: {MODELS[name]} starts")
            try:
                subjects[name] = workers.start(name, shape, threads)
                stack.callback(subjects[name].stop)
            except BrokenError as error:
                if name not in PEERS:
                    raise
                timed.left_out[name] = str(error).removeprefix(f"bench: {name} ")
        say(f"{title}: {rounds} rounds of {len(subjects)}")
        timed.seconds.update(alternate(subjects, rounds))
        for name, subject in subjects.items():
            timed.peaks[name] = None if shape.quick else subject.peak_mib()
            timed.about[name] = subject.about


def missing(name: str) -> str | None:
    """The package that a contestant needs and that is not there."""
    package = PEERS[name].package if name in PEERS else None
    return package if package and find_spec(package) is None else None


def threads_of(shape: Shape) -> int:
    """Threads of every contestant of a case."""
    return min(CASES[shape.case].threads or usable_cores(), usable_cores())


def alternate(subjects: Mapping[str, Timeable], rounds: int) -> dict[str, list[float]]:
    """Seconds of every step of every model, in turns; the order is reversed every other round."""
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(rounds):
        for name in list(subjects)[:: 1 if turn % 2 == 0 else -1]:
            seconds[name].append(subjects[name].seconds())
    return seconds


def ceiling(shape: Shape, threads: int) -> dict[str, float]:
    """GFLOP/s of one large product by as many threads: `torch.mm`, and what the linear layers of our model use."""
    side = 256 if shape.quick else 8192 if shape.device.type == "cuda" else 2048
    dtype = torch.bfloat16 if shape.device.type == "cuda" else torch.float32
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return {name: rate / 1e9 for name, rate in products(shape.device, dtype, side, fair_clock).items()}
    finally:
        torch.set_num_threads(before)


def row(seconds: list[float], about: Any, peak: float | None, batch: int, top: float) -> dict[str, Any]:
    """One contestant: medians, their intervals, and all its seconds."""
    step = interval(seconds)
    return {
        "seconds": step.median, "images_per_s": batch / step.median, "images_per_s_low": batch / step.high,
        "images_per_s_high": batch / step.low, "gflop_per_step": about.flops / 1e9,
        "gflops": about.flops / step.median / 1e9, "share_of_ceiling": about.flops / step.median / 1e9 / top,
        "tokens": about.tokens, "parameters": about.parameters, "peak_mib": peak, "all_seconds": seconds,
    }  # fmt: skip


def package_versions() -> dict[str, str]:
    """Of the peers that are there."""
    packages = {peer.package for peer in PEERS.values() if peer.package}
    return {package: version(package) for package in sorted(packages) if find_spec(package)}
