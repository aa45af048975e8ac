"""What a training step must compute and move, and how near to that it comes: `python benchmarks/flops.py [--json OUT]`.

FLOPs and bytes an image by the formulas of `lcmae_core/bench/counts.py`, for models of any size (`--profile`, `-p
width=768`); the two floors that follow, with the rates of large products and of memory measured in the same run; steps
of the real loop, crops and optimiser included, as a share of their floor. For GPUs that are not there, projections.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from lcmae_core.bench.counts import cost
from lcmae_core.bench.floors import CARDS, clock_of, floor, measure_floors
from lcmae_core.bench.rehearsal import METHODS, WARM_UP, Prepared
from lcmae_core.config import LcmaeError, Settings, nearest, profile, replace
from lcmae_core.data.sources import open_source
from lcmae_core.execute.parameters import parse_assignments
from lcmae_core.store.machine import keep_freed_memory, pick_device, provenance

GOOD = 0.4
"""Share of the floor that projections assume beside the whole of it: what good steps reach on a card."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profile", default="quick", metavar="NAME", help="whose model (default quick)")
    parser.add_argument(
        "-p", dest="changes", action="append", default=[], metavar="NAME=VALUE", help="change a setting"
    )
    parser.add_argument("--methods", default=",".join(METHODS), metavar="A,B", help=f"of {', '.join(METHODS)}")
    parser.add_argument(
        "--steps", type=int, default=15, metavar="N", help="timed steps of each (default 15; 0: count only)"
    )
    parser.add_argument("--device", default="auto", help="auto | cuda | mps | cpu")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers to this file")
    options = parser.parse_args()
    try:
        found = everything(options)
    except LcmaeError as error:
        parser.exit(2, f"flops: error: {error}\n")
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def everything(options: argparse.Namespace) -> dict[str, Any]:
    """All that is written, as plain data.

    Raises:
        LcmaeError: an unknown method, setting, profile or device, or less than no steps.
    """
    if options.steps < 0:
        raise LcmaeError(f"steps: got {options.steps}, expected 0 or more")
    device, names = pick_device(options.device), options.methods.split(",")
    for name in names:
        if name not in METHODS:
            raise LcmaeError(f"unknown method {name!r}: {nearest(name, METHODS)}")
    kept = device.type == "cpu" and keep_freed_memory()
    common = {"device": options.device, "cache_gb": 0.0, "source": "photos", "steps": 1000, "compile": False}
    base = replace(profile(options.profile), common | parse_assignments(options.changes))
    about = {
        "profile": options.profile, "changes": options.changes, "precision": base.optim.precision,
        "batch": base.optim.batch_size, "threads": torch.get_num_threads(), "freed_memory_kept": kept,
    } | measured(base, names, options.steps, device)  # fmt: skip
    return about | provenance(device)


def measured(base: Settings, names: list[str], steps: int, device: torch.device) -> dict[str, Any]:
    """The machine's rates, then every method: cost, floor and, with `steps`, the time of a step."""
    floors = measure_floors(device, torch.bfloat16 if base.optim.precision == "bf16" else torch.float32)
    source, rows = open_source(base.data), {}
    for name in names:
        settings = replace(base, METHODS[name])
        needed = cost(settings, classes=len(source.classes or ()))
        least = floor(needed, floors)
        row = {
            "flops": needed.flops,
            "bytes": needed.bytes,
            "floor_images_per_s": 1 / least.seconds,
            "bound": least.bound,
        }
        if steps:
            seconds = Prepared(settings, source, steps=steps + WARM_UP).seconds() / settings.optim.batch_size
            row |= {"images_per_s": 1 / seconds, "share": least.share(seconds)}
        coarse = cost(replace(settings, precision="bf16"), classes=len(source.classes or ()))
        row["projected"] = {card: 1 / floor(coarse, rates).seconds for card, rates in CARDS.items()}
        rows[name] = row
    clock = "processor seconds of one thread" if clock_of(device) is time.process_time else "wall time"
    return {"clock": clock, "product_flops_per_s": floors.flops, "memory_bytes_per_s": floors.bytes, "methods": rows}


def report(found: dict[str, Any]) -> str:
    """The numbers in words."""
    lines = [
        f"{found['device']}, {found['threads']} threads, {found['precision']}, batch {found['batch']}, profile "
        f"{found['profile']} {' '.join(found['changes'])}".rstrip()
        + f", commit {found['commit']}",
        f"measured here: large products {found['product_flops_per_s'] / 1e9:.0f} GFLOP/s, memory "
        f"{found['memory_bytes_per_s'] / 1e9:.1f} GB/s, by {found['clock']}",
        f"{'method':<12}{'GFLOP/image':>13}{'MB/image':>10}{'floor, images/s':>17}{'set by':>10}{'images/s':>10}"
        f"{'share of the floor':>20}",
    ]
    for name, row in found["methods"].items():
        timed = f"{row['images_per_s']:>10.1f}{row['share']:>20.0%}" if "share" in row else ""
        lines.append(
            f"{name:<12}{row['flops'] / 1e9:>13.3f}{row['bytes'] / 1e6:>10.2f}{row['floor_images_per_s']:>17.1f}"
            f"{row['bound']:>10}{timed}"
        )
    lines.append(
        "PROJECTIONS, nothing measured: images/s in bf16 at the floor by the data sheet (dense bf16, memory) and at "
        f"{GOOD:.0%} of it"
    )
    for card in CARDS:
        words = [f"{n} {r['projected'][card]:,.0f} and {GOOD * r['projected'][card]:,.0f}"
                 for n, r in found["methods"].items()]  # fmt: skip
        lines.append(f"{card} (projected): " + "; ".join(words))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
