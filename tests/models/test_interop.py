"""Checkpoints of the public MAE code, Hugging Face (both layouts), timm and our own load into one class, and their
predictions agree to 1e-5 with an independent reading of the public behaviour, transformers and timm, given the same
noise."""

import argparse
import json
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from lcmae_core.config import LcmaeError, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.inputs import renormalize
from lcmae_core.models.interop import load_mae
from lcmae_core.models.masking import random_mask
from lcmae_core.models.pretrained import images_for
from tests.models.reference import (
    SMALL,
    draw,
    gap,
    hugging_face,
    official_state,
    our_loss,
    predict,
    public_forward,
    stirred,
)


@pytest.mark.parametrize("ratio", [0.75, 0.5])
def test_an_official_file_predicts_like_the_public_code(tmp_path, ratio):
    weights = official_state()
    content = {
        "model": weights, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "scaler": {"scale": 65536.0}, "args": argparse.Namespace(model="mae_vit_tiny", blr=1e-3),
    }  # fmt: skip
    torch.save(content, tmp_path / "official.pth")
    model = load_mae(tmp_path / "official.pth", encoder_heads=3, decoder_heads=16)
    assert (model.arch.heads, model.arch.decoder_heads, model.arch.depth, model.arch.decoder_depth) == (3, 16, 2, 2)
    images, noise = draw(model)
    pred, hidden = public_forward(weights, images, noise, ratio, 3, 16)
    assert pred.abs().mean() > 0.1
    assert gap(predict(model, images, noise, ratio), pred) < 1e-5
    assert torch.equal(random_mask(2, 16, ratio, noise=noise).hidden, hidden.bool())


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_encoder_only_file_encodes_but_refuses_to_reconstruct(tmp_path, wrapped):
    weights = official_state(decoder=False)
    torch.save({"model": weights} if wrapped else weights, tmp_path / "encoder.pth")
    model = load_mae(tmp_path / "encoder.pth", encoder_heads=3)
    images, noise = draw(model)
    assert model.decoder is None
    assert model.encoder(images).shape == (2, 17, 192)
    with pytest.raises(LcmaeError, match="encoder-only checkpoint, expected a full one"):
        predict(model, images, noise)


def test_sizes_come_from_the_weights_and_heads_from_the_caller(tmp_path):
    weights = official_state(width=64, narrow=32, patch=14, side=3, channels=1)
    torch.save({"model": weights}, tmp_path / "odd.pth")
    model = load_mae(tmp_path / "odd.pth", encoder_heads=2, decoder_heads=8)
    assert (model.image_size, model.channels, model.arch.patch_size, model.arch.mlp_ratio) == ((42, 42), 1, 14, 4.0)
    images, noise = draw(model)
    pred, _ = public_forward(weights, images, noise, 0.5, 2, 8)
    assert gap(predict(model, images, noise, 0.5), pred) < 1e-5


def test_loading_draws_nothing_and_stays_float32(tmp_path):
    torch.save({"model": {k: v.half() for k, v in official_state(depth=1).items()}}, tmp_path / "half.pth")
    state = torch.get_rng_state()
    model = load_mae(tmp_path / "half.pth", encoder_heads=3, decoder_heads=16)
    assert torch.equal(torch.get_rng_state(), state)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert [k for k, p in model.named_parameters() if not p.requires_grad] == ["encoder.pos_embed", "decoder.pos_embed"]


@pytest.mark.parametrize("norm_pix", [True, False])
def test_hugging_face_files_predict_like_transformers(tmp_path, norm_pix):
    theirs = hugging_face(norm_pix)
    theirs.save_pretrained(tmp_path)
    model = load_mae(tmp_path)
    images, noise = draw(model)
    with torch.no_grad():
        expected = theirs(images, noise=noise)
        assert gap(predict(model, images, noise), expected.logits) < 1e-5
        assert gap(our_loss(model, images, noise, norm_pix), expected.loss) < 1e-5


@pytest.mark.parametrize("layout", ["module names", "pytorch_model.bin", "one file"])
def test_every_layout_of_hugging_face_loads(tmp_path, layout):
    theirs = hugging_face()
    theirs.save_pretrained(tmp_path)
    saved, source = load_file(tmp_path / "model.safetensors"), tmp_path
    if layout == "module names":  # of the installed version, which its own files do not use
        save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "model.safetensors")
    if layout == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(saved, tmp_path / "pytorch_model.bin")
    if layout == "one file":
        source = tmp_path / "model.safetensors"
    model = load_mae(source)
    images, noise = draw(model)
    with torch.no_grad():
        assert gap(predict(model, images, noise), theirs(images, noise=noise).logits) < 1e-5


def test_an_encoder_of_hugging_face_loads_without_prefix_and_without_qkv_bias(tmp_path):
    theirs = hugging_face(qkv_bias=False).vit
    theirs.save_pretrained(tmp_path)
    model = load_mae(tmp_path)
    images, noise = draw(model)
    mask = random_mask(2, 16, 0.75, noise=noise)
    assert model.decoder is None
    with torch.no_grad():
        assert gap(model.encoder(images, mask.keep), theirs(images, noise=noise).last_hidden_state) < 1e-5


def test_a_classifier_of_timm_loads_without_its_head(tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=7, depth=1)
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    model = load_mae(tmp_path / "vit.safetensors", encoder_heads=3)
    images, _ = draw(model)
    with torch.no_grad():
        assert gap(theirs.eval().forward_features(images), model.encoder(images)) < 1e-5


def test_a_timm_name_gives_its_encoder(monkeypatch):
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=32)
    monkeypatch.setattr("lcmae_core.models.interop.load_vit", lambda name: SimpleNamespace(model=theirs))
    model = load_mae("timm:vit_tiny_patch16_224.augreg_in21k")
    images, _ = draw(model)
    assert (model.image_size, model.arch.heads, model.decoder) == ((32, 32), 3, None)
    with torch.no_grad():
        ours, expected = model.encoder(images), images_for(theirs.eval(), images)
        assert theirs.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
        assert gap(theirs.forward_features(expected), ours) < 1e-5, "it takes the collection's images, as every model"
        assert gap(theirs.forward_features(images), ours) > 0.01


@pytest.mark.parametrize("image_mean", [(0.485, 0.456, 0.406), (0.5, 0.4, 0.6)])
def test_a_preprocessor_of_hugging_face_says_what_images_its_model_takes(tmp_path, image_mean):
    theirs = hugging_face()
    theirs.save_pretrained(tmp_path)
    statistics = {"image_mean": image_mean, "image_std": [0.229, 0.224, 0.225]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(statistics))
    model = load_mae(tmp_path)
    images, noise = draw(model)
    own = renormalize(images, *statistics.values())
    with torch.no_grad():
        assert gap(predict(model, images, noise), theirs(own, noise=noise).logits) < 1e-5


@pytest.mark.parametrize("place", ["folder", "model.safetensors", "snapshots/step-00000002.safetensors"])
def test_our_runs_load_with_their_projector(tmp_path, place):
    settings = replace(SMALL, image_size=(16, 40), project_from="tokens")
    model = stirred(build_model(settings))
    (tmp_path / "settings.json").write_text(json.dumps(settings.model_dump(mode="json")))
    file = tmp_path / (place if place != "folder" else "model.safetensors")
    file.parent.mkdir(exist_ok=True)
    save_file(model.state_dict(), file)
    back = load_mae(tmp_path if place == "folder" else file)
    images, noise = draw(model)
    mask = random_mask(2, 10, 0.75, noise=noise)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(back(images, mask), model(images, mask)))
