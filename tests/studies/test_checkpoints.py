"""Claims: the numbers of a checkpoint's record are those that the functions of `analysis` give one by one; the passes
counted before are those that happen; what a checkpoint or the images cannot give is left out by name, and taken up when
they can; verdicts need partners on the same images, say one
checkpoint, and have a column of their own on the scoreboard; a ViT of timm takes the collection's images
as its own."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from lcmae_core import cli
from lcmae_core.analysis.attention import attention_maps
from lcmae_core.analysis.invariance import disjoint_masks
from lcmae_core.analysis.metrics import AttentionSimilarity, attention_distance, near_mass, uniform_near_mass
from lcmae_core.analysis.receptive import fixed_queries, gradient_energy, within
from lcmae_core.analysis.reconstruction import reconstruct
from lcmae_core.analysis.streams import for_batch, semantic_profile
from lcmae_core.config import profile, replace
from lcmae_core.data.counter import counter_uniform
from lcmae_core.losses import cross_view_loss
from lcmae_core.models import hub, named
from lcmae_core.models.interop import load_mae
from lcmae_core.models.mae import MAE, initialize
from lcmae_core.models.named import at_hand
from lcmae_core.models.pretrained import images_for
from lcmae_core.store.files import read_json
from lcmae_core.store.progress import Silent
from lcmae_core.store.records import Record
from lcmae_core.store.stopping import Stopped, StopRequest
from lcmae_core.studies.checkpoints import pictures
from lcmae_core.studies.checkpoints.lane import Lane, carry_out, plan
from lcmae_core.studies.checkpoints.meter import Meter
from lcmae_core.studies.checkpoints.numbers import table
from lcmae_core.studies.checkpoints.opened import opened
from lcmae_core.studies.checkpoints.verdicts import columns, judge, recorded
from lcmae_core.studies.checkpoints.work import NO_DINO
from lcmae_core.studies.front import scoreboard
from lcmae_core.studies.measures_attention import patch_tokens
from lcmae_core.studies.specimen import shuffled
from lcmae_core.training.masked import view_masks
from lcmae_core.viewer.figures.board import broken
from tests.studies.checkpoint_files import deit_file, dino_file, mae_file

COUNT = 12


def lane_of(words, out, asked=COUNT, **changes):
    base = replace(profile("smoke"), {"out": str(out), "device": "cpu"} | changes)
    models = [opened(at_hand(named.named(str(word))), base, {}) for word in words]
    return Lane(models, pictures.count(base, asked), out, "smoke")


def measure(lane):
    """Everything that is missing; the plans by name."""
    plans = {}
    for checkpoint in lane.checkpoints:
        todo = plans[checkpoint.name] = plan(lane, checkpoint)
        list(carry_out(lane, todo, Meter(Silent()), StopRequest()))
    return plans


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The three official files, measured; files, lane and plans."""
    folder = tmp_path_factory.mktemp("files")
    files = mae_file(folder), dino_file(folder), deit_file(folder)
    lane = lane_of(files, folder / "out")
    return files, lane, measure(lane)


@pytest.fixture(scope="module")
def by_hand(measured):
    """The MAE, its images in one batch, the mask that they share, and what the record says."""
    (file, *_), lane, _ = measured
    settings = lane.checkpoints[0].settings
    batch = pictures.read(settings, lane.images)
    one = type(batch)(*(part[:1] for part in batch[:3]), None)
    return load_mae(file), batch, view_masks(settings, one, 2), lane.record(lane.checkpoints[0])


def test_attention_and_s_attn_are_those_of_the_analysis(by_hand):
    model, batch, (mask, _), record = by_hand
    maps = attention_maps(model, batch.images)  # (M, L, H, T, T)
    far = attention_distance(maps, (4, 4), 32).mean(2)
    assert np.allclose(record.array("distance", "distance"), far, atol=0.006)
    plain = attention_distance(maps, (4, 4), 32, renormalize=True).mean(2)
    assert np.allclose(record.array("distance", "distance_renormalized"), plain, atol=0.006)
    assert np.allclose(record.array("distance", "near_1"), near_mass(maps, (4, 4), 1).mean(2), atol=6e-5)
    hidden = mask.hidden[0].nonzero()[:, 0]
    shared = for_batch(mask, COUNT)
    rows = attention_maps(model, batch.images, part="decoder", mask=shared, queries=hidden + 1)[..., 1:]
    close = near_mass(torch.nn.functional.pad(rows, (1, 0)), (4, 4), 2, queries=hidden).mean(2)
    expected = close / uniform_near_mass((4, 4), 2, hidden)
    assert np.allclose(record.array("similarity", "near"), expected, atol=6e-5)
    groups = rows[shuffled(COUNT)].split(2)
    similar = [AttentionSimilarity().update(group).compute() for group in groups]
    assert np.allclose(record.array("similarity", "s_attn"), torch.stack(similar), atol=6e-6)


