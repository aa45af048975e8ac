"""How much of each latent the encoder of an MAE holds, against what the theorem predicts of the mask (claim C19).

Letters (CONTRIBUTING.md): M images, T = 1 + K tokens, D width. In words: dims (dimensions of a variable), latents
(those with noise of their own), masks, settings of the mask, levels of the tree.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from threadpoolctl import threadpool_limits

from lcmae_core.analysis.identifiability import determined, identifiable_set
from lcmae_core.config import Group, LcmaeError
from lcmae_core.data.hierarchical import HierarchicalModel, Sample, Tree
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask, random_mask
from lcmae_core.training.latents import images_of

RIDGE = 0.3
"""Penalty of the regressor, in units of the kernel's diagonal: what makes up a thousandth of the output's variance does
not count as held."""
REACH = 0.1
"""gamma of the RBF kernel times the number of (standardised) features."""
Levels = Float[np.ndarray, "latents"]
OfMasks = Float[np.ndarray, "masks latents"]
Means = Float[np.ndarray, "settings latents"]
"""Means over masks and seeds."""


class Setting(NamedTuple):
    """How masks are drawn: the share that is hidden, and the side of a mask cell in patches."""

    ratio: float
    unit: int

    @property
    def title(self) -> str:
        """In words, as the rows of a figure are called."""
        return f"ratio {self.ratio}, unit {self.unit}"


class Probes(Group):
    """How recovery is measured."""

    masks: int = Field(3, gt=0, description="fixed masks of a trained model")
    fitted: int = Field(600, gt=1, description="images to which the regressor is fitted")
    tested: int = Field(400, gt=1, description="images on which R^2 is taken")


class Recovery(NamedTuple):
    """What was measured of every latent under each mask of a trained MAE. R^2 are means over the dimensions.

    names, levels: of the latents, the root being level 0. predicted: 1 if the mask identifies the latent (c determines
    it), else 0. visible: 1 if a leaf below it is visible, which is all that could be known, else 0. trained, untrained:
    held-out R^2 of the latent's *own* noise, what it adds to its parent, from the trained encoder and from its
    initialisation. shuffled: as trained, with the latents of other images. whole: held-out R^2 of the latent with all
    that it has of its ancestors.
    """

    names: tuple[str, ...]
    levels: Levels
    predicted: OfMasks
    visible: OfMasks
    trained: OfMasks
    untrained: OfMasks
    shuffled: OfMasks
    whole: OfMasks


QUANTITIES = Recovery._fields[2:]
"""What is known of a latent under a mask."""


def hidden_leaves(tree: Tree, mask: Mask) -> tuple[str, ...]:
    """The names of the leaves that the first image of a mask hides."""
    return tuple(leaf for leaf, hidden in zip(tree.leaves, mask.hidden[0].tolist()) if hidden)


def leaf_mask(model: HierarchicalModel, setting: Setting, generator: torch.Generator) -> Mask:
    """One random mask over the leaves of the model.

    Raises:
        LcmaeError: a ratio that leaves no visible or hidden cell, a unit that does not divide the grid.
    """
    rows, cols = model.settings.grid
    return random_mask(1, rows * cols, setting.ratio, generator=generator, unit=setting.unit, grid=(rows, cols))


def held_out_r2(
    features: Float[np.ndarray, "M features"], targets: Float[np.ndarray, "M dims"], fitted: int
) -> Float[np.ndarray, "dims"]:
    """R^2 = 1 - squared error / variance of every target on the samples after the first `fitted`, 1 if perfect.

    The regressor is scikit-learn's kernel ridge with an RBF kernel. Features share one scale, that of their spread: a
    direction that the encoder hardly uses stays small, and the penalty hides it.

    Raises:
        LcmaeError: fewer than two samples to fit or to test.
    """
    if min(fitted, len(features) - fitted) < 2:
        raise LcmaeError(f"fitted: got {fitted} of {len(features)} samples, expected 2 or more to fit and to test")
    features = features - features[:fitted].mean(axis=0)
    features = features / (features[:fitted].std() + 1e-12)
    mean = targets[:fitted].mean(axis=0)
    from sklearn.kernel_ridge import KernelRidge  # half a second, which few who import this module need

    regressor = KernelRidge(alpha=RIDGE, kernel="rbf", gamma=REACH / features.shape[1])
    regressor.fit(features[:fitted], targets[:fitted] - mean)
    rest = targets[fitted:]
    error = np.square(regressor.predict(features[fitted:]) + mean - rest).mean(axis=0)
    return 1 - error / rest.var(axis=0)


def readout(
    tokens: Float[np.ndarray, "M T D"], visible: Sequence[str], below: Sequence[str]
) -> Float[np.ndarray, "M features"]:
    """What the regressor of a latent reads of the encoder's output, whatever the mask: three vectors of width D.

    The CLS token, the mean of all visible leaves' tokens, and the mean of those below the latent (of all, if none is).
    """
    mine = [1 + place for place, leaf in enumerate(visible) if leaf in below] or list(range(1, tokens.shape[1]))
    return np.concatenate([tokens[:, 0], tokens[:, 1:].mean(axis=1), tokens[:, mine].mean(axis=1)], axis=1)


def measure_recovery(
    model: HierarchicalModel, trained: MAE, untrained: MAE, setting: Setting, seed: int, probes: Probes
) -> Recovery:
    """Every latent under `probes.masks` fixed masks drawn from `seed`, on images that no training has seen."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    sample = model.sample(probes.fitted + probes.tested, generator)
    by_mask = []
    for _ in range(probes.masks):
        mask = leaf_mask(model, setting, generator)
        order = torch.randperm(len(sample.patches), generator=generator).numpy()
        tokens = [visible_tokens(model, mae, sample, mask) for mae in (trained, untrained)]
        with threadpool_limits(1, user_api="blas"):  # on two cores twice as fast: the kernels are small
            by_mask.append(recovery_of_mask(model, tokens, sample, mask, order, probes.fitted))
    names = tuple(by_mask[0])
    levels = np.array([len(model.tree.path(name)) - 1.0 for name in names])
    return Recovery(names, levels, *np.array([[of[name] for name in names] for of in by_mask]).transpose(2, 0, 1))


