"""Maps recomputed from a block's own layers are what the fused kernel used: rows sum to 1, maps times values give the
block's output, selected layers and heads are the right ones, masks and prefix tokens are respected."""

import math

import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelThingsBlock, ResPostBlock, VisionTransformer

from lcmae_core.analysis.attention import attention_maps, block_attention, visit_attention
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.mae import MAE, initialize
from lcmae_core.models.masking import random_mask
from tests.loops import over


@pytest.fixture
def model():
    return build_model(replace(profile("smoke"), depth=3, decoder_depth=2)).eval()


@pytest.fixture
def images(generator):
    return torch.randn(2, 3, 64, 64, generator=generator)


def test_maps_explain_the_fused_output(model, generator):
    block = model.encoder.blocks[0]
    tokens = torch.randn(2, 7, 64, generator=generator)
    maps = block_attention(block, tokens)
    assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)
    v = block.attn.qkv(block.norm1(tokens)).reshape(2, 7, 3, 4, 16)[:, :, 2].transpose(1, 2)
    explicit = block.attn.proj((maps @ v).transpose(1, 2).reshape(2, 7, 64))
    assert (explicit - block.attn(block.norm1(tokens))).abs().max() < 1e-5


SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 4, "num_classes": 0}
VITS = {
    "plain": lambda: VisionTransformer(**SMALL),
    "no prefix": lambda: VisionTransformer(**SMALL, class_token=False, global_pool="avg"),
    "registers": lambda: VisionTransformer(**SMALL, reg_tokens=4, init_values=1e-5),
    "qk-norm": lambda: VisionTransformer(**SMALL, qk_norm=True),
    "norm after attention": lambda: VisionTransformer(**SMALL, block_fn=ResPostBlock),
    "not square": lambda: VisionTransformer(**SMALL | {"img_size": (16, 32)}),
    "any size": lambda: VisionTransformer(**SMALL | {"img_size": 64}, dynamic_img_size=True),
    "DeiT": lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, depth=3, num_classes=0),
    "DINOv2": lambda: timm.create_model("vit_small_patch14_reg4_dinov2", img_size=56, depth=3, num_classes=0),
}


@over("kind", VITS)
def test_any_timm_vit_explains_its_fused_output(kind, generator):
    """The maps of the model's own forward pass, times its values, give what the fused kernel gave."""
    vit = VITS[kind]().eval()
    size = (32, 32) if vit.dynamic_img_size else vit.patch_embed.img_size
    x = torch.randn(2, 3, *size, generator=generator)
    maps = attention_maps(vit, x)
    count = vit.num_prefix_tokens + math.prod(side // p for side, p in zip(size, vit.patch_embed.patch_size))
    assert maps.shape == (2, 3, vit.blocks[0].attn.num_heads, count, count)
    assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)
    seen = []
    hooks = [b.attn.register_forward_hook(lambda _, given, made: seen.append((given[0], made))) for b in vit.blocks]
    vit.forward_features(x)
    for hook in hooks:
        hook.remove()
    for layer, (block, (tokens, fused)) in enumerate(zip(vit.blocks, seen)):
        assert block.attn.fused_attn, "the forward pass keeps the fused kernel"
        v = block.attn.qkv(tokens).reshape(*tokens.shape[:2], 3, block.attn.num_heads, -1)[:, :, 2].transpose(1, 2)
        explicit = block.attn.proj((maps[:, layer] @ v).transpose(1, 2).flatten(2))
        assert (explicit - fused).abs().max() < 1e-5


def test_selected_queries_and_streams(model, images, generator):
    mask = random_mask(2, 64, 0.75, generator=generator)
    every = attention_maps(model, images, part="decoder", mask=mask)
    queries = torch.tensor([0, 9, 64])
    some = attention_maps(model, images, part="decoder", mask=mask, queries=queries, layers=[1], heads=[2])
    assert torch.allclose(some[:, 0, 0], every[:, 1, 2, queries], atol=1e-6)
    met = []
    visit_attention(model, images, lambda layer, maps: met.append((layer, maps)), part="decoder", mask=mask)
    assert [layer for layer, _ in met] == [0, 1]
    assert torch.equal(torch.stack([maps for _, maps in met], dim=1), every)


def test_half_precision_is_softmaxed_in_float32(images):
    vit = VITS["plain"]().eval().bfloat16()
    maps = attention_maps(vit, images[:, :, :32, :32].bfloat16())
    assert maps.dtype == torch.float32
    assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-6)


