"""Claims: layer decay, drop path, mixup targets and the first classifier are those worked out by hand; fine-tuning is
done once and goes on bit-equal; averaged weights are the ones judged; every setting changes the weights; one code
trains from scratch; a failure is one line.
"""

import numpy as np
import pytest
import torch

from lcmae_core.config import LcmaeError, replace
from lcmae_core.config.downstream import RECIPES, FineTune, vary
from lcmae_core.data.loader import Batch
from lcmae_core.models.encoder import Encoder
from lcmae_core.models.initialize import initialize_encoder
from lcmae_core.store.runs import MODEL
from lcmae_core.training import downstream
from lcmae_core.training.downstream import Origin
from lcmae_core.training.finetune import build_adamw, build_classifier, fine_tune, from_scratch
from lcmae_core.training.guards import Stopped
from lcmae_core.training.mixing import mix_batch
from tests.data.made_pictures import write_folder
from tests.store.test_evaluations import OTHER
from tests.training.helpers import weights

CLASSES = [f"{part}/{name}/{i}.png" for part in ("train", "val") for name in ("a", "b", "c") for i in range(4)]
SHORT = vary(RECIPES["v2"], batch_size=4, steps=3, base_lr=0.1, warmup=0.34)


@pytest.fixture
def pictures(tiny, tmp_path):
    return replace(tiny, source=f"folder:{write_folder(tmp_path / 'pictures', CLASSES)}", workers=0, depth=2)


def encoder_of(depth=12):
    encoder = Encoder((32, 32), 16, 3, 32, depth, 2)
    initialize_encoder(encoder, torch.Generator().manual_seed(0))
    return encoder.eval()


def test_layer_decay_by_hand():
    recipe, model = FineTune(), build_classifier(encoder_of(), 5, FineTune())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)]: group for group in build_adamw(model, recipe).param_groups for p in group["params"]}
    assert set(found) == set(names.values())
    scale = {name: group["lr_scale"] for name, group in found.items()}
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"):
        assert scale[name] == pytest.approx(0.75**13)
    for block in range(12):
        found_here = {v for name, v in scale.items() if name.startswith(f"blocks.{block}.")}
        assert list(found_here) == [pytest.approx(0.75 ** (12 - block))]
    assert {scale[n] for n in ("head.weight", "head.bias", "fc_norm.weight", "fc_norm.bias")} == {1.0}
    free = {name for name, group in found.items() if group["weight_decay"] == 0}
    assert free == {n for n, p in model.named_parameters() if p.ndim <= 1} | {"cls_token", "pos_embed"}
    assert {group["weight_decay"] for group in found.values()} == {0.0, 0.05}


def test_rates_keep_their_layer_scale():
    recipe, model = vary(SHORT, steps=10, warmup=0.5, min_lr=0.0), build_classifier(encoder_of(2), 5, FineTune())
    optimizer = build_adamw(model, recipe)
    rates = downstream.schedule(optimizer, recipe, 10)
    rates.step_update(1)  # a fifth of the warm-up
    peaks = [group["lr"] / group["lr_scale"] for group in optimizer.param_groups]
    assert peaks == [pytest.approx(recipe.lr / 5)] * len(peaks)


def test_drop_path_grows_linearly_with_depth():
    model = build_classifier(encoder_of(), 5, FineTune())
    found = [[getattr(part, "drop_prob", 0.0) for part in (b.drop_path1, b.drop_path2)] for b in model.blocks]
    assert found == [[pytest.approx(0.1 * b / 11)] * 2 for b in range(12)]


def test_the_first_classifier_is_the_encoder_and_a_small_head(generator):
    encoder, recipe = encoder_of(2), FineTune()
    model, images = build_classifier(encoder, 100, recipe).eval(), torch.randn(2, 3, 32, 32, generator=generator)
    encoder.norm = torch.nn.Identity()
    mean = encoder(images)[:, 1:].mean(dim=1)
    expected = torch.nn.functional.layer_norm(mean, (32,), eps=1e-6) @ model.head.weight.T
    assert torch.allclose(model(images), expected, atol=1e-7)
    assert model.head.weight.std().item() == pytest.approx(2e-5, rel=0.1)
    assert not model.head.bias.any()
    assert model.pos_embed.requires_grad


def labelled(labels, size=32):
    count = len(labels)
    images = torch.arange(count).float()[:, None, None, None].expand(count, 3, size, size).clone()
    return Batch(images, torch.zeros(count).long(), torch.arange(count), torch.tensor(labels))


def test_smoothed_labels_by_hand():
    plain = mix_batch(labelled([0, 2]), vary(SHORT, mixup=0.0, cutmix=0.0), 4, 0, 0)
    assert plain.targets.tolist() == [
        pytest.approx([0.925, 0.025, 0.025, 0.025]),
        pytest.approx([0.025, 0.025, 0.925, 0.025]),
    ]
    assert torch.equal(plain.images, labelled([0, 2]).images)


