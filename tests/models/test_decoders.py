"""The local decoders of v2 Table 2: the Gaussian average is scipy's `gaussian_filter` with the same truncation, also at
borders; the convolution is a slow loop over neighbours and zeros beyond; nothing from further away reaches a patch, CLS
neither; weights follow from the seed; a run of theirs comes back whole, and files of others are refused in one line."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from lcmae_core.analysis.attention import attention_maps
from lcmae_core.analysis.blocks import attention_blocks
from lcmae_core.analysis.features import patch_features
from lcmae_core.config import LcmaeError, Settings, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.decoders import (
    AverageDecoder,
    ConvolutionDecoder,
    TransformerDecoder,
    build_decoder,
    gaussian_weights,
)
from lcmae_core.models.interop import export_hf, export_official, export_timm, load_mae
from lcmae_core.models.masking import no_mask, random_mask
from lcmae_core.store.runs import open_run
from lcmae_core.studies import table2
from lcmae_core.studies.published import TABLE2
from lcmae_core.studies.zoo import Subject

SMALL = replace(Settings(), image_size=64, patch_size=8, width=32, depth=1, heads=2, decoder_width=16, decoder_heads=2)
LOCAL = ["convolution", "average"]
local = pytest.mark.parametrize("kind", LOCAL)


def stirred(kind, **changes):
    """A model whose every weight matters."""
    model = build_model(replace(SMALL, decoder=kind, **changes))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def inputs(generator, batch=2, n=64):
    mask = random_mask(batch, n, 0.75, generator=generator)
    return torch.randn(batch, 1 + n // 4, 32, generator=generator), mask


def reach(model, latent, mask, patch):
    """Which patches' places in the decoder's input change the prediction of one patch, (8, 8)."""
    sequence = model.decoder.sequence(latent, mask.restore).detach().requires_grad_()
    model.decoder.sequence = lambda *_: sequence
    model.decoder(latent, mask.restore).pred[0, patch].square().sum().backward()
    assert sequence.grad[:, 0].abs().max() == 0, "CLS is dropped"
    return (sequence.grad[0, 1:].abs().amax(dim=-1) > 0).unflatten(0, (8, 8))


@pytest.mark.parametrize(("kernel", "sigma"), [(5, 1.0), (3, 1.0), (7, 1.7), (5, 0.4)])
@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (6, 9), (3, 2)])
def test_the_average_is_scipys_inside_and_at_borders(grid, kernel, sigma, generator):
    values = torch.randn(*grid, 4, generator=generator, dtype=torch.float64)
    ours = gaussian_weights(grid, kernel, sigma).double() @ values.flatten(0, 1)

    def smooth(field):
        return gaussian_filter(field, sigma, mode="constant", cval=0.0, radius=kernel // 2)

    share = smooth(np.ones(grid))  # of the window that lies inside the grid
    theirs = np.stack([smooth(values[..., c].numpy()) / share for c in range(4)], axis=-1)
    assert np.abs(ours.unflatten(0, grid).numpy() - theirs).max() < 1e-6
    if min(grid) > kernel - 1:  # inside, whatever the rule at borders
        r = kernel // 2
        plain = gaussian_filter(values[..., 0].numpy(), sigma, mode="reflect", truncate=r / sigma)
        inside = (slice(r, -r), slice(r, -r))
        assert np.abs(ours.unflatten(0, grid).numpy()[..., 0][inside] - plain[inside]).max() < 1e-6


def test_gaussian_weights_by_hand():
    weights = gaussian_weights((5, 5)).reshape(25, 5, 5)
    line = [math.exp(-d * d / 2) for d in (2, 1, 0, 1, 2)]
    middle = torch.tensor([[a * b / sum(line) ** 2 for b in line] for a in line])
    assert torch.allclose(weights[12], middle, atol=1e-7)
    corner = torch.zeros(5, 5)
    corner[:3, :3] = torch.tensor([[a * b / sum(line[2:]) ** 2 for b in line[2:]] for a in line[2:]])
    assert torch.allclose(weights[0], corner, atol=1e-7)  # the weights that exist make up the whole
    assert torch.allclose(weights.sum(dim=(1, 2)), torch.ones(25))


def test_the_average_decoder_averages_and_predicts_one_by_one(generator):
    model, (latent, mask) = stirred("average"), inputs(generator)
    sequence = model.decoder.sequence(latent, mask.restore)[:, 1:]
    decoded = model.decoder(latent, mask.restore)
    expected = torch.einsum("nm,bmd->bnd", gaussian_weights((8, 8)), sequence)
    assert torch.allclose(decoded.tokens, expected, atol=1e-5)
    assert torch.allclose(decoded.pred[1, 17], model.decoder.mlp(expected[1, 17]), atol=1e-5)
    own = {name for name, _ in model.decoder.named_parameters()} - {"embed.weight", "embed.bias", "mask_token"}
    assert own == {"pos_embed", *(f"mlp.{layer}.{kind}" for layer in ("fc1", "fc2") for kind in ("weight", "bias"))}


def test_the_average_is_float32_under_autocast(generator):
    model, (latent, mask) = stirred("average"), inputs(generator)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = model.decoder(latent, mask.restore).tokens
    assert tokens.dtype == torch.float32


def test_the_convolution_is_a_slow_loop_with_zeros_beyond_the_border(generator):
    model, (latent, mask) = stirred("convolution"), inputs(generator)
    places = model.decoder.sequence(latent, mask.restore)[0, 1:].unflatten(0, (8, 8))
    kernel, bias = model.decoder.convolution.weight, model.decoder.convolution.bias  # (out, in, 5, 5)
    decoded = model.decoder(latent, mask.restore)
    for row, col in ((0, 0), (0, 4), (3, 5), (7, 6), (7, 7)):
        total = bias.clone()
        for i in range(5):
            for j in range(5):
                y, x = row + i - 2, col + j - 2
                if 0 <= y < 8 and 0 <= x < 8:
                    total = total + kernel[:, :, i, j] @ places[y, x]
        assert torch.allclose(decoded.tokens[0, 8 * row + col], total, atol=1e-4)
        assert torch.allclose(decoded.pred[0, 8 * row + col], model.decoder.pred(total), atol=1e-4)


@local
@pytest.mark.parametrize("kernel", [3, 5])
def test_a_patch_hears_of_its_window_alone(kind, kernel, generator):
    latent, mask = inputs(generator)
    for row, col in ((4, 3), (0, 7)):
        heard = reach(stirred(kind, decoder_kernel=kernel), latent, mask, 8 * row + col)
        rows, cols = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
        assert torch.equal(heard, ((rows - row).abs() <= kernel // 2) & ((cols - col).abs() <= kernel // 2))


def test_the_transformer_hears_of_everything(generator):
    latent, mask = inputs(generator)
    decoder = stirred("transformer").decoder
    moved = latent.clone()
    moved[:, 0] += 1
    assert not torch.allclose(decoder(latent, mask.restore).pred, decoder(moved, mask.restore).pred)


@local
def test_weights_follow_from_the_seed_alone(kind):
    first = build_model(replace(SMALL, decoder=kind)).state_dict()
    torch.rand(3)
    again = build_model(replace(SMALL, decoder=kind)).state_dict()
    other = build_model(replace(SMALL, decoder=kind, seed=1)).state_dict()
    drawn = {key for key in first if not torch.equal(first[key], other[key])}
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert {"decoder.mask_token", "decoder.embed.weight"} <= drawn
    assert ("decoder.convolution.weight" if kind == "convolution" else "decoder.mlp.fc1.weight") in drawn


def test_the_convolution_is_initialised_as_a_linear_layer():
    convolution = build_model(replace(SMALL, decoder="convolution")).decoder.convolution
    bound = math.sqrt(6 / (16 * 25 + 16))
    assert 0.98 * bound < convolution.weight.abs().max() <= bound
    assert convolution.bias.abs().max() == 0


@local
@pytest.mark.parametrize("size", [(16, 40), (24, 16)])
def test_any_grid_and_any_number_visible(kind, size, generator):
    model = build_model(replace(SMALL, decoder=kind, image_size=size, channels=1))
    n = size[0] * size[1] // 64
    images = torch.randn(2, 1, *size, generator=generator)
    for mask in (random_mask(2, n, 0.5, generator=generator), no_mask(2, n)):
        output = model(images, mask)
        assert output.pred.shape == (2, n, 64)
        assert output.tokens.shape == (2, n, 16)


@local
def test_a_run_comes_back_whole(kind, tmp_path, generator):
    settings = replace(SMALL, decoder=kind, in_view=1.0, project_from="tokens", projector_dim=8, out=str(tmp_path))
    model, run = build_model(settings), open_run(settings, "test")
    run.finish(model.state_dict(), {"steps": 0})
    images, mask = torch.randn(2, 3, 64, 64, generator=generator), random_mask(2, 64, 0.75, generator=generator)
    with torch.no_grad():
        for ours, theirs in zip(model.eval()(images, mask), load_mae(run.path)(images, mask)):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("kind", "name"), [("convolution", "ConvolutionDecoder"), ("average", "AverageDecoder")])
def test_what_only_a_transformer_has_is_refused_in_one_line(kind, name, tmp_path, generator):
    model = stirred(kind)
    images, mask = torch.randn(1, 3, 64, 64, generator=generator), random_mask(1, 64, 0.75, generator=generator)
    for attempt in (
        lambda: attention_blocks(model, "decoder"),
        lambda: attention_maps(model, images, part="decoder", mask=mask),
        lambda: patch_features(model, images, kind="keys", part="decoder", mask=mask),
    ):
        with pytest.raises(LcmaeError) as error:
            attempt()
        assert str(error.value) == f"decoder: got {name}, which has no attention blocks, expected a TransformerDecoder"
    for attempt in (
        lambda: export_official(model, tmp_path / "official.pth"),
        lambda: export_hf(model, tmp_path / "hf"),
    ):
        with pytest.raises(LcmaeError, match=rf"^decoder: got {name}, expected a transformer, as in [\w /]+$"):
            attempt()
    assert export_timm(model, tmp_path / "timm.safetensors").kwargs["embed_dim"] == 32  # the encoder goes anywhere
    assert len(attention_blocks(model)) == 1
    assert Subject(model, "", SMALL).part == "encoder"
    assert Subject(stirred("transformer"), "", SMALL).part == "decoder"


def test_table_2_differs_in_its_decoder_alone():
    kinds = {"transformer": TransformerDecoder, "convolution": ConvolutionDecoder, "average": AverageDecoder}
    rows = table2(SMALL, "quick")
    assert {name: type(build_decoder(s.model, s.grid, 192)) for name, s in rows.items()} == kinds
    assert {replace(s, decoder="transformer") for s in rows.values()} == {rows["transformer"]}
    assert {name: row.finetuned for name, row in TABLE2.items()} == {
        "transformer": "82.9", "average": "82.5", "convolution": "82.9",
    }  # fmt: skip
