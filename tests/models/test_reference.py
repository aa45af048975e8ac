"""Claims: the teacher is the moving average that the formula says and gets no gradient; the loss equals a slow loop
over pairs of crops; the centre moves by its own rule and only when told; local crops see resampled positions; encoders
load strictly into timm; weights come from the seed alone; what is missing is said in one line."""

import dataclasses
import sys

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch.nn import functional as F

from lcmae_core.config import Data, LcmaeError, profile, replace
from lcmae_core.data import open_source
from lcmae_core.models.build import build_model
from lcmae_core.models.interop import export_timm
from lcmae_core.models.mae import MAE
from lcmae_core.models.reference import Supervised, class_count
from tests.data.made_pictures import write_folder

TINY = {
    "image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "local_crops": 3, "local_size": 16,
    "dino_dim": 24, "dino_hidden": 20, "dino_bottleneck": 12, "center_momentum": 0.8,
}  # fmt: skip
DINO = replace(profile("smoke"), {**TINY, "method": "dino"})
SUPERVISED = replace(DINO, method="supervised")


def as_mae(model, settings):
    """The encoder inside a masked autoencoder without decoder, which the exporters take."""
    whole = MAE(settings.model, settings.data.image_size, decoder=False)
    whole.encoder.load_state_dict(model.encoder.state_dict())
    return whole


@pytest.fixture
def dino(generator):
    """Student and teacher stirred apart."""
    model = build_model(DINO)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def crops(generator):
    sizes = [32, 32, 16, 16, 16]
    return tuple(torch.randn(4, 3, side, side, generator=generator) for side in sizes)


def test_the_teacher_follows_by_the_formula(dino):
    before = [p.clone() for p in (*dino.encoder.parameters(), *dino.teacher_head.parameters())]
    dino.follow(0.7)
    students = (*dino.student.parameters(), *dino.student_head.parameters())
    teachers = (*dino.encoder.parameters(), *dino.teacher_head.parameters())
    assert len(before) == len(students) == len(teachers) > 20
    for old, student, new in zip(before, students, teachers):
        assert torch.allclose(new, 0.7 * old + 0.3 * student, atol=1e-6)
    dino.follow(1.0)
    assert all(torch.equal(a, b) for a, b in zip(dino.encoder.parameters(), teachers))
    dino.follow(0.0)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(dino.encoder.parameters(), dino.student.parameters()))


def test_only_the_student_gets_a_gradient(dino, crops):
    dino.loss(dino(crops), 0.05).backward()
    for name, parameter in dino.named_parameters():
        fixed = name.startswith(("encoder.", "teacher_head.")) or name.endswith(("pos_embed", "weight_g"))
        assert (parameter.grad is None) == fixed, name
        assert fixed or parameter.grad.abs().max() > 0, name


def test_every_crop_goes_through_its_encoder(dino, crops):
    heads = dino(crops)
    assert [len(part) for part in heads] == [5, 2]
    for number, crop in enumerate(crops):
        latent = dino.student(crop) if number < 2 else dino.student.encode_crop(crop)
        assert torch.allclose(heads.student[number], dino.student_head(latent[:, 0]), atol=1e-5)
    for number in range(2):
        assert torch.allclose(heads.teacher[number], dino.teacher_head(dino.encoder(crops[number])[:, 0]), atol=1e-5)
        assert not torch.allclose(heads.teacher[number], heads.student[number], atol=1e-2)


def test_the_loss_is_the_slow_loop_over_pairs(dino, crops, generator):
    dino.criterion.center.copy_(0.3 * torch.randn(1, 1, 24, generator=generator))
    heads, centre, values = dino(crops), dino.criterion.center[0, 0].clone(), []
    for t, teacher in enumerate(heads.teacher):
        for s, student in enumerate(heads.student):
            if s == t:
                continue
            for image in range(4):
                p = F.softmax((teacher[image] - centre) / 0.05, dim=0)
                values.append(-(p * F.log_softmax(student[image] / DINO.dino.student_temp, dim=0)).sum())
    assert len(values) == 2 * 4 * 4
    assert dino.loss(heads, 0.05).item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-5)
    p = dino.teacher_probabilities(heads, 0.05)
    assert torch.allclose(p[1, 2], F.softmax((heads.teacher[1][2] - centre) / 0.05, dim=0), atol=1e-6)


def test_the_centre_moves_only_when_told(dino, crops):
    heads = dino(crops)
    dino.loss(heads, 0.05)
    assert torch.equal(dino.criterion.center, torch.zeros(1, 1, 24))
    outputs = torch.stack(heads.teacher)  # (T, B, K)
    dino.move_centre(outputs)
    assert torch.allclose(dino.criterion.center[0, 0], 0.2 * outputs.flatten(0, 1).mean(dim=0), atol=1e-6)
    dino.move_centre(outputs)
    assert torch.allclose(dino.criterion.center[0, 0], 0.36 * outputs.flatten(0, 1).mean(dim=0), atol=1e-6)
    assert "criterion.center" in dino.state_dict()


