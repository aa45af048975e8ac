"""A claim is judged by its records alone: each file is read once, gates close tests and say so, the seed part of an
accuracy is pooled over the rows of its table that did not collapse and of no other, controls decide nothing."""

import json
import os

import numpy as np
import pytest

from lcmae_core.analysis.intervals import pooled, two_way
from lcmae_core.config import profile, replace
from lcmae_core.store.records import Record, packed
from lcmae_core.studies import scoreboard
from lcmae_core.studies.claims import Claim
from lcmae_core.studies.judge import Cell, gain, linear, shown, smooth
from lcmae_core.studies.scoreboard import COLUMNS, all_described, judged, lines_of_tests, outcome, row_pool, score
from lcmae_core.studies.trials import jobs
from tests.studies.tiny_studies import tiny_settings

IMAGES = 300
SHARES = {"a": 0.62, "b": 0.6, "c": 0.3, "d": 0.58, "random init": 0.4}


@pytest.fixture
def records(tmp_path):
    """(study, measure) -> row -> a record a seed, three of them: right answers, v collapsed in row c."""

    def found(study, measure):
        return {row: [written(tmp_path, study, row, seed) for seed in range(3)] for row in SHARES}

    return found


def answers(study, row, seed):
    """Row c falls apart over seeds."""
    rng = np.random.default_rng([len(study), len(row), ord(row[0]), seed])
    drift = rng.normal(0, 0.3 if row == "c" else 0.02)
    return rng.random(IMAGES) < np.clip(SHARES[row] + drift, 0, 1)


def written(folder, study, row, seed):
    collapse = {"mean_cosine": [0.99 if row == "c" else 0.3] * 4}
    probe = {"right": packed(answers(study, row, seed))}
    content = {"settings": {"seed": seed}, "measures": {"probe": {"values": probe}, "collapse": {"values": collapse}}}
    path = folder / f"{study}-{row}-{seed}.json"
    path.write_text(json.dumps(content))
    return Record(path)


def cell(row, study="table1"):
    return Cell(study, row, "probe", "right")


def table(study, rows, seeds=(0, 1, 2)):
    return np.stack([[answers(study, row, seed) for seed in seeds] for row in rows]).astype(float)


def claim(*tests, controls=()):
    return Claim("C0", "a statement", "somewhere", "a number", tests, controls=controls)


def test_seeds_are_pooled_in_the_accuracies_of_tables_1_to_3_alone(records):
    own = table("table1", ["a", "b"])
    pool = pooled(table("table1", ["a", "b", "d", "random init"]))  # not c, which collapsed
    found = outcome(linear("t", {cell("a"): 1, cell("b"): -1}), records).estimate
    expected = pool.parts((1.0, -1.0), two_way(own[0] - own[1]))
    assert found.pooled
    assert found.parts == pytest.approx(expected)
    assert found.df == pytest.approx(expected.df) != 2
    alone = [
        linear("another study", {cell("a", "hlv_ratios"): 1, cell("b", "hlv_ratios"): -1}),
        linear("a row that collapsed", {cell("a"): 1, cell("c"): -1}),
        smooth("no linear form", (cell("a"), cell("b")), lambda a, b: float(a - b)),
        linear("no accuracy", {Cell("table1", "a", "collapse", "mean_cosine"): 1}),
    ]
    for test in alone:
        said = outcome(test, records).estimate
        assert not said.pooled, test.text
        assert said.df == 2, test.text


def test_a_pool_takes_rows_with_all_these_seeds(records):
    rows = records("table1", "probe")
    rows = rows | {"d": rows["d"][:2]}
    assert row_pool(rows, "probe", "right", (0, 1, 2)).rows == 3
    assert row_pool(rows, "probe", "right", (0, 1)).rows == 4
    assert row_pool({"a": rows["a"], "c": rows["c"]}, "probe", "right", (0, 1, 2)) is None


def test_a_closed_gate_is_said_and_leaves_the_claim_open(records):
    above = {cell("b"): 1, cell("random init"): -1}
    opened = linear("b - random", above, low=0.0, gates=(gain(cell("b"), cell("random init")),))
    closed = linear("b - random", above, low=0.0, gates=(gain(cell("random init"), cell("b")),))
    assert judged(claim(opened), records, "lab")[1:3] == ("reproduced", "1 hold")
    said = judged(claim(opened, closed), records, "lab")
    assert said.verdict == "unresolved"
    assert said.why.startswith("1 hold, 1 open; its gate does not hold: gain, random init - b: above 0: -")
    assert lines_of_tests([said])[1][-1].startswith("open: its gate does not hold")


def test_controls_are_shown_and_decide_nothing(records):
    test = linear("b - random", {cell("b"): 1, cell("random init"): -1}, low=0.0)
    absent = Cell("table1", "b", "probe", "right_cls")
    controls = (shown("accuracy of b", cell("b"), scale=100), shown("on CLS", absent))
    said = judged(claim(test, controls=controls), records, "lab")
    assert said.verdict == "reproduced"
    assert said.why == "1 hold; 1 control missing (missing: right_cls in probe of b (table1))"
    first, second = lines_of_tests([said])
    assert len(first) == len(second) == len(COLUMNS)
    assert (first[0], first[1], first[-1]) == ("C0", "b - random", "holds")
    assert (second[1], second[-1]) == ("accuracy of b", "control")
    assert first[5] == f"3 x {IMAGES}, seeds pooled"
    assert float(first[4]) == pytest.approx(said.outcomes[0].estimate.df, rel=0.01)
    assert "accuracy of b: " in all_described(said)


def test_every_file_is_read_once(tmp_path, monkeypatch):
    base = replace(profile("lab"), out=str(tmp_path))
    for job in jobs(["fig5", "fig6", "table1"], base, "lab", (0, 1)):
        job.record.begin(None, job.case.settings)
        for measure in job.measures:
            values = {"distance": [[1.0, 2.0]] * 4, "right": packed(np.ones(8, bool)), "mean_cosine": [0.5] * 4}
            job.record.note(measure, values, 1.0, {"recipe": job.recipe(measure)})
    files = [*(tmp_path / "results" / "runs").glob("*.json")]
    for file in files:
        os.utime(file, ns=(1, 1))  # as written by another process
    read, loads = [], json.loads

    def heard(text):
        read.extend([text] if isinstance(text, bytes) else [])  # a text is what is about to be written
        return loads(text)

    monkeypatch.setattr("lcmae_core.store.files.json.loads", heard)
    said = score(base, "lab", (0, 1), make=False)
    assert {v.verdict for v in said} > {"not yet run"}
    assert len(read) == len(files) > 10
    assert scoreboard.score(base, "lab", (0, 1), make=False) == said
    assert len(read) == len(files), "nor by the next call"
    job.record.note("knn", {"right": packed(np.zeros(8, bool))}, 1.0, {"recipe": job.recipe("knn")})
    assert scoreboard.score(base, "lab", (0, 1), make=False) == said
    assert len(set(read)) == len(files) + 1, "but one that changed is read again"


def test_what_is_measured_for_a_later_claim_is_read_again(tmp_path, monkeypatch):
    """At smoke and quick a claim may add a measure to a record that an earlier one has read."""
    of = {key: Cell("fig6", "0.3", measure, key) for measure, key in (("distance", "distance"), ("reach", "loss_full"))}
    two = [claim(linear(key, {one: 1}, low=0)) for key, one in of.items()]
    monkeypatch.setattr(scoreboard, "CLAIMS", two)
    said = score(tiny_settings(tmp_path), "smoke")
    assert [len(found.outcomes) for found in said] == [1, 1], [found.why for found in said]
