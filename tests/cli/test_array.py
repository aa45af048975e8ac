"""`lcmae study --executor slurm --array N` shares a study out among the tasks of one array job, does nothing twice, and
says in one line what cannot be."""

from pathlib import Path

import pytest

from lcmae_core import cli
from lcmae_core.cli.array import submit_studies
from lcmae_core.cli.words import STUDY_NAMES, without
from lcmae_core.store.runs import RESULTS
from lcmae_core.studies import STUDIES
from lcmae_core.studies.trials import jobs
from tests.cli.test_study import command
from tests.loops import over
from tests.studies.tiny_studies import tiny_settings


def test_tasks_share_a_study_out(tmp_path, capfd):
    pytest.importorskip("submitit")
    base = tiny_settings(tmp_path / "o")
    words = command(
        tmp_path / "o", "fig6", "--executor", "slurm", "--array", "2", "-s", "timeout_min=5", "--seeds", "2"
    )

    def submit() -> int:
        return submit_studies(["fig6"], base, "smoke", seeds=2, tasks=2, slurm={"timeout_min": 5}, words=words,
                              cluster="local")  # fmt: skip

    every = jobs(["fig6"], base, "smoke", range(2))
    assert not any(job.done for job in every)
    assert submit() == 0
    assert all(job.done for job in every)
    said = capfd.readouterr().out
    assert f"{len(every)} of {len(every)} jobs to do at smoke\n" in said
    assert " of 2 tasks; lcmae study status says how far they are\n" in said
    assert f"{len(every)} jobs done, 0 left\n" in said
    logs = [file.read_text() for file in tmp_path.glob("o/logs/slurm-*/*.out")]
    assert len(logs) == 2
    once = [f"fig6 · {job.row} · seed {job.case.settings.seed}: " for job in every]
    assert [sum(log.count(title) for log in logs) for title in once] == [1] * len(every), (
        "done once, by one of the tasks"
    )
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"o/runs/*/{RESULTS}")}
    assert submit() == 0
    assert capfd.readouterr().out.endswith(f"0 of {len(every)} jobs to do at smoke\n")
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_a_task_that_fails_is_named_with_its_log(tmp_path, capfd):
    pytest.importorskip("submitit")
    base, words = tiny_settings(tmp_path / "o"), command(tmp_path / "o", "tabel1")
    assert submit_studies(["fig6"], base, "smoke", seeds=1, tasks=1, slurm={}, words=words, cluster="local") == 1
    line = next(line for line in capfd.readouterr().err.splitlines() if line.startswith("task "))
    assert "did you mean 'table1'?" in Path(line.rpartition("see ")[2]).read_text()


def test_words_of_a_task_are_the_commands_own_without_the_cluster():
    words = [
        "study",
        "fig6",
        "--executor",
        "slurm",
        "--array=8",
        "-s",
        "a=1",
        "--slurm",
        "b=2",
        "--jobs",
        "2",
        "-p",
        "x=1",
    ]
    assert without(words, "--executor", "--array", "-s", "--slurm") == ["study", "fig6", "--jobs", "2", "-p", "x=1"]


@over(
    ("words", "line"),
    [
        (["--array", "2"], "--array: got '2' with --executor local, expected --executor slurm"),
        (["-s", "a=1"], "--slurm: got 'a=1' with --executor local, expected --executor slurm"),
        (["--executor", "slurm", "--array", "0"], "--array: got 0, expected at least 1"),
        (["--executor", "slrum"], "unknown --executor 'slrum': did you mean 'slurm'?"),
    ],
)
def test_what_cannot_be_is_one_line(words, line, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        cli.main(command(tmp_path / "o", "fig6", *words))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"lcmae: error: {line}\n"
    assert not list(tmp_path.iterdir())


def test_names_of_studies_are_known_before_anything_is_loaded():
    assert tuple(STUDIES) == STUDY_NAMES
