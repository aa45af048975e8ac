"""What the data hold decides which record is meant: two folders of one name keep records of their own, the same
pictures under another path share them, and records are read by the name they say where the data are not."""

import json
import os
import shutil

import pytest

from lcmae_core import cli
from lcmae_core.config import LcmaeError, replace
from lcmae_core.data.sources import look_again
from lcmae_core.store.records import open_record
from lcmae_core.studies import trials as module
from lcmae_core.studies.redraw import everything, recorded
from lcmae_core.studies.registry import TREE
from lcmae_core.studies.scoreboard import score
from lcmae_core.studies.trials import jobs, rows
from tests.cli.test_study import command
from tests.data.made_pictures import png
from tests.studies.tiny_studies import tiny_settings


def pictures(folder, first=0, count=24):
    """Pictures with the same names, whatever is in them."""
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / f"{i}.png").write_bytes(png(first + i))
    return folder


def base_of(tmp_path, folder):
    return tiny_settings(tmp_path / "out", source=f"folder:{folder}")


def run(capsys, *words):
    """First line of a study of one measure, and how many records there are afterwards."""
    assert cli.main(command(*words)) == 0
    return capsys.readouterr().out.splitlines()[0]


def test_two_folders_of_one_name_keep_records_of_their_own(tmp_path, capsys):
    first, other = pictures(tmp_path / "w" / "img"), pictures(tmp_path / "w" / "other" / "img", 100)
    out, folder = tmp_path / "out", tmp_path / "out" / "results" / "runs"
    assert run(capsys, out, "fig6", "--data", f"folder:{first}") == "5 of 5 jobs to do at smoke"
    assert run(capsys, out, "fig6", "--data", f"folder:{first}") == "0 of 5 jobs to do at smoke"
    assert run(capsys, out, "fig6", "--data", f"folder:{other}") == "5 of 5 jobs to do at smoke"
    assert len(list(folder.glob("*.json"))) == 10
    (tmp_path / "w").rename(tmp_path / "moved")  # the parent's name is nothing to it
    (tmp_path / "moved" / "other" / "img").rename(tmp_path / "moved" / "photographs")  # nor its own
    look_again()
    assert run(capsys, out, "fig6", "--data", f"folder:{tmp_path}/moved/img") == "0 of 5 jobs to do at smoke"
    assert run(capsys, out, "fig6", "--data", f"folder:{tmp_path}/moved/photographs") == "0 of 5 jobs to do at smoke"
    one = tmp_path / "moved" / "img" / "3.png"
    data = bytearray(one.read_bytes())
    data[60] ^= 1
    one.write_bytes(data)
    os.utime(one, (9, 9))
    look_again()
    base = base_of(tmp_path, tmp_path / "moved" / "img")
    assert not any(job.done for job in jobs(["fig6"], base, "smoke"))


def test_records_say_what_their_data_held(tmp_path):
    base = base_of(tmp_path, pictures(tmp_path / "img"))
    (job,) = [job for job in jobs(["fig6"], base, "smoke") if job.row == "0.9"]
    job.do()
    content = json.loads(job.record.path.read_text())
    assert content["settings"]["data"]["source"] == "folder:img"
    assert content["fingerprint"].startswith("folder-")
    assert str(tmp_path) not in job.record.path.read_text()
    runs = tmp_path / "out" / "results" / "runs"
    assert [file.name for file in runs.glob("*.json")] == [f"{job.record.name}.json"]


def made_up(tmp_path, place, number):
    """Records of every row of fig6, as if measured of the pictures at a place that is then taken away."""
    base = base_of(tmp_path, place)
    look_again()
    for job in jobs(["fig6"], base, "smoke"):
        job.record.begin(None, job.case.settings)
        job.record.note("distance", {"distance": [[number]]}, 1.0, {"recipe": job.recipe("distance")})
    return base


def read(base):
    """What the records of fig6 say, all rows together."""
    found = rows("fig6", base, "smoke", measures=["distance"], make=False)
    return {record.array("distance", "distance")[0, 0] for records in found.values() for record in records}


def test_records_are_read_by_name_where_the_data_are_not(tmp_path):
    first, other = pictures(tmp_path / "a" / "img"), pictures(tmp_path / "b" / "img", 50)
    base = made_up(tmp_path, first, 1.0)
    assert read(base) == {1.0}
    assert read(base_of(tmp_path, other)) == set()  # of that name, but other pictures
    shutil.rmtree(first)
    look_again()
    assert read(base) == read(base_of(tmp_path, "/gone/img")) == {1.0}
    assert read(base_of(tmp_path, "/gone/other")) == set()
    assert read(base_of(tmp_path, other)) == set()
    assert recorded(tmp_path / "out", "smoke").data.source == "folder:img"


def test_of_two_data_sets_of_one_name_the_one_of_more_records_is_read(tmp_path, capsys):
    first, other = pictures(tmp_path / "a" / "img"), pictures(tmp_path / "b" / "img", 50)
    made_up(tmp_path, first, 1.0)
    base = made_up(tmp_path, other, 2.0)
    spare = next(iter(jobs(["fig6"], base, "smoke"))).record.path
    spare.unlink()
    for folder in (first, other):
        shutil.rmtree(folder)
    look_again()
    assert read(base_of(tmp_path, "/gone/img")) == {1.0}
    assert "records: 'folder:img' names several data sets: read are the 5 of folder-" in capsys.readouterr().err


def test_records_from_before_fingerprints_are_read_by_name(tmp_path):
    base = base_of(tmp_path, "/gone/img")
    for job in jobs(["fig6"], base, "smoke"):
        record = open_record(tmp_path / "out", job.record.name)  # says no fingerprint
        record.begin(None, job.case.settings)
        record.note("distance", {"distance": [[3.0]]}, 1.0, {})
        assert "fingerprint" not in record.content
    assert read(base) == {3.0}


def test_status_report_and_scores_need_no_data(tmp_path, capsys):
    first = pictures(tmp_path / "a" / "imagenette-128")
    made_up(tmp_path, first, 1.0)
    shutil.rmtree(first)
    look_again()
    out = tmp_path / "out"
    assert cli.main(command(out, "status", "fig6")) == 0
    assert cli.main(["report", "--profile", "smoke", "--out", str(out)]) == 0
    titles = [title for title, _ in everything(out, "smoke")]
    assert titles[0] == "Scoreboard, profile smoke"
    assert cli.main(["study", "status", "--profile", "lab", "--out", str(out)]) == 0  # whose data are not here
    assert "Traceback" not in capsys.readouterr().err


def test_the_data_are_looked_at_once_a_process(tmp_path, monkeypatch):
    from lcmae_core.data import sources

    base, looks = base_of(tmp_path, pictures(tmp_path / "img")), []
    real = sources.source_identity
    monkeypatch.setattr(sources, "source_identity", lambda spec: looks.append(spec) or real(spec))
    look_again()
    score(base, "lab", make=False)
    assert [spec for spec in looks if spec != TREE] == [base.data.source]


def test_data_that_change_under_a_study_stop_it(tmp_path):
    folder = pictures(tmp_path / "img")
    job = next(iter(jobs(["fig6"], base_of(tmp_path, folder), "smoke")))
    assert not job.done
    (folder / "new.png").write_bytes(png(99))
    with pytest.raises(LcmaeError, match="changed since this began, expected the same pictures: start it again"):
        job.do()
    assert not list(tmp_path.rglob("*.json"))
    look_again()  # as `rows` does each time, for notebooks that stay open
    assert module.rows("fig6", replace(job.case.settings, steps=1), "smoke", measures=["collapse"], make=True)
