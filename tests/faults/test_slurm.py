"""On a real SLURM: a notebook that trains is preempted, requeued at its time limit, or cancelled, or its driver told
to end. The training loses no step, ends with the same weights as one that was left alone, and the driver never waits
for what SLURM runs no more."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lcmae_core.config import profile, replace
from lcmae_core.execute.standing import rows
from lcmae_core.studies.trials import jobs
from lcmae_core.training.loop import pretrain
from tests.execute.toys import code, make_notebook
from tests.faults import slurm
from tests.studies import tiny_studies
from tests.studies.tiny_studies import TINY, tiny_settings

torch.set_num_threads(1)  # as in the jobs, whose weights are compared to the last bit
TRIALS = range(int(os.environ.get("FAULT_TRIALS", "1")))
pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(slurm.why_not() is not None, reason=str(slurm.why_not())),
    pytest.mark.timeout(600),
]
STEPS = 400
MAE = tiny_studies.MAE | {
    "steps": STEPS, "checkpoint_every": 100_000, "log_every": 1, "snapshots": 0,
}  # fmt: skip
CELL = f"""import time
from lcmae_core.config import profile, replace
from lcmae_core.studies.trials import jobs
from lcmae_core.training.loop import pretrain
settings = replace(profile("smoke"), {MAE!r} | {{"out": out}})
run = pretrain(settings, callbacks=[lambda moment: time.sleep(PAUSE) or None])"""
PAUSE = 0.05
"""Seconds that a step takes at least."""


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    with slurm.started(tmp_path_factory.mktemp("slurm")):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    """The weights of a run that was left alone."""
    run = pretrain(replace(profile("smoke"), MAE | {"out": str(tmp_path_factory.mktemp("whole"))}))
    return (run.path / "model.safetensors").read_bytes()


@pytest.fixture(autouse=True)
def nothing_stays():
    """A test that fails leaves no job to the next."""
    yield
    slurm.said("scancel", "--me", "--signal=KILL")
    slurm.said("scancel", "--me")
    end = time.monotonic() + 30
    while slurm.said("squeue", "-h") and time.monotonic() < end:
        time.sleep(0.2)


def nobody_waits() -> None:
    """Until SLURM's queue is empty: a job that was cancelled still has to save and to end."""
    end = time.monotonic() + 30
    while slurm.said("squeue", "-h", "-o", "%A"):
        assert time.monotonic() < end, "a job stays"
        time.sleep(0.2)


