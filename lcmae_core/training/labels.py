"""Labelled images: which ones a recipe trains on and is judged on, and what is refused.

Letters (CONTRIBUTING.md): M images of a split.
"""

from dataclasses import replace

import numpy as np
import torch

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.config.downstream import HELD, AnyRecipe, FineTune, Recipe
from lcmae_core.data.counter import counter_uniform
from lcmae_core.data.splits import Source
from lcmae_core.models.reference import class_count


def labelled_part(source: Source, recipe: AnyRecipe, seed: int) -> Source:
    """The source as a recipe sees it: `label_share` of each class's training images, at least one, and with
    `held_fifth` a fifth of these as held-out images, so that no validation image is looked at.

    Which images depends on seed, class and number alone: all rows of a table with one seed learn from the same ones.
    """
    labels = source.train.labels
    if labels is None or not isinstance(recipe, FineTune):
        return source
    if recipe.label_share < 1:
        chosen = np.flatnonzero(drawn_by_class(labels, recipe.label_share, seed, "labels", least=1))
        source, labels = replace(source, train=source.train.subset(chosen)), labels[chosen]
    if recipe.held_fifth:
        held = drawn_by_class(labels, HELD, seed, "held fifth", least=0)
        judged = replace(source.train.subset(np.flatnonzero(held)), name="held fifth of train")
        source = replace(source, train=source.train.subset(np.flatnonzero(~held)), validation=judged)
    return source


def drawn_by_class(labels: np.ndarray, share: float, seed: int, stream: str, least: int) -> np.ndarray:
    """(M,) bool: of each class's n images the round(share * n) with the smallest random numbers, no fewer than `least`.

    The numbers are a function of (seed, stream, image): a larger share holds all images of a smaller one.
    """
    index = torch.arange(len(labels))
    place = counter_uniform(seed, stream, torch.zeros_like(index), index, 1)[:, 0].numpy()  # (M,)
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(least, int(share * len(members) + 0.5))
        chosen[members[place[members].argsort(kind="stable")[:count]]] = True
    return chosen


def count_classes(settings: Settings, source: Source, recipe: AnyRecipe) -> int:
    """Classes of a source that can be trained on and judged.

    Raises:
        LcmaeError: labels are missing, all images are of one class, there are fewer of them than a batch, or none is
            held out.
    """
    classes, name = several_classes(settings, source), settings.data.source
    count = len(source.train)
    if isinstance(recipe, Recipe) and count < recipe.batch_size:
        raise LcmaeError(f"batch_size: got {recipe.batch_size} for {count} training images, expected at most {count}")
    if not len(source.validation):
        raise LcmaeError(f"data: got no validation image in {name!r}, expected at least one held out")
    if source.validation.labels is None or (source.validation.labels < 0).any():
        raise LcmaeError(f"labels: got validation images without one in {name!r}, expected a label for every image")
    return classes


def several_classes(settings: Settings, source: Source) -> int:
    """Classes of a source whose images are of more than one.

    Raises:
        LcmaeError: labels are missing, or all images are of one class.
    """
    classes = class_count(settings, source)
    assert source.train.labels is not None and source.classes is not None  # noqa: PT018
    present = np.unique(source.train.labels)
    if len(present) < 2:
        only, name = source.classes[int(present[0])], settings.data.source
        raise LcmaeError(f"labels: got one class ({only!r}) in {name!r}, expected at least two")
    return classes
