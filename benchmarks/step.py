"""The training step of a small model on one CPU thread: `python benchmarks/step.py [--batch 32] [--json OUT]`.

Ours at the shapes of `quick` (64 px, patch 8, 4 blocks of 128, decoder 2 of 96), crops and optimiser included, against
a plain textbook loop of the same model (`lcmae_core/bench/textbook.py`), in turns in one run, and other methods against
plain MAE. Times
are CPU seconds of this process, so that other work on the machine distorts them less. `lcmae bench` times ViT-B.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lcmae_core.bench.textbook import TextbookMae, TextbookStep
from lcmae_core.config import Settings, profile, replace
from lcmae_core.data.loader import Loader
from lcmae_core.data.sources import open_source
from lcmae_core.store.machine import provenance
from lcmae_core.training.guards import LossGuard
from lcmae_core.training.log import Window
from lcmae_core.training.loop import backward_pass
from lcmae_core.training.objectives import OBJECTIVES
from lcmae_core.training.optim import build_optimizer

CASES: dict[str, dict[str, Any]] = {
    "mae": {},
    "mae, two views": {"views": 2},
    "lcmae": {"cross_view": 1.0, "in_view": 1.0},
    "ae(1)": {"method": "ae"},
    "dino": {"method": "dino"},
}


class OurStep:
    """The step of `pretrain`, without its checkpoints and log lines."""

    def __init__(self, settings: Settings):
        source = open_source(settings.data)
        self.objective = OBJECTIVES[settings.method](settings, source)
        self.loader = Loader(
            source.train, settings.data, seed=0, batch_size=settings.optim.batch_size, device="cpu",
            crops=self.objective.crops,
        )  # fmt: skip
        self.model = self.objective.build()
        self.optimizer = build_optimizer(self.model, settings.optim)
        self.guard, self.window, self.done = LossGuard(), Window(), 0

    @property
    def pictures(self) -> torch.Tensor:
        """What is held, for the textbook's loop."""
        assert self.loader._canvas is not None
        return self.loader._canvas.pixels

    def __call__(self) -> None:
        batch = self.loader.batch(self.done)
        terms = backward_pass(self.objective, self.model, self.model, batch, 0.5)
        self.guard.check(self.done, batch, terms["total"], self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.after_step(self.model, 0.5)
        self.window.add(terms)
        self.done += 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=32, metavar="B", help="images a step (default 32)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="timed steps of each (default 15)")
    parser.add_argument("--data", default="photos", help="source string (default photos)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    base = replace(profile("quick"), batch_size=options.batch, source=options.data, device="cpu")
    ours = {name: OurStep(replace(base, changes)) for name, changes in CASES.items()}
    steps: dict[str, Callable[[], Any]] = {
        "textbook mae": TextbookStep(ours["mae"].pictures, TextbookMae(), options.batch),
        **ours,
    }
    seconds = alternate(steps, options.rounds)
    found = {"batch": options.batch, "rounds": options.rounds, "seconds": seconds} | provenance(torch.device("cpu"))
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def alternate(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every step, in turns; the order is reversed every other round; two rounds first to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-2, rounds):
        for name in list(steps)[:: 1 if turn % 2 == 0 else -1]:
            began = time.process_time()
            steps[name]()
            if turn >= 0:
                seconds[name].append(time.process_time() - began)
    return seconds


def report(found: dict[str, Any]) -> str:
    """The numbers in words: medians, and medians of ratios within a round."""
    seconds, batch = found["seconds"], found["batch"]
    lines = [f"{found['device']}, batch {batch}, commit {found['commit']}, medians of {found['rounds']}, CPU time"]
    for name, taken in seconds.items():
        to_mae, to_textbook = (
            statistics.median(a / b for a, b in zip(taken, seconds[other])) for other in ("mae", "textbook mae")
        )
        middle = statistics.median(taken)
        lines.append(
            f"{name:<16}{batch / middle:>7.0f} images a core-second{middle * 1e3:>8.1f} ms a step, "
            f"{to_mae:.2f} x mae, {to_textbook:.2f} x textbook"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
