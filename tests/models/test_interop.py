"""Checkpoints of the public MAE code, Hugging Face (both layouts), timm and our own load into one class, and their
predictions agree to 1e-5 with an independent reading of the public behaviour, transformers and timm, given the same
noise; export and load are inverse, and what is exported loads strictly where it is meant to."""

import argparse
import json
import math

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from lcmae_core.config import LcmaeError, Settings, replace
from lcmae_core.models.interop import export_hf, export_official, export_timm, load_mae
from lcmae_core.models.mae import build_model
from lcmae_core.models.masking import random_mask
from lcmae_core.models.patches import normalize_patches, patchify

SMALL = replace(
    Settings(), image_size=32, patch_size=8, width=64, depth=2, heads=4, decoder_width=48, decoder_heads=4, cross_view=1.0
)  # fmt: skip
SHAPES_OF_A_BLOCK = {
    "norm1.weight": (1,), "norm1.bias": (1,), "attn.qkv.weight": (3, 1), "attn.qkv.bias": (3,),
    "attn.proj.weight": (1, 1), "attn.proj.bias": (1,), "norm2.weight": (1,), "norm2.bias": (1,),
    "mlp.fc1.weight": (4, 1), "mlp.fc1.bias": (4,), "mlp.fc2.weight": (1, 4), "mlp.fc2.bias": (1,),
}  # fmt: skip
"""In multiples of the width."""


