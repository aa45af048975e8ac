"""How much of each latent the encoder of an MAE holds, against what the theorem predicts of the mask (claim C19).

Letters: S samples, F features of the encoder, d dimensions of a variable, T = 1 + K tokens, D width.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from scipy.stats import spearmanr
from sklearn.kernel_ridge import KernelRidge

from lcmae_core.analysis.identifiability import determined, identifiable_set
from lcmae_core.config import Group, LcmaeError, Model, Optim, nearest
from lcmae_core.data.hierarchical import HierarchicalModel, Hierarchy, Sample, Tree
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask, random_mask
from lcmae_core.training.latents import images_of

RIDGE = 0.3
"""Penalty of the regressor, in units of the kernel's diagonal: what makes up a thousandth of the output's variance does
not count as held."""
REACH = 0.1
"""gamma of the RBF kernel times the number of (standardised) features."""


class Setting(NamedTuple):
    """How masks are drawn: the share that is hidden, and the side of a mask cell in patches."""

    ratio: float
    unit: int


class Probes(Group):
    """How recovery is measured."""

    masks: int = Field(3, gt=0, description="fixed masks of a trained model")
    fitted: int = Field(600, gt=1, description="images to which the regressor is fitted")
    tested: int = Field(400, gt=1, description="images on which R^2 is taken")


class Recipe(NamedTuple):
    """The whole experiment: the model of the world, the MAE, its training, and what is asked of it."""

    hierarchy: Hierarchy
    arch: Model
    optim: Optim
    settings: tuple[Setting, ...]
    seeds: int
    probes: Probes


def recipe(profile: str) -> Recipe:
    """The experiment at a profile: a binary tree over 4 x 4 patches of 4 x 4 pixels; `lab` only trains longer.

    The weight decay is high, in all of them, because Theorem 2 is about an encoder that keeps no more than it must: a
    plain MAE of 32 numbers a token has room for all 16 pixels of its patch and, decayed as usual, keeps them.

    Raises:
        LcmaeError: an unknown profile.
    """
    if profile not in _LENGTHS:
        raise LcmaeError(f"unknown profile {profile!r}: {nearest(profile, _LENGTHS)}")
    length = _LENGTHS[profile]
    world = Hierarchy(splits=((1, 2), (2, 1), (1, 2), (2, 1)), noise=(4, 3, 3, 3, 3), scale=(1.0, 1.0, 1.2, 1.6, 0.5))
    arch = Model(patch_size=4, width=32, depth=2, mlp_ratio=2.0, decoder_width=32, decoder_depth=1)
    decay = 3.0 * 320 / max(length.steps, 320)  # decay adds up over the steps
    optim = Optim(steps=length.steps, batch_size=32, base_lr=4e-2, weight_decay=decay)
    settings = tuple(Setting(ratio, unit) for unit in (1, 2) for ratio in (0.25, 0.5, 0.75))
    return Recipe(world, arch, optim, settings, length.seeds, length.probes)


class _Length(NamedTuple):
    steps: int
    seeds: int
    probes: Probes


_LENGTHS = {
    "smoke": _Length(3, 1, Probes(masks=1, fitted=40, tested=20)),
    "quick": _Length(320, 2, Probes()),
    "lab": _Length(3000, 5, Probes(masks=8, fitted=1000, tested=1000)),
    "paper": _Length(3000, 5, Probes(masks=8, fitted=1000, tested=1000)),
}


class Recovery(NamedTuple):
    """What was measured of one latent under one mask of a trained MAE. R^2 are means over the dimensions.

    predicted: 1 if the mask identifies the latent (c determines it), else 0. visible: 1 if a leaf below it is visible,
    which is all that could be known, else 0. trained, untrained: held-out R^2 of the latent's *own* noise, what it adds
    to its parent, from the trained encoder and from its initialisation. shuffled: as trained, with the latents of other
    images. whole: held-out R^2 of the latent with all that it has of its ancestors.
    """

    setting: Setting
    seed: int
    mask: int
    name: str
    level: int
    predicted: float
    visible: float
    trained: float
    untrained: float
    shuffled: float
    whole: float


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
    features: Float[np.ndarray, "S F"], targets: Float[np.ndarray, "S d"], fitted: int
) -> Float[np.ndarray, "d"]:
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
    regressor = KernelRidge(alpha=RIDGE, kernel="rbf", gamma=REACH / features.shape[1])
    regressor.fit(features[:fitted], targets[:fitted] - mean)
    rest = targets[fitted:]
    error = np.square(regressor.predict(features[fitted:]) + mean - rest).mean(axis=0)
    return 1 - error / rest.var(axis=0)


def readout(
    tokens: Float[np.ndarray, "S T D"], visible: Sequence[str], below: Sequence[str]
) -> Float[np.ndarray, "S F"]:
    """What the regressor of a latent reads of the encoder's output, whatever the mask: three vectors of width D.

    The CLS token, the mean of all visible leaves' tokens, and the mean of those below the latent (of all, if none is).
    """
    mine = [1 + place for place, leaf in enumerate(visible) if leaf in below] or list(range(1, tokens.shape[1]))
    return np.concatenate([tokens[:, 0], tokens[:, 1:].mean(axis=1), tokens[:, mine].mean(axis=1)], axis=1)


def measure_recovery(
    model: HierarchicalModel, trained: MAE, untrained: MAE, setting: Setting, seed: int, probes: Probes
) -> list[Recovery]:
    """Every latent under `probes.masks` fixed masks drawn from `seed`, on images that no training has seen."""
    generator = torch.Generator().manual_seed(10_000 + seed)
    sample = model.sample(probes.fitted + probes.tested, generator)
    found = []
    for place in range(probes.masks):
        mask = leaf_mask(model, setting, generator)
        order = torch.randperm(len(sample.patches), generator=generator).numpy()
        tokens = [_tokens(model, mae, sample, mask) for mae in (trained, untrained)]
        for name, measured in _of_mask(model, tokens, sample, mask, order, probes.fitted).items():
            level = len(model.tree.path(name)) - 1
            found.append(Recovery(setting, seed, place, name, level, *measured))
    return found


def _of_mask(
    model: HierarchicalModel, tokens: list[np.ndarray], sample: Sample, mask: Mask, order: np.ndarray, fitted: int
) -> dict[str, tuple[float, ...]]:
    """The numbers of a Recovery, from `predicted` on, for each latent that has noise of its own."""
    tree = model.tree
    visible = [tree.leaves[i] for i in mask.keep[0].tolist()]
    known = determined(tree, identifiable_set(tree, hidden_leaves(tree, mask)).latents)
    seen, found = determined(tree, visible), {}
    for name in tree.latents:
        own, whole = sample.noise[name].numpy(), sample.latents[name].numpy()
        if not own.shape[1]:
            continue
        with_trained, with_untrained = (readout(part, visible, tree.leaves_below(name)) for part in tokens)
        r2 = held_out_r2(with_trained, np.concatenate([own, own[order], whole], axis=1), fitted)
        size = own.shape[1]
        start = held_out_r2(with_untrained, own, fitted)
        parts = (r2[:size], start, r2[size : 2 * size], r2[2 * size :])
        found[name] = (float(name in known), float(name in seen), *(float(part.mean()) for part in parts))
    return found


@torch.no_grad()
def _tokens(model: HierarchicalModel, mae: MAE, sample: Sample, mask: Mask) -> np.ndarray:
    keep = mask.keep.expand(len(sample.patches), -1)
    return mae.encoder(images_of(model, sample.patches), keep).numpy()  # (S, T, D)


def level_means(found: Iterable[Recovery], quantity: str) -> dict[Setting, dict[int, float]]:
    """The mean of one number of the recoveries, by setting and level, over latents, masks and seeds."""
    values: dict[Setting, dict[int, list[float]]] = {}
    for one in found:
        values.setdefault(one.setting, {}).setdefault(one.level, []).append(getattr(one, quantity))
    return {setting: {level: float(np.mean(v)) for level, v in levels.items()} for setting, levels in values.items()}


def rank_correlation(found: Iterable[Recovery], quantity: str, *, by: str = "predicted") -> float:
    """Spearman's correlation, over settings and levels, of the mean of a number with the mean prediction."""
    found = list(found)
    said, seen = level_means(found, by), level_means(found, quantity)
    pairs = [(said[setting][level], seen[setting][level]) for setting in said for level in said[setting]]
    return float(spearmanr(*zip(*pairs)).statistic)


