"""The experiment of claim C19: train an MAE for every setting and seed, measure what its encoder holds; done once."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from lcmae_core.analysis.recovery import Recipe, Recovery, Setting, measure_recovery
from lcmae_core.data.hierarchical import HierarchicalModel
from lcmae_core.store.checkpoint import write_json
from lcmae_core.training.latents import new_mae, train_on_latents


class Experiment(NamedTuple):
    """recoveries: every latent, mask, seed and setting. loss: Eq. 1 of every step, for the first seed."""

    recoveries: list[Recovery]
    loss: dict[Setting, list[float]]


def run_experiment(plan: Recipe, seed: int = 0, folder: Path | None = None) -> Experiment:
    """Train and measure for every setting and seed (from `seed` on). With `folder` the numbers are kept there, in a
    file named by the digest of the plan, and an experiment that was done before is read."""
    if folder is None:
        return _run(plan, seed)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"latents-s{seed}-{_digest(plan, seed)}.json"
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            done = _run(plan, seed)
            losses = [[setting, loss] for setting, loss in done.loss.items()]
            write_json(file, {"recoveries": done.recoveries, "loss": losses})
    return _read(json.loads(file.read_text()))


def _run(plan: Recipe, seed: int) -> Experiment:
    model = HierarchicalModel(plan.hierarchy)
    found: list[Recovery] = []
    losses: dict[Setting, list[float]] = {}
    for setting in plan.settings:
        for one in range(seed, seed + plan.seeds):
            trained = train_on_latents(model, plan.arch, plan.optim, setting.ratio, setting.unit, one)
            untrained = new_mae(model, plan.arch, one).eval()
            found += measure_recovery(model, trained.mae, untrained, setting, one, plan.probes)
            losses.setdefault(setting, trained.loss)
    return Experiment(found, losses)


def _read(kept: dict[str, Any]) -> Experiment:
    recoveries = [Recovery(Setting(*setting), *rest) for setting, *rest in kept["recoveries"]]
    return Experiment(recoveries, {Setting(*setting): loss for setting, loss in kept["loss"]})


def _digest(plan: Recipe, seed: int) -> str:
    said = [part.model_dump(mode="json") if hasattr(part, "model_dump") else part for part in plan]
    return hashlib.sha256(json.dumps([said, seed]).encode()).hexdigest()[:10]
