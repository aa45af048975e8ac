"""A checkpoint that cannot be loaded, or a model that cannot be exported, is said in one line: what, got, expected,
and the nearest name; nothing in a file is ever run."""

import argparse
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcmae_core.config import Settings, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.interop import export_hf, export_official, export_timm, load_mae
from tests.errors import line_of
from tests.models.reference import official_state

SMALL = replace(Settings(), image_size=32, patch_size=8, width=64, depth=1, heads=4, decoder_width=48, decoder_depth=1)


@pytest.fixture
def official(tmp_path):
    """Save changed official weights; returns the line that loading them gives."""

    def load(change, **heads) -> str:
        weights = official_state(narrow=64, depth=2)
        change(weights)
        torch.save({"model": weights, "args": argparse.Namespace()}, tmp_path / "x.pth")
        return line_of(load_mae, tmp_path / "x.pth", **{"encoder_heads": 3, "decoder_heads": 4} | heads)

    return load


@pytest.fixture
def hf(tmp_path):
    """A Hugging Face folder, to be broken."""
    return export_hf(build_model(SMALL), tmp_path / "hf")


def reconfigure(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("blocks.1.attn.qkv.weight", "blocks.1.attn.qvk.weight"),
        ("decoder_pred.bias", "decoder_predict.bias"),
        ("norm.weight", "normal.weight"),
    ],
)
def test_a_renamed_key_is_named_with_the_nearest_expected_one(official, old, new):
    line = official(lambda weights: weights.update({new: weights.pop(old)}))
    assert f"got unexpected {new!r}" in line
    assert line.endswith(f"did you mean {old!r}?")


@pytest.mark.parametrize("key", ["blocks.0.norm2.bias", "decoder_norm.weight", "mask_token", "cls_token"])
def test_a_missing_key_is_named(official, key):
    assert f"key: {key!r} is missing in" in official(lambda weights: weights.pop(key))


@pytest.mark.parametrize("key", ["patch_embed.proj.weight", "pos_embed", "decoder_embed.weight"])
def test_a_missing_key_that_gives_a_size_is_named_with_the_nearest_there(official, key):
    line = official(lambda weights: weights.update({f"{key}_": weights.pop(key)}))
    assert f"key: {key!r} is missing in" in line
    assert line.endswith(f"nearest there: '{key}_'")


def test_an_unexpected_key_and_the_number_of_faults_are_named(official):
    line = official(lambda weights: weights.update({f"blocks.0.ls{i}.gamma": torch.ones(192) for i in (1, 2, 3)}))
    assert "got unexpected 'blocks.0.ls1.gamma'" in line
    assert "(0 missing, 3 unexpected)" in line


def test_a_wrong_shape_is_named(official):
    line = official(lambda weights: weights.update({"blocks.1.mlp.fc2.weight": torch.zeros(192, 700)}))
    assert line.startswith("blocks.1.mlp.fc2.weight: got shape (192, 700) in")
    assert line.endswith("expected (192, 768)")
    line = official(lambda weights: weights.update({"patch_embed.proj.weight": torch.zeros(192, 768)}))
    assert line == "patch_embed.proj.weight: got shape (192, 768), expected 4 dimensions"


def test_a_patch_that_is_not_square_is_named(official):
    line = official(lambda weights: weights.update({"patch_embed.proj.weight": torch.zeros(192, 3, 16, 8)}))
    assert "(192, 3, 16, 8)" in line


def test_a_grid_that_is_not_square_is_named(official):
    line = official(lambda weights: weights.update(pos_embed=torch.zeros(1, 25 - 4, 192)))
    assert "pos_embed: got 20 positions in" in line
    assert "expected a square number of patches" in line


