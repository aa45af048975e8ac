"""Claims: what SLURM refuses, or that it does not answer or is not there, is one line with what it said, whichever
command submits; parameters of the wrong kind or name are refused before anything is made; a notebook that is refused
when others were taken fails alone."""

import pytest

from lcmae_core import cli
from lcmae_core.config import LcmaeError
from lcmae_core.execute import Request, make_plan, run_notebooks
from lcmae_core.execute.submission import check_parameters
from lcmae_core.store.outputs import read_ledger
from tests.cli.test_study import command
from tests.execute.toys import code, make_notebook
from tests.loops import over

pytest.importorskip("submitit")
REFUSES = (
    "echo 'sbatch: error: invalid partition specified: nope' >&2\necho 'sbatch: error: Batch job failed' >&2\nexit 1"
)
SILENT = "echo 'sbatch: error: Unable to contact slurm controller (connect failure)' >&2\nexit 1"
ONCE = 'mkdir "$0.once" 2>/dev/null && echo "Submitted batch job 7" && exit 0\n' + REFUSES


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Makes SLURM's programs of shell lines; sbatch without lines is not there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(sbatch=None):
        for name, lines in (("srun", "exit 0"), ("squeue", "exit 0"), ("sbatch", sbatch)):
            if lines is not None:
                (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{lines}\n")
                (folder / name).chmod(0o755)

    return make


def commands(tmp_path):
    make_notebook(tmp_path / "n", "00_toy", code("1"))
    run = ["run", "--notebooks", str(tmp_path / "n"), "--out", str(tmp_path / "o"), "--executor", "slurm"]
    return run, command(tmp_path / "o", "fig6", "--executor", "slurm", "--seeds", "1")


SAID = "invalid partition specified: nope; Batch job failed"
REFUSED = f"--slurm: SLURM refused the job, expected what it takes; sbatch said: {SAID}"
AWAY = "executor: SLURM does not answer; sbatch said: Unable to contact slurm controller (connect failure)"
NONE = "executor: got 'slurm', expected a cluster (no sbatch on the PATH); try --executor local"


@pytest.mark.parametrize("which", [0, 1], ids=["run", "study"])
@pytest.mark.parametrize(("sbatch", "line", "code"), [(REFUSES, REFUSED, 2), (SILENT, AWAY, 1), (None, NONE, 2)])
def test_what_slurm_refuses_is_one_line(which, sbatch, line, code, programs, tmp_path, capsys):
    programs(sbatch)
    with pytest.raises(SystemExit) as ended:
        cli.main(commands(tmp_path)[which])
    assert ended.value.code == code
    said = [
        one for one in capsys.readouterr().err.splitlines() if not one.endswith(" in fig6")
    ]  # which it does not read
    assert said == [f"lcmae: error: {line}"]


@over(
    ("word", "line"),
    [
        ("timeout_min=abc", "--slurm timeout_min: got 'abc', expected a whole number"),
        ("timeout_min=1.5", "--slurm timeout_min: got 1.5, expected a whole number"),
        ("timeout_min=-1", "--slurm timeout_min: got -1, expected at least 0"),
        ("mem_gb=much", "--slurm mem_gb: got 'much', expected a number"),
        ("setup=module", "--slurm setup: got 'module', expected a list"),
        ("use_srun=1", "--slurm use_srun: got 1, expected true or false"),
        ("timeout_mn=1", "unknown SLURM parameter 'timeout_mn' (= 1): did you mean 'timeout_min'?"),
    ],
)
def test_parameters_of_the_wrong_kind_are_refused_before_anything_is_made(word, line, capsys, tmp_path):
    for words in commands(tmp_path):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "-s", word])
        assert ended.value.code == 2
        assert capsys.readouterr() == ("", f"lcmae: error: {line}\n")
    assert not (tmp_path / "o").exists()


def test_values_become_what_submitit_takes():
    given = {"account": 4711, "mem_gb": 2, "timeout_min": 5, "exclusive": True, "setup": ["module load x"]}
    given["qos"] = None
    known = check_parameters(given)
    assert known == given | {"account": "4711", "mem_gb": 2.0}
    assert [type(known[name]) for name in ("account", "mem_gb", "exclusive")] == [str, float, bool]
    with pytest.raises(LcmaeError, match="got True, expected a whole number"):
        check_parameters({"nodes": True})


def test_a_notebook_that_is_refused_after_others_were_taken_fails_alone(programs, tmp_path, monkeypatch, capsys):
    programs(ONCE)
    monkeypatch.setattr("lcmae_core.execute.cluster.PATIENCE", 0.0)
    monkeypatch.setattr("lcmae_core.execute.cluster.ASK", 0.0)
    for name in ("00_taken", "01_refused"):
        make_notebook(tmp_path / "n", name, code("1"))
    plan = make_plan(Request(notebooks=str(tmp_path / "n"), out=str(tmp_path / "o")))
    assert run_notebooks(plan, executor="slurm", slurm={}) == 1
    said = capsys.readouterr().out
    assert "00_taken: FAILED" in said, "SLURM does not know job 7"
    assert f"\n    {REFUSED}\n" in said
    assert read_ledger(tmp_path / "o")["01_refused"]["error"] == f"LcmaeError: {REFUSED}"