class Driver:
    """`lcmae run --executor slurm` of a notebook that trains."""

    def __init__(self, home: Path, *words: str, pause: float = PAUSE):
        self.out = home / "o"
        make_notebook(home / "n", "00_train", code(CELL.replace("PAUSE", str(pause))))
        slurm_words = ["partition=low", "cpus_per_task=1", "mem_gb=1", *words]
        command = ["run", "--notebooks", str(home / "n"), "--out", str(self.out), "--executor", "slurm"]
        command += [word for name in slurm_words for word in ("-s", name)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lcmae_core.cli", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    @property
    def steps(self) -> int:
        return sum(len(file.read_text().splitlines()) for file in self.out.glob("runs/*/history.jsonl"))

    @property
    def saved(self) -> list[str]:
        """The newest checkpoint."""
        return sorted(path.name for path in self.out.glob("runs/*/checkpoints/step-*"))[-1:]

    @property
    def begun(self) -> bool:
        """Whether SLURM has ever started the job."""
        return any(self.out.glob("logs/slurm-*/*.out"))

    @property
    def job(self) -> str:
        return slurm.said("squeue", "-h", "-o", "%A", "--name=lcmae-00_train").split()[0]

    @property
    def state(self) -> str:
        return slurm.said("squeue", "-h", "-t", "all", "-j", self.job, "-o", "%T").strip()

    def waits_until(self, happens, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not happens():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, self.state
            time.sleep(0.1)

    def goes_on(self) -> None:
        """A requeued job is held for two minutes, which a test does not wait for."""
        self.waits_until(lambda: self.state == "PENDING")
        steps = self.steps
        assert self.saved == ([] if steps in (0, STEPS) else [f"step-{steps:08d}"]), "no step is lost"
        time.sleep(2)  # SLURM revokes what it issues for the job within the second in which it was requeued
        slurm.said("scontrol", "update", f"JobId={self.job}", "StartTime=now")

    def ends(self, code: int) -> str:
        said, _ = self.process.communicate(timeout=180)
        assert self.process.returncode == code, said
        return said

    def weights(self) -> bytes:
        (file,) = self.out.glob("runs/*/model.safetensors")
        return file.read_bytes()


@pytest.mark.parametrize("trial", TRIALS)
def test_a_preempted_job_goes_on_where_it_was(trial, tmp_path, whole):
    driver = Driver(tmp_path, "timeout_min=30")
    driver.waits_until(lambda: driver.steps > 10 + trial)
    high = subprocess.Popen(["srun", "-p", "high", "-n", "2", "--mem=3500", "sleep", "1"])
    driver.waits_until(lambda: driver.state != "RUNNING")
    high.wait(timeout=120)
    driver.goes_on()
    driver.ends(0)
    assert driver.weights() == whole


@pytest.mark.parametrize("trial", TRIALS)
def test_a_job_at_its_time_limit_goes_on_where_it_was(trial, tmp_path, whole):
    # the warning comes some 35 seconds after its start: on no machine is it done by then
    driver, requeued = Driver(tmp_path, "timeout_min=1", f"signal_delay_s={25 - trial}", pause=0.1), 0
    while driver.process.poll() is None:
        if driver.process.poll() is None and "PENDING" in slurm.said("squeue", "-h", "-o", "%T %r") and driver.begun:
            requeued += 0 < driver.steps < STEPS
            driver.goes_on()
        time.sleep(0.5)
    driver.ends(0)
    assert requeued
    assert driver.weights() == whole


@pytest.mark.parametrize("trial", TRIALS)
def test_a_cancelled_job_is_saved_and_its_driver_says_so(trial, tmp_path, whole):
    driver = Driver(tmp_path, "timeout_min=30")
    driver.waits_until(lambda: driver.steps > 10 + trial)
    slurm.said("scancel", driver.job)
    assert "00_train: FAILED" in driver.ends(1)
    assert driver.saved == [f"step-{driver.steps:08d}"]
    again = Driver(tmp_path, "timeout_min=30")
    again.ends(0)
    assert again.weights() == whole


@pytest.mark.parametrize("trial", TRIALS)
def test_a_driver_that_is_told_to_end_cancels_its_jobs(trial, tmp_path):
    driver = Driver(tmp_path, "timeout_min=30")
    driver.waits_until(lambda: driver.steps > 10 + trial)
    (row,) = rows(driver.out)
    assert (row.state, row.where.endswith(f"job {driver.job}")) == ("running", True), row
    driver.process.send_signal(signal.SIGTERM)
    driver.ends(143)
    nobody_waits()
    assert not list(driver.out.glob("*.ipynb"))
    assert driver.saved == [f"step-{driver.steps:08d}"]


def test_what_slurm_refuses_is_one_line(tmp_path):
    said = Driver(tmp_path, "partition=nope", "timeout_min=30").ends(2)
    error = said.splitlines()[-1]
    assert error.startswith("lcmae: error: --slurm: SLURM refused the job, expected what it takes; sbatch said: "), said
    assert "invalid partition" in error.lower()
    assert "Traceback" not in said


@pytest.mark.parametrize("trial", TRIALS)
def test_a_study_as_an_array_is_shared_out_saved_and_gone_on_with(trial, tmp_path):
    base, out = tiny_settings(tmp_path / "o", steps=150, checkpoint_every=100_000, log_every=1), tmp_path / "o"
    leaves = TINY | {"steps": 150, "checkpoint_every": 100_000, "log_every": 1}
    words = ["study", "fig6", "--profile", "smoke", "--data", base.data.source, "--seeds", "2", "--out", str(out)]
    words += ["--executor", "slurm"]
    words += [
        word for name in ("partition=low", "cpus_per_task=1", "mem_gb=1", "timeout_min=30") for word in ("-s", name)
    ]
    words += [word for name, value in leaves.items() for word in ("-p", f"{name}={value}")]

    def started() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "lcmae_core.cli", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def steps() -> dict[str, int]:
        return {file.parent.name: len(file.read_text().splitlines()) for file in out.glob("runs/*/history.jsonl")}

    driver, end = started(), time.monotonic() + 120
    while len(steps()) < 2 or min(steps().values()) <= 5 + trial:
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < end, slurm.said("squeue")
        time.sleep(0.1)
    assert len(slurm.said("squeue", "-h", "-r").splitlines()) == 2, "two tasks of one job"
    driver.send_signal(signal.SIGTERM)
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 143, said
    nobody_waits()
    saved = {file.parents[1].name: int(file.name[-8:]) for file in out.glob("runs/*/checkpoints/step-*")}
    assert all(saved.get(name, 150) == done for name, done in steps().items()), "no step is lost"
    again = started()
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert said.endswith("jobs done, 0 left\n"), said
    assert all(job.done for job in jobs(["fig6"], base, "smoke", range(2)))
    assert set(steps().values()) == {150}, "no step is done twice"
