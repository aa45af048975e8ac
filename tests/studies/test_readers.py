"""Claim by claim for readers of the papers: what is said, what was found and what would change it, nothing invented."""

import csv
import io

import pytest

from lcmae_core.config import LcmaeError
from lcmae_core.studies.claims import CLAIMS, UNJUDGED
from lcmae_core.studies.readers import (
    HEADER,
    as_csv,
    as_html,
    claim_by_claim,
    export,
    in_a_picture,
    in_words,
    of_claim,
    what_would_change,
)
from lcmae_core.studies.redraw import recorded, shipped
from lcmae_core.studies.scoreboard import score
from lcmae_core.viewer.figures import Picture
from lcmae_core.viewer.figures.claims import ClaimTest, Measurement, claim_tests


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Of the records that come along, and of a folder without any."""
    empty = recorded(tmp_path_factory.mktemp("none"), "lab")
    return {"desk": score(shipped("desk"), "desk", make=False), "lab": score(empty, "lab", make=False)}


@pytest.fixture(scope="module")
def files(tmp_path_factory, judged):
    """What is exported of them."""
    return {path.name: path.read_text() for path in export(tmp_path_factory.mktemp("claims"), judged)}


def test_every_claim_is_there_once_with_its_verdicts(judged):
    drawn = list(claim_by_claim(judged))
    tables = [shown for shown in drawn if not isinstance(shown, Picture)]
    assert [table.columns[0] for table in tables] == [claim.name for claim in CLAIMS]
    for table, claim in zip(tables, CLAIMS):
        said = dict(table.rows)
        assert said["said"].startswith(claim.statement)
        assert said["found at lab"].startswith("NOT YET RUN: ")


def test_a_claim_without_numbers_is_unjudged_and_nothing_is_drawn(judged):
    nothing = {"lab": judged["lab"]}
    assert in_a_picture(of_claim("C1", nothing)) is None
    page = as_html(nothing)
    assert page.count("UNJUDGED: no record") == len(CLAIMS)
    assert "<img" not in page


def test_the_page_is_whole_and_loads_nothing(judged, files):
    page = files["claims.html"]
    assert all(f'id="{claim.name}"' in page and f'href="#{claim.name}"' in page for claim in CLAIMS)
    assert all(statement.replace("'", "&#x27;") in page for statement in UNJUDGED)
    assert "http" not in page.replace("data:image/png", "")
    assert "2310.01994" in page
    assert "2306.04898" in page
    shown = sum(1 for claim in CLAIMS if in_a_picture(of_claim(claim.name, judged)) is not None)
    assert page.count("<img") == shown > 0


def test_the_table_has_a_line_for_every_test_with_its_own_numbers(judged):
    lines = list(csv.DictReader(io.StringIO(as_csv(judged))))
    assert tuple(lines[0]) == HEADER
    for profile, verdicts in judged.items():
        for verdict in verdicts:
            of = [line for line in lines if (line["profile"], line["claim"]) == (profile, verdict.claim.name)]
            assert len(of) == max(1, len(verdict.outcomes))
            for line, o in zip(of, verdict.outcomes):
                assert float(line["value"]) == pytest.approx(o.estimate.value, rel=1e-4)
                assert float(line["interval low"]) <= float(line["value"]) <= float(line["interval high"])
                assert line["holds"] == {True: "yes", False: "no", None: "open"}[o.holds]
                assert int(line["seeds"]) == o.estimate.seeds


def test_what_would_change_it_is_worked_out(judged):
    for verdict in judged["desk"]:
        if verdict.outcomes:
            words = what_would_change(verdict, "desk")
            if any(o.holds is None and not o.why for o in verdict.outcomes):
                assert "seeds" in words or "images" in words or "missing" in words, verdict.claim.name
            assert ["what would change it", words] in in_words(verdict.claim, {"desk": verdict}).rows


def test_a_picture_shows_the_range_and_every_interval():
    inf, nan = float("inf"), float("nan")
    two = {"desk": Measurement(1.0, 0.5, 1.5), "lab": Measurement(3.0, 2.5, 3.5)}
    one = {"desk": Measurement(-1.0, nan, nan)}
    figure = claim_tests([ClaimTest("a below 2", -inf, 2.0, two), ClaimTest("b above 0", 0.0, inf, one)])
    first, second = figure.axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["desk", "lab"]
    asked = first.patches[0].get_extents().transformed(first.transData.inverted())
    assert asked.x1 == pytest.approx(2.0)
    assert list(first.lines[0].get_xdata()) == [0.5, 1.5]
    assert list(first.lines[3].get_xdata()) == [3.0]
    low, high = first.get_xlim()
    assert low < 0.5 < 3.5 < high
    assert second.get_xlim()[0] < -1 < 0 < second.get_xlim()[1]


def test_files_are_written_and_a_wrong_folder_is_one_line(judged, files, tmp_path):
    assert list(files) == ["claims.html", "claims.csv", "claims.bib"]
    assert files["claims.csv"] == as_csv(judged)
    assert files["claims.bib"].startswith("@")
    (tmp_path / "file").write_text("")
    with pytest.raises(LcmaeError, match="expected a folder that can be written"):
        export(tmp_path / "file", judged)
    with pytest.raises(LcmaeError, match="unknown claim 'C27'"):
        of_claim("C27", judged)
