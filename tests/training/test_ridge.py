"""Claims: the closed form is scikit-learn's ridge regression for every penalty, and the penalty chosen is the one its
cross-validation chooses; a ridge probe is an evaluation like any other, whose classifier says what it predicted; kNN
and both probes of both tokens encode every image once.
"""

import time

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeClassifier, RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold

from lcmae_core.analysis.neighbours import encoded_predictions, encoder_predictions
from lcmae_core.config import LcmaeError, replace
from lcmae_core.config.downstream import LinearProbe, RidgeProbe, vary
from lcmae_core.models.encoder import Encoder
from lcmae_core.store.checkpoint import sha256
from lcmae_core.store.evaluations import load_evaluation
from lcmae_core.store.runs import MODEL
from lcmae_core.training.downstream import Origin
from lcmae_core.training.features import Features, both_tokens, encoded, image_features
from lcmae_core.training.held_out import evaluation_loader
from lcmae_core.training.loop import pretrain
from lcmae_core.training.probe import classifier, fit_ridge, linear_probe, ridge_path
from tests.data.made_pictures import write_folder

RECIPE = RidgeProbe()
FAST = LinearProbe(cached=True, batch_size=16, steps=3, epochs=None, base_lr=6.4)


@pytest.fixture
def pictures(tiny, tmp_path):
    names = [f"{part}/{name}/{i}.png" for part in ("train", "val") for name in ("a", "b", "c") for i in range(6)]
    return replace(tiny, source=f"folder:{write_folder(tmp_path / 'pictures', names)}", workers=0)


def made(generator, classes=4, images=600, width=20):
    labels = torch.randint(classes, (images,), generator=generator)
    centres = torch.randn(classes, width, generator=generator)
    values = centres[labels] * 0.4 + torch.randn(images, width, generator=generator)
    return Features(values * torch.linspace(0.1, 30, width) + 4, labels)  # widths and places that differ


def standardised(values):
    values = values.double().numpy()
    return (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-6)


def test_the_closed_form_is_scikit_learns(generator):
    x = torch.randn(50, 8, generator=generator, dtype=torch.float64).numpy() + 3
    y = torch.randn(50, 3, generator=generator, dtype=torch.float64).numpy() - 1
    penalties = (1e-2, 1.0, 1e3)
    for penalty, line in zip(penalties, ridge_path(x, y, penalties), strict=True):
        theirs = Ridge(alpha=penalty).fit(x, y)
        assert np.allclose(line.scores(x), theirs.predict(x), atol=1e-8)
    wide = next(iter(ridge_path(x[:5], y[:5], (1.0,))))  # fewer images than features
    assert np.allclose(wide.scores(x), Ridge(alpha=1.0).fit(x[:5], y[:5]).predict(x), atol=1e-8)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_penalty_is_the_one_of_cross_validation(generator, classes):
    features = made(generator, classes)
    recipe, x, y = vary(RECIPE, penalties=(1.0, 1e5)), standardised(features.values), features.labels.numpy()
    probe, penalty = fit_ridge(features, classes, recipe, seed=3)
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    assert penalty == RidgeClassifierCV(alphas=recipe.penalties, cv=folds).fit(x, y).alpha_
    theirs = RidgeClassifier(alpha=penalty).fit(x, y)
    assert (
        probe(features.values).argmax(dim=1).numpy() == theirs.predict(x)
    ).mean() > 0.997  # a tie may fall either way
    scores = theirs.decision_function(x)
    scores = np.stack([-scores, scores], axis=1) if classes == 2 else scores
    assert np.allclose(probe(features.values).detach().numpy(), scores, atol=1e-4)


def test_a_penalty_is_needed_where_features_outnumber_images(generator):
    noisy = Features(torch.randn(60, 200, generator=generator), torch.arange(60) % 3)
    _, penalty = fit_ridge(noisy, 3, vary(RECIPE, penalties=(1e5,)), 0)
    assert penalty == 1e5
    features = made(generator)
    assert fit_ridge(features, 4, RECIPE, 0)[1] < 1e5  # and little of it where they are few
    first, again = (fit_ridge(features, 4, RECIPE, 1)[0].head.weight for _ in range(2))
    assert torch.equal(first, again)