@torch.no_grad()
def test_masks_reconstructions_and_invariance_are_those_of_the_analysis(by_hand, measured):
    model, batch, _, record = by_hand
    settings = measured[1].checkpoints[0].settings
    one, two = view_masks(settings, batch, 2)
    a, b = model(batch.images, one).pred, model(batch.images, two).pred
    expected = [cross_view_loss(a[i : i + 1], b[i : i + 1], one.hidden[i : i + 1], two.hidden[i : i + 1])
                for i in range(COUNT)]  # fmt: skip
    assert np.allclose(record.array("terms", "cross_view_trained"), expected, atol=2e-6)
    twin = initialize(MAE(model.arch, (128, 128), 3), torch.Generator().manual_seed(settings.seed))
    a, b = twin(batch.images, one).pred, twin(batch.images, two).pred
    fresh = [cross_view_loss(a[i : i + 1], b[i : i + 1], one.hidden[i : i + 1], two.hidden[i : i + 1])
             for i in range(COUNT)]  # fmt: skip
    assert np.allclose(record.array("terms", "cross_view_untrained"), fresh, atol=2e-6)
    made = reconstruct(model, batch.images, one, norm_pix=False)
    assert np.allclose(record.array("reconstruction", "psnr_pixel"), made["pixel"].psnr, atol=2e-3)
    noise = counter_uniform(settings.seed, "disjoint", batch.epoch[:1], batch.index[:1], 16)
    means = []
    for mask in disjoint_masks(noise, 16, 0.75, 1, (4, 4)):
        means.append(model.encoder(batch.images, mask.keep.expand(COUNT, -1))[:, 1:].mean(1))
    unit = [part / part.norm(dim=1, keepdim=True) for part in means]
    found = (unit[0] @ unit[1].T).argmax(1) == torch.arange(COUNT)
    assert np.allclose(record.array("invariance", "found"), found)


def test_s_sim_and_the_receptive_field_are_those_of_the_analysis(by_hand, measured):
    model, batch, (mask, _), record = by_hand
    dino = load_mae(measured[0][1]).encoder
    found = semantic_profile(model, dino, [batch.images], mask)
    assert np.allclose(record.array("semantic", "s_sim"), found.terms, atol=2e-5)
    assert record.measures["semantic"]["recipe"]["name"] == "dino_vitbase16_pretrain"
    queries = fixed_queries((4, 4))
    signs = 2.0 * (counter_uniform(0, "receptive", batch.epoch, batch.index, 768) < 0.5) - 1
    energy = gradient_energy(lambda x: model.encoder(x)[:, 1:], batch.images, 32, queries, signs[None])
    expected = within(energy, (4, 4), queries, (0, 1, 2, 3))
    assert np.allclose(record.array("receptive", "within"), expected, atol=2e-4)


def test_the_passes_counted_before_are_those_that_happen(measured):
    _, lane, plans = measured
    for checkpoint in lane.checkpoints:
        kept = lane.record(checkpoint).measures
        for name, work in plans[checkpoint.name].work.items():
            assert kept[name]["passes"] == work.passes, (checkpoint.name, name)
            assert work.seconds > 0


def test_verdicts_of_three_files(measured):
    _, lane, _ = measured
    (found,) = judge(recorded(lane.out))
    assert found.name == "mae_visualize_vit_base"
    assert found.beside == ("dino_vitbase16_pretrain", "deit_base_patch16_224-b5f2ef4d")
    assert [v.claim.name for v in found.verdicts] == ["C1", "C2", "C7", "C13", "C14", "C20"]
    judged = {v.claim.name: v for v in found.verdicts}
    assert "to the DINO beside it: above 0" in judged["C2"].outcomes[0].test.text
    for verdict in found.verdicts:
        assert verdict.outcomes
        assert verdict.why.startswith("one checkpoint, intervals over images alone: ")
    far = {c.role: lane.record(c).array("distance", "distance").mean() for c in lane.checkpoints}
    first = judged["C7"].outcomes[0].estimate
    assert np.isclose(first.value, far["MAE"] - far["DINO"])
    assert (first.seeds, first.images) == (1, COUNT)
    assert first.low < first.value < first.high
    assert found.verdict("C5") == "not judged"


