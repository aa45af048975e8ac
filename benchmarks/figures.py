"""Draws what the benchmarks recorded: `python -m benchmarks.figures`, from results/ into outputs/reference.

No number is worked out here that is not in a record.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.growth import WORDS
from lcmae_core.bench.cases import MODELS
from lcmae_core.bench.company import busy
from lcmae_core.bench.ratios import PAIRS

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PICTURES = ROOT / "benchmarks/results", ROOT / "outputs/reference"
DPI = 100
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10}
OURS, THEIRS, ACCENT = "#0072b2", "#999999", "#d55e00"
"""Blue, grey and vermilion of the colour-blind-safe palette of Okabe and Ito."""


def main() -> None:
    """Draw what is recorded: the peers of one kind of processor, and how cost grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kind", help="of processor, as in results/peers-KIND.json (default: the only or first one)")
    options = parser.parse_args()
    files = sorted(RESULTS.glob(f"peers-{options.kind or '*'}.json"))
    with mpl.rc_context(STYLE):
        if files:
            peers(json.loads(files[0].read_text()), PICTURES / "bench.png")
        if (RESULTS / "growth.json").exists():
            growth(json.loads((RESULTS / "growth.json").read_text()), PICTURES / "growth.png")


def peers(result: Mapping[str, Any], path: Path) -> None:
    """Speed of ours over each, with intervals, and the share of the matmul ceiling of all."""
    cases = result["cases"]
    figure, axes = plt.subplots(2, len(cases), figsize=(14, 9), squeeze=False, layout="constrained")
    for column, (name, case) in enumerate(cases.items()):
        ratios(axes[0, column], [(p, case["ratios"][p.name]) for p in PAIRS[name] if p.name in case["ratios"]])
        threads = f"{case['threads']} thread" + "s" * (case["threads"] > 1)
        axes[0, column].set_title(f"{case['title']}, batch {case['batch']}, {case['image_size']} px, {threads}")
        shares(axes[1, column], case["models"])
    note = f"{result['processor']}, {result['date'][:10]}, commit {result['commit']}"
    figure.suptitle(f"{note}. {busy(result) or ''}".strip(), fontsize=9, x=0.01, ha="left")
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def ratios(axes: Axes, rows: Sequence[tuple[Any, Mapping[str, Any]]]) -> None:
    """A bar a pair, from 1, with its interval and target."""
    for place, (pair, ratio) in enumerate(rows):
        speed = ratio["speed"] * pair.work
        axes.barh(place, speed - 1, left=1, color=OURS if speed >= 1 else ACCENT, height=0.6)
        axes.plot([ratio["low"] * pair.work, ratio["high"] * pair.work], [place, place], color="black", lw=1.5)
        if pair.target:
            axes.plot([pair.target * pair.work] * 2, [place - 0.4, place + 0.4], color="black", ls=":", lw=1.5)
    labels = [(f"{p.work} x " if p.work > 1 else "") + f"{MODELS[p.ours]}\n/ {MODELS[p.theirs]}" for p, _ in rows]
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xlabel("speed of ours / theirs [95 %]; dotted: target")


def shares(axes: Axes, models: Mapping[str, Mapping[str, Any]]) -> None:
    """A bar a contestant."""
    names = list(models)
    colours = [OURS if name in ("mae", "mae-plain", "mae-d2", "lcmae", "loop") else THEIRS for name in names]
    axes.barh(range(len(names)), [100 * models[name]["share_of_ceiling"] for name in names], color=colours, height=0.6)
    axes.set_yticks(range(len(names)), [MODELS[name] for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("FLOP/s, % of those of a large product (blue: ours)")


def growth(found: Mapping[str, Any], path: Path) -> None:
    """Images/s and memory by what is changed, all seconds by FLOPs, and hours extrapolated."""
    figure, axes = plt.subplots(3, 5, figsize=(14, 10), layout="constrained")
    for column, (axis, rows) in enumerate(found["points"].items()):
        one = found["exponents"][axis]
        values = range(len(rows)) if axis == "model" else [row["value"] for row in rows]
        for line, key, word in ((0, "images_per_s", "images/s"), (1, "peak_mib", "peak memory, MiB")):
            here = axes[line, column]
            here.plot(values, [row[key] for row in rows], "o-", color=OURS if line == 0 else ACCENT)
            here.set_xlabel(f"{WORDS[axis]}" + (", ViT-" if axis == "model" else ""))
            here.set_ylabel(word)
            here.set_ylim(0, 1.08 * max(row[key] for row in rows))
            if axis == "model":
                here.set_xticks(values, [row["value"] for row in rows])
        power = f"{one['slope']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
        axes[0, column].set_title(f"seconds ~ FLOPs to the\n{power}", fontsize=9)
    grid = axes[2, 0].get_gridspec()
    for here in axes[2]:
        here.remove()
    by_flops(figure.add_subplot(grid[2, :3]), found)
    hours(figure.add_subplot(grid[2, 3:]), found)
    base = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found["base"].items())
    figure.suptitle(
        f"A step of MAE on {found['processor']}, one thread, around the base: {base}.\n"
        f"{found['date'][:10]}, commit {found['commit']}. {busy(found) or ''}".strip(), fontsize=9, x=0.01, ha="left",
    )  # fmt: skip
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def by_flops(axes: Axes, found: Mapping[str, Any]) -> None:
    """All points, double logarithmic."""
    for (axis, rows), mark in zip(found["points"].items(), "osD^v", strict=True):
        axes.loglog([r["flops"] / 1e9 for r in rows], [r["seconds"] for r in rows], mark, label=WORDS[axis], alpha=0.8)
    one = found["exponents"]["all"]
    axes.set_title(f"all points: exponent {one['slope']:.2f} [{one['low']:.2f}, {one['high']:.2f}]")
    axes.set_xlabel("GFLOP of a step, counted")
    axes.set_ylabel("seconds of a step")
    axes.legend(title="changed")


def hours(axes: Axes, found: Mapping[str, Any]) -> None:
    """A bar a measure."""
    names = list(found["streams"])
    for place, name in enumerate(names):
        one = found["streams"][name]
        axes.barh(place, one["hours"], color=OURS, height=0.5)
        axes.plot([one["hours_low"], one["hours_high"]], [place, place], color="black", lw=1.5)
    axes.set_yticks(range(len(names)), [name.replace(" and ", "\nand ") for name in names])
    axes.invert_yaxis()
    counted = next(iter(found["streams"].values()))["images"]
    axes.set_xlabel(f"hours for {found['extrapolated_images']:,} images, extrapolated from {counted} [95 %]")
    axes.set_title("analyses of a ViT-B/16, 224 px")


if __name__ == "__main__":
    main()
