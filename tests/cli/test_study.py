"""`lcmae study` does what is missing within its budget, alone or shared out, and stops so that the command goes on: at
the end of the budget, at a signal, in training and in a measure. What is wrong is one line and exit code 2."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from lcmae_core import cli
from lcmae_core.cli.budget import seconds_of
from lcmae_core.cli.study import run_studies
from lcmae_core.cli.words import without
from lcmae_core.config import LcmaeError
from lcmae_core.store.files import read_json
from lcmae_core.studies import ACCURACY, measures
from lcmae_core.studies.costs import to_go
from lcmae_core.studies.measures import MEASURES
from lcmae_core.studies.trials import jobs
from lcmae_core.training import loop
from lcmae_core.training.guards import NonFiniteLossError, stop_requests
from tests.data.made_pictures import few_pictures, write_folder
from tests.loops import over
from tests.started import CLI, Started
from tests.studies.tiny_studies import TINY, tiny_settings

LEAVES = [word for name, value in TINY.items() for word in ("-p", f"{name}={value}")]


def command(out, *words, data=True):
    """The command line of a study of tiny settings, on few pictures unless it is said on which."""
    words = ("--data", few_pictures(), *words) if data else words
    return ["study", "--profile", "smoke", "--seeds", "1", "--out", str(out), *LEAVES, *words]


def start(out, *words):
    """The same as a process."""
    return Started(*CLI, *command(out, *words), merged=True)


def waited(happens, seconds=90):
    """Wait until something happens."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


@over(("text", "seconds"), [("90s", 90), ("25m", 1500), ("1.5h", 5400), (" 2m ", 120), ("0.5s", 0.5), (None, None)])
def test_budgets(text, seconds):
    assert seconds_of(text) == seconds


