"""What notebooks show of the records that come along: every study, whole or in part, and never an exception."""

import pytest

from lcmae_core.config import LcmaeError
from lcmae_core.studies import STUDIES
from lcmae_core.studies.evidence import evidence
from lcmae_core.studies.redraw import recorded
from lcmae_core.viewer.figures import Picture
from lcmae_core.viewer.tables import Table
from tests.loops import over
from tests.studies.test_redraw import write

every_study = over("study", {name: name for name in STUDIES})


@pytest.fixture
def ship(tmp_path, monkeypatch):
    """Puts records of `lab` in the place of those that come along; there are none of `desk`."""

    def put(base):
        found = {"lab": base, "desk": recorded(tmp_path / "none", "desk")}
        monkeypatch.setattr("lcmae_core.studies.evidence.shipped", found.get)

    return put


def test_nothing_is_said_to_be_run_that_is_not(ship, tmp_path, capsys):
    ship(recorded(tmp_path, "lab"))
    assert not [*evidence("table1")]
    assert capsys.readouterr().out.splitlines() == [
        "desk, Table 1: not yet run (lcmae study table1 --profile desk)",
        "lab, Table 1: not yet run (lcmae study table1 --profile lab)",
    ]


def test_a_part_is_drawn_and_what_is_missing_is_named(ship, tmp_path, capsys):
    ship(write(tmp_path, "fig_a1", STUDIES["fig_a1"].measures, seeds=(0, 1), skip=("AE3",)))
    drawn = [*evidence("fig_a1")]
    said = capsys.readouterr().out
    rows = STUDIES["fig_a1"].rows(recorded(tmp_path, "lab"), "lab")
    assert f"lab, Fig. A.1: {2 * len(rows) - 2} of {3 * len(rows)} runs are measured in full" in said
    assert "AE3 (0 of 3)" in said
    assert "AE1 (2 of 3)" in said
    labels = {line.get_label() for shown in drawn if isinstance(shown, Picture) for line in shown.axes[0].lines}
    assert "AE1" in labels
    assert "AE3" not in labels


def test_of_a_run_that_was_measured_in_part_what_is_there_is_drawn(ship, tmp_path, capsys):
    ship(write(tmp_path, "table1", ("probe",), seeds=(0,)))
    (table,) = evidence("table1")
    assert isinstance(table, Table)
    assert table.columns == ["row", "linear probe, %"]
    assert len(table.rows) == 7
    assert "of single measures probe 7" in capsys.readouterr().out


def test_a_band_holds_its_line(ship, tmp_path):
    ship(write(tmp_path, "fig2", STUDIES["fig2"].measures))
    (figure,) = evidence("fig2")
    axis = figure.axes[0]
    band = axis.collections[0].get_paths()[0].vertices[:, 1]
    line = axis.lines[0].get_ydata()
    assert band.min() < line.min()
    assert band.max() > line.max()


@every_study
def test_every_study_can_be_shown(study):
    for shown in evidence(study):  # of the records that are committed
        assert len(shown._repr_png_() if isinstance(shown, Picture) else shown._repr_html_()) > 100


def test_an_unknown_study_is_named(ship, tmp_path):
    with pytest.raises(LcmaeError, match="unknown study 'tabel1': did you mean 'table1'"):
        list(evidence("tabel1"))