def test_unknown_heads_must_be_said(official, tmp_path):
    line = official(lambda weights: None, decoder_heads=None)
    assert line == "decoder heads: width 64 not in the table (512: 16), give decoder_heads="
    torch.save(official_state(width=128, decoder=False), tmp_path / "e.pth")
    known = "192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16"
    assert line_of(load_mae, tmp_path / "e.pth") == (
        f"encoder heads: width 128 not in the table ({known}), give encoder_heads="
    )
    assert line_of(load_mae, tmp_path / "e.pth", encoder_heads=5) == (
        "encoder heads: got 5, expected a divisor of width 128"
    )


def test_heads_that_contradict_the_configuration_are_named(hf):
    assert line_of(load_mae, hf, encoder_heads=8).startswith("encoder_heads: got 8, expected 4")
    assert line_of(load_mae, hf, decoder_heads=8).startswith("decoder_heads: got 8, expected 4")


@pytest.mark.parametrize(
    "path", ["nowhere.pth", "no/where.pth", "/tmp/nowhere", "./facebook/vit-mae-base", "tests/vit-mae-base"]
)
def test_a_path_that_does_not_exist_is_named(path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])  # where tests/ is a folder, and so tests/vit-mae-base no hub id
    line = line_of(load_mae, path)
    assert line.startswith(f"checkpoint: got {path!r}, which does not exist")
    assert "facebook/vit-mae-base" in line


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x80\x02broken"])
def test_a_corrupt_file_is_named(tmp_path, suffix, content):
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    assert f"got {str(file)!r}, expected a readable" in line_of(load_mae, file)


def test_a_truncated_file_is_named(tmp_path):
    file = tmp_path / "x.pth"
    torch.save({"model": official_state(depth=1, decoder=False)}, file)
    file.write_bytes(file.read_bytes()[:-1000])
    assert "expected a readable PyTorch file" in line_of(load_mae, file)


class Payload:
    """What an attacker would put into a checkpoint."""

    ran = False

    def __reduce__(self):
        return (exec, ("from tests.models.test_interop_errors import Payload; Payload.ran = True",))