def official_state(width=192, narrow=512, depth=2, patch=16, side=4, channels=3, decoder=True, seed=0):
    """Random weights under the names of the public MAE code."""
    shapes = {
        "cls_token": (1, 1, width), "pos_embed": (1, 1 + side**2, width),
        "patch_embed.proj.weight": (width, channels, patch, patch), "patch_embed.proj.bias": (width,),
        "norm.weight": (width,), "norm.bias": (width,),
    }  # fmt: skip
    values = patch**2 * channels
    if decoder:
        shapes |= {
            "mask_token": (1, 1, narrow), "decoder_pos_embed": (1, 1 + side**2, narrow),
            "decoder_embed.weight": (narrow, width), "decoder_embed.bias": (narrow,),
            "decoder_norm.weight": (narrow,), "decoder_norm.bias": (narrow,),
            "decoder_pred.weight": (values, narrow), "decoder_pred.bias": (values,),
        }  # fmt: skip
    for stem, d in [("blocks", width), ("decoder_blocks", narrow)][: 1 + decoder]:
        for i in range(depth):
            shapes |= {f"{stem}.{i}.{name}": tuple(d * k for k in shape) for name, shape in SHAPES_OF_A_BLOCK.items()}
    generator = torch.Generator().manual_seed(seed)
    scales = {key: shape[-1] ** -0.5 if len(shape) == 2 else 0.1 for key, shape in shapes.items()}
    return {key: scales[key] * torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def public_forward(w, images, noise, ratio, heads, decoder_heads):
    """What the public code computes, written anew from the facts: (pred, hidden as 0 and 1)."""

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]
        )

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def attention(x, name, heads):
        q, k, v = linear(x, f"{name}.qkv").chunk(3, dim=-1)
        d, mixed = q.shape[-1] // heads, []
        for h in range(heads):
            qh, kh, vh = (part[..., h * d : (h + 1) * d] for part in (q, k, v))
            mixed.append(torch.softmax(qh @ kh.transpose(1, 2) / math.sqrt(d), dim=-1) @ vh)
        return linear(torch.cat(mixed, dim=-1), f"{name}.proj")

    def transformer(x, stem, heads):
        for i in range(sum(key.startswith(f"{stem}.") and key.endswith("norm1.bias") for key in w)):
            x = x + attention(norm(x, f"{stem}.{i}.norm1"), f"{stem}.{i}.attn", heads)
            inner = linear(norm(x, f"{stem}.{i}.norm2"), f"{stem}.{i}.mlp.fc1")
            x = x + linear(0.5 * inner * (1 + torch.erf(inner / math.sqrt(2))), f"{stem}.{i}.mlp.fc2")
        return x

    kernel = w["patch_embed.proj.weight"]
    patches = F.conv2d(images, kernel, w["patch_embed.proj.bias"], stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
    patches = patches + w["pos_embed"][:, 1:]
    total = patches.shape[1]
    kept = int(total * (1 - ratio))
    preds, masks = [], []
    for image in range(len(images)):  # one at a time: no gather to get wrong
        order = sorted(range(total), key=lambda i: noise[image, i].item())
        cls = (w["cls_token"] + w["pos_embed"][:, :1])[0]
        latent = transformer(torch.cat([cls, patches[image, order[:kept]]])[None], "blocks", heads)
        embedded = linear(norm(latent, "norm"), "decoder_embed")[0]
        rows = w["mask_token"][0].repeat(1 + total, 1)
        rows[0] = embedded[0]
        for place, patch in enumerate(order[:kept]):
            rows[1 + patch] = embedded[1 + place]
        decoded = norm(
            transformer(rows[None] + w["decoder_pos_embed"], "decoder_blocks", decoder_heads), "decoder_norm"
        )
        preds.append(linear(decoded, "decoder_pred")[0, 1:])
        masks.append([0.0 if i in order[:kept] else 1.0 for i in range(total)])
    return torch.stack(preds), torch.tensor(masks)


def gap(a, b) -> float:
    return (a - b).abs().max().item()


@torch.no_grad()
def stirred(model, seed=1):
    """The model with every parameter that is trained moved, so that none could be lost unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def draw(model, seed=3):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, model.channels, *model.image_size, generator=generator)
    return images, torch.rand(2, model.num_patches, generator=generator)


@torch.no_grad()
def predict(model, images, noise, ratio=0.75):
    return model(images, random_mask(2, model.num_patches, ratio, noise=noise)).pred


@pytest.mark.parametrize("ratio", [0.75, 0.5])
def test_an_official_file_predicts_like_the_public_code(tmp_path, ratio):
    weights = official_state()
    content = {
        "model": weights, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "scaler": {"scale": 65536.0}, "args": argparse.Namespace(model="mae_vit_tiny", blr=1e-3),
    }  # fmt: skip
    torch.save(content, tmp_path / "official.pth")
    model = load_mae(tmp_path / "official.pth")
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
    model = load_mae(tmp_path / "encoder.pth")
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
    model = load_mae(tmp_path / "half.pth")
    assert torch.equal(torch.get_rng_state(), state)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert [k for k, p in model.named_parameters() if not p.requires_grad] == ["encoder.pos_embed", "decoder.pos_embed"]


def hugging_face(norm_pix=False, **more):
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    sizes = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256, "image_size": 32,
        "patch_size": 8, "decoder_hidden_size": 48, "decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 4,
        "decoder_intermediate_size": 192, "norm_pix_loss": norm_pix,
    }  # fmt: skip
    torch.manual_seed(0)
    return stirred(transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**sizes | more)))


def our_loss(model, images, noise, norm_pix):
    mask = random_mask(2, model.num_patches, 0.75, noise=noise)
    target = patchify(images, model.arch.patch_size)
    target = normalize_patches(target) if norm_pix else target
    return (model(images, mask).pred - target).square().mean(dim=-1)[mask.hidden].mean()


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
    model = load_mae(tmp_path / "encoder.pth")
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
        if model.image_size[0] == model.image_size[1]:
            back = load_mae(export.path, encoder_heads=model.arch.heads)
            assert torch.equal(back.encoder(images), model.encoder(images))
    if changes.get("width") == 192:
        assert (export.model_name, export.kwargs) == ("vit_tiny_patch16_224", {"num_classes": 0})


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
    from lcmae_core.models.export import _timm_model
    from lcmae_core.models.mae import MAE

    sizes = {"width": width, "depth": depth, "heads": heads, "patch_size": patch}
    with torch.device("meta"):
        model = MAE(replace(SMALL, image_size=224, **sizes).model, (224, 224), decoder=False)
        theirs = timm.create_model(name, num_classes=0)
    assert _timm_model(model) == (name, {"num_classes": 0})
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


def test_a_classifier_of_timm_loads_without_its_head(tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=7, depth=1)
    save_file(theirs.state_dict(), tmp_path / "vit.safetensors")
    model = load_mae(tmp_path / "vit.safetensors")
    images, _ = draw(model)
    with torch.no_grad():
        assert gap(theirs.eval().forward_features(images), model.encoder(images)) < 1e-5


def test_a_timm_name_gives_its_encoder(monkeypatch):
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=32)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained, num_classes: theirs)
    model = load_mae("timm:vit_tiny_patch16_224.augreg_in21k")
    images, _ = draw(model)
    assert (model.image_size, model.arch.heads, model.decoder) == ((32, 32), 3, None)
    with torch.no_grad():
        assert gap(theirs.eval().forward_features(images), model.encoder(images)) < 1e-5


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
