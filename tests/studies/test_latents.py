"""Claims: the study of hierarchical latents trains what its settings say, whatever the user's data and settings; its
measure is an independent training and measurement; its records give C19 the numbers of a slow loop over them, and a
record of another world or of other probes is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from lcmae_core.analysis.recovery import QUANTITIES, measure_recovery
from lcmae_core.config import profile, replace
from lcmae_core.data.hierarchical import HierarchicalModel
from lcmae_core.store import records
from lcmae_core.studies.claims import CLAIMS
from lcmae_core.studies.latents import SETTINGS, recipe
from lcmae_core.studies.scoreboard import judged
from lcmae_core.studies.trials import jobs, rows
from lcmae_core.training import loop
from lcmae_core.training.latents import new_mae, train_on_latents
from tests.loops import over
from tests.studies.tiny_studies import tiny_settings

TITLES = [setting.title for setting in SETTINGS]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_settings(tmp_path_factory.mktemp("latents"))


@pytest.fixture(scope="module")
def found(base):
    return rows("latents", base, "smoke", (0, 1), make=True)


@over("name", ["smoke", "quick", "desk", "lab", "paper"])
def test_rows_say_what_is_trained_and_nothing_of_the_user_counts(name):
    plan, base = recipe(name), profile(name)
    cases = {job.row: job.case for job in jobs(["latents"], base, name)}
    assert [*cases] == TITLES == [f"ratio {r}, unit {u}" for u in (1, 2) for r in (0.25, 0.5, 0.75)]
    for setting, case in zip(SETTINGS, cases.values()):
        settings = case.settings
        assert (settings.masking.mask_ratio, settings.masking.mask_unit) == setting
        assert (settings.model, settings.optim) == (plan.arch, plan.optim)
        assert (settings.data.image_size, settings.data.channels, settings.num_patches) == ((16, 16), 1, 16)
        assert (case.trained, case.label, settings.loss.norm_pix) == (False, "latents", False)
    other = replace(base, source="folder:elsewhere", on_unreadable="skip", depth=2, mask_ratio=0.5, device="cpu")
    places = [[job.record.path for job in jobs(["latents"], b, name, (3,))] for b in (base, other)]
    assert places[0] == places[1]
    assert len({*places[0]} | {job.record.path for job in jobs(["latents"], base, name, (4,))}) == 12
    assert all(path.name.startswith("latents-s3-") for path in places[0])


def test_the_measure_is_an_independent_experiment(found):
    plan, setting, seed = recipe("smoke"), SETTINGS[4], 1
    model = HierarchicalModel(plan.hierarchy)
    trained = train_on_latents(model, plan.arch, plan.optim, *setting, seed)
    untrained = new_mae(model, plan.arch, seed).eval()
    expected = measure_recovery(model, trained.mae, untrained, setting, seed, plan.probes)
    record = found[setting.title][seed]
    for name in QUANTITIES:
        assert np.array_equal(record.array("recovery", name), getattr(expected, name).round(5))
    assert record.array("recovery", "levels").tolist() == [expected.levels.tolist()]
    values = record.measures["recovery"]["values"]
    assert values["names"] == [*expected.names]
    assert values["loss"] == [[0, 1, 2], [pytest.approx(one, rel=1e-4) for one in trained.loss]]
    assert record.content["training"] is None


def test_no_run_is_trained_and_nothing_is_done_twice(found, base, monkeypatch):
    monkeypatch.setattr(loop, "train_run", None)
    monkeypatch.setattr(records.Record, "begin", None)
    again = rows("latents", base, "smoke", (0, 1), make=True)
    assert again == found
    assert [each.name for each in Path(base.runtime.out).iterdir()] == ["results"]


def loop_statistics(found):
    """The five numbers of C19 one latent at a time."""
    entries, kept = [], []
    for row, each in found.items():
        for record in each:
            v = record.measures["recovery"]["values"]
            for mask in range(len(v["trained"])):
                for z, level in enumerate(v["levels"][0]):
                    entries.append((row, level, {q: v[q][mask][z] for q in QUANTITIES}))

    def correlation(quantity):
        keys = dict.fromkeys((row, level) for row, level, _ in entries)
        pairs = [[np.mean([e[q] for *k, e in entries if tuple(k) == key]) for q in ("predicted", quantity)]
                 for key in keys]  # fmt: skip
        return spearmanr(*zip(*pairs)).statistic

    def mean(quantity, predicted):
        chosen = [(lv, e[quantity]) for _, lv, e in entries if lv and e["visible"] and e["predicted"] == predicted]
        return np.mean([np.mean([x for k, x in chosen if k == level]) for level in {k for k, _ in chosen}])

    kept = {q: mean(q, 1) - mean(q, 0) for q in ("trained", "untrained")}
    trained = correlation("trained")
    return [trained, trained - correlation("shuffled"), kept["trained"], kept["trained"] - kept["untrained"],
            mean("trained", 0)]  # fmt: skip


def test_c19_has_the_numbers_of_a_slow_loop_over_the_records(found):
    claim = next(claim for claim in CLAIMS if claim.name == "C19")
    said = judged(claim, lambda study, measure: {("latents", "recovery"): found}[study, measure], "lab")
    assert [o.estimate.value for o in said.outcomes] == pytest.approx(loop_statistics(found))
    assert {o.estimate.seeds for o in said.outcomes} == {2}


def test_a_record_of_another_world_or_of_other_probes_is_missing(found, base):
    job, *_ = jobs(["latents"], base, "smoke")
    assert job.done
    content = job.record.content
    assert content["measures"]["recovery"]["recipe"] == job.recipe("recovery")
    for part, leaf in (("hierarchy", "noise"), ("probes", "fitted")):
        changed = json.loads(json.dumps(content))
        changed["measures"]["recovery"]["recipe"][part][leaf] = 1
        job.record._write(changed)
        assert job.missing == ("recovery",)
    job.record._write(content)
    assert job.done


def test_a_number_of_every_step_is_kept_as_means_of_stretches():
    assert records.averaged([3.0, 1.0]) == [[0, 1], [3.0, 1.0]]
    steps, means = records.averaged([*range(120)])
    assert (len(steps), steps[0], steps[-1]) == (60, 1, 119)
    assert means[:2] == [0.5, 2.5]