def test_code_in_a_file_is_named_and_not_run(tmp_path):
    torch.save({"model": official_state(depth=1, decoder=False), "args": Payload()}, tmp_path / "x.pth")
    line = line_of(load_mae, tmp_path / "x.pth")
    assert "it holds" in line
    assert "exec, which is not run: where you trust it, save its weights alone" in line
    (tmp_path / "y.pth").write_bytes(pickle.dumps(Payload()))
    assert "expected a readable PyTorch file" in line_of(load_mae, tmp_path / "y.pth")
    assert not Payload.ran


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": {}}, torch.zeros(3)])
def test_a_file_without_weights_is_named(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    assert "without weights, expected a state dict" in line_of(load_mae, tmp_path / "x.pth")


def test_weights_of_something_else_are_named(tmp_path):
    save_file({"layer1.0.conv1.weight": torch.zeros(2)}, tmp_path / "x.safetensors")
    line = line_of(load_mae, tmp_path / "x.safetensors")
    assert "with keys 'layer1.0.conv1.weight', expected those of a masked autoencoder" in line


def test_folders_that_lack_something_are_named(tmp_path, hf):
    assert "expected settings.json (a run) or config.json (ViTMAE) in it" in line_of(load_mae, tmp_path)
    (tmp_path / "settings.json").write_text(json.dumps(SMALL.model_dump(mode="json")))
    assert "without weights, expected model.safetensors in it" in line_of(load_mae, tmp_path)
    weights = hf / "model.safetensors"
    (hf / "config.json").rename(tmp_path / "elsewhere.json")
    assert "without config.json, expected it beside" in line_of(load_mae, weights)
    (tmp_path / "elsewhere.json").rename(hf / "config.json")
    weights.unlink()
    assert "without weights, expected model.safetensors or pytorch_model.bin in it" in line_of(load_mae, hf)


def test_our_weights_without_settings_or_with_broken_ones_are_named(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    save_file(build_model(SMALL).state_dict(), folder / "model.safetensors")
    assert "without settings.json" in line_of(load_mae, folder / "model.safetensors")
    (folder / "settings.json").write_text("{")
    assert "expected it as it was written" in line_of(load_mae, folder)
    (folder / "settings.json").write_text("[]")
    assert "got a list" in line_of(load_mae, folder)
    (folder / "settings.json").write_text(json.dumps(replace(SMALL, depth=2).model_dump(mode="json")))
    assert "key: 'encoder.blocks.1.norm1.weight' is missing" in line_of(load_mae, folder)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model_type": "vit"}, "model_type: got 'vit' in"),
        ({"hidden_act": "relu"}, "hidden_act: got 'relu' in"),
        ({"image_size": [32, 64]}, "image_size: got [32, 64] in"),
        ({"hidden_size": "wide"}, "hidden_size: got 'wide' in"),
        ({"patch_size": 7}, "patch_size: got 7 in"),
        ({"decoder_intermediate_size": 100}, "decoder_intermediate_size: got 100 in"),
        ({"hidden_size": 68, "intermediate_size": 272}, "vit.embeddings.cls_token: got shape (1, 1, 64) in"),
        ({"num_hidden_layers": 2}, "key: 'vit.encoder.layer.1.layernorm_before.weight' is missing"),
        ({"qkv_bias": False}, "qkv_bias: got False in"),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(hf, changes, line):
    reconfigure(hf, **changes)
    assert line_of(load_mae, hf).startswith(line)


def test_a_renamed_key_of_hugging_face_is_named_as_it_is_there(hf):
    weights = load_file(hf / "model.safetensors")
    weights["vit.encoder.layer.0.attention.attention.keys.weight"] = weights.pop(
        "vit.encoder.layer.0.attention.attention.key.weight"
    )
    save_file(weights, hf / "model.safetensors")
    line = line_of(load_mae, hf)
    assert line.endswith("did you mean 'vit.encoder.layer.0.attention.attention.key.weight'?")


def test_a_hub_that_does_not_answer_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    line = line_of(load_mae, "facebook/vit-mae-base-that-is-not-cached")
    assert line.startswith("hub: got no answer for 'facebook/vit-mae-base-that-is-not-cached'")
    assert "get https://huggingface.co/facebook/vit-mae-base-that-is-not-cached/resolve/main/config.json and " in line
    line = line_of(load_mae, "timm:vit_base_patch16_224.mae")
    assert line.startswith("hub: got no answer for 'timm/vit_base_patch16_224.mae'")
    assert line.endswith("data/checkpoints/timm--vit_base_patch16_224.mae")


def test_an_unknown_timm_name_is_named_with_the_nearest():
    assert line_of(load_mae, "timm:vit_bse_patch16_224.mae") == (
        "timm: unknown model 'vit_bse_patch16_224.mae': did you mean 'vit_base_patch16_224.mae'?"
    )
    assert "unknown model 'nonsense'" in line_of(load_mae, "timm:nonsense")


def test_what_cannot_be_exported_is_named(tmp_path):
    wide = build_model(replace(SMALL, image_size=(16, 32)))
    for export, whose in ((export_hf, "Hugging Face ViTMAE"), (export_official, "facebookresearch/mae")):
        line = line_of(export, wide, tmp_path / "x.pth")
        assert line == f"image size: got (16, 32), expected square images, the only ones that {whose} has"
    model = build_model(SMALL)
    model.decoder = torch.nn.Identity()
    assert line_of(export_hf, model, tmp_path / "x").startswith("decoder: got Identity, expected a transformer")


def test_a_wrong_suffix_is_named(tmp_path):
    model = build_model(SMALL)
    line = line_of(export_timm, model, tmp_path / "x.safetensor")
    assert line.startswith("path: got suffix '.safetensor' in")
    assert line.endswith("did you mean '.safetensors'?")
    assert "expected one of: .pth, .pt, .bin" in line_of(export_official, model, tmp_path / "x.safetensors")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    assert "expected a folder that can be written" in line_of(export_hf, build_model(SMALL), tmp_path / "file" / "hf")