def test_partners_on_other_images_are_no_partners(measured, tmp_path):
    _, lane, _ = measured
    records = []
    for checkpoint in lane.checkpoints:
        content = read_json(lane.record(checkpoint).path)
        content["fingerprint"] += "" if checkpoint.role == "MAE" else "other"
        path = tmp_path / f"{checkpoint.role}.json"
        path.write_text(json.dumps(content))
        records.append(Record(path))
    (found,) = judge(records)
    why = {v.claim.name: (v.verdict, v.why) for v in found.verdicts}["C7"]
    assert why == ("not judged", "needs a DINO and a DeiT on the same images: no DINO and no supervised")


def test_an_encoder_alone_is_measured_and_its_decoder_left_out_by_name(tmp_path):
    file = dino_file(tmp_path, "mae_pretrain_vit_base.pth")
    lane = lane_of([file], tmp_path / "out", asked=4)
    plans = measure(lane)
    assert set(plans["mae_pretrain_vit_base"].work) == {"distance", "invariance", "receptive", "knn"}
    (found,) = judge(recorded(lane.out))
    said = {v.claim.name: (v.verdict, v.why) for v in found.verdicts}
    for claim in ("C1", "C2", "C13", "C14"):
        assert said[claim] == ("not judged", "no decoder of attention blocks in it")
    assert said["C20"][0] != "not judged"


def test_what_is_done_is_done_once_and_a_dino_that_comes_later_is_used(measured, tmp_path):
    files, *_ = measured
    lane_of_four = partial(lane_of, out=tmp_path / "out", asked=4)
    lane = lane_of_four(files[:1])
    measure(lane)
    record = lane.record(lane.checkpoints[0])
    assert record.measures["semantic"]["values"] == {"left_out": NO_DINO}
    before = record.path.stat().st_mtime_ns
    assert not plan(lane, lane.checkpoints[0]).work
    assert record.path.stat().st_mtime_ns == before
    later = lane_of_four(files[:2])
    assert set(plan(later, later.checkpoints[0]).work) == {"semantic"}
    assert set(plan(lane_of_four(files[:1], seed=1), lane.checkpoints[0]).work) == set()
    other = lane_of_four(files[:1], seed=1)
    assert "distance" in plan(other, other.checkpoints[0]).work


def test_a_stop_keeps_what_was_measured(measured, tmp_path):
    lane, stop = lane_of(measured[0][1:2], tmp_path / "out", asked=4), StopRequest()
    todo = plan(lane, lane.checkpoints[0])
    work = carry_out(lane, todo, Meter(Silent()), stop)
    first, _ = next(work)
    stop.set("SIGINT")
    with pytest.raises(Stopped, match="stopped before its measure") as stopped:
        next(work)
    assert stopped.value.exit_code == 130
    assert set(plan(lane, lane.checkpoints[0]).work) == set(todo.work) - {first}


def test_what_another_process_measures_is_left_to_it(measured, tmp_path):
    lane = lane_of(measured[0][1:2], tmp_path / "out", asked=4)
    todo = plan(lane, lane.checkpoints[0])
    with lane.record(lane.checkpoints[0]).claimed() as mine:
        assert mine
        assert not list(carry_out(lane, todo, Meter(Silent()), StopRequest()))
    assert next(carry_out(lane, todo, Meter(Silent()), StopRequest()))[0] == "distance"


