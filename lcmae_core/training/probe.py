"""The linear probes: how well a linear classifier reads the classes off a frozen encoder.

Public MAE recipe: BatchNorm without affine, then a linear layer, trained by LARS. The slow path encodes a random crop
at each visit, as published; the fast one encodes whole images once. Ridge regression in closed form
is there for small encoders and little time. Both read the CLS token or the mean of the patch tokens.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, M images of a split, D width, T tokens.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from timm.optim import Lars
from torch import Tensor, nn
from torch.nn import functional as F

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.config.downstream import LinearProbe, RidgeProbe
from lcmae_core.data.counter import positions
from lcmae_core.data.loader import Batch
from lcmae_core.models.encoder import Encoder
from lcmae_core.store.evaluations import Evaluation, Predictions
from lcmae_core.store.machine import pick_device
from lcmae_core.training.distributed import batch_of_all
from lcmae_core.training.downstream import (
    EvaluationResult,
    Examined,
    Origin,
    Training,
    crop_loader,
    evaluate,
    once,
    predict,
    predictions_of,
    rates_of,
)
from lcmae_core.training.features import CHUNK, Features, encoded, image_features, pooled
from lcmae_core.training.held_out import known_labels
from lcmae_core.training.steps import Steps, Terms

__all__ = [
    "Features",
    "Probe",
    "build_lars",
    "cached_batches",
    "classifier",
    "fit_ridge",
    "image_features",
    "linear_probe",
    "pooled",
    "ridge_path",
]


class Probe(nn.Module):
    """BatchNorm without affine and a linear layer; weights N(0, 0.01) cut at two deviations, bias 0."""

    def __init__(self, width: int, classes: int, seed: int = 0):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.01, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B classes"]:
        """Logits."""
        return self.head(self.norm(features))


def build_lars(probe: Probe, recipe: LinearProbe) -> Lars:
    """timm's LARS: v <- m v + r g, w <- w - lr v with r = trust |w| / |g| for the matrix and r = 1 for the bias.

    g includes the weight decay, which the bias has none of.
    """
    groups = [
        {"params": [p for p in probe.parameters() if p.ndim > 1], "always_adapt": True},
        {"params": [p for p in probe.parameters() if p.ndim <= 1], "always_adapt": False, "weight_decay": 0.0},
    ]
    return Lars(
        groups, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.probe_decay, trust_coeff=recipe.trust
    )


def cached_batches(features: Features, recipe: LinearProbe, seed: int, start: int, stop: int) -> Iterator[Batch]:
    """Training batches of features made before, in the order in which their images would come; `images` holds them."""
    assert features.labels is not None
    device = features.values.device
    for step in range(start, stop):
        at = positions(seed, step, recipe.batch_size, len(features.values))
        epoch, index = (p.to(device, non_blocking=True) for p in at)
        yield Batch(features.values[index], epoch, index, features.labels[index], at=at)


def linear_probe(
    origin: Origin,
    recipe: LinearProbe | RidgeProbe | None = None,
    *,
    settings: Settings | None = None,
    resume: bool = True,
) -> Evaluation:
    """Train a linear probe once, by default the published recipe; `settings` say data, seed and runtime, by default
    the origin's.

    Raises:
        LcmaeError: labels are missing or of one class, a batch larger than the split, an encoder of another shape.
    """
    recipe, settings = recipe or LinearProbe(), settings or origin.settings
    if isinstance(recipe, RidgeProbe):
        return _ridge_probe(origin, recipe, settings, resume=resume)
    how = _of_features if recipe.cached else _of_crops
    return how(origin, recipe, settings, resume=resume)


def _of_features(origin: Origin, recipe: LinearProbe, settings: Settings, *, resume: bool) -> Evaluation:
    """The fast path: every image is encoded once, whole."""
    device = pick_device(settings.runtime.device)

    def prepare(subject: Examined) -> Training:
        known = encoded(origin, settings, recipe.precision)
        train, held_out = (split.of(recipe.token, device) for split in (known.train, known.validation))
        probe = Probe(train.values.shape[1], subject.classes, settings.seed).to(device)

        def batches(start: int, stop: int) -> Iterator[Batch]:
            return cached_batches(train, recipe, settings.seed, start, stop)

        return Training(_steps(probe, recipe, subject, batches), lambda trained: _read(trained, held_out))

    return evaluate(origin, recipe, settings, prepare, resume=resume)


def _of_crops(origin: Origin, recipe: LinearProbe, settings: Settings, *, resume: bool) -> Evaluation:
    """The published path: a random crop is encoded at each visit."""
    device = pick_device(settings.runtime.device)

    def prepare(subject: Examined) -> Training:
        encoder, held_out = subject.encoder, subject.held_out  # a broken file shows before training, not after
        probe = Probe(encoder.embed_dim, subject.classes, settings.seed).to(device)
        crops = crop_loader(settings, recipe, subject.source)

        def features(start: int, stop: int) -> Iterator[Batch]:
            mine = (b._replace(images=pooled_features(encoder, b.images, recipe)) for b in crops.batches(start, stop))
            return map(batch_of_all, mine)  # each rank encodes its rows; the probe is trained by all alike

        def predictions(trained: nn.Module) -> Predictions:
            return predict(lambda b: trained(pooled_features(encoder, b.images, recipe)), held_out)

        return Training(_steps(probe, recipe, subject, features), predictions)

    return evaluate(origin, recipe, settings, prepare, resume=resume)


def _steps(
    probe: Probe, recipe: LinearProbe, subject: Examined, batches: Callable[[int, int], Iterator[Batch]]
) -> Steps:
    optimizer = build_lars(probe, recipe)
    return Steps(probe, optimizer, batches, rates_of(optimizer, recipe, subject.source), probe_backward(probe))


def _ridge_probe(origin: Origin, recipe: RidgeProbe, settings: Settings, *, resume: bool) -> Evaluation:
    def work(evaluation: Evaluation, subject: Examined) -> EvaluationResult:
        known, began = encoded(origin, settings, recipe.precision), time.perf_counter()
        probe, penalty = fit_ridge(known.train.of(recipe.token), subject.classes, recipe, settings.seed)
        predictions, seconds = _read(probe, known.validation.of(recipe.token)), time.perf_counter() - began
        return EvaluationResult(probe.state_dict(), predictions, 0, seconds, {"penalty": penalty})

    return once(origin, recipe, settings, work, resume=resume)


def fit_ridge(features: Features, classes: int, recipe: RidgeProbe, seed: int) -> tuple[Probe, float]:
    """Ridge regression on standardised features, as a `Probe`; and the penalty that was chosen.

    Targets are 1 for an image's class and -1 for the others, as in scikit-learn's `RidgeClassifier`. The penalty with
    the most right answers over the folds is taken, of equals the largest. Folds are equal parts of every class, where
    each has as many images as there are folds. Scores are no log-probabilities.
    """
    labels = known_labels(features.labels).cpu().numpy()
    probe, values = Probe(features.values.shape[1], classes).eval(), features.values.cpu().double()
    probe.norm.running_mean, probe.norm.running_var = values.mean(0).float(), values.var(0, correction=0).float()
    with torch.no_grad():
        x = probe.norm(features.values.cpu()).double().numpy()  # (M, D)
    y = 2.0 * np.eye(classes)[labels] - 1  # (M, classes)
    penalties = np.sort(recipe.penalties)[::-1]
    right = np.zeros(len(penalties))
    for train, held in _folds(labels, recipe.folds, seed):
        for i, line in enumerate(ridge_path(x[train], y[train], penalties)):
            right[i] += (line.scores(x[held]).argmax(axis=1) == labels[held]).sum()
    penalty = penalties[right.argmax()]
    (best,) = ridge_path(x, y, [penalty])
    probe.head.load_state_dict({"weight": torch.tensor(best.weight.T).float(), "bias": torch.tensor(best.bias).float()})
    return probe, float(penalty)


class Line(NamedTuple):
    """A linear map of features to scores."""

    weight: Float[np.ndarray, "D classes"]
    bias: Float[np.ndarray, "classes"]

    def scores(self, x: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "M classes"]:
        """x W + b."""
        return x @ self.weight + self.bias


def ridge_path(
    x: Float[np.ndarray, "M D"], y: Float[np.ndarray, "M classes"], penalties: Iterable[float]
) -> Iterator[Line]:
    """argmin |x W + b - y|^2 + penalty |W|^2 for each penalty, the bias without one.

    W = V (S + penalty)^-1 V' x'y of centred x and y, with x'x = V S V': one decomposition serves them all, where
    scikit-learn solves anew for each.
    """
    middle, level = x.mean(axis=0), y.mean(axis=0)
    centred = x - middle
    s, v = np.linalg.eigh(centred.T @ centred)
    projected = v.T @ (centred.T @ (y - level))  # (D, classes)
    for penalty in penalties:
        weight = v @ (projected / (np.maximum(s, 0) + penalty)[:, None])
        yield Line(weight, level - middle @ weight)


def _folds(labels: np.ndarray, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    smallest = np.unique(labels, return_counts=True)[1].min()
    from sklearn.model_selection import KFold, StratifiedKFold  # half a second, which few who import this module need

    kind = StratifiedKFold if smallest >= count else KFold
    return kind(min(count, len(labels)), shuffle=True, random_state=seed % 2**32).split(labels, labels)


def classifier(evaluation: Evaluation, encoder: Encoder) -> Callable[[Tensor], Tensor]:
    """What a finished linear probe says of normalised images, (B, C, H, W) -> (B, classes), on the encoder's device.

    Raises:
        LcmaeError: the evaluation is not finished, or judged another kind of head.
    """
    recipe, weights = evaluation.recipe, evaluation.weights()
    if not isinstance(recipe, LinearProbe | RidgeProbe):
        raise LcmaeError(f"evaluation: got {evaluation.name!r}, a {recipe.kind}, expected a linear probe")
    probe = Probe(encoder.embed_dim, len(weights["head.bias"]))
    probe.load_state_dict(weights)
    probe.to(next(encoder.parameters()).device).eval()

    @torch.no_grad()
    def scores(images: Tensor) -> Tensor:
        return probe(pooled_features(encoder, images, recipe))

    return scores


@torch.no_grad()
def _read(probe: nn.Module, features: Features) -> Predictions:
    return predictions_of(probe.eval()(features.values), known_labels(features.labels))


def pooled_features(
    encoder: Encoder, images: Float[Tensor, "B C H W"], recipe: LinearProbe | RidgeProbe
) -> Float[Tensor, "B D"]:
    """The features of a batch that a probe reads, in float32, encoded in chunks without gradients."""
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        return torch.cat([pooled(encoder(part), recipe.token).float() for part in images.split(CHUNK)])


def probe_backward(probe: Probe) -> Callable[[Batch, int], Terms]:
    """What a step of a probe does of a batch of features: leaves the gradients of the cross-entropy in its weights."""

    def backward(batch: Batch, step: int) -> Terms:
        assert batch.labels is not None
        logits = probe(batch.images)
        loss = F.cross_entropy(logits, batch.labels)
        loss.backward()
        return {"total": loss.detach(), "accuracy": (logits.argmax(dim=1) == batch.labels).float().mean()}

    return backward
