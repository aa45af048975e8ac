"""A job trains what is not trained and measures what is missing, once; studies share runs and records; records are
read where data and weights are not. Each measure is what an independent computation of the same run gives."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from lcmae_core.analysis import collapse as collapse_of
from lcmae_core.analysis.attention import attention_maps
from lcmae_core.analysis.collapse import collapse, hidden_vectors
from lcmae_core.analysis.metrics import AttentionSimilarity, attention_distance
from lcmae_core.analysis.neighbours import image_features, knn_accuracy
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.config.profiles import PROFILES, profile_of
from lcmae_core.models.build import build_model, model_of
from lcmae_core.models.masking import Mask
from lcmae_core.store.evaluations import load_evaluation
from lcmae_core.store.records import unpacked
from lcmae_core.store.stopping import Stopped, StopRequest
from lcmae_core.studies import STUDIES
from lcmae_core.studies.measures import MEASURES
from lcmae_core.studies.specimen import Specimen, shuffled
from lcmae_core.studies.trials import jobs, rows
from lcmae_core.training import loop
from lcmae_core.training.held_out import evaluation_loader, held_out
from lcmae_core.training.loop import pretrain
from lcmae_core.training.masked import view_masks
from tests.data.made_pictures import write_folder
from tests.studies.tiny_studies import tiny_settings


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_settings(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def specimen(base):
    return Specimen(base, "smoke", pretrain(base))


def one(study, row, base, chosen=None, name="smoke"):
    return next(job for job in jobs([study], base, name, measures=chosen) if job.row == row)


def counted(monkeypatch, module, name):
    calls, real = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given, **more: calls.append(given) or real(*given, **more))
    return calls


def test_one_study_with_all_its_seeds_comes_before_the_next(base):
    found = [(job.study, job.case.settings.seed) for job in jobs(["fig6", "fig5"], base, "smoke", (0, 1))]
    assert found == [("fig6", 0)] * 5 + [("fig6", 1)] * 5 + [("fig5", 0)] * 3 + [("fig5", 1)] * 3
    assert {job.measures for job in jobs(STUDIES, base, "smoke", measures=["knn"])} == {("knn",), ()}
    with pytest.raises(LcmaeError, match=r"unknown study 'fig66': did you mean 'fig6'\?"):
        jobs(["fig66"], base, "smoke")


def test_shared_runs_have_one_record(base):
    shared = [("table1", "b"), ("fig6", "0.75"), ("table3", "MAE"), ("table2", "transformer"), ("fig5", "MAE"),
              ("fig_a1", "MAE"), ("table_a1", "full"), ("section32", "MAE"), ("beside", "MAE"), ("hlv_ratios", "0.75"),
              ("hlv_units", "1x")]  # fmt: skip
    assert len({one(study, row, base).record.path for study, row in shared}) == 1
    assert one("table3", "random init", base).record.path == one("table_a1", "random init", base).record.path
    every = {(job.study, job.row): job.record.path for job in jobs(STUDIES, base, "smoke")}
    own = set(every.values())
    counts = {"table1": 7, "fig6": 4, "random": 1, "table3": 4, "table2": 2, "deep": 1, "references": 2, "one": 1,
              "siamese": 4, "hlv_ratios": 3, "hlv_units": 1, "latents": 6, "erased": 1, "depth": 2}  # fmt: skip
    assert len(own) == sum(counts.values()) + 1  # and the control with two views
    assert not own & {job.record.path for job in jobs(STUDIES, base, "smoke", (1,))}


def test_a_job_is_done_once_and_measures_are_added(base, monkeypatch):
    trained, measured = counted(monkeypatch, loop, "train_run"), counted(monkeypatch, collapse_of, "collapse")
    job = one("table1", "c", base, ["collapse", "knn"])
    assert (job.missing, job.done) == (("collapse", "knn"), False)
    with pytest.warns(DeprecationWarning, match=r"rows\(do=\) is now make="):
        assert rows("table1", base, "smoke", measures=["collapse"], do=False)["c"] == []
    assert job.do() is True
    assert job.done
    assert set(job.record.measures) == {"collapse", "knn"}
    content, count = job.record.path.read_bytes(), (len(trained), len(measured))
    assert count == (1, 2)
    assert job.do() is True
    assert job.record.path.read_bytes() == content
    assert (len(trained), len(measured)) == count
    entry = job.record.measures["knn"]
    assert {"device", "versions", "commit", "date", "seconds", "values"} == set(entry)
    assert job.record.content["run"].startswith("cross_view-s0-")
    assert str(base.runtime.out) not in job.record.path.read_text()


def test_another_process_at_the_record_is_not_waited_for(base, monkeypatch):
    job = one("fig6", "0.3", base)
    began = counted(monkeypatch, loop, "train_run")
    with job.record.claimed():
        assert job.do() is False
    assert began == []


def test_untrained_encoders_are_measured_without_training(base, monkeypatch):
    began = counted(monkeypatch, loop, "train_run")
    job = one("table3", "random init", base, ["knn"])
    job.do()
    assert began == []
    assert job.record.name.startswith("untrained-s0-")
    assert job.record.content["training"] is None
    train, test = (image_features(build_model(base).encoder, evaluation_loader(base, split=split))
                   for split in ("train", "validation"))  # fmt: skip
    assert job.record.array("knn", "accuracy") == knn_accuracy(train, test)


def test_a_stop_is_looked_at_between_measures(base):
    job, stop = one("fig6", "0.45", base, ["distance"]), StopRequest()
    stop.set()
    with pytest.raises(Stopped, match="stopped before its measure 'distance'; the same command resumes"):
        job.do(stop=stop)
    assert not job.done
    assert job.record.content["training"]["steps"] == 2
    assert job.do()
    assert job.done


def test_one_image_is_judged_on_all_labels(base):
    job = one("table_a1", "one image", base, ["probe"])
    assert job.case.settings.data.train_images == 1
    job.do()
    assert job.record.array("probe", "right").shape == (len(evaluation_loader(base).split),)
    assert job.record.array("probe", "classes") == 10


def test_a_source_without_labels_leaves_out_what_needs_them(base, tmp_path):
    folder = write_folder(tmp_path / "pictures", [f"{i}.png" for i in range(24)])
    bare = replace(base, source=f"folder:{folder}", out=str(tmp_path / "out"))
    job = one("table1", "b", bare)
    job.do()
    assert {name for name, m in job.record.measures.items() if "left_out" in m["values"]} == {
        "finetune",
        "probe",
        "knn",
    }
    found = rows("fig5", bare, "smoke", make=True)
    assert found["supervised"][0].measures["distance"]["values"] == {"left_out": "the source has no labels"}
    assert found["DINO"][0].array("distance", "distance").shape[1] == 2


def test_records_are_read_where_data_and_weights_are_not(base, tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "pictures", [f"{i}.png" for i in range(24)])
    there = replace(base, source=f"folder:{folder}", out=str(tmp_path / "out"))
    one("fig6", "0.9", there).do()
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "out" / "runs")
    elsewhere = replace(there, source="folder:/gone/pictures")
    monkeypatch.setattr(loop, "pretrain", None)
    before = sorted(tmp_path.rglob("*"))
    found = rows("fig6", elsewhere, "smoke", make=False)
    assert [name for name, records in found.items() if records] == ["0.9"]
    assert found["0.9"][0].array("distance", "distance").shape[1] == 2
    assert rows("fig6", replace(profile("lab"), out=str(tmp_path / "no")), "lab")["0.9"] == []  # lab never makes them
    assert sorted(tmp_path.rglob("*")) == before


def test_a_relative_folder_is_the_one_that_runs_lie_in(base, monkeypatch, tmp_path):
    here = one("fig6", "0.9", replace(base, out="outputs/smoke")).record.path
    monkeypatch.chdir(tmp_path)
    assert one("fig6", "0.9", replace(base, out="outputs/smoke")).record.path == here
    assert here.is_absolute()


# ---- each measure against an independent computation


def test_accuracies_are_those_of_the_packed_answers(specimen):
    knn, probe = MEASURES["knn"](specimen), MEASURES["probe"](specimen)
    for found in (knn, probe):
        right = unpacked(found["right"])
        assert len(right) == len(evaluation_loader(specimen.settings).split)
        assert found["accuracy"] == right.mean()
    encoder = model_of(specimen.run).encoder
    train, test = (image_features(encoder, evaluation_loader(specimen.settings, split=split))
                   for split in ("train", "validation"))  # fmt: skip
    unit = [f.values.double() / f.values.double().norm(dim=1, keepdim=True) for f in (train, test)]
    close = (unit[1] @ unit[0].T).topk(20)
    votes = torch.zeros(len(test.values), 10, dtype=torch.float64)
    for image, (weights, index) in enumerate(zip(close.values, close.indices)):
        for weight, neighbour in zip(weights, index):
            votes[image, train.labels[neighbour]] += (weight / 0.07).exp()
    assert np.array_equal(unpacked(knn["right"]), (votes.argmax(1) == test.labels).numpy())


def images_of(specimen):
    return torch.cat([batch.images for batch in specimen.loader().evaluation()])


def test_distances_are_those_of_the_maps(specimen):
    found, images = MEASURES["distance"](specimen), images_of(specimen)
    maps = attention_maps(model_of(specimen.run).encoder, images)  # (M, L, H, T, T)
    for key, renormalize in (("distance", False), ("distance_renormalized", True)):
        each = attention_distance(maps, (4, 4), 8, renormalize=renormalize)  # (M, L, H)
        assert np.allclose(found[key], each.mean(2), atol=0.006)
        assert np.allclose(found[f"heads_{key}"], each.mean(0), atol=0.006)
    assert np.allclose(found["heads_prefix_mass"], maps[..., 1:, 0].mean((0, 3)), atol=1e-4)
    place = [(8 * (i // 4), 8 * (i % 4)) for i in range(16)]
    assert found["uniform"] == pytest.approx(
        np.mean([np.hypot(a - c, b - d) for a, b in place for c, d in place]), abs=1e-4
    )


def test_similarity_and_nearness_are_those_of_the_maps(specimen):
    found, images, mask = MEASURES["similarity"](specimen), images_of(specimen), specimen.mask()
    assert len(mask.hidden) == 1
    shared = Mask(*(part.expand(len(images), -1) for part in mask))
    maps = attention_maps(model_of(specimen.run), images, part="decoder", mask=shared)  # (M, L, H, T, T)
    hidden = mask.hidden[0].nonzero()[:, 0]
    chosen = maps[..., hidden + 1, 1:]  # (M, L, H, Q, N)
    pairs = shuffled(16).split(2)  # groups as there must be at least eight of them
    each = torch.stack([AttentionSimilarity().update(chosen[pair]).compute() for pair in pairs])
    assert np.allclose(found["s_attn"], each, atol=1e-5)
    near = torch.tensor(
        [[float(np.hypot(i // 4 - j // 4, i % 4 - j % 4) <= 2) for j in range(16)] for i in hidden.tolist()]
    )
    share = (chosen * near).sum(-1) / chosen.sum(-1)
    assert np.allclose(found["near"], share.mean((2, 3)) / near.mean(), atol=2e-4)


def test_the_similarity_to_dino_has_its_controls(specimen):
    found = {key: np.array(value) for key, value in MEASURES["semantic"](specimen).items()}
    assert {value.shape for value in found.values()} == {(16, 1)}
    assert (np.abs(found["s_sim"]) <= 1).all()
    assert np.abs(found["gain"]).max() > 0


def test_collapse_is_that_of_the_group(specimen):
    found, groups = MEASURES["collapse"](specimen), list(specimen.loader().evaluation())
    assert len(found["mean_cosine"]) == len(groups) == 2
    for i, batch in enumerate(groups):
        mask = view_masks(specimen.settings, batch, 1)[0]
        expected = collapse(hidden_vectors(model_of(specimen.run), batch.images, mask))
        for name in expected._fields:
            assert found[name][i] == pytest.approx(getattr(expected, name), rel=1e-3)


def test_terms_are_the_held_out_losses_image_by_image(specimen):
    found, single = MEASURES["terms"](specimen), replace(specimen.settings, batch_size=1)
    for name, step in (("untrained", 0), ("trained", None)):
        loader = evaluation_loader(single, 16)  # batches of one image: pooled over it alone
        expected = held_out(model_of(specimen.run, step), specimen.settings, loader)
        for term in ("cross_view", "in_view"):
            assert len(found[f"{term}_{name}"]) == expected["images"] == 16
            assert np.mean(found[f"{term}_{name}"]) == pytest.approx(expected[term], abs=1e-5)
    assert found["cross_view_trained"] != found["cross_view_untrained"]
    assert 0 <= max(found["eq2_residual"], found["eq4_residual"]) < 1e-12
    json.dumps(found)


def test_a_row_is_fine_tuned_at_the_rate_that_its_first_seed_chose(tmp_path, monkeypatch):
    """On training images of the first judged seed alone; a record says among which rates, or is measured again."""
    base = tiny_settings(tmp_path, seed=3)
    job = next(job for job in jobs(["table2"], base, "smoke", (3,)))
    before = job.recipe("finetune")
    rates = dataclasses.replace(profile_of("smoke"), fine_tuning_rates=(0.3, 3e-3))
    monkeypatch.setitem(PROFILES, "smoke", rates)
    assert job.recipe("finetune") == before | {"rates": [0.3, 3e-3]}
    assert "rates" not in job.recipe("probe")
    own = Specimen(job.case.settings, "smoke", pretrain(job.case.settings))
    found = MEASURES["finetune"](own)
    first = own.of_seed(0)
    assert (first.settings.seed, first.run.settings.seed, first.settings.model) == (0, 0, own.settings.model)
    made = [load_evaluation(path) for path in (tmp_path / "evaluations").iterdir()]
    inner = {e.recipe.base_lr: e for e in made if e.recipe.held_fifth}
    (tuned,) = [e for e in made if not e.recipe.held_fifth]
    assert {e.origin for e in inner.values()} == {first.run.name} != {tuned.origin}
    assert found["by_rate"] == [[rate, inner[rate].accuracy] for rate in (3e-3, 0.3)]
    assert found["base_lr"] == tuned.recipe.base_lr == max((3e-3, 0.3), key=lambda rate: inner[rate].accuracy)
    assert found["accuracy"] == tuned.accuracy


def test_a_measure_of_another_recipe_is_missing(tmp_path):
    base = replace(profile("lab"), out=str(tmp_path))
    job = next(job for job in jobs(["table2"], base, "lab"))
    job.record.begin(None, job.case.settings)
    recipe = job.recipe("finetune")
    for kept, missing in ((recipe, False), (recipe | {"steps": 7, "epochs": None}, True), (None, True)):
        job.record.note("finetune", {}, 1.0, {"recipe": kept})
        assert ("finetune" in job.missing) == missing
    job.record.note("knn", {}, 1.0, {})
    assert "knn" not in job.missing
