"""Claims: each measure that a rule reads is an independent computation on the same run: collapse and its controls, the
query-specific distance, an encoder at its training-time number of tokens, similarity in groups beside an untrained
decoder, terms in their own space, retrieval under disjoint masks, receptive field, the decoder's reach; of more images
than a record keeps, means of blocks of strangers; each leaves what its method has, and a record stays small."""

import json
import math

import numpy as np
import pytest
import torch

from lcmae_core.analysis.attention import attention_maps
from lcmae_core.analysis.collapse import effective_rank
from lcmae_core.analysis.invariance import mean_colours
from lcmae_core.analysis.metrics import entropy, normalized_mutual_information, prefix_mass
from lcmae_core.analysis.specific import query_specific
from lcmae_core.analysis.variance import variance_shares
from lcmae_core.config import replace
from lcmae_core.losses import cross_view_loss, in_view_loss
from lcmae_core.models.build import build_model, model_of
from lcmae_core.models.masking import Mask, no_mask
from lcmae_core.models.patches import normalize_patches, patchify
from lcmae_core.studies.measures import MEASURES
from lcmae_core.studies.measures_vectors import masks_of
from lcmae_core.studies.registry import leaves
from lcmae_core.studies.specimen import BLOCKS, Specimen, blocked, shuffled
from lcmae_core.training.loop import pretrain
from lcmae_core.training.masked import view_masks
from tests.loops import over
from tests.studies.tiny_studies import tiny_settings


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_settings(tmp_path_factory.mktemp("claims"))


def measured(settings, *names):
    one = Specimen(settings, "smoke", pretrain(settings))
    return one, *(MEASURES[name](one) for name in names)


def shared(mask, count=16):
    return Mask(*(part.expand(count, -1) for part in mask))


@pytest.fixture(scope="module")
def plain(base):
    return Specimen(base, "smoke", pretrain(base))


def cosine(a, b):
    return float(torch.cosine_similarity(a, b, dim=0))


def test_collapse_has_its_controls(base):
    one, found = measured(replace(base, cross_view=1.0), "collapse")
    images, masks = one.held.images, one.masks()
    assert torch.equal(masks[0].hidden, view_masks(one.settings, one.held._replace(
        images=images[:1], epoch=one.held.epoch[:1], index=one.held.index[:1]), 1)[0].hidden)  # fmt: skip
    hidden = [i for i in range(16) if masks[0].hidden[0, i] and masks[1].hidden[0, i]]
    for name, model in (("", model_of(one.run)), ("untrained_", build_model(one.settings).eval())):
        with torch.no_grad():
            v = torch.stack([model(images, shared(mask)).projected[:, hidden] for mask in masks])  # (2, M, P, V)
        for m in (0, 7):
            same = [
                cosine(view[m, p], view[o, p]) for view in v for p in range(len(hidden)) for o in range(16) if o != m
            ]
            assert found[f"{name}same_place"][m] == pytest.approx(np.mean(same), abs=2e-5)
            hit = 0.0
            for p in range(len(hidden)):
                near = [cosine(v[0, m, p].double(), v[1, o, p].double()) for o in range(16)]
                tied = [x >= max(near) - 1e-6 for x in near]
                hit += tied[m] / sum(tied)
            assert found[f"{name}found"][m] == pytest.approx(hit / len(hidden), abs=2e-5)
        if not name:
            shares = {key: found[f"variance_{key}"] for key in ("position", "mask", "image", "interaction")}
            assert shares == pytest.approx(variance_shares(v)._asdict(), abs=1e-5)
            assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
    assert found["chance"] == 1 / 16
    with torch.no_grad():
        tokens = model_of(one.run).encoder(images)[:, 1:]
    assert found["encoder_rank"] == pytest.approx([effective_rank(t.flatten(0, 1)) for t in tokens.split(8)], rel=1e-3)
    other = [cosine(tokens[3, p], tokens[o, p]) for p in range(16) for o in range(16) if o != 3]
    assert found["encoder_same_place"][3] == pytest.approx(np.mean(other), abs=2e-5)
    visible = [i for i in range(16) if not masks[0].hidden[0, i] and not masks[1].hidden[0, i]]
    assert visible, "the second mask is drawn until both show some patch"
    with torch.no_grad():
        seen = [model_of(one.run).encoder(images, mask.keep.expand(16, -1))[:, 1:] for mask in masks]
    at = [t[:, [mask.keep[0].tolist().index(i) for i in visible]] for t, mask in zip(seen, masks)]
    hits = [max(range(16), key=lambda o: cosine(at[0][m, p], at[1][o, p])) == m
            for m in range(16) for p in range(len(visible))]  # fmt: skip
    assert np.mean(found["encoder_found"]) == pytest.approx(np.mean(hits), abs=1e-4)
    assert {len(found[key]) for key in ("effective_rank", "mean_cosine", "spread", "encoder_rank")} == {2}


