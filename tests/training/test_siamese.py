"""Claims: L_cross is the mean of 1 - cosine over positives and nothing else, L_in compares v with equally averaged
pixels; gradients reach both crops (no stop-gradient); a crop pair without positives adds nothing and is counted; a
run learns, goes on bit-equal after a stop, does not care for micro-batches, and collapses without L_in alone."""

import os
import signal

import pytest
import torch
from torch.nn import functional as F

from lcmae_core.analysis.collapse import collapse, hidden_vectors
from lcmae_core.config import UNUSED, replace
from lcmae_core.data.loader import Batch, Place
from lcmae_core.models.build import build_model, model_of
from lcmae_core.models.interop import load_mae
from lcmae_core.models.masking import no_mask
from lcmae_core.models.patches import patchify
from lcmae_core.models.siamese import Positives, Siamese, mutual_positives
from lcmae_core.store.runs import load_run
from lcmae_core.training.guards import Stopped
from lcmae_core.training.held_out import evaluation_loader
from lcmae_core.training.loop import pretrain
from lcmae_core.training.siamese import positive_loss, siamese_terms
from tests.config.test_settings import OTHER
from tests.data.made_pictures import write_folder
from tests.training.helpers import losses, weights

BOXES = torch.tensor([[0, 0, 40, 40], [5, 9, 30, 36], [0, 0, 20, 20]])
OTHERS = torch.tensor([[8, 4, 38, 44], [0, 0, 44, 40], [40, 40, 20, 20]])  # the last does not overlap


@pytest.fixture
def small(tiny, tmp_path):
    write_folder(
        tmp_path / "pictures", [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "ab" for i in "012"]
    )
    return replace(tiny, method="siamese", source=f"folder:{tmp_path / 'pictures'}")


@pytest.fixture
def batch(generator):
    crops = tuple(torch.randn(3, 3, 32, 32, generator=generator) for _ in range(2))
    places = Place(BOXES, torch.tensor([False, True, False])), Place(OTHERS, torch.tensor([False, False, True]))
    return Batch(crops[0], torch.zeros(3).long(), torch.arange(3), None, crops, places)


def by_loops(v, pairs):
    """Every positive, one after the other."""
    first, second = v.chunk(2)
    found = [
        1 - F.cosine_similarity(first[b, i], second[b, pairs.partner[b, i]], dim=0)
        for b, i in pairs.positive.nonzero().tolist()
    ]
    return torch.stack(found)


def test_cross_is_the_mean_over_positives(generator):
    v = torch.randn(6, 16, 8, generator=generator)
    places = Place(BOXES, torch.tensor([False, True, False])), Place(OTHERS, torch.tensor([False, False, True]))
    pairs = mutual_positives(*places, (4, 4))
    assert pairs.positive.sum(1).tolist()[2] == 0
    found = by_loops(v, pairs)
    assert torch.allclose(positive_loss(v, pairs), found.mean())
    assert torch.allclose(positive_loss(v, pairs, "sum"), found.sum() / 3)
    wrong = pairs._replace(partner=pairs.partner.flip(1))
    assert not torch.allclose(positive_loss(v, wrong), found.mean(), atol=1e-2)


def test_without_positives_a_zero_that_keeps_the_graph(generator):
    v = torch.randn(2, 16, 8, generator=generator, requires_grad=True)
    nothing = Positives(torch.zeros(1, 16).long(), torch.zeros(1, 16, dtype=torch.bool))
    loss = positive_loss(v, nothing)
    loss.backward()
    assert loss.item() == 0
    assert not v.grad.any()


def test_gradients_reach_positives_of_both_crops_alone(generator):
    v = torch.randn(2, 16, 8, generator=generator, requires_grad=True)
    partner, positive = torch.zeros(1, 16).long(), torch.zeros(1, 16, dtype=torch.bool)
    partner[0, 3], positive[0, 3] = 7, True
    positive_loss(v, Positives(partner, positive)).backward()
    touched = v.grad.abs().sum(-1) > 0
    assert touched.nonzero().tolist() == [[0, 3], [1, 7]]
    moved = v.detach() - 0.1 * v.grad
    assert positive_loss(moved, Positives(partner, positive)) < positive_loss(v, Positives(partner, positive))


