"""The training step against the Hugging Face implementation, and LC-MAE against MAE, in one run on one machine.

Steps (forward, backward, fused AdamW) of all models alternate, so that whatever else the machine does meets all alike.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch

from lcmae_core.bench.contestants import MODELS, QUICK, Contestant, Inputs, Shape, draw_inputs, prepare, settings_of
from lcmae_core.bench.floors import products, timed
from lcmae_core.bench.table import render
from lcmae_core.config import LcmaeError, nearest
from lcmae_core.store.accelerator import peak, watch_peak
from lcmae_core.store.machine import keep_freed_memory, pick_device, provenance

RATIOS = (("mae", "hf"), ("mae-plain", "hf"), ("lcmae", "mae-d2"))


class Options(NamedTuple):
    """A checked command line."""

    models: tuple[str, ...]
    steps: int
    shape: Shape
    json: Path | None
    memory_of: str | None


def main(argv: Sequence[str] | None = None) -> int:
    """`lcmae bench`: print the table, and write it as JSON if asked. 0, or 2 with one line for wrong options."""
    try:
        options = parse(argv)
        if options.memory_of:
            print(_peak_rss(options.memory_of, options.shape))
            return 0
        result = measure(options)
        print(render(result))
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    except LcmaeError as error:
        print(f"lcmae: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"lcmae: error: bench: json: {error.filename!r} cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LcmaeError(f"bench: {message}")


def parse(argv: Sequence[str] | None) -> Options:
    """Options of a command line.

    Raises:
        LcmaeError: an unknown option, model or device, or a number out of its range.
    """
    parser = _Parser(prog="lcmae bench", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, metavar="B", help="images a step (default 16; 256 on CUDA)")
    parser.add_argument("--steps", type=int, metavar="N", help="timed steps of each model (default 5; 15 on CUDA)")
    parser.add_argument("--image-size", type=int, metavar="PX", help="side of the images (default 224)")
    parser.add_argument("--device", default="auto", help="auto | cuda | mps | cpu")
    parser.add_argument("--models", default=",".join(MODELS), metavar="A,B", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers to this file")
    parser.add_argument("--quick", action="store_true", help="tiny models, a few seconds: a smoke test, no measurement")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)  # the child process that measures memory
    found = parser.parse_args(argv)
    models = tuple(dict.fromkeys(found.models.split(",")))
    for name in models:
        if name not in MODELS:
            raise LcmaeError(f"bench: unknown model {name!r}: {nearest(name, MODELS)}")
    device = pick_device(found.device)
    batch = (2 if found.quick else 256 if device.type == "cuda" else 16) if found.batch is None else found.batch
    steps = (2 if found.quick else 15 if device.type == "cuda" else 5) if found.steps is None else found.steps
    size = (QUICK["image_size"] if found.quick else 224) if found.image_size is None else found.image_size
    for name, value in (("batch", batch), ("steps", steps)):
        if value < 1:
            raise LcmaeError(f"bench: {name}: got {value}, expected at least 1")
    if found.json and not found.json.parent.is_dir():
        raise LcmaeError(f"bench: json: got {str(found.json)!r}, expected a file in a folder that exists")
    shape = Shape(batch, size, found.quick, device)
    settings_of("mae", shape)  # refuses sizes that no model can have
    return Options(models, steps, shape, found.json, found.memory_of)


def measure(options: Options) -> dict[str, Any]:
    """Everything the table says, as plain data."""
    shape = options.shape
    kept = shape.device.type == "cpu" and keep_freed_memory()
    models = tuple(name for name in options.models if name != "hf" or find_spec("transformers"))
    missing = "hf" in options.models and "hf" not in models
    inputs = draw_inputs(shape)
    memory = {name: _peak_memory(name, shape, inputs) for name in models}
    subjects = {name: prepare(name, shape, inputs) for name in models}
    seconds = alternate(subjects, options.steps, shape.device)
    about: dict[str, Any] = provenance(shape.device)
    if "hf" in models:
        about["versions"] = about["versions"] | {"transformers": version("transformers")}
    return about | {
        "device_type": shape.device.type, "batch": shape.batch, "image_size": shape.image_size,
        "steps": options.steps, "quick": shape.quick, "threads": torch.get_num_threads(),
        "precision": "bf16" if shape.device.type == "cuda" else "fp32",
        "freed_memory_kept": kept,
        "transformers_missing": missing,
        "matmul_ceiling_gflops": ceiling(shape),
        "models": {n: _row(seconds[n], subjects[n].flops, memory[n], shape.batch) for n in models},
        "ratios": {f"{a}/{b}": paired_ratio(seconds[a], seconds[b]) for a, b in RATIOS if {a, b} <= set(models)},
    }  # fmt: skip


def alternate(subjects: dict[str, Contestant], steps: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every step of every model, in turns; the order is reversed every other round."""
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(steps):
        for name in list(subjects)[:: 1 if turn % 2 == 0 else -1]:
            seconds[name].append(timed(subjects[name].step, device))
    return seconds


def paired_ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median over rounds of the ratio of two steps that ran side by side, with the quartiles."""
    low, middle, high = _quartiles([a / b for a, b in zip(ours, theirs)])
    return {"time": middle, "low": low, "high": high}


def ceiling(shape: Shape) -> dict[str, float]:
    """GFLOP/s of one large product: `torch.mm`, and what the linear layers of our model use (oneDNN on AVX-512)."""
    side = 256 if shape.quick else 8192 if shape.device.type == "cuda" else 3072
    dtype = torch.bfloat16 if shape.device.type == "cuda" else torch.float32
    return {name: rate / 1e9 for name, rate in products(shape.device, dtype, side).items()}


def _peak_memory(name: str, shape: Shape, inputs: Inputs) -> float | None:
    """MiB: `max_memory_allocated` on CUDA, elsewhere peak RSS of a fresh process; None in a smoke test."""
    if shape.quick:
        return None
    if shape.device.type == "cuda":
        watch_peak(shape.device)
        prepare(name, shape, inputs)
        return peak(shape.device)
    words = [f"--memory-of={name}", f"--batch={shape.batch}", f"--image-size={shape.image_size}"]
    words += [f"--device={shape.device}"]
    child = subprocess.run([sys.executable, "-m", "lcmae_core.bench", *words], capture_output=True, text=True)
    if child.returncode:
        raise LcmaeError(
            f"bench: measuring the memory of {name} failed: {(child.stderr.strip() or '?').splitlines()[-1]}"
        )
    return float(child.stdout.split()[-1])


def _peak_rss(name: str, shape: Shape) -> float:
    import resource  # not on Windows

    keep_freed_memory()
    prepare(name, shape, draw_inputs(shape))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def _row(seconds: list[float], flops: int, memory: float | None, batch: int) -> dict[str, Any]:
    low, middle, high = _quartiles(seconds)
    return {
        "seconds": middle, "images_per_s": batch / middle, "images_per_s_low": batch / high,
        "images_per_s_high": batch / low, "tflop_per_step": flops / 1e12, "gflops": flops / middle / 1e9,
        "peak_mib": memory, "all_seconds": seconds,
    }  # fmt: skip
