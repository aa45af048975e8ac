"""Export and load are inverse, and what is exported loads strictly where it is meant to: transformers, timm and the
public MAE code predict from it what our model predicts, to 1e-5."""

import pytest
import timm
import torch

from lcmae_core.config import replace
from lcmae_core.data.augment import IMAGENET_MEAN, IMAGENET_STD
from lcmae_core.models.build import build_model
from lcmae_core.models.export import timm_model
from lcmae_core.models.interop import export_hf, export_official, export_timm, load_mae
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import random_mask
from lcmae_core.models.pretrained import expected_images
from tests.models.reference import (
    SMALL,
    draw,
    gap,
    official_state,
    our_loss,
    predict,
    public_forward,
    stirred,
)

PLAIN = {"num_classes": 0, "pretrained_cfg_overlay": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}}


def test_ours_becomes_transformers_and_comes_back(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = stirred(build_model(SMALL))
    export_hf(model, tmp_path / "hf")
    theirs, info = transformers.ViTMAEForPreTraining.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not any(info.values()), info
    images, noise = draw(model)
    with torch.no_grad():
        expected = theirs.eval()(images, noise=noise)
        assert gap(expected.logits, predict(model, images, noise)) < 1e-5
        assert gap(expected.loss, our_loss(model, images, noise, norm_pix=True)) < 1e-5
    back = load_mae(tmp_path / "hf")
    assert torch.equal(predict(back, images, noise), predict(model, images, noise))
    assert back.projector is None


def test_an_encoder_alone_becomes_a_vitmaemodel(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.save(official_state(decoder=False), tmp_path / "encoder.pth")
    model = load_mae(tmp_path / "encoder.pth", encoder_heads=3)
    theirs, info = transformers.ViTMAEModel.from_pretrained(export_hf(model, tmp_path / "hf"), output_loading_info=True)
    assert not any(info.values()), info
    images, noise = draw(model)
    mask = random_mask(2, 16, 0.75, noise=noise)
    with torch.no_grad():
        assert gap(theirs.eval()(images, noise=noise).last_hidden_state, model.encoder(images, mask.keep)) < 1e-5


def test_ours_becomes_official_and_comes_back(tmp_path):
    model = stirred(build_model(SMALL))
    export_official(model, tmp_path / "official.pth")
    weights = torch.load(tmp_path / "official.pth", weights_only=True)["model"]
    assert set(weights) == set(official_state(width=64, narrow=48, patch=8))
    images, noise = draw(model)
    back = load_mae(tmp_path / "official.pth", encoder_heads=4, decoder_heads=4)
    assert gap(public_forward(weights, images, noise, 0.75, 4, 4)[0], predict(model, images, noise)) < 1e-5
    assert torch.equal(predict(back, images, noise), predict(model, images, noise))


@pytest.mark.parametrize(
    ("changes", "suffix"),
    [
        ({}, ".pth"),
        ({"image_size": (16, 40), "channels": 1, "mlp_ratio": 3.0}, ".safetensors"),
        ({"image_size": 224, "patch_size": 16, "width": 192, "depth": 12, "heads": 3}, ".safetensors"),
    ],
)
def test_ours_becomes_timm_strictly_and_comes_back(tmp_path, changes, suffix):
    model = stirred(build_model(replace(SMALL, changes)))
    export = export_timm(model, tmp_path / f"encoder{suffix}")
    theirs = timm.create_model(export.model_name, checkpoint_path=export.path, **export.kwargs).eval()
    images, _ = draw(model)
    with torch.no_grad():
        assert gap(theirs.forward_features(images), model.encoder(images)) < 1e-5
        assert gap(expected_images(theirs, images), images) < 1e-5, "timm's own weights of that size may take others"
        if model.image_size[0] == model.image_size[1]:
            back = load_mae(export.path, encoder_heads=model.arch.heads)
            assert torch.equal(back.encoder(images), model.encoder(images))
    if changes.get("width") == 192:
        assert (export.model_name, export.kwargs) == ("vit_tiny_patch16_224", PLAIN)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "patch", "name"),
    [
        (384, 12, 6, 16, "vit_small_patch16_224"),
        (768, 12, 12, 16, "vit_base_patch16_224"),
        (1024, 24, 16, 16, "vit_large_patch16_224"),
        (1280, 32, 16, 14, "vit_huge_patch14_224"),
    ],
)
def test_timm_knows_the_published_sizes(width, depth, heads, patch, name):
    sizes = {"width": width, "depth": depth, "heads": heads, "patch_size": patch}
    with torch.device("meta"):
        model = MAE(replace(SMALL, image_size=224, **sizes).model, (224, 224), decoder=False)
        theirs = timm.create_model(name, num_classes=0)
    assert timm_model(model) == (name, PLAIN)
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {
        k: v.shape for k, v in model.encoder.state_dict().items()
    }


def test_a_shallow_vit_base_loads_strictly_into_timm(tmp_path):
    # Two of the twelve blocks: the names and shapes of all are compared above, and drawing them takes timm seconds.
    torch.save(official_state(width=768, depth=2, side=14, decoder=False), tmp_path / "mae_pretrain_vit_base.pth")
    model = load_mae(tmp_path / "mae_pretrain_vit_base.pth")
    file = export_timm(model, tmp_path / "base.safetensors").path
    theirs = timm.create_model("vit_base_patch16_224", num_classes=0, global_pool="", depth=2, checkpoint_path=file)
    images, _ = draw(model)
    with torch.no_grad():
        assert gap(theirs.eval()(images[:1]), model.encoder(images[:1])) < 1e-5
