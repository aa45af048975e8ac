"""A downstream evaluation: a run of its own, below <out>/evaluations, whose digest names what it started from.

The folder is a run's folder (settings, history, checkpoints, weights, results) with two files more: recipe.json, and
predictions.npz with the classifier's answer for every held-out image. `settings` has the data, the encoder's shape, the
seed and the runtime of the evaluation. How the encoder was pre-trained is not in them: `origin` is the name of that
run.

Letters (CONTRIBUTING.md): M images.
"""

import hashlib
import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from lcmae_core.config import LcmaeError, Settings, parse
from lcmae_core.config.downstream import AnyRecipe, FineTune, LinearProbe, RidgeProbe, parse_recipe
from lcmae_core.store.files import read_json, write_atomic, write_json
from lcmae_core.store.machine import writable_folder
from lcmae_core.store.runs import SETTINGS, Run

RECIPE, PREDICTIONS = "recipe.json", "predictions.npz"
KINDS: dict[str, type[AnyRecipe]] = {recipe.kind: recipe for recipe in (LinearProbe, RidgeProbe, FineTune)}
_DATA = {"image_size", "channels", "on_unreadable", "min_side", "validation_fraction"}
_MODEL = {"patch_size", "width", "depth", "heads", "mlp_ratio"}


class Predictions(NamedTuple):
    """What a classifier says of each of M held-out images, in their order."""

    label: np.ndarray
    """(M,) int64, the truth."""
    predicted: np.ndarray
    """(M,) int64, the class with the highest score."""
    confidence: np.ndarray
    """(M,) float32, the probability of that class."""

    @property
    def right(self) -> np.ndarray:
        """(M,) bool."""
        return self.label == self.predicted


@dataclass(frozen=True)
class Evaluation(Run):
    """A run that judges an encoder: `settings` says data, shape, seed and runtime, `recipe` all the rest."""

    recipe: AnyRecipe
    origin: str
    """What was evaluated: the name of the pre-training run (with its step, if it is not the last), or "untrained"."""

    @property
    def words(self) -> str:
        """How which encoder is judged."""
        how = {"finetune": "fine-tuning", "probe": "linear probe", "ridge": "linear probe"}[self.recipe.kind]
        return f"{how} of {self.origin}, seed {self.settings.seed}"

    @property
    def predictions(self) -> Predictions:
        """Of the held-out images.

        Raises:
            LcmaeError: the evaluation is not finished.
        """
        if not self.done:
            raise LcmaeError(f"predictions: got {self.name!r}, which is not finished, expected a finished evaluation")
        return load_predictions(self.path / PREDICTIONS)

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that are classified right."""
        return float(self.predictions.right.mean())


def evaluation_folder(settings: Settings, recipe: AnyRecipe, origin: str, data_identity: str) -> Path:
    """Where the evaluation lies or would lie: <out>/evaluations/<kind>-<origin>-s<seed>-<digest>."""
    digest = evaluation_digest(settings, recipe, origin, data_identity)
    folder = writable_folder(settings.runtime.out) / "evaluations"
    return folder / f"{recipe.kind}-{origin}-s{settings.seed}-{digest}"


def open_evaluation(settings: Settings, recipe: AnyRecipe, origin: str, data_identity: str) -> Evaluation:
    """The evaluation of these settings, its folder made if need be.

    Raises:
        LcmaeError: the output folder cannot be written.
    """
    path = writable_folder(evaluation_folder(settings, recipe, origin, data_identity))
    if not (path / RECIPE).exists():
        write_json(path / SETTINGS, settings.model_dump(mode="json"), sealed=True)
        stated = {"kind": recipe.kind, "origin": origin, "recipe": recipe.model_dump(mode="json")}
        write_json(path / RECIPE, stated, sealed=True)
    return Evaluation(path, settings, recipe, origin)


def load_evaluation(path: Path | str) -> Evaluation:
    """The evaluation in a folder.

    Raises:
        LcmaeError: the folder holds none.
    """
    folder = Path(path).resolve()
    if not (folder / RECIPE).exists():
        raise LcmaeError(f"evaluation: got {str(path)!r}, expected an evaluation's folder with {RECIPE}")
    kept = read_json(folder / RECIPE)
    recipe = parse_recipe(KINDS[kept["kind"]], kept["recipe"])
    return Evaluation(folder, parse(read_json(folder / SETTINGS)), recipe, kept["origin"])


def evaluation_digest(settings: Settings, recipe: AnyRecipe, origin: str, data_identity: str) -> str:
    """Ten hex digits that name everything that affects an evaluation's results.

    Of the settings only what an evaluation reads: seed, size and kind of the images, shape of the encoder. As in
    `config.digest` only departures from defaults are hashed, so a setting added later keeps old evaluations valid.
    """
    parts: dict[str, Any] = {
        "kind": recipe.kind,
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "origin": origin,
        "seed": settings.seed,
        "data": settings.data.model_dump(mode="json", include=_DATA, exclude_defaults=True),
        "model": settings.model.model_dump(mode="json", include=_MODEL, exclude_defaults=True),
        "identity": data_identity,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:10]


def save_predictions(path: Path, predictions: Predictions) -> None:
    """Write them as a compressed npz, atomically, in the smallest integers that hold the classes."""
    kind = np.min_scalar_type(int(max(predictions.label.max(), predictions.predicted.max())))
    arrays = {
        "label": predictions.label.astype(kind),
        "predicted": predictions.predicted.astype(kind),
        "confidence": predictions.confidence.astype(np.float32),
    }
    write_atomic(path, lambda p: np.savez_compressed(p, **arrays))  # type: ignore[arg-type]


def load_predictions(path: Path) -> Predictions:
    """Read what `save_predictions` wrote.

    Raises:
        LcmaeError: the file is missing or broken.
    """
    try:
        with np.load(
            BytesIO(path.read_bytes()), allow_pickle=False
        ) as arrays:  # of a broken file np.load leaves it open
            label, predicted = (arrays[name].astype(np.int64) for name in ("label", "predicted"))
            return Predictions(label, predicted, arrays["confidence"])
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise LcmaeError(f"predictions: got {str(path)!r}, expected a readable npz ({error})") from None
