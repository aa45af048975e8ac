"""A record outlives the weights: whole or absent, exact to the bit, of one run, written by one process at a time, and
naming no folder of the machine. What is broken or missing is said in one line."""

import itertools
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.store import files, records
from lcmae_core.store.files import DiskFullError
from lcmae_core.store.records import POINTS, curves, open_record, packed, plain_settings, unpacked
from lcmae_core.store.runs import open_run
from tests.loops import over

WHERE = {"device": "CPU", "commit": "abc"}
RESULTS = {"steps": 4, "seconds": 2.0, "held_out": {"images": 3}, "versions": {}, "date": "today"} | WHERE


@pytest.fixture
def settings(tmp_path):
    return replace(profile("smoke"), out=str(tmp_path), source=f"folder:{tmp_path}/private/pictures", seed=3)


@pytest.fixture
def record(tmp_path):
    return open_record(tmp_path, "mae-s3-0123456789")


def finished(settings, identity="photos-v1"):
    """A run that was never trained, but says so."""
    run = open_run(settings, identity)
    (run.path / "history.jsonl").write_text('{"step": 1, "loss": 2.0, "time": 1}\n{"step": 2, "loss": 1.0}\n')
    run.finish({}, RESULTS)
    return run


def test_looking_writes_nothing(record, tmp_path):
    assert (record.name, record.content, record.measures) == ("mae-s3-0123456789", {}, {})
    assert not list(tmp_path.iterdir())


def test_a_record_is_read_once_until_it_changes(record, settings, monkeypatch):
    record.begin(None, settings)
    record.note("knn", {"right": 1.0}, 0.5, WHERE)
    reads = []
    monkeypatch.setattr(records, "read_json", lambda path: reads.append(path) or files.read_json(path))
    assert record.measures["knn"]["values"] == record.measures["knn"]["values"] == {"right": 1.0}
    assert len(reads) == 2, "it was written just now, and might be again within a tick of the clock"
    old = record.path.stat().st_mtime_ns - 10 * records.FRESH
    os.utime(record.path, ns=(old, old))
    assert {record.array("knn", "right").item() for _ in range(20)} == {1.0}
    assert len(reads) == 3
    record.content["run"] = "another"
    assert record.content["run"] is None, "what is changed outside does not come back"
    record.note("knn", {"right": 2.0}, 0.5, WHERE)
    assert record.array("knn", "right") == 2.0
    os.utime(record.path, ns=(old, old))
    assert record.array("knn", "right") == 2.0, "another file at the same time"


def test_what_is_noted_comes_back(record, settings):
    record.begin(finished(settings), settings)
    record.note("distance", {"distance": [[1.25, 2.0, 3.0], [4.0, 5.5, 6.0]], "uniform": 7.5}, 1.23456, WHERE)
    record.note("knn", {"right": packed(np.array([True, False, True]))}, 0.5, WHERE)
    found = record.array("distance", "distance")
    assert found.shape == (2, 3)
    assert found[1].tolist() == [4.0, 5.5, 6.0]
    assert record.array("distance", "uniform").shape == ()
    assert record.array("knn", "right").tolist() == [True, False, True]
    assert record.measures["distance"] | {"values": 0} == {"values": 0, "seconds": 1.23} | WHERE
    training = record.content["training"]
    assert training["images_per_s"] == 4 * 8 / 2.0  # steps x batch / seconds
    assert training["curves"] == {"loss": [[1, 2], [2.0, 1.0]]}
    assert record.content["settings"]["seed"] == 3


@over("count", [0, 1, 7, 8, 9, 3925])
def test_packed_bits_come_back(count):
    right = np.random.default_rng(count).random(count) < 0.3
    said = json.loads(json.dumps(packed(right)))
    assert np.array_equal(unpacked(said), right)
    assert unpacked(said).dtype == bool
    assert len(said["bits"]) <= 4 * (count // 24 + 1)  # base64 of an eighth of a byte an image


def test_a_failed_write_leaves_the_old_content(record, settings, monkeypatch):
    record.begin(None, settings)
    record.note("knn", {"accuracy": 0.5}, 1, WHERE)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "flush", full)
    for write in (lambda: record.begin(None, settings), lambda: record.note("knn", {"accuracy": 0.9}, 1, WHERE)):
        with pytest.raises(DiskFullError, match="bytes of room"):
            write()
    assert record.array("knn", "accuracy") == 0.5
    assert [file.name for file in record.path.parent.iterdir()] == [record.path.name]


