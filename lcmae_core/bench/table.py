"""The table that the benchmark prints."""

from typing import Any

from lcmae_core.bench.contestants import MODELS

TARGETS = {("mae", "hf"): "target: at most 0.952 (1.05 x HF)", ("lcmae", "mae-d2"): "target: at most 2.15"}


def render(result: dict[str, Any]) -> str:
    """The table as text."""
    about = f"{result['device']}, {result['threads']} threads, {result['precision']}, batch {result['batch']}"
    top = result["matmul_ceiling_gflops"]
    lines = [
        f"{about}, {result['image_size']} px, median of {result['steps']} alternating steps [quartiles]",
        f"commit {result['commit']}, {result['date']}, " + ", ".join(f"{k} {v}" for k, v in result["versions"].items()),
        f"matmul ceiling: torch.mm {top['torch.mm']:.0f} GFLOP/s, our linear layers {top['linear']:.0f} GFLOP/s",
        f"{'model':<24}{'images/s':>9}{'[quartiles]':>18}{'ms/step':>9}{'GFLOP/s':>9}{'of ceiling':>12}"
        f"{'peak MiB':>10}",
    ]
    for name, row in result["models"].items():
        spread = f"[{row['images_per_s_low']:.2f}, {row['images_per_s_high']:.2f}]"
        lines.append(
            f"{MODELS[name]:<24}{row['images_per_s']:>9.2f}{spread:>18}{row['seconds'] * 1e3:>9.0f}"
            f"{row['gflops']:>9.0f}{row['gflops'] / max(top.values()):>12.0%}{row['peak_mib'] or float('nan'):>10.0f}"
        )
    for pair, ratio in result["ratios"].items():
        target = "" if result["quick"] else TARGETS.get(tuple(pair.split("/")), "")
        time_text = f"{ratio['time']:.3f} of the time [{ratio['low']:.3f}, {ratio['high']:.3f}]"
        lines.append(f"{pair}: {time_text}, {1 / ratio['time']:.2f} x the speed  {target}".rstrip())
    if result["freed_memory_kept"]:
        lines.append("freed memory is kept for reuse (glibc mallopt), for all models alike")
    if result["transformers_missing"]:
        lines.append("transformers is not installed: HF not measured (pip install 'lcmae-core[sources]')")
    lines.append(
        "FLOPs: torch.utils.flop_counter (products and attention, forward and backward), each model's own count"
    )
    memory = "max_memory_allocated" if result["device_type"] == "cuda" else "peak RSS of a process of its own"
    lines.append(f"peak memory: {memory}, two steps, model and optimiser included")
    return "\n".join(lines)
