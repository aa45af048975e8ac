"""Claims: `lcmae status` says of every notebook whether it waits, runs or how it ended, since when and where, from what
the batch's command writes and from the ledger; of a command that is gone, what it left undone; it writes nothing. A
notebook that takes longer than `--timeout` is stopped as by a signal, failed with that word, and the others go on."""

import json
import os
import platform
import re
import time

import pytest

from lcmae_core import cli
from lcmae_core.execute import Request, make_plan, run_notebooks
from lcmae_core.execute.standing import LOST, Standing, rows
from lcmae_core.execute.watch import OUT_OF_TIME
from lcmae_core.store.outputs import read_ledger
from lcmae_core.store.progress import in_words
from tests.execute.toys import code, make_notebook
from tests.loops import over
from tests.started import CLI, Started


class Handle:
    """A job that was started."""

    def __init__(self, called, waits):
        self.called, self.waits = called, waits


def state(out):
    return {row.name: (row.state, row.where) for row in rows(out)}


@pytest.fixture
def out(tmp_path):
    """A folder with what two earlier notebooks left, one of them not in the ledger yet."""
    (tmp_path / ".work").mkdir()
    ok = {"status": "ok", "date": "2026-01-02T03:04:05+00:00", "seconds": 12.0, "host": "a", "job": "job 3"}
    bad = {"status": "failed", "cell": 3, "error": "ValueError: no\nmore", "date": "2026-01-02T03:04:05+00:00"}
    (tmp_path / "ledger.json").write_text(json.dumps({"00_ok": ok, "01_bad": {"status": "ok"}}))
    (tmp_path / ".work" / "01_bad.outcome.json").write_text(json.dumps(bad))
    return tmp_path


def test_a_batch_that_goes_on_is_said_over_what_the_ledger_knows(out):
    before = sorted(out.rglob("*.json"))
    assert [row[:2] for row in rows(out)] == [("00_ok", "ok"), ("01_bad", "failed")]
    assert rows(out)[0][3:] == (12.0, "a, job 3", "")
    assert rows(out)[1].note == "cell 3: ValueError: no"
    assert sorted(out.rglob("*.json")) == before, "nothing is written"
    batch, here = Standing(out), platform.node()
    batch.say(["04_later"], {"01_bad": Handle("process 7", False), "02_queued": Handle("job 12", True)})
    assert state(out) == {
        "00_ok": ("ok", "a, job 3"), "01_bad": ("running", f"{here}, process 7"), "02_queued": ("waiting", "job 12"),
        "04_later": ("waiting", ""),
    }  # fmt: skip
    since = rows(out)[1].since
    time.sleep(0.05)
    batch.say([], {"01_bad": Handle("process 7", False), "04_later": Handle("process 8", False)})
    told = {row.name: row for row in rows(out)}
    assert told["01_bad"].since == since, "it still runs"
    assert told["04_later"].since > since
    assert "02_queued" not in told
    batch.close()
    assert state(out)["01_bad"] == ("failed", "")


@over(("host", "age", "expected"), [(None, 0.0, "stopped"), ("other", 0.0, "running"), ("other", 2 * LOST, "stopped")])
def test_of_a_command_that_is_gone_its_notebooks_count_as_stopped(host, age, expected, tmp_path):
    gone = 2**22 + 1  # above the largest number of a process
    jobs = {"00_a": {"state": "running", "since": time.time() - 5, "called": "process 7"}}
    file = tmp_path / f"{host}-{age}" / ".work" / "batch-x-1.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"host": host or platform.node(), "pid": gone, "jobs": jobs}))
    os.utime(file, (time.time() - age,) * 2)
    (row,) = rows(file.parents[1])
    assert row.state == expected
    assert (row.note == "the command that started it is gone") == (expected == "stopped")
    done = {"status": "ok", "date": "2999-01-01T00:00:00+00:00"}
    (file.parents[1] / "ledger.json").write_text(json.dumps({"00_a": done}))
    assert rows(file.parents[1])[0].state == ("ok" if expected == "stopped" else expected), "its end was heard of"