def test_a_teacher_that_says_the_same_of_all_images_costs_its_entropy(dino, crops):
    """The limit of collapse: equal logits everywhere give log K, the entropy of the uniform distribution."""
    heads = dino(crops)
    flat = type(heads)(*(tuple(torch.zeros_like(o) for o in part) for part in heads))
    assert dino.loss(flat, 0.05).item() == pytest.approx(torch.tensor(24.0).log().item(), rel=1e-5)


def test_local_crops_see_resampled_positions(dino, crops):
    encoder = dino.encoder
    assert torch.equal(encoder.encode_crop(crops[0]), encoder(crops[0]))
    other = build_model(replace(DINO, image_size=16)).encoder
    state = encoder.state_dict() | {
        "pos_embed": resample_abs_pos_embed(encoder.pos_embed, [2, 2], old_size=[4, 4], num_prefix_tokens=1)
    }
    other.load_state_dict(state)
    assert torch.allclose(encoder.encode_crop(crops[2]), other(crops[2]), atol=1e-5)
    with pytest.raises(LcmaeError, match=r"images: got \(20, 16\) px, expected multiples of the patch 8"):
        encoder.encode_crop(torch.zeros(1, 3, 20, 16))
    with pytest.raises(LcmaeError, match=r"images: got shape \(4, 3, 16, 16\)"):
        encoder(crops[2])


@pytest.mark.parametrize("settings", [DINO, SUPERVISED], ids=["dino", "supervised"])
def test_the_encoder_is_timms(settings, crops, tmp_path):
    model = build_model(settings)
    export = export_timm(as_mae(model, settings), tmp_path / "encoder.safetensors")
    theirs = timm.create_model(export.model_name, checkpoint_path=export.path, **export.kwargs)
    with torch.no_grad():
        assert torch.allclose(theirs.forward_features(crops[0]), model.encoder(crops[0]), atol=1e-5)


def test_logits_are_linear_in_the_mean_of_the_patch_tokens(crops):
    model = build_model(SUPERVISED)
    assert isinstance(model, Supervised)
    mean = model.encoder(crops[0])[:, 1:].mean(dim=1)
    assert torch.allclose(model(crops[0]), mean @ model.head.weight.T + model.head.bias, atol=1e-5)
    assert model.head.out_features == 10  # the embedded photographs


@pytest.mark.parametrize("settings", [DINO, SUPERVISED], ids=["dino", "supervised"])
def test_weights_come_from_the_seed_alone(settings):
    first = build_model(settings).state_dict()
    torch.manual_seed(77)
    second, third = build_model(settings).state_dict(), build_model(replace(settings, seed=1)).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["encoder.blocks.0.attn.qkv.weight"], third["encoder.blocks.0.attn.qkv.weight"])


def test_student_and_teacher_start_equal_with_unit_prototypes():
    model = build_model(DINO)
    for teacher, student in ((model.encoder, model.student), (model.teacher_head, model.student_head)):
        assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters(), strict=True))
    assert (model.student_head.last_layer.weight_g == 1).all()
    assert model.student_head.last_layer.weight_v.std().item() == pytest.approx(0.02, rel=0.2)


def test_classes_come_from_the_labels(tmp_path):
    write_folder(
        tmp_path / "named", [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "abc" for i in "01"]
    )
    assert class_count(replace(SUPERVISED, source=f"folder:{tmp_path / 'named'}")) == 3
    write_folder(tmp_path / "flat", ["1.png", "2.png", "3.png"])
    flat = replace(SUPERVISED, source=f"folder:{tmp_path / 'flat'}")
    with pytest.raises(LcmaeError, match=r"labels: got none in 'folder:.*flat', expected labels") as error:
        build_model(flat)
    assert "\n" not in str(error.value)


def test_labels_that_are_left_out_are_counted():
    source = open_source(Data())
    labels = source.train.labels.copy()
    labels[:3] = -1
    source = dataclasses.replace(source, train=dataclasses.replace(source.train, labels=labels))
    with pytest.raises(LcmaeError, match="labels: got 3 images without one, expected a label for every image"):
        class_count(SUPERVISED, source)


def test_without_lightly_only_dino_fails(monkeypatch):
    for name in [m for m in sys.modules if m.partition(".")[0] == "lightly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightly", None)
    build_model(profile("smoke"))
    build_model(SUPERVISED)
    with pytest.raises(LcmaeError) as error:
        build_model(DINO)
    assert str(error.value) == (
        "method: got 'dino' without the package 'lightly', expected it installed: pip install 'lightly>=1.5'"
    )