def test_a_class_of_one_image_and_one_without_any(generator):
    features = made(generator)
    labels = features.labels.clone()
    labels[labels == 3] = 2
    labels[0] = 3
    probe, _ = fit_ridge(features._replace(labels=labels), 6, RECIPE, 0)
    said = probe(features.values).argmax(dim=1)
    assert probe.head.weight.shape == (6, 20)
    assert not {4, 5} & set(said.tolist())


def test_it_is_quick(generator):
    features = made(generator, 10, 9469, 128)
    began = time.process_time()
    fit_ridge(features, 10, RECIPE, 0)
    assert time.process_time() - began < 10  # 0.8 s of one core; the rest is room for a busy machine


def test_a_ridge_probe_is_an_evaluation(pictures):
    run = pretrain(pictures)
    found = linear_probe(Origin.of_run(run), RECIPE)
    stamp = (found.path / MODEL).stat().st_mtime_ns
    again = load_evaluation(linear_probe(Origin.of_run(run), RECIPE).path)
    assert (again.path / MODEL).stat().st_mtime_ns == stamp
    assert again.name.startswith(f"ridge-{run.name}-s0-")
    assert again.accuracy == found.results["accuracy"] == found.predictions.right.mean()
    assert found.predictions.label.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert found.results["penalty"] in RECIPE.penalties
    assert found.results["seconds"] < 3
    encoder = Origin.of_run(run).load()
    batch = next(iter(evaluation_loader(pictures).evaluation(18)))
    said = classifier(again, encoder)(batch.images).argmax(dim=1)
    assert said.tolist() == found.predictions.predicted.tolist()
    other = linear_probe(Origin.of_run(run), vary(RECIPE, token="cls"))
    assert sha256(other.path / MODEL) != sha256(found.path / MODEL)


def test_what_does_not_fit_is_one_line(pictures, tmp_path):
    with pytest.raises(LcmaeError, match="patch_size: got 4, expected 8, that of the checkpoint"):
        linear_probe(
            Origin.of_model(Origin.untrained(pictures).load(), pictures),
            RECIPE,
            settings=replace(pictures, patch_size=4),
        )
    flat = write_folder(tmp_path / "flat", [f"{i}.png" for i in range(6)])
    with pytest.raises(LcmaeError, match="labels: got none"):
        linear_probe(Origin.untrained(replace(pictures, source=f"folder:{flat}")), RECIPE)


def test_both_tokens_are_those_of_one_at_a_time(pictures):
    encoder, loader = Origin.untrained(pictures).load().eval(), evaluation_loader(pictures)
    both = both_tokens(encoder, loader)
    for token in ("cls", "mean"):
        alone = image_features(encoder, loader, token=token)
        assert torch.equal(both.of(token).values, alone.values)
        assert torch.equal(both.of(token).labels, alone.labels)
    origin = Origin.untrained(pictures)
    mean = encoded_predictions(encoded(origin, pictures))
    assert np.array_equal(mean.confidence, encoder_predictions(encoder, pictures).confidence)
    assert not np.array_equal(mean.confidence, encoded_predictions(encoded(origin, pictures), "cls").confidence)


def test_every_image_is_encoded_once(pictures, monkeypatch):
    seen, forward = [], Encoder.forward
    monkeypatch.setattr(
        Encoder, "forward", lambda self, images, keep=None: seen.append(len(images)) or forward(self, images, keep)
    )
    origin = Origin.untrained(replace(pictures, seed=11))
    settings = origin.settings
    for token in ("mean", "cls"):
        encoded_predictions(encoded(origin, settings), token)
        linear_probe(origin, vary(RECIPE, token=token))
        linear_probe(origin, vary(FAST, token=token))
    assert sum(seen) == 18 + 18
    encoded(Origin.untrained(replace(settings, seed=12)), replace(settings, seed=12))  # other weights are encoded anew
    encoded(origin, replace(settings, out=settings.runtime.out + "/elsewhere"))
    assert sum(seen) == 3 * 36
