"""The model is the public recipe: initialisation (Xavier bounds, 0.02 tokens, sin-cos positions with the column first),
an encoder that sees only kept patches, in no particular order, and equals timm's ViT without a mask, a decoder that
knows places; evaluation draws nothing; two views as one batch are two passes; bad input is named."""

import math

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from lcmae_core import config
from lcmae_core.config import LcmaeError, Settings, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.encoder import sincos_positions
from lcmae_core.models.mae import MAE, initialize
from lcmae_core.models.masking import random_mask, stack_views

SMALL = replace(Settings(), image_size=32, patch_size=8, width=64, depth=2, heads=4, decoder_width=48)


@pytest.fixture
def model() -> MAE:
    """A small model whose positions, tokens and biases all matter."""
    small = build_model(replace(SMALL, cross_view=1.0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in small.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return small


@pytest.fixture
def images(generator) -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=generator)


def mask(seed=0, batch=2, n=16, **more):
    return random_mask(batch, n, 0.75, generator=torch.Generator().manual_seed(seed), **more)


def spread_is_uniform(weight: torch.Tensor, bound: float) -> bool:
    """Within the bound, reaching it, with the standard deviation of a uniform draw."""
    return bool(
        weight.abs().max() <= bound
        and weight.abs().max() > 0.98 * bound
        and abs(weight.std().item() / (bound / math.sqrt(3)) - 1) < 0.03
    )


def test_linear_layers_are_xavier_uniform_with_qkv_as_one_matrix():
    model = build_model(SMALL)
    for block, width in ((model.encoder.blocks[1], 64), (model.decoder.blocks[0], 48)):
        assert spread_is_uniform(block.attn.qkv.weight, math.sqrt(6 / (width + 3 * width)))
        assert spread_is_uniform(block.mlp.fc1.weight, math.sqrt(6 / (width + 4 * width)))
        assert block.attn.qkv.bias.abs().max() == block.mlp.fc2.bias.abs().max() == 0
        assert (block.norm1.weight == 1).all()
        assert (block.norm1.bias == 0).all()
        assert block.norm1.eps == 1e-6
    assert spread_is_uniform(model.decoder.pred.weight, math.sqrt(6 / (48 + 192)))


def test_patch_embedding_starts_like_a_linear_layer():
    proj = build_model(SMALL).encoder.patch_embed.proj
    assert spread_is_uniform(proj.weight, math.sqrt(6 / (64 + 192)))  # fan-in 192, fan-out 64
    assert 0 < proj.bias.abs().max() <= 192**-0.5


def test_cls_and_mask_token_are_normal_with_sd_002():
    wide = build_model(replace(SMALL, width=1024, depth=1, decoder_width=1024, decoder_depth=1))
    for token in (wide.encoder.cls_token, wide.decoder.mask_token):
        assert abs(token.std().item() - 0.02) < 0.002
        assert abs(token.mean().item()) < 0.003


def test_weights_follow_from_the_seed_alone():
    first = build_model(SMALL).state_dict()
    torch.rand(3)
    again, other = build_model(SMALL).state_dict(), build_model(replace(SMALL, seed=1)).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["encoder.cls_token"], other["encoder.cls_token"])


