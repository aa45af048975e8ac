"""Tables and figures come from records alone: numbers with their intervals, and "not yet run" where there is none."""

import json

import numpy as np
import pytest

from lcmae_core.config import profile, replace
from lcmae_core.jobs import jobs, rows
from lcmae_core.published import TABLE1
from lcmae_core.redraw import (
    RECOVERY,
    accuracy_of,
    accuracy_table,
    accuracy_text,
    everything,
    figures,
    recorded,
    recovered,
)
from lcmae_core.store.records import packed
from lcmae_core.studies import STUDIES
from lcmae_core.viewer.figures import Picture
from lcmae_core.viewer.tables import Table

WHERE = {"device": "a device", "commit": "abc", "date": "2026-01-01", "versions": {}}


def write(out, study, measures, seeds=(0, 1, 2), skip=()):
    """Records of a study as `lcmae study` would leave them, with made-up numbers of the right shapes."""
    base = replace(profile("lab"), out=str(out))
    rng = np.random.default_rng(0)
    for job in jobs([study], base, "lab", seeds):
        if job.row in skip:
            continue
        job.record.begin(None, job.case.settings)
        for name in measures:
            job.record.note(name, made_up(name, rng), 1.0, WHERE | {"recipe": job.recipe(name)})
    return base


def made_up(name, rng):
    per_layer = rng.random((16, 4)).round(3).tolist()
    heads = rng.random((4, 2)).round(3).tolist()
    return {
        "distance": {"distance": per_layer, "distance_renormalized": per_layer, "heads_distance": heads,
                     "heads_distance_renormalized": heads},
        "similarity": {"s_attn": per_layer, "near": per_layer},
        "semantic": {"s_sim": per_layer, "gain": per_layer, "gain_centred": per_layer},
        "collapse": {"mean_cosine": [0.5] * 4},
        "recovery": {"levels": [[0, 1, 1]]} | {q: rng.random((2, 3)).tolist() for q in RECOVERY},
    }.get(name, {"accuracy": 0.75, "right": packed(np.arange(20) % 4 > 0)})  # fmt: skip


def test_an_accuracy_with_its_interval(tmp_path):
    base = write(tmp_path, "table2", ("finetune",))
    found = rows("table2", base, "lab", (0, 1, 2), ("finetune",))
    estimate = accuracy_of(found["average"], "finetune")
    assert estimate.value == pytest.approx(75.0)
    assert estimate.low < 75 < estimate.high
    assert (estimate.seeds, estimate.images) == (3, 20)
    assert accuracy_text(estimate).startswith("75.0 [")
    assert accuracy_of(found["average"], "probe") is None
    assert accuracy_text(None) == "not yet run"


def test_a_table_says_what_is_missing(tmp_path, monkeypatch):
    base = write(tmp_path, "table1", ("collapse", "finetune", "probe", "knn"), skip="c")
    monkeypatch.setattr("lcmae_core.redraw.lab", lambda: base)
    here = {row: [] for row in TABLE1}
    published = {"finetune": {name: row.published for name, row in TABLE1.items()}}
    table = accuracy_table("table1", here, "quick", published, {"b": "(b) MAE"})
    assert table.columns[:4] == ["Table 1", "fine-tuned, paper", "fine-tuned, lab", "fine-tuned, quick"]
    by_name = {row[0]: row for row in table.rows}
    assert by_name["(b) MAE"][1] == "82.9"
    assert by_name["(b) MAE"][2].startswith("75.0 [")
    assert by_name["(b) MAE"][3] == "not yet run"
    assert by_name["c"][1:3] == ["Collapse", "not yet run"]


@pytest.mark.parametrize("study", ["table2", "fig2", "fig3", "fig5", "fig_a1", "latents"])
def test_what_has_records_is_drawn(study, tmp_path):
    base = write(tmp_path, study, STUDIES[study].measures)
    drawn = [shown for title, shown in figures(base, "lab") if title.startswith(STUDIES[study].title)]
    assert drawn
    for shown in drawn:
        assert len(shown._repr_png_() if isinstance(shown, Picture) else shown._repr_html_()) > 100


def test_a_folder_without_records_draws_the_scoreboard_alone(tmp_path):
    (title, table), *rest = everything(tmp_path, "lab")
    assert title == "Scoreboard, profile lab"
    assert isinstance(table, Table)
    assert {row[3] for row in table.rows} == {"not yet run"}
    assert not rest


def test_records_say_which_data_they_are_of(tmp_path):
    assert recorded(tmp_path, "lab").data.source == profile("lab").data.source
    write(tmp_path, "latents", ("recovery",), seeds=(0,))
    assert recorded(tmp_path, "lab").data.source == profile("lab").data.source  # drawn, not read
    base = write(tmp_path, "fig2", ("similarity",))
    file = next((tmp_path / "results" / "runs").glob("mae-*.json"))
    content = json.loads(file.read_text())
    assert content["settings"]["data"]["source"] == "parquet:imagenette-128"
    content["settings"]["data"]["source"] = "folder:mine"
    for each in (tmp_path / "results" / "runs").glob("mae-*.json"):
        each.write_text(json.dumps(content))
    assert recorded(tmp_path, "lab").data.source == "folder:mine"
    assert base.data.source != "folder:mine"


def test_recovery_is_drawn_by_setting_and_level(tmp_path):
    base = write(tmp_path, "latents", ("recovery",), seeds=(0, 1))
    found = rows("latents", base, "lab", (0, 1))
    shown = recovered(found, "trained")
    assert shown.shape == (6, 2)
    for row, records in enumerate(found.values()):
        numbers = [record.measures["recovery"]["values"]["trained"] for record in records]
        assert shown[row, 0] == pytest.approx(np.mean([mask[0] for seed in numbers for mask in seed]))
        assert shown[row, 1] == pytest.approx(np.mean([z for seed in numbers for mask in seed for z in mask[1:]]))
