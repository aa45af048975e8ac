"""How ranks end: an error of the user's making that only a rank can find is one line, exit code 2, and nothing is
started again; Ctrl-C to the whole group saves and leaves no process; ranks end, saved, when their launcher is killed;
torchrun's own folders do not stay."""

import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace

import numpy as np
import psutil
import pytest
from PIL import Image

from lcmae_core import cli
from lcmae_core.cli.rank import ENDED, FOLDER, as_rank, code_of_the_end, first_to_say
from lcmae_core.cli.ranks import end_at_once, say_alone, wanted_of
from lcmae_core.cli.unread import refuse_unread_by
from lcmae_core.config import LcmaeError
from lcmae_core.store.runs import load_run
from tests.cli.test_ranks import ranks_of, words_of
from tests.loops import over

ENDLESS = {"steps": 100_000, "checkpoint_every": 100_000}


def started(words, home):
    """The command as in a terminal: a group of its own, in which Ctrl-C is heard, and a temporary folder of its own."""
    (home / "t").mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "lcmae_core.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(home / "t")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def waited(happens, process, seconds=90):
    end = time.monotonic() + seconds
    while not happens():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def lines(home):
    return sum(len(file.read_text().splitlines()) for file in home.glob("o/runs/*/history.jsonl"))


def saved_at_the_last_step(home):
    (run,) = (home / "o" / "runs").iterdir()
    return [f"step-{load_run(run).history[-1]['step']:08d}"] == [one.name for one in (run / "checkpoints").iterdir()]


def left(home):
    """What stays in the temporary folder, without torch's one cache of compiled code."""
    return [one.name for one in (home / "t").iterdir() if not one.name.startswith("torchinductor_")]


def pictures(folder):
    """Two classes, of which one picture is none: nothing opens it before it is read for a batch."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for index in range(16):
            path = folder / split / "ab"[index % 2] / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    (folder / "train" / "a" / "04.png").write_bytes(b"\x89PNG\r\n\x1a\n none")


@pytest.mark.fault
def test_what_only_a_rank_can_find_is_one_line_and_ends_all(tmp_path):
    pictures(tmp_path / "p")
    words = [*words_of(tmp_path / "o", **ENDLESS), "--data", f"folder:{tmp_path / 'p'}", "-p", "device_cache_gb=0"]
    began, process = time.monotonic(), started(words, tmp_path)
    said, error = process.communicate(timeout=120)
    assert process.returncode == 2, said + error
    assert re.fullmatch(r"lcmae: error: .*04\.png.*\n", error), error
    assert said.count("\n") == 1, said
    assert time.monotonic() - began < 90
    assert not left(tmp_path), "no folder of torchrun's stays"


@pytest.mark.fault
def test_ctrl_c_to_the_whole_group_saves_and_leaves_no_process(tmp_path):
    process = started(words_of(tmp_path / "o", **ENDLESS), tmp_path)
    waited(lambda: lines(tmp_path) > 3, process)
    every = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    said, error = process.communicate(timeout=90)
    assert process.returncode == 130, said + error
    line = r"lcmae: stopped at step \d+ of 100000 after a checkpoint; the same command resumes\n"
    assert re.fullmatch(line, error), error
    assert not psutil.wait_procs(every, timeout=10)[1]
    assert saved_at_the_last_step(tmp_path)
    assert not left(tmp_path)


@pytest.mark.fault
@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_ctrl_c_while_the_ranks_start_is_one_line(seconds, tmp_path):
    process = started(words_of(tmp_path / "o", **ENDLESS), tmp_path)
    waited(lambda: list((tmp_path / "t").glob("lcmae-ranks-*")), process)
    time.sleep(seconds)
    every = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert re.fullmatch(r"lcmae: stopped .*\n", error), error
    assert not psutil.wait_procs(every, timeout=10)[1]


@pytest.mark.fault
def test_ranks_end_saved_when_their_launcher_is_killed(tmp_path):
    process = started(words_of(tmp_path / "o", **ENDLESS), tmp_path)
    waited(lambda: lines(tmp_path) > 3, process)
    every = psutil.Process(process.pid).children(recursive=True)
    assert len(ranks_of(process)) == 2
    process.kill()
    process.communicate(timeout=90)
    assert not psutil.wait_procs(every, timeout=60)[1]
    assert saved_at_the_last_step(tmp_path)
    assert not left(tmp_path)


def test_ctrl_c_twice_ends_all_at_once(tmp_path):
    agent, rank = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2))
    (tmp_path / "pid.0").write_text(str(rank.pid))
    (tmp_path / "pid.1").write_text("")  # it has just begun
    end_at_once(agent, str(tmp_path))
    assert (agent.returncode, rank.wait(timeout=10)) == (-signal.SIGKILL, -signal.SIGKILL)


def test_the_first_rank_speaks_for_all_and_none_is_started_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setattr("lcmae_core.cli.rank.KEEPS_HOLD", 0.0)

    def lost():
        raise RuntimeError("connection closed by peer")

    with pytest.raises(RuntimeError):
        as_rank(lost)
    assert as_rank(lambda: 1) == 1, "a rank that breaks down is one to start again"
    wrong = ["train", "--data", "nope"]
    assert [as_rank(lambda: cli.main(wrong)) for _ in range(2)] == [0, 0]
    assert capsys.readouterr().err.count("lcmae: error: data: got 'nope'") == 1
    assert (code_of_the_end(tmp_path), as_rank(lost)) == (2, 0)
    monkeypatch.delenv(FOLDER)
    assert first_to_say(ENDED, 1)
    assert first_to_say(ENDED, 1), "a process alone always speaks"


@over(
    ("place", "nnodes", "line"),
    [
        ("nonsense", 2, "--rendezvous: got 'nonsense', expected HOST:PORT, such as node0:29500"),
        ("node0:", 2, "--rendezvous: got 'node0:', expected HOST:PORT, such as node0:29500"),
        ("x:1", 1, "--rendezvous: got 'x:1' for one machine, expected it with --nnodes of 2 or more"),
    ],
)
def test_where_machines_meet_is_checked(place, nnodes, line):
    with pytest.raises(LcmaeError, match=f"^{re.escape(line)}$"):
        wanted_of(Namespace(nproc=2, nnodes=nnodes, rendezvous=place))
    for good in ("node0:29500", "10.0.0.1:1", "[::1]:29500"):
        assert wanted_of(Namespace(nproc=None, nnodes=2, rendezvous=good)) == (1, 2, good)


def test_weights_that_are_not_spread_are_said(capsys, monkeypatch):
    say_alone({"fsdp": True})
    assert capsys.readouterr().err == "fsdp: nothing to spread over one process; give --nproc with two or more\n"
    with pytest.raises(LcmaeError, match="fsdp: got True, which evaluate --by finetune does not read"):
        refuse_unread_by("finetune", set(), {"fsdp": True})  # each rank has a copy there
    say_alone({"fsdp": False})
    monkeypatch.setenv("WORLD_SIZE", "2")
    say_alone({"fsdp": True})
    assert capsys.readouterr().err == ""