@over(
    ("words", "line"),
    [
        (["tabel1"], "unknown study 'tabel1': did you mean 'table1'?"),
        (["status", "fig66"], "unknown study 'fig66': did you mean 'fig6'?"),
        (["--seeds", "0"], "--seeds: got 0, expected at least 1"),
        (["--jobs", "0"], "--jobs: got 0, expected at least 1"),
        (["--jobs", "two"], "argument --jobs: invalid int value: 'two'"),
        *(
            (["--budget", text], f"--budget: got {text!r}, expected a time such as 90s, 25m or 1.5h")
            for text in ("25", "0m", "m", "1h30m", "1e9s", "25 m", "")
        ),
        (["--budgte", "1m"], "unknown option '--budgte' of lcmae study: did you mean '--budget'?"),
        (["--profile", "labb"], "unknown profile 'labb': did you mean 'lab'?"),
        (["--data", "parquet:gone"], "data: got 'parquet:gone', expected a folder or file that exists"),
    ],
)
def test_wrong_words_are_one_line(words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        cli.main(["study", *words])
    assert error.value.code == 2
    assert capsys.readouterr().err == f"lcmae: error: {line}\n"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as error:
        cli.main(command(tmp_path / "file", "fig6"))
    assert error.value.code == 2
    assert "expected a folder that can be written" in capsys.readouterr().err


def test_help_takes_under_a_second_and_loads_nothing_heavy():
    script = "import sys\nfrom lcmae_core.cli import main\n"
    script += "try: main(['study', '--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    times, done = [], None
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        times.append(time.perf_counter() - began)
    assert min(times) < 1
    assert not {"torch", "numpy", "pydantic", "papermill"} & set(done.stderr.split())
    assert all(name in done.stdout for name in ("--budget", "--seeds", "--jobs", "status"))


def test_work_and_status(tmp_path, capsys):
    def status(*names):
        assert cli.main(command(tmp_path, "status", *names)) == 0
        lines = capsys.readouterr().out.splitlines()
        return {line.split()[0]: line.split("│")[2:] for line in lines if "│" in line}

    before = status()
    assert {name: tuple(map(int, cells[:2])) for name, cells in before.items()} == {
        "table1": (0, 7), "fig6": (0, 5), "table3": (0, 6), "table2": (0, 3), "fig2": (0, 1), "fig3": (0, 1),
        "fig5": (0, 3), "fig_a1": (0, 5), "table_a1": (0, 3), "section32": (0, 1), "controls": (0, 1),
        "siamese": (0, 4), "beside": (0, 4), "hlv_ratios": (0, 5), "hlv_units": (0, 2), "latents": (0, 6),
        "random": (0, 1), "collapse": (0, 4), "erasing": (0, 2), "erasing_tuned": (0, 2), "fig5_supervised": (0, 2),
        "shape": (0, 2), "depth": (0, 3), "anchor": (0, 4),
    }  # fmt: skip
    assert {cells[2].strip() for name, cells in before.items() if name != "fig5_supervised"} == {"?"}
    assert before["fig5_supervised"][2].strip() == "counted above"  # at smoke Fig. 5 has one horizon
    assert not list(tmp_path.iterdir())
    assert cli.main(command(tmp_path, "fig6")) == 0
    said = capsys.readouterr().out
    assert said.startswith("5 of 5 jobs to do at smoke\n")
    assert said.count("fig6 · ") == 5
    assert re.search(r"5 jobs done in \d+ s, 0 left\n$", said)
    after = status("fig6", "fig5", "fig_a1")  # MAE of fig_a1 is trained, but has measures of its own
    assert {name: [cell.strip() for cell in cells[:2]] for name, cells in after.items()} == {
        "fig6": ["5", "0"], "fig5": ["1", "2"], "fig_a1": ["0", "5"],
    }  # fmt: skip
    assert after["fig6"][2].strip() == "-"
    assert after["fig5"][2].strip().endswith(" s")
    assert cli.main(command(tmp_path, "fig6")) == 0
    assert capsys.readouterr().out == "0 of 5 jobs to do at smoke\n"


def test_status_counts_the_records_there_are_whatever_data_they_were_made_on(tmp_path, capsys):
    """Without --data the profile's own data would be counted, of which there is no record."""

    def status(*data):
        assert cli.main(command(tmp_path / "out", "status", "fig5", *data, data=False)) == 0
        lines = capsys.readouterr().out.splitlines()
        [row] = [line.split("│")[2:4] for line in lines if line.startswith("fig5 ")]
        return tuple(map(int, row)), "\n".join(line for line in lines if "│" not in line)

    pictures = write_folder(tmp_path / "pets", [f"{c}/{i}.png" for c in "ab" for i in range(6)])
    assert status()[0] == (0, 3)
    assert cli.main(command(tmp_path / "out", "fig5", "--data", f"folder:{pictures}", data=False)) == 0
    capsys.readouterr()
    done, said = status("--data", f"folder:{pictures}")
    assert done == (3, 0)
    assert "the records there" not in said
    for at_hand in (True, False):
        done, said = status()
        assert done == (3, 0), f"pictures are here: {at_hand}"
        assert said.startswith("counted: the records there, of folder:pets, not of the profile's own photos:160;")
        assert "no run of this profile" not in said
        pictures.rename(tmp_path / "gone") if at_hand else None
    done, said = status("--data", "photos")
    assert done == (0, 3), "what was asked for"
    assert said.startswith("the records there are of folder:pets, none of photos: give --data")
    assert "no run of this profile has been finished here on photos" in said
    [first, *_] = sorted((tmp_path / "out" / "results" / "runs").glob("*.json"))
    content = read_json(first)
    content["settings"]["data"]["source"] = "folder:zebras"
    first.write_text(json.dumps(content))
    done, said = status()
    assert done == (0, 3)
    assert said.startswith("the records there are of folder:pets and folder:zebras, none of photos:160: give --data")


def test_what_studies_share_is_counted_once(tmp_path):
    every = jobs(["table1", "table3"], tiny_settings(tmp_path), "smoke")
    kinds = ("mae", "mae, 2 views", *(f"ae, block {block}" for block in (1, 3, 5, 7)))
    speed, seen = dict.fromkeys((*(f"train {kind}" for kind in kinds), "collapse", *ACCURACY), 100.0), set()
    trained = 100 * 2 * 8  # seconds an image x steps x batch
    mine = {name: [job for job in every if job.study == name] for name in ("table1", "table3")}
    assert to_go(mine["table1"], seen, speed, 0).seconds == 7 * (trained + 400)
    assert to_go(mine["table3"], seen, speed, 0).seconds == 4 * (trained + 300) + 400  # not MAE
    assert str(to_go(mine["table3"], seen, speed, 0)) == "counted above"
    assert str(to_go(mine["table3"], set(), {"train mae": 100.0}, 0)).startswith("over ")


def test_the_budget_ends_training_at_a_checkpoint_and_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    base = tiny_settings(tmp_path, steps=6)
    real, slow = loop.backward_pass, threading.Event()

    def backward(*given):
        if not slow.is_set():
            time.sleep(0.6)
        return real(*given)

    monkeypatch.setattr(loop, "backward_pass", backward)
    assert run_studies(["fig6"], base, "smoke", seeds=1, budget=1.5) == 0
    said = capsys.readouterr().out
    step = int(re.search(r"fig6 · 0.3 · seed 0: stopped at step (\d) of 6 after a checkpoint", said)[1])
    assert 1 <= step < 6
    assert said.endswith("s, 5 left\n")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    slow.set()
    steps = []
    monkeypatch.setattr(loop, "backward_pass", lambda *given: steps.append(1) or real(*given))
    assert run_studies(["fig6"], base, "smoke", seeds=1) == 0
    assert len(steps) == 5 * 6 - step  # nothing is trained twice
    assert all(job.done for job in jobs(["fig6"], base, "smoke"))


def test_a_stop_during_a_measure_lets_it_finish_and_begins_no_other(tmp_path, capsys, monkeypatch):
    base, real = tiny_settings(tmp_path), measures.MEASURES["collapse"]

    def interrupted(specimen):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(specimen)

    monkeypatch.setitem(measures.MEASURES, "collapse", interrupted)
    assert run_studies(["table1"], base, "smoke", seeds=1) == 143
    said = capsys.readouterr().out
    assert "table1 · a · seed 0: stopped before its measure 'finetune'; the same command resumes" in said
    assert said.endswith("s, 7 left\n")
    first, second, *_ = jobs(["table1"], base, "smoke")
    assert set(first.record.measures) == {"collapse"}
    assert second.record.content == {}


def test_a_request_before_training_stops_it_while_it_reads_or_at_its_first_step(tmp_path):
    from lcmae_core.training.guards import Stopped

    base = tiny_settings(tmp_path)
    for kept, where in ((False, "while reading train"), (True, "at step 1 of 2")):
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            with pytest.raises(Stopped, match=f"^stopped {where}"):
                loop.pretrain(tiny_settings(tmp_path, seed=int(kept)))
            assert stop.is_set()
        with stop_requests() as stop:
            assert not stop.is_set()
        loop.pretrain(base)  # which keeps its pictures in the cache


def test_a_training_that_breaks_down_does_not_keep_the_others(tmp_path, capsys, monkeypatch):
    real = loop.train_run

    def breaking(run, settings, callbacks):
        if settings.masking.mask_ratio == 0.45:
            raise NonFiniteLossError("loss: got nan at step 1")
        real(run, settings, callbacks)

    monkeypatch.setattr(loop, "train_run", breaking)
    assert run_studies(["fig6"], tiny_settings(tmp_path), "smoke", seeds=1) == 1
    said = capsys.readouterr()
    assert said.err == "fig6 · 0.45 · seed 0: failed: loss: got nan at step 1\n"
    assert "4 jobs done" in said.out
    assert said.out.endswith("s, 1 left\n")


def test_a_measure_that_fails_keeps_neither_the_others_nor_other_runs(tmp_path, capsys, monkeypatch):
    real = MEASURES["distance"]

    def failing(specimen):
        match specimen.settings.masking.mask_ratio:
            case 0.45:
                raise LcmaeError("vectors: got 0, expected at least 2")
            case 0.6:
                raise RuntimeError("a fault")
        return real(specimen)

    monkeypatch.setitem(MEASURES, "distance", failing)
    base = tiny_settings(tmp_path)
    assert run_studies(["fig6"], base, "smoke", seeds=1) == 1
    said = capsys.readouterr()
    failed = "fig6 · 0.45 · seed 0: failed: measure 'distance': vectors: got 0, expected at least 2"
    assert failed in said.err.splitlines()
    assert "RuntimeError: a fault" in said.err.splitlines()
    assert said.err.count("Traceback") == 1, "a user's mistake has none"
    assert "3 jobs done" in said.out
    one = next(job for job in jobs(["fig6"], base, "smoke") if job.row == "0.45")
    assert one.missing == ("distance",), "what else is measured of it is kept"
    with pytest.raises(LcmaeError, match=r"^vectors: got 0"):
        one.do()
    monkeypatch.setitem(MEASURES, "distance", real)
    assert run_studies(["fig6"], base, "smoke", seeds=1) == 0, "and it is taken next time"


def test_a_job_that_another_process_had_is_done_in_a_second_round(tmp_path, capsys, monkeypatch):
    base, real = tiny_settings(tmp_path), loop.train_run
    first, *_ = jobs(["fig6"], base, "smoke")
    with ExitStack() as held:
        held.enter_context(first.record.claimed())
        monkeypatch.setattr(loop, "train_run", lambda *given: (held.close(), real(*given)))
        assert run_studies(["fig6"], base, "smoke", seeds=1) == 0
    titles = re.findall(r"fig6 · (\S+) ·", capsys.readouterr().out)
    assert titles == ["0.45", "0.6", "0.75", "0.9", "0.3"]


def test_what_another_process_keeps_is_left_to_it(tmp_path, capsys):
    base = tiny_settings(tmp_path)
    with ExitStack() as held:
        for job in jobs(["fig6"], base, "smoke"):
            held.enter_context(job.record.claimed())
        assert run_studies(["fig6"], base, "smoke", seeds=1) == 0
    assert capsys.readouterr().out == "5 of 5 jobs to do at smoke\n0 jobs done in 0 s, 5 left\n"


def test_two_processes_do_no_job_twice(tmp_path):
    with start(tmp_path, "fig6", "--jobs=2") as both:
        said, _ = both.communicate(timeout=240)
    assert both.returncode == 0, said
    titles = re.findall(r"^(fig\S+ · \S+) · seed 0: \d", said, flags=re.MULTILINE)
    assert len(titles) == len(set(titles))
    assert sum(int(n) for n in re.findall(r"^(\d+) jobs done", said, flags=re.MULTILINE)) == len(titles)
    records = [json.loads(file.read_text()) for file in (tmp_path / "results" / "runs").glob("*.json")]
    assert len(records) == 5
    assert all(set(record["measures"]) == {"distance", "reach"} for record in records)


def test_helpers_get_the_command_without_jobs():
    words = ["study", "fig6", "--jobs", "4", "--seeds", "2", "--jobs=3", "--out", "x"]
    assert without(words, "--jobs") == ["study", "fig6", "--seeds", "2", "--out", "x"]
    assert cli.parse(words).words == words


def test_seeds_are_bit_equal_by_one_process_and_by_two(tmp_path):
    found = {}
    for count in (1, 2):
        out = tmp_path / str(count)
        with start(out, "random", "fig6", f"--jobs={count}", "--seeds", "2") as process:
            said, _ = process.communicate(timeout=240)
        assert process.returncode == 0, said
        found[count] = {file.parent.name: file.read_bytes() for file in out.glob("runs/*/model.safetensors")}
        for file in (out / "results" / "runs").glob("*.json"):
            for name, measure in json.loads(file.read_text())["measures"].items():
                values = {key: value for key, value in measure["values"].items() if key != "seconds"}
                found[count][file.name, name] = values
    assert len(found[1]) > 30
    assert found[1] == found[2]