@pytest.mark.parametrize("kind", [{"mixup": 0.0}, {"cutmix": 0.0}])
def test_targets_follow_what_was_mixed(kind):
    """Picture i has the value i everywhere: its partner 3 - i shows in the mean, whatever was mixed how."""
    batch, shares = labelled([0, 1, 2, 3]), []
    for step in range(6):
        mixed = mix_batch(batch, vary(SHORT, smoothing=0.0, **kind), 4, 0, step)
        share = mixed.targets[0, 0].item()
        assert mixed.images.mean(dim=(1, 2, 3)).tolist() == pytest.approx(
            [share * i + (1 - share) * (3 - i) for i in range(4)], abs=1e-4
        )
        expected = torch.eye(4) * share + torch.eye(4).flip(0) * (1 - share)
        assert torch.allclose(mixed.targets, expected, atol=1e-6)
        assert (len(mixed.images[0].unique()) <= 2) if "mixup" in kind else (len(mixed.images[0].unique()) == 1)
        shares.append(share)
    assert len(set(shares)) > 3
    again = mix_batch(batch, vary(SHORT, smoothing=0.0, **kind), 4, 0, 5)
    assert torch.equal(again.images, mixed.images)
    assert torch.equal(batch.images, labelled([0, 1, 2, 3]).images)  # mixed in a copy


def test_an_odd_batch_cannot_be_mixed():
    with pytest.raises(LcmaeError, match="batch_size: got 3, expected an even number"):
        mix_batch(labelled([0, 1, 2]), SHORT, 4, 0, 0)
    assert len(mix_batch(labelled([0, 1, 2]), vary(SHORT, mixup=0.0, cutmix=0.0), 4, 0, 0).images) == 3


def test_learns_and_is_trained_once(pictures):
    plain = {"rand_augment": None, "erase": 0.0, "mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0, "smoothing": 0.0}
    easy = vary(SHORT, plain, steps=60, base_lr=0.3, layer_decay=1.0, flip=False, crop_scale=(0.9, 1.0))
    first = fine_tune(Origin.untrained(pictures), easy)
    _, losses = first.curve("loss")
    assert losses[-1] < 0.8 * losses[0]
    assert losses[0] == pytest.approx(np.log(3), abs=0.01)  # a head of nearly nothing says every class is as likely
    stamp = (first.path / MODEL).stat().st_mtime_ns
    again = fine_tune(Origin.untrained(pictures), easy)
    assert (again.path / MODEL).stat().st_mtime_ns == stamp
    assert again.accuracy == again.results["accuracy"] == again.predictions.right.mean()
    assert again.predictions.label.tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("ema", [None, 0.5])
def test_an_interrupted_run_goes_on_bit_equal(pictures, tmp_path, terminated_at, ema):
    recipe = vary(SHORT, steps=5, ema=ema)
    whole = fine_tune(Origin.untrained(replace(pictures, out=str(tmp_path / "whole"), workers=2)), recipe)
    with terminated_at(2), pytest.raises(Stopped, match="stopped at step 2 of 5"):
        fine_tune(Origin.untrained(pictures), recipe)
    again = fine_tune(Origin.untrained(pictures), recipe)
    assert weights(again) == weights(whole)
    assert np.array_equal(again.predictions.confidence, whole.predictions.confidence)


def test_averaged_weights_are_judged(pictures):
    """A decay of nearly 1 leaves the average where training began: the small head, whatever was learnt."""
    plain, still = (
        fine_tune(Origin.untrained(pictures), vary(SHORT, ema=ema, base_lr=1.0)) for ema in (None, 0.999999)
    )
    first = build_classifier(Origin.untrained(pictures).load(), 3, SHORT)
    kept, moved = still.weights(), plain.weights()
    assert all(torch.allclose(kept[name], value, atol=1e-4) for name, value in first.state_dict().items())
    assert not torch.allclose(moved["head.weight"], first.state_dict()["head.weight"], atol=1e-4)
    assert still.predictions.confidence == pytest.approx(np.full(12, 1 / 3), abs=1e-3)
    assert plain.predictions.confidence.max() > 1 / 3 + 5e-3


def test_every_setting_of_fine_tuning_has_an_effect(pictures):
    base = vary(SHORT, clip_grad=0.1, ema=0.5, drop_path=0.5)
    changes = {**OTHER, "mixup": 3.0, "cutmix": 0.1, "ema": 0.9, "clip_grad": 0.01, "batch_size": 6, "epochs": 2.0,
               "crop_ratio": (1.0, 1.0), "warmup": 0.0, "erase": 1.0}  # fmt: skip
    leaves = set(FineTune.model_fields)
    found = {leaf: fine_tune(Origin.untrained(pictures), vary(base, {leaf: changes[leaf]})) for leaf in leaves}
    plain = weights(fine_tune(Origin.untrained(pictures), base))
    assert not [leaf for leaf, evaluation in found.items() if weights(evaluation) == plain]


def test_from_scratch_is_the_same_code(pictures):
    recipe = vary(RECIPES["scratch"], SHORT.model_dump(include={"batch_size", "base_lr", "warmup"}) | {"steps": 2})
    assert from_scratch(pictures, recipe).path == fine_tune(Origin.untrained(pictures), recipe).path
    assert recipe.layer_decay == 1


def test_what_cannot_be_trained_is_one_line(pictures):
    encoder = Origin.untrained(pictures).load()
    for change, line in (
        ({"patch_size": 4}, "patch_size: got 4, expected 8, that of the checkpoint"),
        ({"image_size": 64}, "image_size: got "),
        ({"channels": 1}, "channels: got 1, expected 3"),
    ):
        with pytest.raises(LcmaeError, match=line) as caught:
            fine_tune(Origin.of_model(encoder, pictures), SHORT, settings=replace(pictures, change))
        assert "\n" not in str(caught.value)
    with pytest.raises(LcmaeError, match="batch_size: got 14 for 12 training images, expected at most 12"):
        fine_tune(Origin.untrained(pictures), vary(SHORT, batch_size=14))