def mean_of(found: Iterable[Recovery], quantity: str, *, predicted: bool, visible: bool = True) -> float:
    """The mean of a number over the latents that are (not) identified and (not) visible; nan if there are none.

    Levels below the root count equally: masks of another unit have identified latents at other levels, and a mean over
    all latents would compare levels instead.
    """
    chosen = [one for one in found if one.level and one.predicted == predicted and one.visible == visible]
    levels = {one.level for one in chosen}
    means = [np.mean([getattr(one, quantity) for one in chosen if one.level == level]) for level in levels]
    return float(np.mean(means)) if means else float("nan")


class ClaimC19(NamedTuple):
    """Claim C19: MAE identifies exactly the latents that hidden and visible parts share; ratio and unit choose which.

    trained, shuffled: rank correlations with the prediction. kept, dropped: mean R^2 of visible latents that c
    determines, and that it does not. gap_untrained: kept minus dropped of the initialisation.
    """

    trained: float
    shuffled: float
    kept: float
    dropped: float
    gap_untrained: float

    @property
    def verdict(self) -> str:
        """reproduced | partly | not reproduced.

        The order must follow the graph: `trained` above 0.5 and 0.3 above `shuffled`; and training must be what made
        it: kept - dropped above 0 and above that of the initialisation. "Exactly" asks for dropped below 0.1 as well;
        without it the claim holds partly. Written after trial runs of `quick`, before any of `lab`.
        """
        gap = self.kept - self.dropped
        follows = self.trained > 0.5 and self.trained - self.shuffled > 0.3
        if not (follows and gap > max(0.0, self.gap_untrained)):
            return "not reproduced"
        return "reproduced" if self.dropped < 0.1 else "partly"


def claim_c19(found: Iterable[Recovery]) -> ClaimC19:
    """The numbers of C19 from the recoveries of an experiment."""
    found = list(found)
    kept, dropped = (mean_of(found, "trained", predicted=p) for p in (True, False))
    before = [mean_of(found, "untrained", predicted=p) for p in (True, False)]
    trained, shuffled = rank_correlation(found, "trained"), rank_correlation(found, "shuffled")
    return ClaimC19(trained, shuffled, kept, dropped, before[0] - before[1])
