"""Claims: the probe agrees with logistic regression on fixed features; LARS, warm-up and cosine step as worked out by
hand; cached and slow path agree where a crop is the whole image; a probe is trained once, goes on bit-equal after an
interruption, and refuses what it cannot judge in one line.
"""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from lcmae_core.config import LcmaeError, replace
from lcmae_core.config.downstream import LinearProbe, vary
from lcmae_core.data.sources import open_source
from lcmae_core.store.evaluations import load_evaluation
from lcmae_core.store.runs import MODEL
from lcmae_core.training.downstream import Origin, check_encoder, schedule
from lcmae_core.training.guards import Stopped
from lcmae_core.training.held_out import evaluation_loader
from lcmae_core.training.loop import pretrain
from lcmae_core.training.probe import (
    Features,
    Probe,
    build_lars,
    cached_batches,
    image_features,
    linear_probe,
    pooled,
)
from tests.data.made_pictures import write_folder
from tests.training.helpers import weights

FAST = LinearProbe(cached=True, batch_size=64, steps=6, epochs=None, base_lr=6.4 * 4)
CLASSES = [f"{part}/{name}/{i}.png" for part in ("train", "val") for name in ("a", "b", "c") for i in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pictures"), CLASSES)


@pytest.fixture
def pictures(tiny, folder):
    return replace(tiny, source=f"folder:{folder}", workers=0)


def trained(train, classes, recipe):
    probe, total = Probe(train.values.shape[1], classes), recipe.steps
    optimizer = build_lars(probe, recipe)
    rates = schedule(optimizer, recipe, total)
    for step, batch in enumerate(cached_batches(train, recipe, 0, 0, total)):
        rates.step_update(step)
        optimizer.zero_grad()
        F.cross_entropy(probe(batch.images), batch.labels).backward()
        optimizer.step()
    return probe.eval()


def regression(train, test):
    scale = StandardScaler().fit(train.values.numpy())
    model = LogisticRegression(C=10, max_iter=3000)  # without a penalty, weights of separable classes have no optimum
    model.fit(scale.transform(train.values.numpy()), train.labels.numpy())
    return model.score(scale.transform(test.values.numpy()), test.labels.numpy())


def probed(train, test, **changes):
    classes = int(train.labels.max()) + 1
    probe = trained(
        train, classes, vary(LinearProbe(), cached=True, batch_size=1000, steps=300, base_lr=1.6, **changes)
    )
    return float((probe(test.values).argmax(dim=1) == test.labels).float().mean())


def test_agrees_with_logistic_regression_on_made_features(generator):
    centres = torch.randn(5, 20, generator=generator)
    labels = torch.randint(5, (4000,), generator=generator)
    values = centres[labels] * 0.5 + torch.randn(4000, 20, generator=generator)
    values = values * torch.linspace(0.1, 30, 20) + 4  # widths and places that differ by channel
    train, test = Features(values[:2000], labels[:2000]), Features(values[2000:], labels[2000:])
    expected = regression(train, test)
    assert 0.6 < expected < 0.95
    assert probed(train, test) == pytest.approx(expected, abs=0.01)


def test_lars_steps_by_hand():
    recipe = vary(FAST, probe_decay=0.1, trust=0.01)
    probe = Probe(3, 2)
    optimizer = build_lars(probe, recipe)
    w, b = probe.head.weight.detach().double().clone(), torch.zeros(2).double()
    v, u = torch.zeros_like(w), torch.zeros_like(b)
    for step in range(3):
        g, h = torch.full((2, 3), 0.5 + step), torch.tensor([1.0, -2.0])
        probe.head.weight.grad, probe.head.bias.grad = g.clone(), h.clone()
        optimizer.step()
        ratio = 0.01 * w.norm() / (g.double().norm() + 0.1 * w.norm())
        v = 0.9 * v + ratio * (g.double() + 0.1 * w)
        u = 0.9 * u + h.double()  # no trust ratio and no decay on the bias
        w, b = w - recipe.lr * v, b - recipe.lr * u
        assert torch.allclose(probe.head.weight.double(), w, rtol=1e-5)
        assert torch.allclose(probe.head.bias.double(), b, rtol=1e-5)


def test_warm_up_and_cosine_by_hand():
    recipe = vary(FAST, batch_size=256, base_lr=2.0, min_lr=0.2, warmup=0.25, steps=40)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    rates, found = schedule(optimizer, recipe, 40), []
    for step in range(40):
        rates.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    assert found[:11] == pytest.approx([0.2 * step for step in range(11)])  # 0 at first, 2 after 10 steps
    assert found[25] == pytest.approx(1.1)  # half of the cosine: the mean of both ends
    assert found[10:] == pytest.approx([0.2 + 0.9 * (1 + math.cos(math.pi * k / 30)) for k in range(30)])


def test_tokens_and_normalisation():
    tokens = torch.arange(24.0).reshape(1, 4, 6)
    assert torch.equal(pooled(tokens, "cls"), tokens[:, 0])
    assert torch.equal(pooled(tokens, "mean"), (tokens[:, 1] + tokens[:, 2] + tokens[:, 3]) / 3)
    probe = Probe(6, 2)
    assert [name for name, _ in probe.named_parameters()] == ["head.weight", "head.bias"]
    assert probe.norm.eps == 1e-6
    assert 0.005 < Probe(400, 50).head.weight.std() < 0.0105


def test_real_features_agree_with_logistic_regression(tiny):
    tiny = replace(tiny, source="photos")
    origin = Origin.untrained(tiny)
    encoder = origin.load().eval()
    train, test = (image_features(encoder, evaluation_loader(tiny, split=s)) for s in ("train", "validation"))
    train = Features(torch.cat([train.values, test.values]), torch.cat([train.labels, test.labels]))
    order = torch.randperm(len(train.values), generator=torch.Generator().manual_seed(0))
    parts = [Features(train.values[o], train.labels[o]) for o in (order[:640], order[640:])]
    assert probed(*parts) == pytest.approx(regression(*parts), abs=0.01)


def test_cached_and_slow_path_agree_where_crops_are_whole_images(tiny, tmp_path):
    square = [f"{part}/{name}/{i}.png" for part in ("train", "val") for name in ("a", "b") for i in range(4)]
    root = tmp_path / "square"
    write_folder(root, square)
    for file in root.rglob("*.png"):
        Image.open(file).resize((32, 32)).save(file)
    settings = replace(tiny, source=f"folder:{root}", workers=0)
    recipe = vary(FAST, batch_size=8, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)
    fast = linear_probe(Origin.untrained(settings), recipe)
    slow = linear_probe(Origin.untrained(settings), vary(recipe, cached=False))
    assert fast.name != slow.name
    for name, value in fast.weights().items():
        assert torch.allclose(value.float(), slow.weights()[name].float(), atol=1e-5), name
    cut = linear_probe(Origin.untrained(settings), vary(recipe, cached=False, crop_scale=(0.1, 0.3)))
    assert not torch.allclose(cut.weights()["head.weight"], slow.weights()["head.weight"], atol=1e-5)


def test_a_probe_is_trained_once_of_a_frozen_encoder(pictures):
    run = pretrain(pictures)
    before = run.weights()
    first = linear_probe(Origin.of_run(run), vary(FAST, batch_size=16))
    stamp = (first.path / MODEL).stat().st_mtime_ns
    again = linear_probe(Origin.of_run(run), vary(FAST, batch_size=16))
    assert again.predictions.label.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert (first.path / MODEL).stat().st_mtime_ns == stamp
    assert all(torch.equal(value, before[name]) for name, value in run.weights().items())
    assert load_evaluation(first.path).accuracy == first.results["accuracy"] == first.predictions.right.mean()
    assert run.name in first.name
    assert {"steps", "seconds", "classes", "images", "device", "commit"} <= set(first.results)
    assert linear_probe(Origin.of_run(run, 0), vary(FAST, batch_size=16)).path != first.path


@pytest.mark.parametrize("cached", [True, False])
def test_an_interrupted_probe_goes_on_bit_equal(pictures, tmp_path, terminated_at, cached):
    recipe = vary(FAST, batch_size=8, cached=cached)
    whole = linear_probe(Origin.untrained(replace(pictures, out=str(tmp_path / "whole"))), recipe)
    with terminated_at(4), pytest.raises(Stopped, match="stopped at step 4 of 6"):
        linear_probe(Origin.untrained(pictures), recipe)
    again = linear_probe(Origin.untrained(pictures), recipe)
    assert weights(again) == weights(whole)
    assert np.array_equal(again.predictions.confidence, whole.predictions.confidence)
    assert [e["loss"] for e in again.history] == [e["loss"] for e in whole.history]


def test_settings_of_the_optimiser_have_an_effect(pictures):
    plain = linear_probe(Origin.untrained(pictures), vary(FAST, batch_size=8))
    for change in ({"token": "mean"}, {"momentum": 0.5}, {"trust": 0.01}, {"probe_decay": 0.5}, {"warmup": 0.5}):
        assert weights(linear_probe(Origin.untrained(pictures), vary(FAST, batch_size=8, **change))) != weights(plain)


def test_what_cannot_be_judged_is_one_line(tiny, folder, tmp_path):
    def probe(names, line, batch_size=2):
        root = write_folder(tmp_path / str(len(line)), names)
        with pytest.raises(LcmaeError, match=line) as caught:
            linear_probe(Origin.untrained(replace(tiny, source=f"folder:{root}")), vary(FAST, batch_size=batch_size))
        assert "\n" not in str(caught.value)

    probe(
        [f"{p}/a/{i}.png" for p in ("train", "val") for i in range(3)], r"labels: got one class \('a'\) in .*, expected"
    )
    probe([f"{i}.png" for i in range(6)], "labels")
    probe(CLASSES, "batch_size: got 64 for 18 training images, expected at most 18", batch_size=64)


def test_an_encoder_of_another_shape_is_one_line(tiny):
    encoder = Origin.untrained(tiny).load()
    assert check_encoder(encoder, tiny) is encoder
    with pytest.raises(LcmaeError, match="patch_size: got 4, expected 8, that of the checkpoint"):
        check_encoder(encoder, replace(tiny, patch_size=4))
    with pytest.raises(LcmaeError, match=r"image_size: got \(64, 64\), expected \(32, 32\), that of the checkpoint"):
        check_encoder(encoder, replace(tiny, image_size=64))
    with pytest.raises(LcmaeError, match="channels: got 1, expected 3, those of the checkpoint"):
        check_encoder(encoder, replace(tiny, channels=1))
    with pytest.raises(LcmaeError, match="patch_size: got 4, expected 8"):
        linear_probe(Origin.of_model(encoder, tiny), FAST, settings=replace(tiny, patch_size=4))
    assert len(open_source(tiny.data).train) >= 64
