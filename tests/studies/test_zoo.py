"""Notebooks look at the model they name: runs, checkpoints and published models come with their origin, on the right
images; wrong names are one line."""

import pytest
import timm
import torch

from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.interop import load_mae
from lcmae_core.models.pretrained import Pretrained, WeightsOrigin
from lcmae_core.studies import RATIOS, deep_decoder, mask_ratios, references
from lcmae_core.studies import zoo as subjects
from lcmae_core.studies.zoo import compared, open_model


@pytest.fixture
def base(tmp_path):
    return replace(profile("smoke"), out=str(tmp_path), steps=1)


def published(name, **sizes):
    """A published model as it would come from the hub, with its own mean and deviation."""
    vit = timm.create_model(name, num_classes=0, **sizes).eval()
    vit.pretrained_cfg = dict(vit.pretrained_cfg, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    return Pretrained(vit, WeightsOrigin(name, "timm/" + name, "abc123", "f" * 64))


def test_runs_are_shared_and_named(base):
    found = compared(base, "smoke")
    assert list(found) == ["MAE", "DINO", "supervised"]
    images = torch.randn(2, 3, 64, 64)
    for name, subject in found.items():
        assert subject.origin.startswith(f"{name} trained here, 1 steps (")
        assert subject.encoder(images).shape == (2, 65, 64)
        assert subject.prepare(images) is images
    assert found["MAE"].part == "decoder"
    assert found["DINO"].part == "encoder"
    again = compared(base, "smoke", names=["DINO"])["DINO"]
    assert again.origin == found["DINO"].origin
    assert torch.equal(again.encoder(images), found["DINO"].encoder(images))


def test_published_models_set_the_images(base, monkeypatch):
    asked = []

    def stand_in(name):
        asked.append(name)
        return published("vit_tiny_patch16_224", img_size=32, depth=1)

    monkeypatch.setattr(subjects, "load_vit", stand_in)
    found = compared(base, "smoke", "published")
    assert asked == ["vit_base_patch16_224.mae", "vit_base_patch16_224.dino", "deit_base_patch16_224.fb_in1k"]
    subject = found["supervised"]
    assert subject.origin.startswith("published vit_tiny_patch16_224 (timm/vit_tiny_patch16_224 @ abc123")
    assert subject.settings.data.image_size == (32, 32)
    assert subject.shape == {"image_size": (32, 32), "patch_size": 16}
    grey = (0.5 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert subject.prepare(grey[None, :, None, None].expand(1, 3, 32, 32)).abs().max() < 1e-6


def test_a_checkpoint_sets_the_images(base, tmp_path):
    model = build_model(replace(base, image_size=32, decoder_depth=1))
    run = tmp_path / "mae"
    run.mkdir()
    settings = replace(base, image_size=32, decoder_depth=1)
    (run / "settings.json").write_text(settings.model_dump_json())
    from lcmae_core.store.runs import Run

    Run(run, settings).finish(model.state_dict(), {"steps": 1})
    subject = open_model(str(run), base, "smoke")
    assert (subject.origin, subject.part) == ("checkpoint mae", "decoder")
    assert subject.settings.data.image_size == (32, 32)
    assert torch.equal(subject.model.encoder.cls_token, load_mae(run).encoder.cls_token)


def test_without_a_name_the_demonstration_model_is_opened(base):
    subject = open_model(None, base, "smoke")
    assert subject.origin.startswith("demonstration MAE, ")
    side = subject.settings.data.image_size[0]
    assert side >= 96
    assert subject.part == "decoder"
    assert torch.equal(subject.model.encoder.cls_token, open_model("demo", base, "smoke").model.encoder.cls_token)


def test_the_run_of_the_profile_has_the_deep_decoder(base):
    subject = open_model("run", base, "smoke")
    assert len(subject.model.decoder.blocks) == 3
    assert subject.origin.startswith("MAE trained here, 1 steps (")


def test_studies_differ_in_what_they_study():
    base = profile("quick")
    assert deep_decoder(base, "quick") == replace(base, decoder_depth=8)
    runs = mask_ratios(base, "quick")
    assert tuple(runs) == RATIOS == (0.3, 0.45, 0.6, 0.75, 0.9)
    assert all(replace(run, mask_ratio=0.75) == runs[0.75] for run in runs.values())
    assert {name: run.method for name, run in references(base, "quick").items()} == {
        "DINO": "dino",
        "supervised": "supervised",
    }
    assert all(run.model == base.model for run in references(base, "quick").values())


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda base: compared(base, "smoke", "trainde"), "references: got 'trainde', did you mean 'trained'?"),
        (lambda base: open_model("vit_base_patch16_225.mae", base, "smoke"), "vit_base_patch16_224"),
    ],
)
def test_wrong_names_are_one_line(base, call, line):
    with pytest.raises(LcmaeError) as error:
        call(base)
    assert line in str(error.value)
    assert "\n" not in str(error.value)
