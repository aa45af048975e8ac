"""k-nearest-neighbour accuracy of frozen features: the quickest honest measure of what an encoder learnt.

Letters: M training images, Q test images, D width, k neighbours.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lcmae_core.config import LcmaeError
from lcmae_core.data.loader import Loader
from lcmae_core.losses import unit
from lcmae_core.models.encoder import Encoder


class Features(NamedTuple):
    """values: mean of the patch tokens of each image. labels: None where the source has none."""

    values: Float[Tensor, "M D"]
    labels: Int64[Tensor, "M"] | None


@torch.no_grad()
def image_features(encoder: Encoder, loader: Loader, limit: int | None = None) -> Features:
    """Features of whole, unmasked images (centre view), in order."""
    batches = [(encoder(batch.images)[:, 1:].mean(dim=1), batch.labels) for batch in loader.evaluation(limit=limit)]
    values, labels = zip(*batches)
    return Features(torch.cat(values), None if labels[0] is None else torch.cat(labels))


def knn_accuracy(train: Features, test: Features, k: int = 20, temperature: float = 0.07) -> float:
    """Share of test images whose weighted vote is right: cosine similarity s, weight exp(s / temperature).

    Raises:
        LcmaeError: labels are missing, or there are fewer training images than neighbours.
    """
    if train.labels is None or test.labels is None:
        raise LcmaeError("labels: got a source without labels, expected one class a photograph")
    if not 0 < k <= len(train.values):
        raise LcmaeError(f"k: got {k}, expected 1 to {len(train.values)} training images")
    classes, right = int(torch.cat([train.labels, test.labels]).max()) + 1, 0
    for values, labels in zip(test.values.split(1024), test.labels.split(1024)):  # never Q x M at once
        close = (unit(values) @ unit(train.values).T).topk(k, dim=1)  # (q, k)
        votes = close.values.new_zeros(len(values), classes)
        votes.scatter_add_(1, train.labels[close.indices], (close.values / temperature).exp())
        right += int((votes.argmax(dim=1) == labels).sum())
    return right / len(test.values)