def test_what_slurm_still_does_for_a_command_that_is_gone(tmp_path, monkeypatch):
    told = {"7": "RUNNING", "8": "PENDING", "9": "CANCELLED"}
    monkeypatch.setattr("lcmae_core.execute.cluster.Queue.state", lambda self, number: told[number])
    jobs = {f"0{n}_a": {"state": "running", "since": 1.0, "called": f"job {n}"} for n in told}
    (tmp_path / ".work").mkdir()
    said = {"host": platform.node(), "pid": 2**22 + 1, "jobs": jobs}
    (tmp_path / ".work" / "batch-x-1.json").write_text(json.dumps(said))
    assert [row.state for row in rows(tmp_path)] == ["running", "waiting", "stopped"]


def test_the_command_prints_a_table_or_a_line(out, capsys):
    assert cli.main(["status", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"00_ok +│ ok +│ 2026-01-02 \d\d:04 +│ 12 s +│ a, job 3", said), said
    assert said.endswith("1 failed, 1 ok\n")
    assert cli.main(["status", "--watch", "1", "--out", str(out)]) == 0, "nothing goes on"
    capsys.readouterr()
    assert cli.main(["status", "--out", str(out / "none")]) == 0
    assert capsys.readouterr().out == f"no batch of notebooks in {out / 'none'}: lcmae run executes one\n"
    assert not (out / "none").exists()
    for words, line in (
        (["status", "--watch", "0"], "--watch: got 0, expected seconds above 0"),
        (["run", "--timeout", "2x"], "--timeout: got '2x', expected a time such as 90s, 25m or 1.5h"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 2
        assert capsys.readouterr().err == f"lcmae: error: {line}\n"


SAVES = """import pathlib, time
from lcmae_core.store.stopping import Stopped, stop_requests
with stop_requests() as stop:
    pathlib.Path(out, "begun").touch()
    while not stop.is_set():
        time.sleep(0.05)
    pathlib.Path(out, "saved").touch()
    raise Stopped("stopped", stop)"""
DEAF = """import time
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass"""


@pytest.mark.fault
def test_a_notebook_that_takes_too_long_is_stopped_and_the_others_go_on(tmp_path, capsys):
    for name, cell in (("00_saves", SAVES), ("01_deaf", DEAF), ("02_good", "1")):
        make_notebook(tmp_path / "n", name, code(cell), seconds=1 if name == "02_good" else 9)
    out = tmp_path / "o"
    plan = make_plan(Request(notebooks=str(tmp_path / "n"), out=str(out)))
    spent = out / ".work" / "00_saves.spent"
    spent.parent.mkdir()
    spent.write_text("1e9")  # of an earlier batch: that one does not count
    assert run_notebooks(plan, jobs=3, timeout=15.0) == 1
    known = read_ledger(out)
    assert [known[name]["status"] for name in sorted(known)] == ["failed", "failed", "ok"]
    for name in ("00_saves", "01_deaf"):
        assert known[name]["error"] == f"timeout: not done after {in_words(15)}; what it trained until then is kept"
        assert known[name]["cell"] == 3
        assert 14 < known[name]["seconds"] < 60
    assert (out / "saved").exists(), "what it trained is kept"
    assert "    timeout: not done after 15 s" in capsys.readouterr().out
    assert 10 <= float(spent.read_text()) <= 15, "a requeued job would go on counting"


@pytest.mark.fault
def test_a_batch_that_runs_is_seen_and_its_time_is_counted_over_requeues(tmp_path):
    from lcmae_core.execute.job import Job
    from lcmae_core.execute.local import start_process

    make_notebook(tmp_path / "n", "00_slow", code(SAVES))
    make_notebook(tmp_path / "n", "01_next", code("1"))
    out = tmp_path / "o"
    process = Started(*CLI, "run", "--notebooks", str(tmp_path / "n"), "--out", str(out))
    end = time.monotonic() + 90
    while not (out / "begun").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    told = {row.name: row for row in rows(out)}
    assert [told[name].state for name in sorted(told)] == ["running", "waiting"]
    assert told["00_slow"].where.startswith(f"{platform.node()}, process ")
    process.send_signal(15)
    process.communicate(timeout=60)
    assert [row[:2] for row in rows(out)] == [("00_slow", "stopped")]
    assert not list((out / ".work").glob("batch-*"))
    (out / ".work" / "00_slow.spent").write_text("3600")
    job = Job("00_slow", str(tmp_path / "n" / "00_slow.ipynb"), str(out), {}, "x", str(tmp_path), timeout=3600.0)
    assert start_process(job).wait(timeout=90) in (1, OUT_OF_TIME)
