"""Recovery is measured as it is said.

Claims: R^2 of a latent that is in the features is near 1, exactly 1 minus error over variance, and about 0 for a
shuffled one; a readout reads the leaves below the latent; training lowers Eq. 1 and is a function of the seed; the
smoke recipe runs through with the predictions of the graph; the statistics of C19, made of means over masks and seeds,
are those of a slow loop over latents; errors.
"""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.kernel_ridge import KernelRidge

from lcmae_core.analysis import recovery as rec
from lcmae_core.analysis.identifiability import determined, identifiable_set
from lcmae_core.config import LcmaeError
from lcmae_core.data.hierarchical import HierarchicalModel
from lcmae_core.models.masking import mask_from_hidden
from lcmae_core.models.patches import patchify
from lcmae_core.studies.latents import SETTINGS, Setting, recipe
from lcmae_core.training.latents import images_of, new_mae, train_on_latents
from tests.loops import over

PLAN = recipe("smoke")
MODEL = HierarchicalModel(PLAN.hierarchy)


def test_r2_of_a_perfect_and_a_shuffled_latent():
    draw = np.random.default_rng(0)
    features = draw.normal(size=(900, 4))
    order = draw.permutation(900)
    bent = np.tanh(features[:, :2]) + 3
    r2 = rec.held_out_r2(features, np.concatenate([features[:, :2], bent, bent[order]], axis=1), 600)
    assert r2[:2].min() > 0.99
    assert r2[2:4].min() > 0.95
    assert abs(r2[4:]).max() < 0.1


def test_r2_is_one_minus_error_over_variance():
    draw = np.random.default_rng(1)
    features, target = draw.normal(size=(60, 3)), draw.normal(size=(60, 1))
    scaled = (features - features[:40].mean(0)) / (features[:40] - features[:40].mean(0)).std()
    fit = KernelRidge(alpha=rec.RIDGE, kernel="rbf", gamma=rec.REACH / 3)
    fit.fit(scaled[:40], target[:40] - target[:40].mean())
    pred = fit.predict(scaled[40:])[:, 0] + target[:40].mean()
    error = sum((p - t) ** 2 for p, t in zip(pred, target[40:, 0]))
    total = sum((t - target[40:, 0].mean()) ** 2 for t in target[40:, 0])
    assert rec.held_out_r2(features, target, 40)[0] == pytest.approx(1 - error / total)


def test_a_direction_hardly_used_counts_as_not_held():
    draw = np.random.default_rng(2)
    features = draw.normal(size=(900, 20))
    features[:, 0] *= 0.03
    r2 = rec.held_out_r2(features, features[:, :2], 600)
    assert r2[0] < 0.1 < 0.6 < r2[1]


def test_readout_by_hand():
    tokens = np.array([[[1.0], [2.0], [4.0], [9.0]]])  # CLS and the tokens of three visible leaves
    assert rec.readout(tokens, ["p", "q", "r"], ["q", "r", "s"]).tolist() == [[1.0, 5.0, 6.5]]
    assert rec.readout(tokens, ["p", "q", "r"], ["s"]).tolist() == [[1.0, 5.0, 5.0]]


def test_images_hold_the_leaves_in_the_order_of_the_patches(generator):
    patches = MODEL.sample(2, generator).patches
    assert torch.equal(patchify(images_of(MODEL, patches), 4), patches)


def test_training_learns_and_follows_its_seed():
    plan = PLAN.optim.model_copy(update={"steps": 40})
    first = train_on_latents(MODEL, PLAN.arch, plan, 0.5, 1, seed=0)
    again = train_on_latents(MODEL, PLAN.arch, plan.model_copy(), 0.5, 1, seed=0)
    assert first.loss == again.loss
    assert first.loss != train_on_latents(MODEL, PLAN.arch, plan, 0.5, 1, seed=1).loss
    assert first.loss != train_on_latents(MODEL, PLAN.arch, plan, 0.5, 2, seed=0).loss
    assert np.mean(first.loss[-5:]) < 0.9 * np.mean(first.loss[:5])
    start, end = new_mae(MODEL, PLAN.arch, 0).state_dict(), first.mae.state_dict()
    assert not torch.equal(start["encoder.cls_token"], end["encoder.cls_token"])


def test_the_smoke_experiment_has_the_predictions_of_the_graph():
    maes = [new_mae(MODEL, PLAN.arch, seed).eval() for seed in (0, 1)]
    found = rec.measure_recovery(MODEL, *maes, SETTINGS[1], 0, PLAN.probes)
    assert found.names == MODEL.tree.latents
    assert found.levels.tolist() == [len(MODEL.tree.path(name)) - 1 for name in found.names]
    assert {getattr(found, q).shape for q in rec.QUANTITIES} == {(PLAN.probes.masks, len(found.names))}
    assert (found.predicted <= found.visible).all(), "only what can be seen is identified"
    assert (found.predicted[:, 0] == 1).all(), "the root is"
    assert (found.shuffled < 0.5).all()
    assert (found.trained <= 1).all()


