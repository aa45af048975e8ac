"""SIGINT, SIGTERM and SIGUSR2 to a training, a study and a batch of notebooks: what was done is kept up to the step at
which it stopped, no process stays, and the exit code is the signal's own (130, 143, 75), never 0."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from lcmae_core.store.checkpoint import load_checkpoint
from lcmae_core.store.outputs import read_ledger
from lcmae_core.store.runs import load_run
from lcmae_core.store.stopping import CODES, Stopped, StopRequest, stop_requests
from tests.execute.toys import code, make_notebook
from tests.started import CLI, Started
from tests.studies import tiny_studies
from tests.studies.tiny_studies import TINY

pytestmark = pytest.mark.slow


def trials(*short: str) -> pytest.MarkDecorator:
    """Five with every signal: the first of those named here are in `make test`, the others in `make test-faults`."""
    every = [
        pytest.param(name, trial, marks=() if trial == 0 and name in short else pytest.mark.fault)
        for name in CODES for trial in range(5)
    ]  # fmt: skip
    return pytest.mark.parametrize(("name", "trial"), every)


ENDLESS = {"log_every": 1, "steps": 100_000, "checkpoint_every": 100_000}
STUDY = TINY | ENDLESS
MAE = tiny_studies.MAE | ENDLESS


def words_of(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in ("-p", f"{name}={value}")]


def started(*words: str) -> Started:
    """An `lcmae` command in a session of its own, with Ctrl-C not ignored, as in a terminal."""
    return Started(*CLI, *words)


def waited(happens: object, process: Started, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not happens():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def signalled(process: Started, name: str) -> tuple[str, str]:
    """Send a signal to the whole group, as a terminal or a scheduler does; the process and all it started must end."""
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, getattr(signal, name))
    said = process.communicate(timeout=60)
    assert process.returncode == CODES[name], said
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, [one.cmdline() for one in alive]
    return said


def lines(out: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in out.rglob("history.jsonl"))


@trials(*CODES)
def test_a_training_keeps_its_last_step(name: str, trial: int, tmp_path: Path) -> None:
    words = words_of(MAE | {"workers": 2, "device_cache_gb": 0})
    process = started("train", "--profile", "smoke", *words, "--out", str(tmp_path / "o"))
    waited(lambda: lines(tmp_path) > 2 + trial, process)
    _, said = signalled(process, name)
    stopped = re.search(r"lcmae: stopped at step (\d+) of 100000 after a checkpoint; the same command resumes\n$", said)
    assert stopped, said
    (folder,) = tmp_path.glob("o/runs/*")
    kept = load_checkpoint(folder / "checkpoints")
    assert kept is not None
    assert kept[1]["step"] == int(stopped[1]) == load_run(folder).history[-1]["step"], "no step is lost"


@trials("SIGTERM")
def test_a_study_and_its_helpers_keep_their_last_step(name: str, trial: int, tmp_path: Path) -> None:
    words = [*words_of(STUDY), "--jobs", "2", "--seeds", "1"]
    process = started("study", "fig6", "--profile", "smoke", *words, "--out", str(tmp_path / "o"))
    waited(lambda: len(list(tmp_path.glob("o/runs/*/history.jsonl"))) == 2 and lines(tmp_path) > 8 + trial, process)
    said, _ = signalled(process, name)
    steps = sorted(map(int, re.findall(r"stopped at step (\d+) of 100000 after a checkpoint", said)))
    kept = [load_checkpoint(folder / "checkpoints") for folder in tmp_path.glob("o/runs/*")]
    assert len(steps) == 2
    assert sorted(one[1]["step"] for one in kept if one) == steps, said


@trials("SIGTERM")
def test_a_batch_waits_for_its_notebooks_to_stop(name: str, trial: int, tmp_path: Path) -> None:
    cell = code("import os, pathlib, time\npathlib.Path(out, 'pid').write_text(str(os.getpid()))\ntime.sleep(60)")
    make_notebook(tmp_path / "n", "00_slow", cell)
    process = started("run", "--notebooks", str(tmp_path / "n"), "--out", str(tmp_path / "o"))
    waited(lambda: (tmp_path / "o" / "pid").exists() and (tmp_path / "o" / "pid").read_text(), process)
    _, said = signalled(process, name)
    assert said == "lcmae: the notebooks that ran were stopped; the same command resumes\n"
    assert read_ledger(tmp_path / "o")["00_slow"]["status"] == "stopped"
    assert not list((tmp_path / "o").glob("*.ipynb"))


@pytest.fixture
def terminal() -> Iterator[None]:
    """Ctrl-C interrupts, as in a terminal; in the background it would be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_that_is_meant_for_others_stays_ignored(terminal: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_first_signal_decides_and_ctrl_c_twice_ends_at_once(terminal: None) -> None:
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        assert (stop.signal, stop.exit_code) == ("SIGUSR2", 75)
        with stop_requests() as inner:
            assert inner is stop, "a request between two trainings is not lost"
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with stop_requests() as stop:
        assert not stop.is_set()


def test_a_budget_is_no_signal() -> None:
    stop = StopRequest()
    stop.set()
    assert (stop.is_set(), stop.exit_code) == (True, 0)
    stop.set("SIGTERM")
    assert stop.exit_code == 143
    assert Stopped("stopped", stop).exit_code == 143
    assert str(Stopped("stopped", stop)) == "stopped; the same command resumes"
