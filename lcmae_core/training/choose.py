"""Choosing the rate of fine-tuning on training images alone."""

from collections.abc import Sequence
from typing import NamedTuple

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.config.downstream import FineTune, vary
from lcmae_core.training.downstream import Origin
from lcmae_core.training.finetune import fine_tune


class RateChoice(NamedTuple):
    """accuracy: base_lr -> share of the held-out fifth that is right. best: the rate with the most, of equals the
    smallest."""

    accuracy: dict[float, float]
    best: float


Choice = RateChoice
"""Its former name."""


def choose_rate(
    origin: Origin, recipe: FineTune, rates: Sequence[float], *, settings: Settings | None = None
) -> RateChoice:
    """Fine-tune at each base_lr on four fifths of the labelled training images and judge on the last fifth; the images
    on which results are reported are never looked at. Each is an evaluation of its own, done once.

    Raises:
        LcmaeError: no rate to choose from, and all that `fine_tune` refuses.
    """
    if not rates:
        raise LcmaeError("rates: got none, expected at least one base_lr")
    inner = vary(recipe, held_fifth=True)
    accuracy = {
        rate: fine_tune(origin, vary(inner, base_lr=rate), settings=settings).accuracy for rate in sorted(rates)
    }
    return RateChoice(accuracy, max(accuracy, key=lambda rate: accuracy[rate]))
