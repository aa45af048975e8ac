"""Claims: every kind of thing that can be named is opened as what it is: the demonstration model, a run of any method,
a folder of Hugging Face, official files of MAE, DINO, DeiT and DINOv2; where its folder or name says mask ratio and
target, these are used, and what the user says wins; an untrained twin has the same shape and other weights."""

import pytest
import timm
import torch

from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.interop import export_hf
from lcmae_core.models.named import at_hand, named
from lcmae_core.store.runs import Run
from lcmae_core.studies.checkpoints.opened import dinov2_name, opened
from tests.studies.checkpoint_files import deit_file, dino_file, mae_file

BASE = replace(profile("smoke"), {"device": "cpu"})


def open_as_named(word, **own):
    return opened(at_hand(named(str(word))), BASE, own)


def made_run(folder, **changes):
    settings = replace(BASE, {"image_size": 32, "decoder_depth": 1} | changes)
    folder.mkdir()
    (folder / "settings.json").write_text(settings.model_dump_json())
    Run(folder, settings).finish(build_model(settings, classes=3).state_dict(), {"steps": 1})
    return folder


def test_official_files_say_what_their_decoder_predicts(tmp_path):
    pixels, patches = mae_file(tmp_path), mae_file(tmp_path, "mae_pretrain_vit_base_full.pth")
    assert [open_as_named(file).settings.loss.norm_pix for file in (pixels, patches)] == [False, True]
    assert open_as_named(pixels, norm_pix=True).settings.loss.norm_pix
    found = [open_as_named(make(tmp_path)) for make in (mae_file, dino_file, deit_file)]
    assert [(one.role, one.decodes) for one in found] == [("MAE", True), ("DINO", False), ("supervised", False)]
    assert len({one.sha256 for one in found}) == 3
    assert all(one.settings.grid == (4, 4) for one in found)
    mine = mae_file(tmp_path, "mine.pth")
    assert open_as_named(mine).role == "MAE", "its decoder says so"
    assert open_as_named(dino_file(tmp_path, "theirs.pth")).role == "other"
    assert open_as_named(f"dino={dino_file(tmp_path, 'theirs.pth')}").role == "DINO"


@pytest.mark.parametrize(
    ("changes", "role", "decodes"),
    [
        ({"mask_ratio": 0.5, "norm_pix": False}, "MAE", True),
        ({"decoder": "convolution"}, "MAE", False),
        ({"method": "ae"}, "other", False),
        ({"method": "supervised"}, "supervised", False),
    ],
)
def test_runs_are_what_their_settings_say(tmp_path, changes, role, decodes):
    found = open_as_named(made_run(tmp_path / "x-s0-1", **changes))
    assert (found.role, found.decodes, found.name) == (role, decodes, "x-s0-1")
    assert found.settings.data.image_size == (32, 32)
    if "mask_ratio" in changes:
        assert (found.settings.masking.mask_ratio, found.settings.loss.norm_pix) == (0.5, False)
        run = tmp_path / "x-s0-1"
        assert open_as_named(run, mask_ratio=0.6).settings.masking.mask_ratio == 0.6


def test_a_folder_of_hugging_face_and_the_demonstration_model(tmp_path):
    model = build_model(replace(BASE, image_size=32, decoder_depth=1, projector_dim=8))
    export_hf(model, tmp_path / "hf", mask_ratio=0.6, norm_pix=False)
    found = open_as_named(tmp_path / "hf")
    assert (found.role, found.decodes, found.settings.masking.mask_ratio) == ("MAE", True, 0.6)
    assert not found.settings.loss.norm_pix
    demo = open_as_named("demo")
    assert (demo.role, demo.decodes, demo.settings.grid) == ("MAE", True, (12, 12))
    assert str(demo).startswith("demo: MAE, 96 x 96 px, 12 x 12 patches of 8, with decoder, sha256 ")


def test_an_untrained_twin_has_the_same_shape_and_other_weights(tmp_path):
    checkpoint = open_as_named(mae_file(tmp_path))
    model = checkpoint.load()
    twin, again = checkpoint.untrained(model), checkpoint.untrained(model)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in twin.state_dict().items()} == shapes
    assert not torch.equal(twin.encoder.patch_embed.proj.weight, model.encoder.patch_embed.proj.weight)
    assert torch.equal(twin.encoder.patch_embed.proj.weight, again.encoder.patch_embed.proj.weight)


@torch.no_grad()
def test_an_official_file_of_dinov2_is_what_timm_makes_of_it(tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("vit_small_patch14_dinov2").eval()
    file = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save(theirs.state_dict() | {"mask_token": torch.zeros(1, 384)}, file)
    found = open_as_named(file)
    assert (found.role, found.settings.grid, found.decodes) == ("other", (37, 37), False)
    images = torch.randn(1, 3, 518, 518)
    assert torch.allclose(found.load().forward_features(images), theirs.forward_features(images), atol=1e-5)
    torch.save({"patch_embed.proj.weight": torch.zeros(100, 3, 14, 14)}, tmp_path / "odd.pth")
    with pytest.raises(LcmaeError, match=r"dinov2: got width 100 with patches of 14 .* expected one of: 384 with"):
        dinov2_name(tmp_path / "odd.pth")