@pytest.mark.parametrize("grid", [(3, 3), (2, 5)])
def test_positions_equal_a_slow_loop_column_first(grid):
    width, (rows, cols) = 16, grid
    table = sincos_positions(width, grid)
    assert table.shape == (1, 1 + rows * cols, width)
    assert table[0, 0].abs().max() == 0  # CLS
    for n in range(rows * cols):
        row, col = divmod(n, cols)
        waves = [
            wave(place / 10000 ** (i / (width // 4)))
            for place in (col, row) for wave in (math.sin, math.cos) for i in range(width // 4)
        ]  # fmt: skip
        assert torch.allclose(table[0, 1 + n], torch.tensor(waves), atol=1e-6)


def test_positions_equal_those_of_transformers():
    module = pytest.importorskip("transformers.models.vit_mae.modeling_vit_mae")
    if hasattr(module, "get_2d_sincos_pos_embed"):  # transformers 4
        theirs = torch.as_tensor(module.get_2d_sincos_pos_embed(64, 4, add_cls_token=True)).float()
    else:  # transformers 5 builds the row half first and then swaps the halves
        row_first = module.build_2d_sinusoidal_position_embedding(4, 4, 64, cls_token=True)
        theirs = row_first.roll(32, dims=1)
    assert torch.allclose(sincos_positions(64, (4, 4))[0], theirs, atol=1e-6)


def test_positions_are_not_trained(model):
    assert not model.encoder.pos_embed.requires_grad
    assert not model.decoder.pos_embed.requires_grad


@pytest.mark.parametrize(("size", "channels"), [((32, 32), 3), ((16, 40), 1)])
def test_without_a_mask_the_encoder_is_timms_vit(size, channels, generator):
    encoder = initialize(MAE(SMALL.model, size, channels), generator).encoder.eval()
    theirs = VisionTransformer(
        img_size=size, patch_size=8, in_chans=channels, num_classes=0, embed_dim=64, depth=2, num_heads=4
    ).eval()
    theirs.load_state_dict(encoder.state_dict(), strict=True)
    images = torch.randn(2, channels, *size, generator=generator)
    everything = torch.arange(encoder.patch_embed.num_patches).expand(2, -1)
    expected = theirs.forward_features(images)
    assert torch.allclose(encoder(images), expected, atol=1e-5)
    assert torch.allclose(encoder(images, everything), expected, atol=1e-5)


def hidden_pixels(m) -> torch.Tensor:
    return m.hidden.reshape(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)  # (B, 1, H, W)


def test_hidden_pixels_change_nothing(model, images):
    m = mask()
    changed = torch.where(hidden_pixels(m), torch.full_like(images, 9.0), images)
    assert torch.equal(model(images, m).pred, model(changed, m).pred)


def test_gradient_is_zero_at_hidden_pixels_and_lives_at_every_visible_one(model, images):
    m = mask()
    images.requires_grad_()
    model(images, m).pred.square().sum().backward()
    hidden = hidden_pixels(m).expand_as(images)
    assert images.grad[hidden].abs().max() == 0
    assert images.grad[~hidden].abs().min() > 0


def test_the_order_of_kept_patches_does_not_matter(model, images, generator):
    noise = torch.rand(2, 16, generator=generator)
    m = random_mask(2, 16, 0.75, noise=noise)
    shuffled = noise.scatter(1, m.keep, noise.gather(1, m.keep).flip(1))
    other = random_mask(2, 16, 0.75, noise=shuffled)
    assert not torch.equal(m.keep, other.keep)
    assert torch.equal(m.hidden, other.hidden)
    assert torch.allclose(model(images, m).pred, model(images, other).pred, atol=1e-5)


def test_the_decoder_knows_places(model, images):
    m = mask()
    before = model(images, m).pred
    assert (before[0][m.hidden[0]].diff(dim=0).abs().amax(dim=1) > 1e-3).all()  # mask tokens differ by place alone
    with torch.no_grad():
        model.decoder.pos_embed.zero_()
    flat = model(images, m).pred[0][m.hidden[0]]
    assert torch.allclose(flat, flat[:1].expand_as(flat), atol=1e-5)


def test_visible_tokens_return_to_their_places(model, images):
    m = mask()
    latent = model.encoder(images, m.keep)
    sequence = model.decoder.sequence(latent, m.restore) - model.decoder.pos_embed
    embedded = model.decoder.embed(latent)
    for b in range(2):
        assert torch.allclose(sequence[b, 0], embedded[b, 0], atol=1e-6)
        for place, patch in enumerate(m.keep[b]):
            assert torch.allclose(sequence[b, 1 + patch], embedded[b, 1 + place], atol=1e-6)
        masked = sequence[b, 1:][m.hidden[b]]
        assert torch.allclose(masked, model.decoder.mask_token[0].expand_as(masked), atol=1e-6)


def test_evaluation_draws_nothing(model, images):
    state = torch.get_rng_state()
    assert torch.equal(model.eval()(images, mask()).pred, model(images, mask()).pred)
    assert torch.equal(torch.get_rng_state(), state)


def test_two_views_in_one_batch_are_two_passes(model, images):
    one, two = mask(1), mask(2)
    both = model(images.repeat(2, 1, 1, 1), stack_views(one, two))
    for half, m in zip(zip(*(value.chunk(2) for value in both)), (one, two)):
        for together, alone in zip(half, model(images, m)):
            assert torch.allclose(together, alone, atol=1e-5)


def test_outputs_are_named_and_shaped(model, images):
    output = model(images, mask())
    assert output.pred.shape == (2, 16, 192)
    assert output.tokens.shape == (2, 16, 48)
    assert output.projected.shape == (2, 16, 1024)
    assert output.latent.shape == (2, 5, 64)
    assert torch.allclose(output.projected, model.projector(output.pred))
    assert build_model(SMALL)(images, mask()).projected is None


def test_the_projector_may_read_the_decoder_features(images):
    model = build_model(replace(SMALL, in_view=1.0, project_from="tokens", projector_dim=24))
    output = model(images, mask())
    assert torch.allclose(output.projected, model.projector(output.tokens))


@pytest.mark.parametrize(("size", "channels"), [((16, 40), 3), ((32, 32), 4), ((24, 8), 1)])
def test_any_grid_and_any_number_of_channels(size, channels, generator):
    model = initialize(MAE(SMALL.model, size, channels), generator)
    n = size[0] * size[1] // 64
    images = torch.randn(2, channels, *size, generator=generator)
    pred = model(images, random_mask(2, n, 0.5, generator=generator)).pred
    assert pred.shape == (2, n, 64 * channels)


@pytest.mark.parametrize(
    ("shape", "n", "line"),
    [
        ((2, 3, 40, 32), 16, r"images: got shape \(2, 3, 40, 32\), expected \(B, 3, 32, 32\)"),
        ((2, 1, 32, 32), 16, r"images: got shape \(2, 1, 32, 32\), expected \(B, 3, 32, 32\)"),
        ((2, 3, 32, 32), 25, r"mask: got shape \(2, 25\), expected \(2, 16\)"),
        ((3, 3, 32, 32), 16, r"mask: got shape \(2, 16\), expected \(3, 16\)"),
    ],
)
def test_bad_input_is_named_in_one_line(model, shape, n, line):
    with pytest.raises(LcmaeError, match=line):
        model(torch.zeros(shape), mask(n=n))


def test_without_a_decoder_nothing_is_reconstructed(images):
    model = initialize(MAE(SMALL.model, (32, 32), decoder=False), torch.Generator())
    assert model.encoder(images).shape == (2, 17, 64)
    with pytest.raises(LcmaeError, match="encoder-only checkpoint, expected a full one"):
        model(images, mask())


def test_a_width_without_positions_is_named():
    with pytest.raises(LcmaeError, match="width: got 66, expected a multiple of 4"):
        MAE(config.Model(width=66, heads=2), (32, 32))
