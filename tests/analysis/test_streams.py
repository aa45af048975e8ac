"""Claims: streamed measures equal those of all maps at once, whatever the batches; Eq. 7 takes the rows of the hidden
patches under one mask, and its interval agrees with a bootstrap of the pairwise definition; Eq. 8 takes keys or outputs
of the right layer without CLS."""

import pytest
import torch

from lcmae_core.analysis.attention import attention_maps
from lcmae_core.analysis.features import patch_features
from lcmae_core.analysis.metrics import attention_distance, entropy, near_mass, semantic_similarity
from lcmae_core.analysis.streams import (
    Similarity,
    attention_profile,
    attention_similarity,
    for_batch,
    semantic_profile,
)
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.masking import random_mask


@pytest.fixture(scope="module")
def model():
    return build_model(replace(profile("smoke"), image_size=(32, 48), depth=3, decoder_depth=2)).eval()


@pytest.fixture
def images(generator):
    return torch.randn(7, 3, 32, 48, generator=generator)


@pytest.fixture
def mask(generator):
    return random_mask(1, 24, 0.75, generator=generator)


def test_profile_of_an_encoder(model, images):
    found = attention_profile(model, images.split(3), layers=[2, 0], radii=(1,))
    maps = attention_maps(model, images)[:, [2, 0]]
    assert found.distance.shape == (7, 2, 4)
    assert torch.allclose(found.distance, attention_distance(maps, (4, 6), 8).double(), atol=1e-5)
    again = attention_distance(maps, (4, 6), 8, renormalize=True).double()
    assert torch.allclose(found.distance_renormalized, again, atol=1e-5)
    assert torch.allclose(found.entropy, entropy(maps[..., 1:, :]).double(), atol=1e-5)
    assert torch.allclose(found.near[1], near_mass(maps, (4, 6), 1).double(), atol=1e-6)
    assert torch.allclose(found.prefix_mass, maps[..., 1:, 0].mean(-1).double(), atol=1e-6)


def test_profile_of_a_decoder_looks_at_hidden_queries(model, images, mask):
    found = attention_profile(model, images.split(4), part="decoder", mask=mask, radii=(2,))
    maps = attention_maps(model, images, part="decoder", mask=for_batch(mask, 7))
    hidden = mask.hidden[0]
    rows = maps[..., 1:, :][..., hidden, :]
    queries = hidden.nonzero()[:, 0]
    assert torch.allclose(found.distance, attention_distance(rows, (4, 6), 8, queries=queries).double(), atol=1e-5)
    assert torch.allclose(found.near[2], near_mass(rows, (4, 6), 2, queries=queries).double(), atol=1e-6)
    assert torch.allclose(found.prefix_mass, rows[..., 0].mean(-1).double(), atol=1e-6)
    assert torch.allclose(found.entropy, entropy(rows).double(), atol=1e-5)


@pytest.mark.parametrize("cls_column", [False, True])
def test_attention_similarity_is_eq7_of_the_hidden_rows(model, images, mask, cls_column):
    found = attention_similarity(model, lambda: images.split(3), mask, cls_column=cls_column)
    maps = attention_maps(model, images, part="decoder", mask=for_batch(mask, 7)).double()
    rows = maps[..., 1:, :][..., mask.hidden[0], :][..., 0 if cls_column else 1 :]
    unit = torch.nn.functional.normalize(rows.flatten(2), dim=-1)  # (7, L, V)
    gram = torch.einsum("alv,blv->lab", unit, unit)
    off = ~torch.eye(7, dtype=torch.bool)
    assert torch.allclose(found.value, gram[:, off].mean(-1), atol=1e-6)
    assert torch.allclose(found.terms, ((gram.sum(-1) - 1) / 6).T, atol=1e-6)


def test_interval_of_eq7_agrees_with_a_bootstrap_of_all_pairs(generator):
    """100 images of unlike typicality: twice the spread of their terms is the spread of the pairwise mean."""
    shared, own = torch.ones(1, 20), torch.rand(100, 20, generator=generator, dtype=torch.float64)
    mixed = shared + 3 * torch.rand(100, 1, generator=generator, dtype=torch.float64) * own
    unit = torch.nn.functional.normalize(mixed, dim=-1)
    gram, off = unit @ unit.T, ~torch.eye(100, dtype=torch.bool)
    terms = ((gram.sum(1) - 1) / 99)[:, None]
    low, high = Similarity(terms.mean(0), terms, degree=2).interval(generator, draws=2000)
    draws = []
    for _ in range(2000):
        pick = torch.randint(100, (100,), generator=generator)
        pairs = pick[:, None] != pick[None]  # an image drawn twice is no pair
        draws.append(gram[pick][:, pick][pairs & off].mean())
    expected = torch.stack(draws).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    width = expected[1] - expected[0]
    assert (torch.cat([low, high]) - expected).abs().max() < 0.15 * width


def test_patch_features(model, images, mask):
    seen = []
    hook = model.encoder.blocks[1].register_forward_hook(lambda _, given, made: seen.append((given[0], made)))
    outputs = patch_features(model, images, kind="outputs", layers=[1])
    hook.remove()
    block, (tokens, made) = model.encoder.blocks[1], seen[0]
    assert torch.equal(outputs[:, 0], made[:, 1:])
    keys = patch_features(model, images, kind="keys", layers=[1])[:, 0]
    expected = block.attn.qkv(block.norm1(tokens))[:, 1:, 64:128]  # the second third
    assert torch.allclose(keys, expected, atol=1e-6)
    decoder = patch_features(model, images, kind="outputs", part="decoder", mask=for_batch(mask, 7))
    assert decoder.shape == (7, 2, 24, 48)
    with pytest.raises(LcmaeError, match=r"^kind: got 'key', did you mean 'keys'\?$"):
        patch_features(model, images, kind="key")


def test_semantic_profile_is_eq8(model, images, mask):
    reference = build_model(replace(profile("smoke"), image_size=(32, 48), depth=2, seed=5)).encoder.eval()
    features = patch_features(model, images, kind="outputs", part="decoder", mask=for_batch(mask, 7))
    target = patch_features(reference, images, kind="keys", layers=[1])[:, 0]
    found = semantic_profile(model, reference, images.split(3), mask)
    assert torch.allclose(found.value, semantic_similarity(features, target).double(), atol=1e-6)
    assert found.terms.shape == (7, 2)
    moved = semantic_profile(model, reference, [images], mask, shuffled=True)
    assert torch.allclose(moved.value, semantic_similarity(features, target.roll(1, 0)).double(), atol=1e-6)


def test_wrong_use_is_named(model, images, mask, generator):
    several = random_mask(2, 24, 0.75, generator=generator)
    for call, line in (
        (lambda: attention_profile(model, []), "images: got none, expected at least one batch"),
        (
            lambda: attention_profile(model, [images], mask=several),
            "mask: got 2 masks, expected one, shared by all images (Mask.row)",
        ),
        (
            lambda: attention_profile(model, [images], part="decoder"),
            "mask: got none for the decoder, expected one, shared by all images",
        ),
        (
            lambda: attention_similarity(model, lambda: [images], several),
            "mask: got 2 masks, expected one, shared by all images (Mask.row)",
        ),
        (
            lambda: attention_similarity(model, lambda: [images[:1]], mask),
            "S_attn: got 1 image, expected at least two",
        ),
    ):
        with pytest.raises(LcmaeError) as error:
            call()
        assert str(error.value) == line
