"""The command line answers at once, says what is wrong in one line, and tells failure by its exit code."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lcmae_core import __version__, cli
from tests.loops import over


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that exits with 2."""
    with pytest.raises(SystemExit) as error:
        cli.main(words)
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("lcmae: error: ")
    assert said.count("\n") == 1
    return said.removeprefix("lcmae: error: ").strip()


def test_help_takes_under_a_second_and_loads_nothing_heavy() -> None:
    script = "import sys\n"
    script += "from lcmae_core.cli import main\ntry: main(['-h'])\nfinally: print(*sys.modules, file=sys.stderr)"
    best, done = 9.0, None
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        best = min(best, time.perf_counter() - began)
    assert done is not None
    assert best < 1.0
    assert not {"torch", "papermill", "nbformat", "pydantic", "numpy"} & set(done.stderr.split())
    assert all(name in done.stdout for name in cli.COMMANDS)
    assert "examples:" in done.stdout


@over(("words", "line"), [
        (["rnu"], "unknown command 'rnu': did you mean 'run'?"),
        (["zzz"], "unknown command 'zzz': expected one of: "
         "run, status, train, study, published, evaluate, prepare, export, report, notebooks, bench, doctor"),
        (["train", "-p", "mask_rato=0.5"], "unknown setting 'mask_rato' (= 0.5): did you mean 'mask_ratio'?"),
        (["train", "-p", "mask_ratio=1"], "mask_ratio: got 1, expected less than 1"),
        (["train", "--profile", "labb"], "unknown profile 'labb': did you mean 'lab'?"),
        (["train", "--data", "parquet:gone"], "data: got 'parquet:gone', expected a folder or file that exists"),
        (["train", "extra"], "unexpected 'extra' after lcmae train: see lcmae train --help"),
        (["run", "--jobs", "x"], "argument --jobs: invalid int value: 'x'"),
        (["run", "--executor", "slrm"], "unknown --executor 'slrm': did you mean 'slurm'?"),
        (["export", "gone", "x", "--to", "timm"],
         "export: got 'gone', which is not there, expected a run's folder or a checkpoint"),
        (["export", "gone", "x"], "the following arguments are required: --to"),
        (["--halp"], "unknown option '--halp' of lcmae: did you mean '--help'?"),
    ])  # fmt: skip
def test_wrong_words(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fails(words, capsys) == line
    assert not list(tmp_path.iterdir())


def test_version_and_the_list_of_settings(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        cli.main(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out == f"lcmae {__version__}\n"
    assert cli.main(["train", "--list", "--profile", "lab", "-p", "depth=7", "--out", str(tmp_path / "o")]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert " 7 " in rows["depth"]
    assert " 192 " in rows["width"]
    assert not (tmp_path / "o").exists()


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> cli.Command:
        def work(_: object) -> int:
            raise error

        return (cli.COMMANDS["doctor"][0], work, "test")

    monkeypatch.setitem(cli.COMMANDS, "doctor", raising(KeyboardInterrupt()))
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "lcmae: interrupted; the same command resumes where it stopped\n"
    monkeypatch.setitem(cli.COMMANDS, "doctor", raising(OSError(28, "No space left on device")))
    with pytest.raises(SystemExit) as error:
        cli.main(["doctor"])
    assert error.value.code == 1
    assert capsys.readouterr().err == "lcmae: error: [Errno 28] No space left on device\n"
    monkeypatch.setitem(cli.COMMANDS, "doctor", raising(ValueError("a bug of ours")))
    with pytest.raises(ValueError, match="a bug of ours"):
        cli.main(["doctor"])


def test_notebook_names_may_stand_between_options() -> None:
    options = cli.parse(["run", "00", "--profile", "smoke", "03", "-p", "a=1", "-p", "b=2", "-s", "c=3"])
    assert options.names == ["00", "03"]
    assert options.parameters == ["a=1", "b=2"]
    assert options.slurm == ["c=3"]


def test_train_then_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    import torch

    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = [
            "train",
            "--profile",
            "smoke",
            "-p",
            "steps=2",
            "-p",
            "depth=1",
            "--out",
            str(tmp_path),
            "--device",
            "cpu",
        ]
        assert cli.main(words) == 0
    said = capsys.readouterr().out
    folder = Path(said.strip().splitlines()[-1].removeprefix("run: "))
    assert (folder / "model.safetensors").exists()
    assert folder.is_relative_to(tmp_path)
    assert "steps  2" in said
    assert torch.get_num_threads() == threads
    for layout, name in (("timm", "timm.safetensors"), ("official", "mae.pth"), ("hf", "hf")):
        assert cli.main(["export", str(folder), str(tmp_path / name), "--to", layout]) == 0
        assert str(tmp_path / name) in capsys.readouterr().out
        assert (tmp_path / name).exists()