def test_a_vit_of_timm_takes_the_collections_images_as_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "checkpoints", lambda: tmp_path)
    torch.manual_seed(0)
    theirs = timm.create_model("test_vit").eval()
    (tmp_path / "timm--test_vit.r160_in1k").mkdir()
    save_file(theirs.state_dict(), tmp_path / "timm--test_vit.r160_in1k" / "model.safetensors")
    lane = lane_of(["MAE=test_vit.r160_in1k"], tmp_path / "out", asked=4)
    (checkpoint,) = lane.checkpoints
    assert (checkpoint.role, checkpoint.settings.grid, checkpoint.decodes) == ("MAE", (10, 10), False)
    images = pictures.read(checkpoint.settings, lane.images).images
    ours = patch_tokens(checkpoint.load(), theirs.num_prefix_tokens, images)
    with torch.no_grad():
        expected = theirs.forward_features(images_for(theirs, images))[:, theirs.num_prefix_tokens :]
    assert theirs.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    assert torch.allclose(ours, expected, atol=1e-4)
    measure(lane)
    record = lane.record(checkpoint)
    assert record.array("receptive", "within").shape == (4, 4)
    assert record.array("distance", "masked_distance").shape == record.array("distance", "distance").shape
    assert record.array("invariance", "found").shape == (4,)
    header, lines = table([record])
    assert header == ["", "test_vit.r160_in1k"]
    assert lines[0][0] == "attention distance, px"


def test_a_few_photographs_without_labels(tmp_path):
    from PIL import Image

    for place in range(3):
        pixels = np.random.default_rng(place).integers(0, 255, (140, 150, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{place}.png")
    lane = lane_of([dino_file(tmp_path)], tmp_path / "out", asked=256, source=f"folder:{tmp_path}")
    assert (lane.images.total, lane.images.labelled) == (3, False)
    assert lane.images.training > 0, "nothing is trained: a small source gives all its images"
    batch = pictures.read(lane.checkpoints[0].settings, lane.images)
    assert sorted(batch.index.tolist()) == [0, 1, 2], "every image has a number of its own, and so masks of its own"
    measure(lane)
    kept = lane.record(lane.checkpoints[0]).measures
    assert kept["knn"]["values"] == {"left_out": "the images have no labels"}
    assert np.isfinite(kept["distance"]["values"]["distance"]).all()


def test_a_measured_checkpoint_has_a_column_of_its_own(measured, tmp_path):
    _, lane, _ = measured
    board = scoreboard(lane.out, "quick")
    assert board.profiles[0] == "mae_visualize_vit_base", "nothing else was recorded there"
    column = {score.name: score.verdicts[0] for score in board.scores}
    (found,) = judge(recorded(lane.out))
    assert {name: column[name] for name in ("C1", "C7", "C20")} == {
        v.claim.name: v.verdict for v in found.verdicts if v.claim.name in ("C1", "C7", "C20")
    }
    assert column["C5"] == "not judged"
    said = dict(board.counts())["mae_visualize_vit_base"]
    assert said.endswith(
        "; checkpoint mae_visualize_vit_base beside dino_vitbase16_pretrain and deit_base_patch16_224-b5f2ef4d, "
        "12 images of photos:160: one checkpoint, intervals over images alone"
    )
    shutil.copytree(lane.out, tmp_path / "out")
    (tmp_path / "out" / "results" / "10.json").write_text(json.dumps({"values": {"C01": {"value": "sign wrong"}}}))
    assert scoreboard(tmp_path / "out", "quick").profiles[:2] == ("quick", "mae_visualize_vit_base")


def test_two_checkpoints_have_a_column_each_under_their_names(measured, tmp_path):
    _, lane, _ = measured
    out = tmp_path / "out"
    shutil.copytree(lane.out, out)
    record = lane.record(lane.checkpoints[0])
    content = read_json(record.path)
    content["checkpoint"]["name"] = "another"
    (out / "results" / "published" / "another-0.json").write_text(json.dumps(content))
    assert sorted(column.title for column in columns(out)) == ["another", "mae_visualize_vit_base"]
    assert broken("mae_visualize_vit_base") == "mae_visualize_\nvit_base"


def test_the_report_has_the_numbers_and_the_verdicts(measured, capsys):
    _, lane, _ = measured
    assert cli.main(["report", "--out", str(lane.out)]) == 0
    page = (lane.out / "report.html").read_text()
    assert "Checkpoints: numbers side by side" in page
    assert "<th>mae_visualize_vit_base</th>" in page
    assert "What mae_visualize_vit_base makes of hidden patches" in page
    assert page.count("data:image/png") >= 1
    assert '<th scope="col">mae_visualize_vit_base</th>' in page
    capsys.readouterr()
