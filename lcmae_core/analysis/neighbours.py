"""k-nearest-neighbour accuracy of frozen features: the quickest honest measure of what an encoder learnt.

Letters (CONTRIBUTING.md): M images of the training split, D width. In words: tested (images).
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.data.sources import open_source
from lcmae_core.data.splits import Source
from lcmae_core.losses import unit
from lcmae_core.models.encoder import Encoder
from lcmae_core.store.evaluations import Predictions
from lcmae_core.training.features import Encoded, Features, image_features
from lcmae_core.training.held_out import evaluation_loader, known_labels

__all__ = [
    "Features",
    "alone_right",
    "encoded_predictions",
    "encoder_predictions",
    "image_features",
    "knn_accuracy",
    "knn_predictions",
    "knn_votes",
]


def knn_votes(
    train: Features, values: Float[Tensor, "tested D"], k: int = 20, temperature: float = 0.07
) -> Float[Tensor, "tested classes"]:
    """Sum over the k nearest training images of exp(s / temperature) for their class, s the cosine similarity.

    In float64 (on Apple's devices float32), so that close calls fall as in any other careful implementation.

    Raises:
        LcmaeError: labels are missing, or there are fewer training images than neighbours.
    """
    labels = known_labels(train.labels)
    if not 0 < k <= len(train.values):
        raise LcmaeError(f"k: got {k}, expected 1 to {len(train.values)} training images")
    real = torch.float32 if values.device.type == "mps" else torch.float64
    known, classes, parts_of_votes = unit(train.values.to(real)), int(labels.max()) + 1, []
    for part in values.to(real).split(1024):  # never tested x M at once
        close = (unit(part) @ known.T).topk(k, dim=1)  # (some of the tested, neighbours)
        votes = close.values.new_zeros(len(part), classes)
        parts_of_votes.append(votes.scatter_add_(1, labels[close.indices], (close.values / temperature).exp()))
    return torch.cat(parts_of_votes)


def knn_predictions(train: Features, test: Features, k: int = 20, temperature: float = 0.07) -> Predictions:
    """The class with the most votes for every test image; its confidence is its share of the votes.

    Raises:
        LcmaeError: labels are missing, or there are fewer training images than neighbours.
    """
    labels = known_labels(test.labels).cpu().numpy()
    votes = knn_votes(train, test.values, k, temperature)
    best = (votes / votes.sum(dim=1, keepdim=True)).max(dim=1)
    return Predictions(labels, best.indices.cpu().numpy(), best.values.float().cpu().numpy())


def knn_accuracy(train: Features, test: Features, k: int = 20, temperature: float = 0.07) -> float:
    """Share of test images whose weighted vote is right: cosine similarity s, weight exp(s / temperature).

    Raises:
        LcmaeError: labels are missing, or there are fewer training images than neighbours.
    """
    return float(knn_predictions(train, test, k, temperature).right.mean())


def alone_right(known: Features, k: int = 20, temperature: float = 0.07) -> np.ndarray:
    """Whether the weighted vote of its k nearest among all other images is right, (M,): for images of which none is set
    aside. Fewer neighbours where there are no more.

    Raises:
        LcmaeError: labels are missing, or there is one image.
    """
    count = len(known.values)
    every = torch.arange(count)
    right = [
        knn_predictions(
            Features(known.values[every != i], known_labels(known.labels)[every != i]),
            Features(known.values[i : i + 1], known_labels(known.labels)[i : i + 1]),
            k=min(k, count - 1),
            temperature=temperature,
        ).right
        for i in range(count)
    ]
    return np.concatenate(right)


def encoder_predictions(encoder: Encoder, settings: Settings, source: Source | None = None, k: int = 20) -> Predictions:
    """`knn_predictions` of an encoder for the held-out images, from all training images of the settings' source
    (`source` saves opening it again); fewer than `k` neighbours in a source that has no more images.

    Raises:
        LcmaeError: the source cannot be read, or has no labels.
    """
    source = source or open_source(settings.data)
    loaders = [evaluation_loader(settings, split=split, source=source) for split in ("train", "validation")]
    train, test = (image_features(encoder.to(loader.device), loader) for loader in loaders)
    return knn_predictions(train, test, k=min(k, len(train.values)))


def encoded_predictions(known: Encoded, token: str = "mean", k: int = 20) -> Predictions:
    """The same from features that were made before, by one token."""
    train, test = (split.of(token, known.device) for split in (known.train, known.validation))
    return knn_predictions(train, test, k=min(k, len(train.values)))
