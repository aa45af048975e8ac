"""The public MAE code's behaviour written anew from the facts, random weights under its names, and small helpers."""

import math

import pytest
import torch
from torch.nn import functional as F

from lcmae_core.config import Settings, replace
from lcmae_core.models.masking import random_mask
from lcmae_core.models.patches import normalize_patches, patchify

SMALL = replace(
    Settings(), image_size=32, patch_size=8, width=64, depth=2, heads=4, decoder_width=48, cross_view=1.0
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
