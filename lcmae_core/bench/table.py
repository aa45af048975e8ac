"""The tables of the benchmark: the one that is printed, and the one of the README."""

from collections.abc import Mapping
from typing import Any

from lcmae_core.bench.cases import MODELS
from lcmae_core.bench.company import busy
from lcmae_core.bench.ratios import PAIRS, same_work


def render(result: Mapping[str, Any]) -> str:
    """Everything as text."""
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [f"{result['device']}, {result['processor']}, commit {result['commit']}, {result['date']}, {versions}"]
    if result["quick"]:
        lines.append("tiny models: a smoke test, no measurement")
    for name, case in result["cases"].items():
        lines += ["", *_case(name, case, result["quick"])]
    memory = "max_memory_allocated"
    if result["device_type"] != "cuda":
        memory = "peak RSS of a process of its own, libraries, model and optimiser included"
    lines += [
        "",
        "FLOPs: torch.utils.flop_counter (products and attention, forward and backward), each model's own count",
        f"peak memory: {memory}",
        busy(result) or "the machine had no other work",
    ]
    return "\n".join(lines)


def _case(name: str, case: Mapping[str, Any], quick: bool) -> list[str]:
    top = case["matmul_ceiling_gflops"]
    kept = ", freed memory kept" if case["freed_memory_kept"] else ""
    lines = [
        f"{case['title']}, batch {case['batch']}, {case['image_size']} px, {case['threads']} threads, "
        f"{case['precision']}{kept}: medians of {case['rounds']} alternating steps [95 %]",
        f"matmul ceiling: torch.mm {top['torch.mm']:.0f} GFLOP/s, our linear layers {top['linear']:.0f} GFLOP/s",
        f"{'model':<30}{'images/s':>10}{'[95 %]':>20}{'ms/step':>10}{'GFLOP/step':>12}{'of ceiling':>12}"
        f"{'peak MiB':>10}",
    ]
    for model, row in case["models"].items():
        spread = f"[{row['images_per_s_low']:.2f}, {row['images_per_s_high']:.2f}]"
        memory = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        lines.append(
            f"{MODELS[model]:<30}{row['images_per_s']:>10.2f}{spread:>20}{row['seconds'] * 1e3:>10.1f}"
            f"{row['gflop_per_step']:>12.1f}{row['share_of_ceiling']:>12.0%}{memory:>10}"
        )
    lines += [f"{MODELS[model]}: left out, {why}" for model, why in case["left_out"].items()]
    return lines + [_ratio(pair.name, case["ratios"][pair.name], quick)
                    for pair in PAIRS[name] if pair.name in case["ratios"]]  # fmt: skip


def _ratio(name: str, ratio: Mapping[str, Any], quick: bool) -> str:
    text = f"{name}: {ratio['speed']:.3f} x the speed [{ratio['low']:.3f}, {ratio['high']:.3f}]"
    if ratio["work"] > 1:
        text += f", a step takes {1 / ratio['speed']:.2f} of theirs"
    if ratio["target"] and not quick:
        text += f", target {ratio['target']:.2f}: {'reached' if ratio['speed'] >= ratio['target'] else 'missed'}"
    return f"{text}; {same_work(ratio) or 'the same work'}"


def markdown(result: Mapping[str, Any]) -> str:
    """The table of the README: all contestants of all cases, and ours over each."""
    lines = ["| | images/s [95 %] | of the ceiling | peak MiB | ours is faster by [95 %] |", "|---|---|---|---|---|"]
    for name, case in result["cases"].items():
        over = {pair.theirs: (pair.ours, case["ratios"][pair.name]) for pair in PAIRS[name]
                if pair.name in case["ratios"] and pair.work == 1}  # fmt: skip
        threads = "1 thread" if case["threads"] == 1 else f"{case['threads']} threads"
        lines.append(f"| **{case['title']}, batch {case['batch']}, {threads}** | | | | |")
        for model, row in case["models"].items():
            against = ""
            if model in over:
                ratio = over[model][1]
                against = f"{ratio['speed']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
            speed = f"{row['images_per_s']:.2f} [{row['images_per_s_low']:.2f}, {row['images_per_s_high']:.2f}]"
            share, memory = f"{row['share_of_ceiling']:.0%}", f"{row['peak_mib'] or 0:.0f}"
            lines.append(f"| {MODELS[model]} | {speed} | {share} | {memory} | {against} |")
    return "\n".join(lines)