def test_a_model_that_hides_nothing_is_compared_with_mirror_images(base):
    _, siamese = measured(replace(base, method="siamese"), "collapse")
    assert 1 / 16 < np.mean(siamese["found"]) <= 1
    assert len(siamese["same_place"]) == 16
    one, ae = measured(replace(base, method="ae", block=3), "collapse")
    with torch.no_grad():
        v = torch.cat([model_of(one.run)(image[None], no_mask(1, 16)).pred for image in one.held.images])
    ranks = [effective_rank(part.flatten(0, 1)) for part in v.split(8)]
    assert ae["effective_rank"] == pytest.approx(ranks, rel=1e-3), "of every patch"
    _, dino = measured(replace(base, method="dino"), "collapse")
    own = {"encoder_rank", "encoder_same_place", "encoder_found"}
    assert set(dino) == {"chance", *own, *(f"untrained_{key}" for key in own)}, "it has no v"


@over("chosen", [
    {"method": "mae"}, {"method": "mae", "erased": True}, {"method": "ae", "block": 1}, {"method": "ae", "block": 3},
    {"method": "dino"}, {"method": "siamese"}, {"method": "supervised"},
])  # fmt: skip
def test_all_that_a_run_leaves_can_be_measured_of_every_method(chosen, base):
    settings = replace(base, chosen)
    names = leaves(settings)
    assert {"collapse", "distance", "probe"} <= set(names)
    _, *values = measured(settings, *names)
    assert all(values), "each measure has something to say"


def test_distances_have_their_controls(plain):
    found, images, mask = MEASURES["distance"](plain), plain.held.images, plain.mask()
    encoder = model_of(plain.run).encoder
    maps = attention_maps(encoder, images)
    specific = query_specific(maps, (4, 4), 8)
    every = {"specific_far": specific.far, "specific_mass": specific.mass, "prefix_mass": prefix_mass(maps)}
    every |= {"entropy": entropy(maps[..., 1:, :]), "nmi": normalized_mutual_information(maps, (4, 4))}
    for key, each in every.items():
        assert np.allclose(found[key], each.mean(2), atol=6e-4), key
    few = attention_maps(encoder, images, mask=shared(mask))  # (M, L, H, 5, 5)
    places = [divmod(i, 4) for i in mask.keep[0].tolist()]
    far = sum(
        8 * math.dist(a, b) / 4 * few[..., 1 + i, 1 + j] for i, a in enumerate(places) for j, b in enumerate(places)
    )
    assert np.allclose(found["masked_distance"], far.mean(2), atol=0.006)
    own = query_specific(few[..., 1:, 1:], (1, 4), 1, prefix_tokens=0)
    assert np.allclose(found["masked_specific_mass"], own.mass.mean(2), atol=6e-5)
    assert {"masked_distance_renormalized", "masked_specific_far", "masked_nmi"} <= set(found)
    assert np.shape(found["nmi"]) == (16, 2)


