"""Maps recomputed from a block's own layers are what the fused kernel used: rows sum to 1, maps times values give the
block's output, selected layers and heads are the right ones, masks and prefix tokens are respected."""

import pytest
import timm
import torch

from lcmae_core.analysis.attention import attention_maps, block_attention
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.models.mae import build_model
from lcmae_core.models.masking import random_mask


@pytest.fixture
def model():
    return build_model(replace(profile("smoke"), depth=3, decoder_depth=2)).eval()


@pytest.fixture
def images(generator):
    return torch.randn(2, 3, 64, 64, generator=generator)


def test_maps_explain_the_fused_output(model, generator):
    block = model.encoder.blocks[0]
    tokens = torch.randn(2, 7, 128, generator=generator)
    maps = block_attention(block, tokens)
    assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)
    v = block.attn.qkv(block.norm1(tokens)).reshape(2, 7, 3, 4, 32)[:, :, 2].transpose(1, 2)
    explicit = block.attn.proj((maps @ v).transpose(1, 2).reshape(2, 7, 128))
    assert (explicit - block.attn(block.norm1(tokens))).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch14_reg4_dinov2", "deit3_small_patch16_224"])
def test_any_timm_vit(name, generator):
    vit = timm.create_model(name, img_size=56, num_classes=0).eval()
    x = torch.randn(1, 3, 56, 56, generator=generator)
    maps = attention_maps(vit, x, layers=[0, 11])
    tokens = vit.num_prefix_tokens + vit.patch_embed.num_patches
    assert maps.shape == (1, 2, vit.blocks[0].attn.num_heads, tokens, tokens)
    assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)
    captured = []
    hook = vit.blocks[11].register_forward_pre_hook(lambda _, args: captured.append(args[0]))
    vit.forward_features(x)
    hook.remove()
    assert (maps[:, 1] - block_attention(vit.blocks[11], captured[0])).abs().max() < 1e-5


def test_layers_and_heads_are_selected_in_order(model, images):
    every = attention_maps(model, images)
    assert every.shape == (2, 3, 4, 65, 65)
    assert torch.equal(attention_maps(model, images, layers=[2, 0], heads=[3, 1]), every[:, [2, 0]][:, :, [3, 1]])


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


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"part": "decodr"}, "part: got 'decodr', did you mean 'decoder'?"),
        ({"part": "decoder"}, "part: got 'decoder', expected a model with a decoder, and a mask"),
        ({"layers": [3]}, "layers: got [3], expected layers from 0 to 2"),
        ({"heads": [-1]}, "heads: got [-1], expected heads from 0 to 3"),
    ],
)
def test_wrong_arguments_are_named(model, images, wrong, line):
    with pytest.raises(LcmaeError) as error:
        attention_maps(model, images, **wrong)
    assert str(error.value) == line