def test_measures_stay_with_their_run_and_go_with_another(record, settings):
    run = finished(settings)
    record.begin(run, settings)
    record.note("knn", {"accuracy": 0.5}, 1, WHERE)
    record.begin(run, settings)
    assert set(record.measures) == {"knn"}
    other = finished(settings, "the data changed")
    assert other.name != run.name
    record.begin(other, settings)
    assert record.measures == {}
    assert record.content["run"] == other.name
    record.note("knn", {"accuracy": 0.5}, 1, WHERE)
    record.begin(None, settings)
    assert (record.measures, record.content["training"]) == ({}, None)


@over(
    ("source", "kept"),
    [
        ("folder:/home/me/pictures", "folder:pictures"),
        ("parquet:/home/me/set", "parquet:set"),
        ("parquet:data/set", "parquet:set"),
        ("wds:/home/me/train-{000..009}.tar", "wds:train-{000..009}.tar"),
        ("hf:~/set", "hf:set"),
        ("hf:/home/me/set", "hf:set"),
        ("hf:owner/set@plain", "hf:owner/set@plain"),
        ("wds:https://host/train.tar", "wds:https://host/train.tar"),
        ("torchvision:Imagenette", "torchvision:Imagenette"),
        ("photos", "photos"),
    ],
)
def test_a_record_names_no_folder_of_the_machine(settings, record, source, kept, tmp_path):
    given = replace(settings, source=source)
    assert plain_settings(given)["data"]["source"] == kept
    record.begin(finished(settings), given)
    text = record.path.read_text()
    assert str(tmp_path) not in text
    assert "/home" not in text


CLAIM = """
import sys, time
from pathlib import Path
from lcmae_core.store.records import open_record
with open_record(Path(sys.argv[1]), sys.argv[2]).claimed() as mine:
    print(mine, flush=True)
    sys.stdin.readline()
"""


def test_one_process_works_on_a_record_at_a_time(record, tmp_path):
    words = [sys.executable, "-c", CLAIM, str(tmp_path), record.name]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        with record.claimed() as mine:
            assert mine is False
        with open_record(tmp_path, "another").claimed() as mine:
            assert mine is True
        told = []
        timer = threading.Timer(0.5, lambda: (told.append("end"), holder.stdin.close()))  # then it ends, and lets go
        timer.start()
        with record.claimed(wait=True) as mine:
            assert mine is True
            assert told
        timer.join()
    with record.claimed() as mine:
        assert mine is True


@pytest.mark.parametrize(
    ("text", "line"), [("{", "1 bytes that are no JSON"), ("[1]", "got a list in .*, expected an object")]
)
def test_a_broken_file_is_one_line(record, text, line):
    record.path.parent.mkdir(parents=True)
    record.path.write_text(text)
    with pytest.raises(LcmaeError, match=line) as error:
        _ = record.content
    assert "\n" not in str(error.value)


def test_what_was_not_measured_is_named(record, settings):
    record.begin(None, settings)
    record.note("distance", {"distance": [1.0]}, 1, WHERE)
    with pytest.raises(LcmaeError, match=r"got measure 'distanc' of mae-s3-0123456789, did you mean 'distance'\?"):
        record.array("distanc", "distance")
    with pytest.raises(LcmaeError, match=r"got 'distances' of measure 'distance', did you mean 'distance'\?"):
        record.array("distance", "distances")


def test_long_curves_are_thinned_with_their_ends(settings):
    run = open_run(settings, "x")
    lines = [{"step": s, "loss": 1 / s, "lr": s / 3} | ({"rare": 1.0} if s % 100 == 0 else {}) for s in range(1, 1001)]
    (run.path / "history.jsonl").write_text("".join(json.dumps(line | {"time": 1.0}) + "\n" for line in lines))
    found = curves(run)
    assert set(found) == {"loss", "lr", "rare"}
    steps, values = found["loss"]
    assert len(steps) == len(values) == POINTS
    assert (steps[0], steps[-1]) == (1, 1000)
    assert all(value == float(f"{1 / step:.5g}") for step, value in zip(steps, values))
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 1000 / (POINTS - 1) + 1
    assert found["rare"][0] == list(range(100, 1001, 100))