def recovery_of_mask(
    model: HierarchicalModel, tokens: list[np.ndarray], sample: Sample, mask: Mask, order: np.ndarray, fitted: int
) -> dict[str, tuple[float, ...]]:
    """The `QUANTITIES` of each latent that has noise of its own."""
    tree = model.tree
    visible = [tree.leaves[i] for i in mask.keep[0].tolist()]
    known = determined(tree, identifiable_set(tree, hidden_leaves(tree, mask)).latents)
    seen, quantities = determined(tree, visible), {}
    for name in tree.latents:
        own, whole = sample.noise[name].numpy(), sample.latents[name].numpy()
        if not own.shape[1]:
            continue
        with_trained, with_untrained = (readout(part, visible, tree.leaves_below(name)) for part in tokens)
        r2 = held_out_r2(with_trained, np.concatenate([own, own[order], whole], axis=1), fitted)
        size = own.shape[1]
        start = held_out_r2(with_untrained, own, fitted)
        parts = (r2[:size], start, r2[size : 2 * size], r2[2 * size :])
        quantities[name] = (float(name in known), float(name in seen), *(float(part.mean()) for part in parts))
    return quantities


@torch.no_grad()
def visible_tokens(model: HierarchicalModel, mae: MAE, sample: Sample, mask: Mask) -> np.ndarray:
    """What an encoder makes of the visible patches of every image under one mask, CLS first."""
    keep = mask.keep.expand(len(sample.patches), -1)
    return mae.encoder(images_of(model, sample.patches), keep).numpy()  # (M, T, D)


def level_means(values: Means, levels: Levels) -> Float[np.ndarray, "settings levels"]:
    """Means over the latents of each level, the root first."""
    return np.stack([values[:, levels == level].mean(axis=1) for level in np.unique(levels)], axis=1)


def rank_correlation(levels: Levels, predicted: Means, measured: Means) -> float:
    """Spearman's correlation, over settings and levels, of the mean of a number with the mean prediction.

    Means are rounded to nine digits: shares that are equal must tie, whatever the order in which they were summed.
    """
    from scipy.stats import rankdata  # half a second, which few who import this module need

    ranks = [rankdata(level_means(values, levels).round(9)) for values in (predicted, measured)]
    return float(np.corrcoef(ranks)[0, 1])


def correlation_gain(levels: Levels, predicted: Means, measured: Means, control: Means) -> float:
    """Rank correlation of a number with the prediction above that of a control."""
    return rank_correlation(levels, predicted, measured) - rank_correlation(levels, predicted, control)


def mean_of_chosen(levels: Levels, chosen: Means, held: Means) -> float:
    """The mean of a number over chosen latents, of which only means over masks and seeds are known: `chosen`, the share
    of masks that choose a latent, and `held`, the mean of the number times 1 if the mask chooses it, else 0.

    A level's mean is sum(held) / sum(chosen), over its latents and all settings. Levels below the root count equally,
    where anything is chosen: masks of another unit have identified latents at other levels, and a mean over all latents
    would compare levels instead. nan if nothing is chosen.
    """
    below = [levels == level for level in np.unique(levels) if level]
    means = [held[:, one].sum() / chosen[:, one].sum() for one in below if chosen[:, one].any()]
    return float(np.mean(means)) if means else float("nan")


def gap(levels: Levels, kept: Means, dropped: Means, held_kept: Means, held_dropped: Means) -> float:
    """`mean_of_chosen` of the visible latents that are identified less that of those that are not."""
    return mean_of_chosen(levels, kept, held_kept) - mean_of_chosen(levels, dropped, held_dropped)


def gap_gain(levels: Levels, kept: Means, dropped: Means, *held: Means) -> float:
    """`gap` of the trained encoder less that of the untrained; held: of the kept and the dropped, trained then not."""
    return gap(levels, kept, dropped, *held[:2]) - gap(levels, kept, dropped, *held[2:])