def test_a_mask_is_read_as_hidden_not_as_visible(monkeypatch):
    hidden = torch.zeros(1, 16, dtype=torch.bool)
    hidden[0, [0, 1]] = True
    mask = mask_from_hidden(hidden)
    assert rec.hidden_leaves(MODEL.tree, mask) == ("x.0.0", "x.0.1")
    sample = MODEL.sample(60, torch.Generator().manual_seed(0))
    tokens = [rec.visible_tokens(MODEL, new_mae(MODEL, PLAN.arch, seed).eval(), sample, mask) for seed in (0, 1)]
    found = rec.recovery_of_mask(MODEL, tokens, sample, mask, np.arange(60), 40)
    known = determined(MODEL.tree, identifiable_set(MODEL.tree, ("x.0.0", "x.0.1")).latents)
    assert {name for name, values in found.items() if values[0] == 1} == known
    dark = [name for name, values in found.items() if values[1] == 0]
    assert dark == [name for name in MODEL.tree.latents if set(MODEL.tree.leaves_below(name)) <= {"x.0.0", "x.0.1"}]


def test_means_and_rank_correlation_by_hand():
    levels = np.array([1.0, 1.0, 2.0])
    predicted = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    trained = np.array([[0.9, 0.5, 0.8], [0.1, 0.1, 0.3]])
    assert np.allclose(rec.level_means(trained, levels), [[0.7, 0.8], [0.1, 0.3]])
    ranks = [[3, 4, 1.5, 1.5], [3, 4, 1, 2]]  # of the predictions 0.5, 1, 0, 0 and of the means above
    correlation = np.corrcoef(ranks)[0, 1]
    assert rec.rank_correlation(levels, predicted, trained) == pytest.approx(correlation)
    assert rec.correlation_gain(levels, predicted, trained, -trained) == pytest.approx(2 * correlation)
    assert rec.mean_of_chosen(levels, predicted, predicted * trained) == pytest.approx(0.85)
    dropped = 1 - predicted
    assert rec.mean_of_chosen(levels, dropped, dropped * trained) == pytest.approx((0.7 / 3 + 0.3) / 2)
    assert np.isnan(rec.mean_of_chosen(levels, 0 * predicted, 0 * trained))
    parts = predicted, dropped, predicted * trained, dropped * trained
    assert rec.gap(levels, *parts) == pytest.approx(0.85 - (0.7 / 3 + 0.3) / 2)
    assert rec.gap_gain(levels, *parts, *parts[2:]) == 0


def drawn(rng, levels):
    """Recoveries of six settings, three masks and two seeds, with ties and latents that cannot be seen: (R, M, L)."""
    shape = (6, 6, len(levels))
    visible = (rng.random(shape) < 0.8).astype(float)
    predicted = visible * (rng.random(shape) < rng.random((6, 1, 1)))
    return {"visible": visible, "predicted": predicted, "trained": rng.normal(size=shape)}


def loop_mean(found, levels, identified):
    """The mean over the latents that are visible and (not) identified, one by one; levels below the root equally."""
    means = []
    for level in {int(level) for level in levels if level}:
        numbers = [
            found["trained"][place]
            for place in np.ndindex(found["trained"].shape)
            if levels[place[2]] == level and found["visible"][place] and found["predicted"][place] == identified
        ]
        means += [sum(numbers) / len(numbers)] if numbers else []
    return sum(means) / len(means)


@over("seed", range(5))
def test_statistics_of_means_are_those_of_a_slow_loop(seed):
    rng, levels = np.random.default_rng(seed), np.array([0.0, 1, 1, 2, 2, 2, 2])
    found = drawn(rng, levels)
    for identified in (0, 1):
        chosen = found["visible"] * (found["predicted"] == identified)
        chosen[..., 3:] *= seed > 0  # a level without any
        means = [chosen.mean(1), (chosen * found["trained"]).mean(1)]
        shown = found | {"visible": found["visible"] * ((levels < 2) | (seed > 0))}
        assert rec.mean_of_chosen(levels, *means) == pytest.approx(loop_mean(shown, levels, identified))
    pairs = []
    for setting in range(6):
        for level in (0, 1, 2):
            here = [(m, z) for m in range(6) for z in range(7) if levels[z] == level]
            pairs.append([np.mean([found[q][setting, m, z] for m, z in here]) for q in ("predicted", "trained")])
    expected = spearmanr(*zip(*pairs)).statistic
    means = [found[q].mean(1) for q in ("predicted", "trained")]
    assert rec.rank_correlation(levels, *means) == pytest.approx(expected)


def test_equal_shares_tie_however_they_were_summed():
    levels, trained = np.array([0.0, 1.0, 1.0]), np.array([[0.1, 0.2, 0.4], [0.5, 0.6, 0.7]])
    exact = np.array([[0.3, 0.3, 0.3], [0.15, 0.15, 0.15]])
    summed = np.array([[0.1 + 0.2, 0.3, 0.3], [0.15, 0.15, 0.15]])
    assert summed[0, 0] != exact[0, 0]
    assert rec.rank_correlation(levels, summed, trained) == rec.rank_correlation(levels, exact, trained)


def test_errors():
    with pytest.raises(LcmaeError, match=r"fitted: got 59 of 60 samples, expected 2 or more"):
        rec.held_out_r2(np.zeros((60, 2)), np.zeros((60, 1)), 59)
    with pytest.raises(LcmaeError, match="unknown profile 'quik': did you mean 'quick'"):
        recipe("quik")
    with pytest.raises(LcmaeError, match=r"mask ratio: got 0\.99"):
        rec.leaf_mask(MODEL, Setting(0.99, 1), torch.Generator())
    with pytest.raises(LcmaeError, match="mask unit: got 3, expected a divisor of the 4x4 grid"):
        rec.leaf_mask(MODEL, Setting(0.5, 3), torch.Generator())