def test_a_plain_vit_under_a_mask_sees_only_the_kept_patches(generator):
    vit, ours = VITS["plain"]().eval(), torch.randn(2, 3, 32, 32, generator=generator)
    mask = random_mask(2, 16, 0.5, generator=generator)
    before = attention_maps(vit, ours, mask=mask)
    assert before.shape == (2, 3, 4, 9, 9)
    hidden = mask.hidden.reshape(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.equal(attention_maps(vit, ours.masked_fill(hidden, 9.0), mask=mask), before)
    assert not torch.equal(attention_maps(vit, ours.masked_fill(~hidden, 9.0), mask=mask), before)


def test_layers_and_heads_are_selected_in_order(model, images):
    every = attention_maps(model, images)
    assert every.shape == (2, 3, 4, 65, 65)
    chosen = attention_maps(model, images, layers=[2, 0], heads=[3, 1])  # fewer heads at once may sum in another order
    assert torch.allclose(chosen, every[:, [2, 0]][:, :, [3, 1]], rtol=1e-5, atol=1e-7)
    assert not torch.allclose(chosen, every[:, [2, 0]][:, :, [1, 3]], rtol=1e-5, atol=1e-7)


def test_masked_encoder_and_decoder(model, images, generator):
    mask = random_mask(2, 64, 0.75, generator=generator)
    assert attention_maps(model, images, mask=mask).shape == (2, 3, 4, 17, 17)
    decoder = attention_maps(model, images, part="decoder", mask=mask)
    assert decoder.shape == (2, 2, 4, 65, 65)
    captured = []
    hook = model.decoder.blocks[1].register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    model(images, mask)
    hook.remove()
    assert (decoder[:, 1] - block_attention(model.decoder.blocks[1], captured[0])).abs().max() < 1e-5


@over(
    ("wrong", "line"),
    [
        ({"part": "decodr"}, "part: got 'decodr', did you mean 'decoder'?"),
        ({"part": "decoder"}, "part: got 'decoder' without a mask, expected one mask an image"),
        ({"layers": [3]}, "layers: got [3], expected layers from 0 to 2"),
        ({"layers": []}, "layers: got [], expected layers from 0 to 2"),
        ({"heads": [-1]}, "heads: got [-1], expected heads from 0 to 3"),
        ({"queries": torch.tensor([65])}, "queries: got [65], expected queries from 0 to 64"),
        (
            {"mask": random_mask(2, 16, 0.5, generator=torch.Generator())},
            "mask: got shape (2, 16), expected (2, 64)",
        ),
        (
            {"budget_gb": 1e-4},
            "maps: got 2 images x 3 layers x 4 heads of 65x65 (0.00041 GB), expected at most 0.0001 GB: "
            "choose layers, heads or queries, or stream with visit_attention",
        ),
    ],
)
def test_wrong_arguments_are_named(model, images, wrong, line):
    with pytest.raises(LcmaeError) as error:
        attention_maps(model, images, **wrong)
    assert str(error.value) == line


def test_a_budget_counts_what_exists_at_once(model, images):
    layer = 2 * 4 * 65 * 65 * 4 / 1e9
    visit_attention(model, images, lambda *_: None, budget_gb=1.01 * layer)
    with pytest.raises(LcmaeError, match="2 images x 1 layers x 4 heads"):
        visit_attention(model, images, lambda *_: None, budget_gb=0.99 * layer)
    attention_maps(model, images, layers=[1], budget_gb=1.01 * layer)


@over(
    ("build", "line"),
    [
        (
            lambda: timm.create_model("resnet10t"),
            "model: got a ResNet without attention blocks, expected a timm ViT or our MAE",
        ),
        (
            lambda: VisionTransformer(**SMALL, block_fn=ParallelThingsBlock),
            "layer 0: got ParallelThingsBlock, expected timm's Attention with one qkv layer",
        ),
        (VITS["plain"], "images: got shape (2, 3, 64, 64), expected (B, 3, 32, 32)"),
    ],
)
def test_models_that_do_not_fit_are_named(build, line, images):
    with pytest.raises(LcmaeError) as error:
        attention_maps(build().eval(), images)
    assert str(error.value) == line


def test_an_encoder_only_model_has_no_decoder_maps(images, generator):
    settings = profile("smoke")
    bare = initialize(MAE(settings.model, (64, 64), decoder=False), generator).eval()
    with pytest.raises(
        LcmaeError, match=r"^part: got 'decoder' of a MAE without one, expected a model with a decoder$"
    ):
        attention_maps(bare, images, part="decoder", mask=random_mask(2, 64, 0.75, generator=generator))
    assert attention_maps(bare, images).shape == (2, 4, 4, 65, 65)