def test_terms_are_what_the_formulas_say(small, batch):
    settings = replace(small, siamese_cross_view=2.0, siamese_in_view=0.5)
    model = build_model(settings)
    output = model(torch.cat(batch.crops))
    found = siamese_terms(model, output, batch, settings)
    pairs = mutual_positives(*batch.places, (4, 4))
    assert found["cross"].item() == pytest.approx(by_loops(output.projected, pairs).mean().item(), abs=1e-6)
    gaps = []
    for v, crop in zip(output.projected, torch.cat(batch.crops)):
        x = model.mixing @ patchify(crop[None], 8)[0]
        gaps += [
            (F.cosine_similarity(v[i], v[j], dim=0) - F.cosine_similarity(x[i], x[j], dim=0)).abs()
            for i in range(16) for j in range(16) if i != j
        ]  # fmt: skip
    assert found["inside"].item() == pytest.approx(torch.stack(gaps).mean().item(), abs=1e-5)
    assert found["total"].item() == pytest.approx(2 * found["cross"].item() + 0.5 * found["inside"].item(), abs=1e-6)
    assert found["positives"].item() == pytest.approx(pairs.positive.sum().item() / 3)
    assert found["unpaired"].item() == pytest.approx(1 / 3)


def test_ablations_leave_out_what_they_say(small, batch):
    def terms(**changes):
        settings = replace(small, changes)
        model = build_model(settings)
        return siamese_terms(model, model(torch.cat(batch.crops)), batch, settings)

    assert set(terms()) == {"total", "cross", "inside", "positives", "unpaired"}
    assert set(terms(siamese_in_view=0.0)) == {"total", "cross", "positives", "unpaired"}
    assert set(terms(siamese_cross_view=0.0)) == {"total", "inside"}
    by_position = terms(positives="position")
    assert (by_position["positives"].item(), by_position["unpaired"].item()) == (16, 0)
    assert terms(positive_radius=0.1)["positives"] < terms()["positives"] < terms(positive_radius=2.0)["positives"]


def test_a_run_leaves_what_others_do(small):
    run = pretrain(small)
    assert run.name.startswith("siamese-s0-")
    assert {"step", "loss", "lr", "cross", "inside", "positives", "unpaired"} <= set(run.history[-1])
    held = run.results["held_out"]
    assert {"loss", "cross", "inside", "positives", "unpaired", "images"} == set(held)
    model = model_of(load_run(run.path))
    assert type(model) is Siamese
    images = next(iter(evaluation_loader(run.settings, 4).evaluation())).images
    assert torch.equal(load_mae(run.path).encoder(images), model.encoder(images))  # as any checkpoint
    assert hidden_vectors(model, images, no_mask(4, 16)).shape == (64, 16)


def test_an_interrupted_run_goes_on_bit_equal(small, tmp_path):
    settings = replace(small, accum_steps=2)
    whole = pretrain(replace(settings, out=str(tmp_path / "whole")))

    def stop(moment):
        if moment.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        pretrain(settings, callbacks=[stop])
    run = pretrain(settings)
    assert weights(run) == weights(whole)
    assert losses(run) == losses(whole)


def test_what_it_does_not_read_has_no_effect(small, tmp_path):
    changes = {leaf: OTHER[leaf] for leaf in UNUSED["siamese"] & set(OTHER)}
    base = replace(small, steps=3)
    plain, changed = pretrain(base), pretrain(replace(base, changes, out=str(tmp_path / "changed")))
    assert plain.path.name == changed.path.name
    assert weights(plain) == weights(changed)


def test_it_learns_and_collapses_without_l_in_alone(small):
    longer = replace(small, steps=60, batch_size=6, base_lr=0.03, log_every=20)
    images = next(iter(evaluation_loader(longer, 6).evaluation())).images
    found = {}
    for weight in (1.0, 0.0):
        run = pretrain(replace(longer, siamese_in_view=weight))
        assert run.history[-1]["loss"] < 0.8 * run.history[0]["loss"]
        found[weight] = collapse(hidden_vectors(model_of(run), images, no_mask(len(images), 16)))
    assert found[0.0].mean_cosine > 0.95
    assert found[1.0].mean_cosine < 0.95
    assert found[1.0].effective_rank > 2 * found[0.0].effective_rank
