"""`lcmae train --resume RUN` goes on with a run by its own settings, wherever it lies; what may affect its results and
is asked to be other is refused, each with both values. Without it, an unfinished run of other settings is named. A
second training of one run is refused; a job of SLURM waits for the first, and hears a stop meanwhile."""

import re
import signal

import pytest

from lcmae_core import cli
from lcmae_core.cli.train import differences, unfinished_beside
from lcmae_core.config import profile, replace
from lcmae_core.store.files import read_json, write_json
from lcmae_core.store.stopping import CODES, Stopped
from lcmae_core.training.loop import pretrain
from tests.loops import over
from tests.started import CLI, Started
from tests.studies.tiny_studies import MAE


@pytest.fixture
def unfinished(tmp_path):
    """A run that was stopped at step 3 of 5, and its settings."""
    settings = replace(profile("smoke"), MAE | {"steps": 5, "checkpoint_every": 2, "out": str(tmp_path / "o")})

    def stop(moment):
        if moment.step == 3:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        pretrain(settings, callbacks=[stop])
    (folder,) = (tmp_path / "o" / "runs").iterdir()
    return folder, settings


def test_a_run_goes_on_by_its_own_settings(unfinished, tmp_path, capsys):
    folder, settings = unfinished
    assert cli.main(["train", "--resume", str(folder), "-p", "log_every=5", "-p", "steps=5"]) == 0
    assert f"run: {folder}" in capsys.readouterr().out
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    whole = pretrain(replace(settings, {"out": str(tmp_path / "whole")}))
    assert (folder / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


@over(
    ("words", "line"),
    [
        (["-p", "batch_size=4"], "resume: got batch_size 4 (the run has 8), expected the run's own: leave it out, or "
         "train without --resume"),
        (["-p", "base_lr=0.5", "--seed", "3"], "resume: got base_lr 0.5 (the run has 0.004), seed 3 (the run has 0), "
         "expected the run's own: leave it out, or train without --resume"),
        (["--out", "elsewhere"], "resume: got --out beside it, expected the run's folder alone, which says it"),
        (["--profile", "quick"], "resume: got --profile beside it, expected the run's folder alone, which says it"),
        (["--fresh"], "--fresh: got it with --resume, expected one of the two"),
        (["-p", "batchsize=4"], "unknown setting 'batchsize' (= 4): did you mean 'batch_size'?"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_with_both_values(words, line, unfinished, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--resume", str(unfinished[0]), *words])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"lcmae: error: {line}\n"
    assert (unfinished[0] / "checkpoints" / "step-00000002").is_dir()


@pytest.mark.parametrize("how", ["renamed", "edited", "moved"])
def test_a_run_that_is_not_what_its_name_says_is_refused_and_none_begins(how, unfinished, capsys):
    folder, _ = unfinished
    named = folder.name
    if how == "edited":
        edited = read_json(folder / "settings.json")  # without its seal, as its line says
        edited["optim"]["base_lr"] = 0.005
        write_json(folder / "settings.json", edited)
        expected = r"runs/mae-s0-[0-9a-f]{10}"
    else:
        folder = folder.rename(folder.parent / "mine" if how == "renamed" else folder.parent.parent / named)
        expected = f"runs/{named}"
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--resume", str(folder), "-p", "log_every=50"])
    assert ended.value.code == 2
    line = f"resume: got {str(folder)!r}, expected {expected}, by its settings and data: the folder was renamed, or "
    assert re.fullmatch(f"lcmae: error: {line}settings.json or the data were changed\n", capsys.readouterr().err)
    assert not [path for path in folder.parent.parent.rglob("settings.json") if path.parent != folder]


def test_a_folder_without_a_run_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--resume", str(tmp_path)])
    line = f"run: got {str(tmp_path)!r}, expected a run's folder with settings.json"
    assert capsys.readouterr().err == f"lcmae: error: {line}\n"


def test_an_unfinished_run_of_other_settings_is_named(unfinished):
    folder, settings = unfinished
    other = replace(settings, {"batch_size": 4, "log_every": 3})
    assert differences(settings, other) == {"batch_size": (8, 4)}
    assert unfinished_beside(other) == [f"another run than the unfinished {folder.name}, which has batch_size 8, now 4"]
    assert unfinished_beside(replace(settings, {"log_every": 3})) == []
    assert unfinished_beside(replace(other, {"seed": 1})) == []
    pretrain(settings)
    assert unfinished_beside(other) == []


@over("wrong", [["--device", "cuda:99"], ["--data", "folder:EMPTY"]])
def test_beside_an_unfinished_run_an_error_is_all_that_is_said(wrong, unfinished, tmp_path, capsys):
    folder, _ = unfinished
    (tmp_path / "empty").mkdir(exist_ok=True)
    out = str(folder.parent.parent)
    wrong = [word.replace("EMPTY", str(tmp_path / "empty")) for word in wrong]
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--profile", "smoke", "--out", out, "-p", "batch_size=4", *wrong])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("lcmae: error: "), said
    assert said.count("\n") == 1


def writer_of(folder):
    """A process that writes the run until it is killed."""
    code = (
        "import sys, time; from lcmae_core.store.runs import load_run\n"
        "with load_run(sys.argv[1]).lock(): print('held', flush=True); time.sleep(60)"
    )
    writer = Started("-c", code, str(folder))
    assert writer.stdout.readline() == "held\n"
    return writer


def test_a_second_training_of_one_run_is_refused(unfinished, capsys, monkeypatch):
    folder, _ = unfinished
    monkeypatch.setattr("lcmae_core.cli.train.PATIENCE", 0.2)
    capsys.readouterr()
    with writer_of(folder) as writer:
        with pytest.raises(SystemExit) as ended:
            cli.main(["train", "--resume", str(folder)])
        line = f"run: {folder.name!r} is being written by process {writer.pid}, expected no other writer"
        assert (ended.value.code, capsys.readouterr().err) == (2, f"lcmae: error: {line}\n")
        writer.kill()  # a dead one has no say
    assert cli.main(["train", "--resume", str(folder)]) == 0


@over("name", ["SIGTERM", "SIGINT", "SIGUSR2"])
def test_a_job_waits_for_its_predecessor_and_can_be_stopped_meanwhile(name, unfinished, monkeypatch):
    folder, _ = unfinished
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with writer_of(folder) as writer, Started(*CLI, "train", "--resume", str(folder)) as job:
        assert "waiting for it" in job.stderr.readline()
        job.send_signal(getattr(signal, name))
        assert job.wait(20) == CODES[name]
        assert f"stopped while waiting for the writer of {folder.name}; the same command resumes" in job.stderr.read()
        with Started(*CLI, "train", "--resume", str(folder)) as successor:
            assert "waiting for it" in successor.stderr.readline()
            writer.kill()
            assert successor.wait(60) == 0
