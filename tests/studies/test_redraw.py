"""Tables and figures come from records alone: numbers with their intervals, and "not yet run" where there is none."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from lcmae_core.config import Settings, profile, replace
from lcmae_core.store.files import read_json
from lcmae_core.store.records import packed
from lcmae_core.studies import STUDIES, redraw_levels
from lcmae_core.studies.published import HLV_RATIOS, HLV_UNITS, TABLE1
from lcmae_core.studies.redraw import (
    RECOVERY,
    accuracy_of,
    accuracy_table,
    accuracy_text,
    drawn_of,
    everything,
    fidelity_by_level,
    figures,
    reading_by_level,
    recorded,
    recovered,
    shipped,
    taken,
)
from lcmae_core.studies.trials import jobs, rows
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
        "fidelity": {key: rng.random(16).round(3).tolist() for key in ("ssim", "fsim", "psnr", "mse")},
        "cues": {cue: packed(rng.random(40) < share) for cue, share in (("shape", 0.2), ("texture", 0.5))},
        "corruptions": {"share": rng.random(16).round(4).tolist()},
        "recovery": {"levels": [[0, 1, 1]]} | {q: rng.random((2, 3)).tolist() for q in RECOVERY},
    }.get(name, {"accuracy": 0.75, "right": packed(np.arange(20) % 4 > 0)})  # fmt: skip


def titled(study, base):
    """Titles and what is shown of one study; others that share its runs are drawn too."""
    return [(title, shown) for title, shown in figures(base, "lab") if title.startswith(STUDIES[study].title)]


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
    nothing = recorded(tmp_path / "nothing", "desk")
    monkeypatch.setattr("lcmae_core.studies.redraw.shipped", {"lab": base, "desk": nothing}.get)
    here = {row: [] for row in TABLE1}
    published = {"finetune": {name: row.published for name, row in TABLE1.items()}}
    table = accuracy_table("table1", here, "quick", published, {"b": "(b) MAE"})
    columns = ["Table 1", *(f"fine-tuned, {where}" for where in ("paper", "desk", "lab", "quick"))]
    assert table.columns[:5] == columns
    by_name = {row[0]: row for row in table.rows}
    assert by_name["(b) MAE"][1] == "82.9"
    assert by_name["(b) MAE"][2] == "not yet run"
    assert by_name["(b) MAE"][3].startswith("75.0 [")
    assert by_name["(b) MAE"][4] == "not yet run"
    assert by_name["c"][1:4] == ["Collapse", "not yet run", "not yet run"]


@pytest.mark.parametrize("study", ["table2", "fig2", "fig3", "fig5", "fig_a1", "latents", "hlv_ratios", "hlv_units"])
def test_what_has_records_is_drawn(study, tmp_path):
    base = write(tmp_path, study, STUDIES[study].measures)
    drawn = titled(study, base)
    assert drawn
    for _, shown in drawn:
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
    content = read_json(file)
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


LEVELS = {
    "hlv_ratios": ("mask ratio", [0.1, 0.25, 0.5, 0.75, 0.9]), "hlv_units": ("side of a mask cell, patches", [1, 2, 4]),
}  # fmt: skip
every_level = pytest.mark.parametrize("study", LEVELS)


def lines(figure):
    """Title -> label -> (x, y) of every curve."""
    return {
        axis.get_title(): {line.get_label(): tuple(map(list, line.get_data())) for line in axis.lines}
        for axis in figure.axes
    }


def numbers(records, measure, key):
    """Mean over seeds, then over images, one number after the other."""
    return np.mean([np.mean([float(value) for value in record.array(measure, key)]) for record in records])


@every_level
def test_fidelity_is_drawn_over_the_knob(study, tmp_path):
    base = write(tmp_path, study, STUDIES[study].measures)
    found = rows(study, base, "lab", (0, 1, 2))
    figure, (knob, at) = fidelity_by_level(study, found), LEVELS[study]
    drawn = lines(figure)
    assert [*drawn] == ["SSIM", "FSIM", "PSNR, dB", "MSE"]
    assert {axis.get_xlabel() for axis in figure.axes} == {knob}
    for title, key in zip(drawn, ("ssim", "fsim", "psnr", "mse")):
        (x, y) = drawn[title]["ours"]
        assert x == at
        assert y == pytest.approx([numbers(records, "fidelity", key) for records in found.values()])


@every_level
def test_what_is_read_is_drawn_beside_what_the_paper_reports(study, tmp_path):
    base = write(tmp_path, study, STUDIES[study].measures)
    found = rows(study, base, "lab", (0, 1, 2))
    drawn, (_, at) = lines(reading_by_level(study, found)), LEVELS[study]
    assert [*drawn] == ["linear probe, %", "kNN, %", "shape bias", "probe under corruptions, %"]
    for title, measure, key in (("linear probe, %", "probe", "right"), ("kNN, %", "knn", "right"),
                                ("probe under corruptions, %", "corruptions", "share")):  # fmt: skip
        x, y = drawn[title]["ours"]
        assert x == at
        assert y == pytest.approx([100 * numbers(records, measure, key) for records in found.values()])
    cues = [[numbers(records, "cues", cue) for cue in ("shape", "texture")] for records in found.values()]
    assert drawn["shape bias"]["ours"][1] == pytest.approx([shape / (shape + texture) for shape, texture in cues])
    theirs = "published (HLV, ViT-B on ImageNet)"
    published = HLV_RATIOS if study == "hlv_ratios" else HLV_UNITS
    assert drawn["linear probe, %"][theirs] == (at, [float(level.probed) for level in published.values()])
    assert theirs not in drawn["kNN, %"]
    if study == "hlv_ratios":
        assert drawn["shape bias"][theirs] == (at, [0.135, 0.255, 0.246, 0.256, 0.201])
    else:
        assert theirs not in drawn["shape bias"]


def test_a_row_that_is_missing_leaves_a_gap_not_a_shift(tmp_path):
    base = write(tmp_path, "hlv_ratios", STUDIES["hlv_ratios"].measures, skip=("0.25",))
    found = {row: r for row, r in rows("hlv_ratios", base, "lab", (0, 1, 2)).items() if r}
    x, y = lines(reading_by_level("hlv_ratios", found))["linear probe, %"]["published (HLV, ViT-B on ImageNet)"]
    assert (x, y) == ([0.1, 0.5, 0.75, 0.9], [47.45, 60.07, 67.41, 62.97])
    assert len(titled("hlv_ratios", base)) == 3


@every_level
def test_without_corruptions_the_others_are_drawn(study, tmp_path, monkeypatch):
    monkeypatch.setattr("lcmae_core.studies.trials.why_not", lambda: "not installed")
    base = write(tmp_path, study, tuple(m for m in STUDIES[study].measures if m != "corruptions"))
    found = rows(study, base, "lab", (0, 1, 2))
    assert all(len(records) == 3 for records in found.values())
    assert [*lines(reading_by_level(study, found))] == ["linear probe, %", "kNN, %", "shape bias"]
    assert len(titled(study, base)) == 3


@every_level
def test_without_labels_the_reconstructions_are_drawn(study, tmp_path, monkeypatch):
    real, nothing = made_up, {"left_out": "the source has no labels"}
    monkeypatch.setitem(globals(), "made_up", lambda name, rng: real(name, rng) if name == "fidelity" else nothing)
    base = write(tmp_path, study, STUDIES[study].measures)
    table, picture = (shown for _, shown in titled(study, base))
    assert {cell for row in table.rows for cell in row[2:]} == {"no labels"}
    assert [*lines(picture)] == ["SSIM", "FSIM", "PSNR, dB", "MSE"]


def test_distances_have_the_line_of_uniform_attention():
    """The records that the collection ships: without CLS its mean over all pairs of patches, and less what CLS gets."""
    found = taken("fig5_supervised", shipped("desk"), "desk", "distance")
    record = next(iter(found.values()))[0]
    even = record.measures["distance"]["values"]["uniform"]
    count = Settings.model_validate(record.content["settings"]).num_patches
    for figure in drawn_of("fig5_supervised", {"distance": found}):
        for axis, share in zip(figure.axes, (count / (count + 1), 1), strict=True):
            assert [text.get_text() for text in axis.texts] == ["uniform"]
            assert any(np.allclose(line.get_ydata(), even * share) for line in axis.lines)


@every_level
def test_what_has_an_interval_is_drawn_with_it(study, tmp_path):
    base = write(tmp_path, study, STUDIES[study].measures)
    found = rows(study, base, "lab", (0, 1, 2))
    for figure in (fidelity_by_level(study, found), reading_by_level(study, found)):
        assert not {axis.get_title() for axis in figure.axes if not axis.collections}


def bias_of(shape, texture):
    """The interval of the shape bias of records with these answers, (S, M)."""
    answers = [{"shape": a, "texture": b} for a, b in zip(shape, texture)]
    return redraw_levels.shape_bias_of([SimpleNamespace(array=lambda _, cue, each=each: each[cue]) for each in answers])


def test_the_interval_of_a_shape_bias():
    """One seed: the binomial's, of as many answers as name a cue. Seeds of the same bias narrow it; seeds that
    differ as wholes widen it. Without an answer by one cue there is none."""
    named = np.arange(3000) % 10  # of ten pictures three are named by shape, two by texture, in no order
    named = np.random.default_rng(0).permutation(named)
    shape, texture = named < 3, (named >= 3) & (named < 5)
    one = bias_of([shape], [texture])
    assert one.value == pytest.approx(0.6)
    half = 1.96 * np.sqrt(0.6 * 0.4 / 1500)
    assert (one.low, one.high) == pytest.approx((0.6 - half, 0.6 + half), abs=0.25 * half)
    rolled = [np.roll(named, 7 * seed) for seed in range(5)]
    alike = bias_of([row < 3 for row in rolled], [(row >= 3) & (row < 5) for row in rolled])
    apart = bias_of([row < 2 + seed % 3 for seed, row in enumerate(rolled)], [(row >= 5) & (row < 7) for row in rolled])
    assert alike.high - alike.low < one.high - one.low
    assert apart.high - apart.low > 2 * (one.high - one.low)
    assert np.isnan(bias_of([shape], [texture & False])[1:3]).all()
