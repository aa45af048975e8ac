"""How fast the analyses stream: `python benchmarks/analysis.py [--images 2000] [--json OUT]`.

Eq. 7 over the decoder maps of a ViT-B MAE (8 blocks of 512, 16 heads, 224 px) against the forward pass that makes the
maps, its memory on the way, the pairwise definition beside it, and the attention distance of ready-made maps.
Weights and images are random: speed does not depend on them.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from lcmae_core.analysis.attention import visit_attention
from lcmae_core.analysis.metrics import AttentionSimilarity, attention_distance
from lcmae_core.analysis.streams import for_batch, hidden_patches
from lcmae_core.config import profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask, random_mask
from lcmae_core.store.machine import pick_device, provenance

PAIRWISE = 200
"""Images of the pairwise definition."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000, metavar="M", help="images of Eq. 7 (default 2000)")
    parser.add_argument("--batch", type=int, default=16, metavar="B", help="images of a batch (default 16)")
    parser.add_argument("--device", default="auto", help="auto | cuda | mps | cpu")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers to this file")
    options = parser.parse_args()
    device = pick_device(options.device)
    model = build_model(replace(profile("paper"), decoder_depth=8)).to(device).eval()
    mask = random_mask(1, 196, 0.75, generator=torch.Generator().manual_seed(0)).to(device)
    found = {
        "eq7": stream(model, mask, options.images, options.batch, device),
        "pairwise": pairwise(model, mask, options.batch, device),
        "distance": distance(device),
        "threads": torch.get_num_threads(),
    } | provenance(device)
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def stream(model: MAE, mask: Mask, count: int, batch: int, device: torch.device) -> dict[str, Any]:
    """Eq. 7 over `count` images: seconds in all and in the accumulator, and resident memory at a tenth and the end."""
    sums = [AttentionSimilarity() for _ in range(8)]
    spent = {"seconds": 0.0, "accumulator_seconds": 0.0}
    rss: list[float] = []
    images = torch.randn(batch, 3, 224, 224, device=device)
    queries, shared = hidden_patches(mask) + 1, for_batch(mask, batch)

    def visit(layer: int, maps: torch.Tensor) -> None:
        began = clock(device)
        sums[layer].update(maps[:, None, ..., 1:])
        spent["accumulator_seconds"] += clock(device) - began

    visit_attention(model, images, lambda *_: None, part="decoder", mask=shared, queries=queries)  # warm-up
    for _ in range(count // batch):
        began = clock(device)
        visit_attention(model, images, visit, part="decoder", mask=shared, queries=queries)
        spent["seconds"] += clock(device) - began
        rss.append(psutil.Process().memory_info().rss / 2**20)
    forward = spent["seconds"] - spent["accumulator_seconds"]
    return spent | {
        "images": count // batch * batch, "images_per_s": count // batch * batch / spent["seconds"],
        "share_of_forward_speed": forward / spent["seconds"], "rss_mib": [rss[len(rss) // 10], rss[-1]],
    }  # fmt: skip


def pairwise(model: MAE, mask: Mask, batch: int, device: torch.device) -> dict[str, Any]:
    """The last layer of a few images: every pair's cosine as Eq. 7 is written, beside the streamed value."""
    generator = torch.Generator().manual_seed(1)
    kept: list[torch.Tensor] = []
    for part in torch.randn(PAIRWISE, 3, 224, 224, generator=generator).split(batch):
        visit_attention(model, part.to(device), lambda _, maps: kept.append(maps[..., 1:].flatten(1)), part="decoder",
                        layers=[7], mask=for_batch(mask, len(part)), queries=hidden_patches(mask) + 1)  # fmt: skip
    maps = torch.cat(kept)  # (PAIRWISE, V)
    began = clock(device)
    streamed = AttentionSimilarity().update(maps[:, None]).compute().item()
    middle = clock(device)
    unit = torch.nn.functional.normalize(maps, dim=1)
    total = sum(float((unit @ unit[i]).double().sum() - unit[i] @ unit[i]) for i in range(PAIRWISE))
    end = clock(device)
    value = total / (PAIRWISE * (PAIRWISE - 1))
    return {"images": PAIRWISE, "seconds": end - middle, "value": value,
            "streamed_seconds": middle - began, "streamed_value": streamed}  # fmt: skip


def distance(device: torch.device) -> dict[str, float]:
    """Seconds for the attention distance of 12 layers x 12 heads x 256 images on 14x14 patches, maps given."""
    maps = torch.rand(256, 12, 12, 197, 197, device=device)
    maps /= maps.sum(-1, keepdim=True)
    seconds = {}
    for name, renormalize in (("default", False), ("renormalized", True)):
        tries = []
        for _ in range(3):
            began = clock(device)
            attention_distance(maps, (14, 14), 16, renormalize=renormalize)
            tries.append(clock(device) - began)
        seconds[name] = min(tries)
    return seconds


def clock(device: torch.device) -> float:
    """Seconds, when everything asked of the device is done."""
    getattr(torch, device.type).synchronize()
    return time.perf_counter()


def report(found: dict[str, Any]) -> str:
    """The numbers in words."""
    eq7, pairs, far = found["eq7"], found["pairwise"], found["distance"]
    low, high = eq7["rss_mib"]
    return "\n".join(
        [
            f"{found['device']}, {found['threads']} threads, commit {found['commit']}, {found['date']}",
            f"Eq. 7, ViT-B decoder of 8 layers, {eq7['images']} images: {eq7['images_per_s']:.2f} images/s, "
            f"{eq7['share_of_forward_speed']:.1%} of the speed of the forward pass that makes the maps (target 90 %)",
            f"  resident memory {low:.0f} MiB after a tenth, {high:.0f} MiB at the end",
            f"  one layer of {pairs['images']} images: streamed {pairs['streamed_seconds']:.2f} s "
            f"({pairs['streamed_value']:.9f}), pair by pair {pairs['seconds']:.2f} s ({pairs['value']:.9f})",
            f"attention distance, 12 layers x 12 heads x 256 images, maps given: {far['default']:.2f} s (target 1 s), "
            f"renormalised {far['renormalized']:.2f} s",
        ]
    )


if __name__ == "__main__":
    main()