def test_only_masked_methods_have_masked_distances(base):
    _, ae = measured(replace(base, method="ae"), "distance")
    assert not [key for key in ae if key.startswith("masked")]
    one, erased = measured(replace(base, erased=True), "distance")
    images, hidden = one.held.images.clone(), one.mask().hidden[0]
    for place in hidden.nonzero()[:, 0].tolist():
        images[:, :, 8 * (place // 4) : 8 * (place // 4) + 8, 8 * (place % 4) : 8 * (place % 4) + 8] = 0
    expected = prefix_mass(attention_maps(model_of(one.run).encoder, images)).mean(2)
    assert np.allclose(erased["masked_prefix_mass"], expected, atol=6e-5), "all tokens, without the hidden pixels"


def test_similarity_stands_beside_an_untrained_decoder(plain):
    found = MEASURES["similarity"](plain)
    untrained = MEASURES["similarity"](Specimen(plain.settings, "smoke", None))
    assert np.shape(found["s_attn"]) == (8, 1)
    assert found["untrained_s_attn"] == untrained["s_attn"] != found["s_attn"]
    assert found["untrained_near"] == untrained["near"] != found["near"]


def test_terms_live_in_the_target_s_space(plain):
    found, images = MEASURES["terms"](plain), plain.held.images
    masks = view_masks(plain.settings, plain.held, 2)
    with torch.no_grad():
        for name, model in (("trained", model_of(plain.run)), ("untrained", model_of(plain.run, 0))):
            one, two = (model(images, mask).pred for mask in masks)
            other = model(torch.cat([images[1:], images[:1]]), masks[1]).pred
            for m in (0, 15):
                rows = slice(m, m + 1)
                hidden = [mask.hidden[rows] for mask in masks]
                x = normalize_patches(patchify(images[rows], 8))
                own = (in_view_loss(one[rows], x, hidden[0]) + in_view_loss(two[rows], x, hidden[1])) / 2
                assert found[f"in_view_own_{name}"][m] == pytest.approx(own.item(), abs=2e-6)
                strange = cross_view_loss(one[rows], other[rows], *hidden)
                assert found[f"cross_view_other_{name}"][m] == pytest.approx(strange.item(), abs=2e-6)
    raw = MEASURES["terms"](Specimen(replace(plain.settings, norm_pix=False), "smoke", None))
    assert raw["in_view_own_untrained"] == raw["in_view_untrained"], "pixels are their own space"


def test_an_image_is_found_under_disjoint_masks(plain):
    found, images, masks = MEASURES["invariance"](plain), plain.held.images, masks_of(plain)
    assert not (~masks[0].hidden & ~masks[1].hidden).any()
    for name, encoder in (
        ("", model_of(plain.run).encoder),
        ("_untrained", build_model(plain.settings).eval().encoder),
    ):
        with torch.no_grad():
            one, two = (encoder(images, mask.keep.expand(16, -1))[:, 1:].mean(1) for mask in masks)
        hits = [max(range(16), key=lambda o: cosine(one[m], two[o])) == m for m in range(16)]
        assert found[f"found{name}"] == [float(hit) for hit in hits]
    colours = [mean_colours(images, mask, 8) for mask in masks]
    hits = [min(range(16), key=lambda o: float((colours[0][m] - colours[1][o]).norm())) == m for m in range(16)]
    assert found["found_colour"] == [float(hit) for hit in hits]
    assert (len(found["layers_found"]), len(found["layers_untrained"])) == (2, 2)
    assert (found["chance"], found["visible"]) == (1 / 16, 0.25)


def test_receptive_field_grows_with_the_radius(plain):
    found = MEASURES["receptive"](plain)
    assert np.shape(found["within"]) == (16, 4)
    assert (np.diff(found["within"], axis=1) >= 0).all()
    assert np.mean(found["within"], 0)[0] > 2 * found["uniform"][0], "a token hears its own patch most"
    assert found["queries"] == [5, 7, 13, 15]
    assert found["uniform"][0] == 1 / 16
    assert MEASURES["receptive"](plain) == found


def test_reach_is_what_the_decoder_needs_of_others(base, plain):
    found = MEASURES["reach"](plain)
    model, masks = model_of(plain.run), view_masks(plain.settings, plain.held, 1)[0]
    with torch.no_grad():
        pred = model(plain.held.images, masks).pred
    target = normalize_patches(patchify(plain.held.images, 8))
    for m in (0, 9):
        error = (pred[m] - target[m])[masks.hidden[m]].square().mean()
        assert found["loss_full"][m] == pytest.approx(error.item(), abs=1e-5)
    assert found["loss_self"] != found["loss_full"]
    queries = plain.mask().hidden[0].nonzero()[:, 0]
    maps = attention_maps(model, plain.held.images, part="decoder", mask=shared(plain.mask()))[..., queries + 1, :]
    assert np.allclose(found["specific_mass"], query_specific(maps, (4, 4), 8, queries=queries).mass.mean(2), atol=6e-5)
    one, ae = measured(replace(base, method="ae", block=3), "reach")
    whole = attention_maps(model_of(one.run), one.held.images, part="decoder", mask=shared(one.mask()))
    assert np.allclose(ae["specific_far"], query_specific(whole, (4, 4), 8).far.mean(2), atol=6e-4), "every patch asks"
    assert len(ae["loss_self"]) == 16
    for changes in ({"decoder": "average"}, {"method": "dino"}):
        none = Specimen(replace(base, changes), "smoke", None)
        assert MEASURES["reach"](none) == {"left_out": "no decoder of attention blocks"}


def test_more_images_are_kept_as_blocks_of_strangers():
    few = torch.arange(BLOCKS * 3.0).reshape(BLOCKS, 3)
    assert torch.equal(blocked(few), few)
    many = torch.arange(512.0)[:, None].expand(-1, 2)
    found = blocked(many)
    assert found.shape == (BLOCKS, 2)
    assert found.mean().item() == pytest.approx(255.5)
    assert found[3, 0].item() == pytest.approx(many[shuffled(512)[24:32], 0].mean().item())
    assert 0.5 < found[:, 0].std() / (many[:, 0].std() / 8**0.5) < 1.5, "no block is of one class"


def test_a_record_stays_small(plain):
    """What a masked run leaves beside its accuracies, as it is written, were there 64 numbers for 16 and 4 layers."""
    found = {name: MEASURES[name](plain) for name in
             ("collapse", "distance", "similarity", "terms", "invariance", "receptive", "reach")}  # fmt: skip
    written = len(json.dumps(found, indent=1))
    assert not any(isinstance(x, float) and math.isnan(x) for x in np.concatenate(
        [np.ravel(v) for values in found.values() for v in values.values()]))  # fmt: skip
    assert written < 40_000
