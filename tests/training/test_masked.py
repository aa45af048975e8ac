"""The objective weighs the three losses as set, averages the views, and draws masks from (seed, epoch, index) alone;
erased patches keep their tokens, say nothing of their pixels, and alone have a loss, in training and held out."""

import pytest
import torch

from lcmae_core import losses
from lcmae_core.config import LcmaeError, digest, replace
from lcmae_core.data.augment import denormalize
from lcmae_core.data.loader import Batch
from lcmae_core.models.build import build_model
from lcmae_core.models.patches import normalize_patches, patchify
from lcmae_core.training.held_out import held_out
from lcmae_core.training.masked import forward_views, in_view_pixels, loss_terms, view_masks


@pytest.fixture
def batch(generator):
    return Batch(torch.randn(5, 3, 32, 32, generator=generator), torch.zeros(5).long(), torch.arange(5), None)


@pytest.fixture
def lcmae(tiny):
    return replace(tiny, reconstruction=1.0, cross_view=0.5, in_view=2.0)


def test_total_is_the_weighted_sum_over_both_views(lcmae, batch):
    model, masks = build_model(lcmae), view_masks(lcmae, batch, 2)
    output = forward_views(model, batch.images, masks)
    terms = loss_terms(output, batch.images, masks, 8, lcmae.loss)
    x = patchify(batch.images, 8)
    (p1, p2), (v1, v2) = output.pred.chunk(2), output.projected.chunk(2)
    m1, m2 = (m.hidden for m in masks)
    target = normalize_patches(x)
    rec = (losses.reconstruction_loss(p1, target, m1) + losses.reconstruction_loss(p2, target, m2)) / 2
    inside = (losses.in_view_loss(v1, x, m1) + losses.in_view_loss(v2, x, m2)) / 2
    cross = losses.cross_view_loss(v1, v2, m1, m2)
    for value, expected in zip(terms, (rec + 0.5 * cross + 2 * inside, rec, cross, inside)):
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_only_weighted_terms_are_computed(tiny, batch):
    masks = view_masks(tiny, batch, 1)
    terms = loss_terms(forward_views(build_model(tiny), batch.images, masks), batch.images, masks, 8, tiny.loss)
    assert terms.cross_view is None
    assert terms.in_view is None
    assert terms.total == terms.reconstruction


def test_masks_are_a_function_of_seed_epoch_index_and_view(tiny, batch):
    first, second = view_masks(tiny, batch, 2)
    assert not torch.equal(first.hidden, second.hidden)
    assert torch.equal(view_masks(tiny, batch, 1)[0].hidden, first.hidden)
    alone = Batch(batch.images[3:4], batch.epoch[3:4], batch.index[3:4], None)
    assert torch.equal(view_masks(tiny, alone, 1)[0].hidden, first.hidden[3:4])
    for other, changed in ((replace(tiny, seed=1), batch), (tiny, batch._replace(epoch=batch.epoch + 1))):
        assert not torch.equal(view_masks(other, changed, 1)[0].hidden, first.hidden)


def test_pixels_of_eq_6(batch):
    x = in_view_pixels(batch.images, 8, "imagenet")
    assert torch.equal(x, patchify(batch.images, 8))
    assert torch.allclose(in_view_pixels(batch.images, 8, "raw"), patchify(denormalize(batch.images), 8))
    centred = in_view_pixels(batch.images, 8, "centred").unflatten(-1, (-1, 3))
    assert centred.mean(dim=(1, 2)).abs().max() < 1e-6
    assert torch.equal(in_view_pixels(batch.images, 8, "norm_pix"), normalize_patches(x))
    with pytest.raises(LcmaeError, match="in_view_pixels: got 'rawe', did you mean 'raw'"):
        in_view_pixels(batch.images, 8, "rawe")


def test_erased_patches_keep_their_tokens_and_lose_their_pixels(tiny, batch):
    settings = replace(tiny, erased=True, depth=2)
    model, masks = build_model(settings).eval(), view_masks(settings, batch, 1)
    images, hidden = batch.images.clone().requires_grad_(), masks[0].hidden
    output = forward_views(model, images, masks)
    assert output.latent.shape[1] == 1 + settings.num_patches, "every patch is encoded, in its place"
    output.pred.square().sum().backward()
    reached = patchify(images.grad, 8).abs().amax(dim=-1) > 0  # (B, N)
    assert torch.equal(reached, ~hidden)

    by_hand = batch.images.clone()
    for image, row in enumerate(hidden):
        for place in row.nonzero()[:, 0].tolist():
            by_hand[image, :, 8 * (place // 4) : 8 * (place // 4 + 1), 8 * (place % 4) : 8 * (place % 4 + 1)] = 0
    with torch.no_grad():
        assert torch.equal(model.encoder(by_hand), output.latent), "no more than the pixels is gone"
        pred = model.decoder(output.latent, torch.arange(16).expand(5, -1)).pred
    assert torch.equal(pred, output.pred), "no mask token anywhere"
    assert not torch.allclose(pred, build_model(replace(settings, erased=False)).eval()(batch.images, masks[0]).pred)


def test_erased_patches_alone_have_a_loss(tiny, batch):
    settings = replace(tiny, erased=True)
    model, masks = build_model(settings).eval(), view_masks(settings, batch, 2)
    with torch.no_grad():
        output = forward_views(model, batch.images, masks)
    loss = loss_terms(output, batch.images, masks, 8, settings.loss).total
    target, total = normalize_patches(patchify(batch.images, 8)), 0.0
    for view, mask in enumerate(masks):
        for image in range(5):
            for place in mask.hidden[image].nonzero()[:, 0].tolist():
                total += float((output.pred[5 * view + image, place] - target[image, place]).square().mean()) / 120
    assert loss.item() == pytest.approx(total, rel=1e-5)

    class Held:
        def evaluation_in_turn(self, share):
            return iter([batch])

    assert held_out(model, settings, Held())["reconstruction"] == pytest.approx(total, rel=1e-5)


def test_erasing_is_another_run_and_leaves_the_old_ones(tiny):
    assert digest(tiny, "x") == digest(replace(tiny, erased=False), "x") != digest(replace(tiny, erased=True), "x")
    for method in ("ae", "dino", "siamese"):
        other = replace(tiny, method=method)
        assert digest(replace(other, erased=True), "x") == digest(other, "x"), "only a masked model reads it"
    assert "erased" not in tiny.model_dump(exclude_defaults=True).get("masking", {})
