"""Accuracy of saved predictions, with intervals that say how far it can be trusted, and which classes are confused.

Letters (CONTRIBUTING.md): S seeds, M images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lcmae_core.analysis.intervals import Interval, interval, judged_df, two_way
from lcmae_core.config import LcmaeError
from lcmae_core.store.evaluations import Predictions


class Accuracy(NamedTuple):
    """mean: share of right answers over images (and seeds). exact: Clopper-Pearson, None for several seeds.
    two_way: over seeds and images, of one seed over images alone. Both lie inside [0, 1]."""

    mean: float
    exact: Interval | None
    two_way: Interval
    images: int
    seeds: int


def exact_interval(right: int, count: int, level: float = 0.95) -> Interval:
    """Clopper and Pearson's interval of a share: no normal approximation, never too narrow, wide for few images.

    It holds for one fixed classifier: images vary, the training does not.

    Raises:
        LcmaeError: no images.
    """
    if count < 1:
        raise LcmaeError(f"count: got {count} images, expected at least 1")
    from scipy.stats import binomtest  # half a second, which few who import this module need

    interval = binomtest(right, count).proportion_ci(level, method="exact")
    return Interval(float(interval.low), float(interval.high))


def share_interval(right: Bool[np.ndarray, "S M"] | Bool[np.ndarray, "M"], level: float = 0.95) -> Interval:
    """The accuracy's interval over seeds and images (`intervals`), its ends inside [0, 1].

    Every seed is judged on the same M images, so both count: three seeds alone would give no interval, images alone
    would forget the training. Answers that are all alike vary in nothing: their interval is a point.

    Raises:
        LcmaeError: no answers.
    """
    answers = np.atleast_2d(right).astype(np.float64)  # (S, M)
    if not answers.size:
        seeds, images = answers.shape
        raise LcmaeError(f"right: got {seeds} seeds and {images} images, expected at least one of each")
    parts = two_way(answers)
    ends = interval(answers.mean(), parts, df=judged_df(parts, len(answers)), level=level)
    return Interval(*(float(np.clip(end, 0.0, 1.0)) for end in ends))


def accuracy(predictions: Predictions | Sequence[Predictions], level: float = 0.95) -> Accuracy:
    """Accuracy of one classifier, or the mean over several trained with different seeds, with its intervals.

    Raises:
        LcmaeError: nothing to judge, or classifiers that were judged on different images.
    """
    several = [predictions] if isinstance(predictions, Predictions) else list(predictions)
    if not several:
        raise LcmaeError("predictions: got none, expected those of at least one classifier")
    if any(not np.array_equal(one.label, several[0].label) for one in several):
        raise LcmaeError("predictions: got classifiers judged on different images, expected the same ones in order")
    right = np.stack([one.right for one in several])  # (S, M)
    seeds, images = right.shape
    exact = exact_interval(int(right.sum()), images, level) if seeds == 1 else None
    return Accuracy(float(right.mean()), exact, share_interval(right, level), images, seeds)


def confusion(predictions: Predictions, classes: int) -> Int[np.ndarray, "classes classes"]:
    """Images of each true class (rows) by what they were taken for (columns); rows sum to the images of a class.

    Raises:
        LcmaeError: a class beyond `classes`.
    """
    most = int(max(predictions.label.max(), predictions.predicted.max()))
    if most >= classes:
        raise LcmaeError(f"classes: got {classes}, expected at least {most + 1}: class {most} occurs")
    from sklearn.metrics import confusion_matrix  # half a second, which few who import this module need

    return confusion_matrix(predictions.label, predictions.predicted, labels=np.arange(classes))
