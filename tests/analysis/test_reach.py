"""Claims: the effective receptive field is the squared Jacobian (finite differences), and that of a local model is the
one worked out by hand; a decoder whose tokens attend to themselves alone is the same with forbidden attention, and its
blocks return what an identity map gives; the losses are those of the run's own objective image by image, of masked
models, erased ones and autoencoders; disjoint masks show no patch in common; the mean token is of visible ones."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from lcmae_core.analysis.attention import attention_maps
from lcmae_core.analysis.invariance import disjoint_masks, mean_colours, mean_tokens
from lcmae_core.analysis.metrics import attention_distance, near_mass, normalized_mutual_information
from lcmae_core.analysis.reach import attending_alone, own_losses
from lcmae_core.analysis.receptive import fixed_queries, gradient_energy, within
from lcmae_core.analysis.specific import query_specific
from lcmae_core.analysis.streams import attention_profile
from lcmae_core.analysis.views import masked_pair, mirrored_pair, mirrored_places
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.data.loader import Batch
from lcmae_core.models.build import build_model
from lcmae_core.models.masking import Mask, erase_patches, mask_from_hidden, random_mask
from lcmae_core.training.autoencoder import block_loss
from lcmae_core.training.masked import view_masks
from lcmae_core.training.objectives import Masked

SMALL = replace(
    profile("smoke"),
    {"image_size": (16, 24), "patch_size": 4, "width": 16, "depth": 2, "heads": 2, "decoder_width": 16,
     "decoder_depth": 2, "decoder_heads": 2, "projector_dim": 8},
)  # fmt: skip
GRID = (4, 6)


@pytest.fixture
def batch(generator):
    return Batch(torch.randn(5, 3, 16, 24, generator=generator), torch.full((5,), -1), torch.arange(5), None)


# ---- effective receptive field


def test_gradient_energy_is_the_squared_jacobian(generator):
    encoder = build_model(replace(SMALL, width=8, heads=1, image_size=(8, 12))).encoder.double().eval()
    image, query, step = torch.randn(2, 3, 8, 12, generator=generator, dtype=torch.float64), 4, 1e-5
    every = torch.eye(8, dtype=torch.float64)[:, None].expand(-1, 2, -1) * 8**0.5
    found = gradient_energy(lambda x: encoder(x)[:, 1:], image, 4, [0, query], every)
    expected = torch.zeros(6, dtype=torch.float64)
    with torch.no_grad():
        for c, y, x in itertools.product(range(3), range(8), range(12)):
            plus, minus = image[:1].clone(), image[:1].clone()
            plus[0, c, y, x] += step
            minus[0, c, y, x] -= step
            change = (encoder(plus) - encoder(minus))[0, 1 + query] / (2 * step)
            expected[(y // 4) * 3 + x // 4] += change.square().sum()
    assert found.shape == (2, 2, 6)
    assert torch.allclose(found[0, 1], expected, rtol=1e-5)
    signs = torch.randint(2, (4000, 2, 8), generator=generator).double() * 2 - 1
    assert torch.allclose(
        gradient_energy(lambda x: encoder(x)[:, 1:], image, 4, [query], signs)[0, 0], expected, rtol=0.1
    )


def test_the_field_of_a_local_model_is_known(generator):
    """A token is the mean of the 3 x 3 patches around its own: a ninth of the energy each."""

    def local(images):
        return F.avg_pool2d(images, 4).flatten(1).unflatten(1, (3, -1)).mT @ mixing.T  # (B, N, 3)

    rows, cols = 5, 6
    average = torch.zeros(rows * cols, rows * cols)
    for i, j in itertools.product(range(rows * cols), repeat=2):
        near = abs(i // cols - j // cols) <= 1 and abs(i % cols - j % cols) <= 1
        average[i, j] = near / 9
    mixing = torch.eye(3)

    def tokens(images):
        return average @ local(images)

    images, inside = torch.randn(2, 3, 20, 24, generator=generator), 2 * cols + 3
    energy = gradient_energy(tokens, images, 4, [inside, 0], torch.ones(1, 2, 3))
    shares = within(energy[:, :1], (rows, cols), [inside], (0, 1, 1.5, 2))
    assert torch.allclose(shares, torch.tensor([1 / 9, 5 / 9, 1, 1]).expand(2, -1), atol=1e-6)
    both = within(energy, (rows, cols), [inside, 0], (0, 1))  # a corner has four patches around it
    assert both[0].tolist() == pytest.approx([(1 / 9 + 1 / 4) / 2, (5 / 9 + 3 / 4) / 2])
    assert within(torch.zeros(1, 1, 30), (rows, cols), [0], (0, 9)).tolist() == [[0, 0]]
    assert fixed_queries((8, 8)) == [18, 22, 50, 54]
    assert fixed_queries((1, 1)) == [0]


# ---- a decoder that attends to itself alone


def test_attending_alone_is_attention_with_the_identity(batch):
    model, mask = build_model(SMALL).eval(), view_masks(SMALL, batch, 1)[0]
    with torch.no_grad():
        free = model(batch.images, mask)
        with attending_alone(model):
            alone = model(batch.images, mask)
        x = model.decoder.sequence(free.latent, mask.restore)
        for block in model.decoder.blocks:  # by hand: softmax(q k) replaced by the identity
            v = block.attn.qkv(block.norm1(x))[..., 32:]
            x = x + block.attn.proj(v)
            x = x + block.mlp(block.norm2(x))
        expected = model.decoder.pred(model.decoder.norm(x)[:, 1:])
        again = model(batch.images, mask)
    assert torch.allclose(alone.pred, expected, atol=1e-5)
    assert not torch.allclose(alone.pred, free.pred, atol=1e-2)
    assert torch.equal(again.pred, free.pred), "the model is left as it was"
    line, local = (
        "decoder: got ConvolutionDecoder, expected a TransformerDecoder",
        replace(SMALL, decoder="convolution"),
    )
    with pytest.raises(LcmaeError, match=line), attending_alone(build_model(local)):
        pass


def test_a_decoder_that_attends_to_itself_loses_nothing(batch):
    """One head whose queries are its keys, at a thousand times their length: the inputs are as long as each other (they
    are normalised), so softmax leaves each token itself alone."""
    settings = replace(SMALL, decoder_depth=1, decoder_heads=1, method="ae")
    model = build_model(settings).eval()
    attn = model.decoder.blocks[0].attn
    before = own_losses(model, settings, batch)
    with attending_alone(model):
        assert not torch.allclose(own_losses(model, settings, batch), before, atol=1e-3)
    with torch.no_grad():
        attn.qkv.weight[:32] = 1000 * torch.eye(16).repeat(2, 1)
        attn.qkv.bias[:32] = 0
    maps = attention_maps(model, batch.images, part="decoder", mask=_nothing_hidden(5))
    assert maps.diagonal(dim1=-2, dim2=-1).min() > 0.999
    full = own_losses(model, settings, batch)
    with attending_alone(model):
        assert torch.allclose(full, own_losses(model, settings, batch), atol=1e-4)


def test_losses_are_those_of_the_objective(batch):
    for changes in ({}, {"cross_view": 0.5, "in_view": 0.3}, {"erased": True}, {"norm_pix": False, "reduction": "sum"}):
        settings = replace(SMALL, changes)
        model = build_model(settings).eval()
        found = own_losses(model, settings, batch)
        for i in range(5):
            one = Batch(batch.images[i : i + 1], batch.epoch[i : i + 1], batch.index[i : i + 1], None)
            with torch.no_grad():
                expected = Masked(settings, None).terms(model, model, one, 0.0)["total"]
            assert found[i].item() == pytest.approx(expected.item(), rel=1e-5), changes
    settings = replace(SMALL, method="ae", block=3)
    model = build_model(settings).eval()
    found = own_losses(model, settings, batch)
    with torch.no_grad():
        pred = model(batch.images, _nothing_hidden(5)).pred
    expected = block_loss(pred, batch.images, 4, 3)
    assert found.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.std() > 0


def _nothing_hidden(count):
    every = torch.arange(24).expand(count, -1)
    return Mask(every, every, torch.zeros(count, 24, dtype=torch.bool))


# ---- two masks of one image


def test_disjoint_masks_share_no_visible_patch(generator):
    square, line = (8, 8), (3, 5)
    for ratio, unit, grid, shown in ((0.75, 1, square, 16), (0.9, 1, square, 6), (0.3, 1, square, 32),
                                     (0.75, 2, GRID, 4), (0.1, 1, line, 7)):  # fmt: skip
        cells = grid[0] * grid[1] // unit**2
        noise = torch.rand(1, cells, generator=generator)
        one, two = disjoint_masks(noise, grid[0] * grid[1], ratio, unit, grid)
        assert one.keep.shape == two.keep.shape == (1, shown)
        assert not set(one.keep[0].tolist()) & set(two.keep[0].tolist())
        assert torch.equal(one.hidden.sum(1), two.hidden.sum(1))


def test_the_mean_token_is_that_of_the_visible_patches(batch, generator):
    encoder = build_model(SMALL).encoder.eval()
    mask = random_mask(1, 24, 0.75, generator=generator)
    found = mean_tokens(encoder, batch.images, mask)
    with torch.no_grad():
        alone = encoder(batch.images, mask.keep.expand(5, -1))[:, 1:].mean(1)
        gone = encoder(erase_patches(batch.images, mask.hidden.expand(5, -1), GRID))[:, 1:]
        erased = mean_tokens(encoder, batch.images, mask, erased=True)
    assert found.shape == (5, 3, 16)
    assert torch.allclose(found[:, -1], alone, atol=1e-5)
    assert torch.allclose(erased[:, -1], gone[:, mask.keep[0]].mean(1), atol=1e-5)
    assert not torch.allclose(found[:, 0], found[:, 1])
    spoiled = batch.images.clone()
    hidden = int(mask.hidden[0].nonzero()[0, 0])
    spoiled[:, :, 4 * (hidden // 6) : 4 * (hidden // 6) + 4, 4 * (hidden % 6) : 4 * (hidden % 6) + 4] = 99
    for how in (False, True):
        same, other = (mean_tokens(encoder, x, mask, erased=how) for x in (batch.images, spoiled))
        assert torch.equal(same, other), "hidden pixels say nothing"
    assert torch.equal(mean_colours(batch.images, mask, 4), mean_colours(spoiled, mask, 4))
    place = int(mask.keep[0, 0])
    few = mask_from_hidden(torch.arange(24)[None] != place)
    top, left = 4 * (place // 6), 4 * (place % 6)
    expected = batch.images[:, :, top : top + 4, left : left + 4].mean((2, 3))
    assert torch.allclose(mean_colours(batch.images, few, 4), expected, atol=1e-6)


def test_pairs_are_at_places_that_both_masks_treat_alike(batch, generator):
    one, two = (random_mask(1, 24, 0.5, generator=generator) for _ in range(2))
    both_hidden = [i for i in range(24) if one.hidden[0, i] and two.hidden[0, i]]
    both_shown = [i for i in range(24) if not one.hidden[0, i] and not two.hidden[0, i]]
    for changes in ({"cross_view": 1.0}, {}, {"erased": True}):
        model = build_model(replace(SMALL, changes)).eval()
        pair = masked_pair(model, batch.images, (one, two))
        assert (pair.v.shape[2], pair.tokens.shape[2]) == (len(both_hidden), len(both_shown))
        for view, mask in enumerate((one, two)):
            with torch.no_grad():
                output = model(batch.images, Mask(*(part.expand(5, -1) for part in mask)))
            v = output.pred if output.projected is None else output.projected
            assert torch.equal(pair.v[view, :, 0], v[:, both_hidden[0]])
            place = both_shown[-1] if changes.get("erased") else mask.keep[0].tolist().index(both_shown[-1])
            assert torch.equal(pair.tokens[view, :, -1], output.latent[:, 1 + place])


def test_mirrored_pairs_follow_the_picture(batch):
    assert mirrored_places((2, 3)).tolist() == [2, 1, 0, 5, 4, 3]
    for method in ("siamese", "ae", "dino"):
        model = build_model(replace(SMALL, method=method, local_size=8)).eval()
        pair = mirrored_pair(model, batch.images, GRID)
        with torch.no_grad():
            other = model.encoder(batch.images.flip(3))[:, 1:]
        assert torch.allclose(pair.tokens[1, :, 7], other[:, 6 + 6 - 1 - 1], atol=1e-6), "row 1, column 1 -> column 4"
        assert (pair.v is None) == (method == "dino")
        if pair.v is not None:
            assert pair.v.shape[:3] == (2, 5, 24)
            again = mirrored_pair(model, batch.images.flip(3), GRID).v
            assert torch.allclose(again[1][:, mirrored_places(GRID)], pair.v[0], atol=1e-5)


# ---- an encoder at its training-time number of tokens


def test_a_masked_encoder_is_measured_on_its_own_maps(batch, generator):
    model, mask = build_model(SMALL).eval(), random_mask(1, 24, 0.75, generator=generator)
    found = attention_profile(model, batch.images.split(3), mask=mask, radii=(2,))
    maps = attention_maps(model, batch.images, mask=Mask(*(part.expand(5, -1) for part in mask)))  # (B, L, H, 7, 7)
    assert maps.shape[-2:] == (7, 7)
    far, places = torch.zeros(5, 2, 2), [divmod(i, 6) for i in mask.keep[0].tolist()]
    for i, j in itertools.product(range(6), repeat=2):
        apart = 4 * torch.tensor([a - b for a, b in zip(places[i], places[j])]).float().norm()
        far += maps[..., 1 + i, 1 + j] * apart / 6
    assert torch.allclose(found.distance, far.double(), atol=1e-4)
    assert torch.allclose(found.prefix_mass, maps[..., 1:, 0].mean(-1).double(), atol=1e-6)
    visible = maps[..., 1:, 1:]
    assert torch.allclose(
        found.nmi, normalized_mutual_information(visible, (1, 6), prefix_tokens=0).double(), atol=1e-5
    )
    mass = query_specific(visible, (1, 6), 1, prefix_tokens=0).mass
    assert torch.allclose(found.specific_mass, mass.double(), atol=1e-6)
    assert torch.allclose(found.entropy, torch.special.entr(maps[..., 1:, :]).sum(-1).mean(-1).double(), atol=1e-5)


def test_an_autoencoders_decoder_is_asked_at_every_patch(batch):
    settings = replace(SMALL, method="ae")
    model = build_model(settings).eval()
    found = attention_profile(model, [batch.images], part="decoder", mask=_nothing_hidden(1), radii=(1,))
    maps = attention_maps(model, batch.images, part="decoder", mask=_nothing_hidden(5))
    assert torch.allclose(found.distance, attention_distance(maps, GRID, 4).double(), atol=1e-5)
    assert torch.allclose(found.near[1], near_mass(maps, GRID, 1).double(), atol=1e-6)
