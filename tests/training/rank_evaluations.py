"""A program of `test_distributed_evaluations`: judges an untrained encoder in every way, by as many ranks as its third
argument says, all forked from one process that has loaded everything; prints losses, answers and weights as JSON."""

import json
import sys
from pathlib import Path

import torch

from lcmae_core.analysis.neighbours import encoder_predictions
from lcmae_core.config import Settings, parse, replace
from lcmae_core.config.downstream import RECIPES, LinearProbe, RidgeProbe, vary
from lcmae_core.store.evaluations import Evaluation, Predictions
from lcmae_core.training.distributed import joined
from lcmae_core.training.downstream import Origin
from lcmae_core.training.finetune import fine_tune
from lcmae_core.training.probe import linear_probe
from tests.training.rank_cases import together

SHORT = {"batch_size": 8, "steps": 6, "base_lr": 0.05, "warmup": 0.0, "drop_path": 0.0}
TUNED = {
    "fine-tuned": vary(RECIPES["v2"], SHORT | {"rand_augment": None, "erase": 0.0}),
    "augmented, averaged": vary(RECIPES["v2"], SHORT | {"ema": 0.5}),
    "micro-batches, nothing mixed": vary(RECIPES["v2"], SHORT | {"accum_steps": 2, "mixup": 0.0, "cutmix": 0.0,
                                                                 "rand_augment": None, "erase": 0.0}),
}  # fmt: skip
PROBES = {
    "probe of crops": vary(LinearProbe(), batch_size=8, steps=6, cached=False),
    "probe of features": vary(LinearProbe(), batch_size=8, steps=6),
    "ridge": RidgeProbe(folds=2),
}


def answers(predictions: Predictions) -> dict[str, list[float]]:
    return {"predicted": predictions.predicted.tolist(), "confidence": predictions.confidence.tolist()}


def judged(evaluation: Evaluation) -> dict[str, object]:
    weights = {name: value.flatten().tolist() for name, value in evaluation.weights().items()}
    losses = evaluation.curve("loss")[1] if evaluation.history else []
    return {"loss": losses, "weights": weights, **answers(evaluation.predictions)}


def judge(settings: Settings, out: Path) -> None:
    """Every evaluation by all ranks; the first writes what they came to."""
    origin, said = Origin.untrained(settings), {}
    with joined("cpu") as group:
        for name, recipe in TUNED.items():
            said[name] = fine_tune(origin, recipe)
        for name, recipe in PROBES.items():
            said[name] = linear_probe(origin, recipe)
        neighbours = encoder_predictions(origin.load().eval(), settings, k=3)
    if group.first:
        found = {name: judged(evaluation) for name, evaluation in said.items()}
        (out / "found.json").write_text(json.dumps(found | {"kNN": answers(neighbours)}))


def main() -> None:
    torch.set_num_threads(1)
    settings, out = parse(json.loads(sys.argv[1])), Path(sys.argv[2])
    for world in map(int, sys.argv[3].split(",")):
        place = out / str(world)
        place.mkdir()
        codes = together(lambda rank, place=place: judge(replace(settings, out=str(place)), place), world)
        assert codes == {0}, codes


if __name__ == "__main__":
    main()
