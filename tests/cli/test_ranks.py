"""`lcmae train --nproc N` prints torchrun's command and makes it; what cannot be is one line before anything starts.
A rank that is killed is started again with the others from the last checkpoint, and the run ends as if it had not been.
"""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from lcmae_core import cli
from lcmae_core.cli.ranks import torchrun
from lcmae_core.store.runs import load_run
from tests.loops import over
from tests.started import CLI, all_forks, completed
from tests.studies.tiny_studies import MAE

SMALL = [w for name, value in (MAE | {"log_every": 1, "snapshots": 0}).items() for w in ("-p", f"{name}={value}")]


def words_of(out, **more):
    settings = [word for name, value in more.items() for word in ("-p", f"{name}={value}")]
    return ["train", "--profile", "smoke", *SMALL, *settings, "--out", str(out), "--nproc", "2"]


def test_the_command_is_torchruns_and_the_same_on_every_machine():
    words = ["train", "--nproc", "8", "-p", "steps=3", "--nnodes=2", "--rendezvous", "a:29500", "--out", "x"]
    assert torchrun(words, 8, 2, "a:29500")[1:] == [
        "-m", "torch.distributed.run", "--nnodes=2", "--rdzv-backend=c10d", "--rdzv-endpoint=a:29500",
        "--rdzv-id=lcmae", "--nproc-per-node=8", "--max-restarts=3", "-m", "lcmae_core.cli", "train", "-p", "steps=3",
        "--out", "x",
    ]  # fmt: skip
    assert torchrun(["train", "--nproc=2"], 2)[3:5] == ["--standalone", "--nproc-per-node=2"]


@over(
    ("words", "line"),
    [
        (["--nproc", "0"], "--nproc: got 0, expected at least 1"),
        (["--nnodes", "-1"], "--nnodes: got -1, expected at least 1"),
        (["--nproc", "3"], "batch_size: got 8 on 3 ranks with accum_steps 1, expected a multiple of 3"),
        (["--nproc", "2", "--nnodes", "2"],
         "--rendezvous: got none with --nnodes 2, expected HOST:PORT of one of the machines"),
        (["--nproc", "two"], "argument --nproc: invalid int value: 'two'"),
        (["--nprocs", "2"], "unknown option '--nprocs' of lcmae train: did you mean '--nproc'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(words, line, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--profile", "smoke", "--out", str(tmp_path / "o"), *words])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"lcmae: error: {line}\n"
    assert not list(tmp_path.iterdir())


def logged(out):
    """Lines of the histories below a folder."""
    return sum(len(file.read_text().splitlines()) for file in out.glob("runs/*/history.jsonl"))


def begun(out, words, steps):
    """The command as a process, after so many steps."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lcmae_core.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored below a background shell
    )  # fmt: skip
    end = time.monotonic() + 90
    while logged(out) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def ranks_of(process):
    """The processes that train, by rank."""
    every = psutil.Process(process.pid).children(recursive=True)
    return sorted((p for p in every if "RANK" in p.environ()), key=lambda p: int(p.environ()["RANK"]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two ranks of which none was killed."""
    out = tmp_path_factory.mktemp("whole")
    done = completed(*CLI, *words_of(out, steps=90), env=os.environ | {"OMP_NUM_THREADS": "1"} | all_forks())
    assert done.returncode == 0, done.stderr
    (run,) = (out / "runs").iterdir()
    return run


def went_on(process, out):
    """Until the process ends: the most steps that were taken back at once, and the longest time in seconds without one
    that was new."""
    seen, back, pause, since = 0, 0, 0.0, time.monotonic()
    while process.poll() is None:
        steps, now = logged(out), time.monotonic()
        if steps != seen:
            back, pause, seen, since = max(back, seen - steps), max(pause, now - since), steps, now
        time.sleep(0.01)
    return back, max(pause, time.monotonic() - since)


EVERY = 5
"""Steps between two checkpoints."""


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize(("trial", "fsdp"), [*((trial, False) for trial in range(10)), (0, True), (1, True)])
def test_a_killed_rank_is_started_again_and_the_run_ends_the_same(trial, fsdp, tmp_path, whole):
    words = words_of(tmp_path / "o", steps=90, checkpoint_every=EVERY, fsdp=str(fsdp).lower())
    process = begun(tmp_path / "o", words, 20 + 5 * trial)
    ranks_of(process)[trial % 2].send_signal(signal.SIGKILL)
    back, pause = went_on(process, tmp_path / "o")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert 0 <= back <= EVERY, "steps are lost since the last checkpoint alone"
    assert pause <= 60
    assert said.startswith(sys.executable)
    assert re.search(r"^ +steps +90$", said, flags=re.MULTILINE)
    (run,) = (tmp_path / "o" / "runs").iterdir()
    losses, expected = ([entry["loss"] for entry in load_run(one).history] for one in (run, whole))
    assert losses == (pytest.approx(expected, rel=1e-4) if fsdp else expected)
    if not fsdp:
        assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code", "fsdp"),
    [("SIGTERM", 143, False), *(pytest.param(*one, marks=pytest.mark.fault) for one in
     (("SIGUSR2", 75, False), ("SIGINT", 130, False), ("SIGTERM", 143, True)))],
)  # fmt: skip
def test_a_signal_saves_the_ranks_and_decides_the_exit_code(name, code, fsdp, tmp_path):
    process = begun(tmp_path, words_of(tmp_path, steps=100_000, checkpoint_every=100_000, fsdp=str(fsdp).lower()), 5)
    every = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(getattr(signal, name))
    said, _ = process.communicate(timeout=90)
    assert process.returncode == code, said
    assert not psutil.wait_procs(every, timeout=10)[1]
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "checkpoints").is_dir(), said
    (saved,) = (folder / "checkpoints").iterdir()
    assert saved.name == f"step-{load_run(folder).history[-1]['step']:08d}"
    weights = {"__0_0.distcp", "__1_0.distcp", ".metadata"} if fsdp else {"model.safetensors"}
    assert {file.name for file in saved.iterdir()} == weights | {"rest.pt", "manifest.json"}
