"""Execution: failures are noticed by exit code, nothing is done twice, and an interrupted batch leaves no process."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from lcmae_core.execute import Request, make_plan, run_notebooks, store_executed
from lcmae_core.execute.batch import longest_first
from lcmae_core.execute.ledger import Ledger, expected_seconds
from lcmae_core.execute.progress import in_words
from lcmae_core.store.outputs import read_ledger
from tests.execute.toys import FIGURE, code, make_notebook, prose, recording
from tests.started import CLI, Started, all_forks, completed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch of a good, a failing and a killed notebook, two at once, run from the command line."""
    home = tmp_path_factory.mktemp("batch")
    notebooks = home / "notebooks"
    make_notebook(
        notebooks,
        "00_good",
        code(
            "import sys\nprint('ratio', mask_ratio, sys.executable)\nprint('\\r 50%|##   | 1/2 it/s]', file=sys.stderr)"
        ),
        code("from ipywidgets import IntSlider\nIntSlider()"),
        code(FIGURE),
        prose("The *finding* is $x^2$, on one cell."),
        recording("00"),
    )
    make_notebook(notebooks, "01_raises", code("x = 1\nassert x > 1, 'one is not more'"), code("print('never')"))
    make_notebook(notebooks, "02_killed", code("import os\nos.kill(os.getpid(), 9)"), code("print('never')"))
    done = lcmae(
        "run", "--notebooks", str(notebooks), "--out", str(home / "out"), "--jobs", "2", "-p", "mask_ratio=0.5",
        forks=False,
    )  # fmt: skip
    (home / "stdout").write_text(done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    return home


def lcmae(*words: str, forks: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("LCMAE_PROFILE", "LCMAE_DATA")}
    return completed(*CLI, *words, env=environment | (all_forks() if forks else {}))


def test_a_raising_cell_is_shown_and_the_others_go_on(batch: Path) -> None:
    said = (batch / "stdout").read_text()
    assert "cell 3: line 2: assert x > 1, 'one is not more'\n    AssertionError: one is not more" in said
    assert "01_raises.failed.ipynb" in said
    assert "00_good: ok" in said
    assert "2 of 3 failed: 01, 02" in said or "2 of 3 failed: 02, 01" in said
    assert "0.5 ± 0.01 px (n = 3)" in said
    assert re.search(r"^1 of 3 ok in \d+ s; open \S+report\.html$", said, re.M)
    assert [line.split()[0] for line in said.splitlines()].count("[3/3]") == 1, "a line a notebook"
    assert not (batch / "out" / "01_raises.ipynb").exists()


def test_a_killed_kernel_is_a_failure(batch: Path) -> None:
    entry = read_ledger(batch / "out")["02_killed"]
    assert entry["status"] == "failed"
    assert entry["cell"] == 3
    assert "died" in str(entry["error"]).lower()


def test_parameters_arrive_and_the_interpreter_is_ours(batch: Path) -> None:
    notebook = nbformat.read(batch / "out" / "00_good.ipynb", 4)
    texts = [o.text for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream"]
    assert f"ratio 0.5 {sys.executable}\n" in texts
    assert notebook.metadata.kernelspec.name == "python3"


def test_nothing_is_done_twice(batch: Path) -> None:
    words = ("run", "00", "--notebooks", str(batch / "notebooks"), "--out", str(batch / "out"))
    before = (batch / "out" / "00_good.ipynb").stat().st_mtime_ns
    again = lcmae(*words, "-p", "mask_ratio=0.5")
    assert again.returncode == 0
    assert "00_good: up to date" in again.stdout
    assert (batch / "out" / "00_good.ipynb").stat().st_mtime_ns == before
    plan = make_plan(Request(("00",), {"mask_ratio": 0.6}, notebooks=str(batch / "notebooks"), out=str(batch / "out")))
    from lcmae_core.execute.ledger import job_digest

    digest = job_digest(plan.notebooks[0], plan.parameters["00_good"])
    assert not Ledger(batch / "out").current("00_good", digest)


def test_the_report_shows_all_three(batch: Path) -> None:
    page = (batch / "out" / "report.html").read_text()
    assert page.count('<section class="notebook"') == 3
    assert page.count('<span class="badge">failed</span></h2>') == 2
    assert "AssertionError: one is not more" in page


def test_an_executed_notebook_is_made_fit_to_commit(batch: Path, tmp_path: Path) -> None:
    target = tmp_path / "00_good.ipynb"
    target.write_bytes((batch / "notebooks" / "00_good.ipynb").read_bytes())
    before = nbformat.read(target, 4)
    store_executed(batch / "out" / "00_good.ipynb", target)
    text, after = target.read_text(), nbformat.read(target, 4)
    for gone in ("injected-parameters", "widget-view", "papermill", 'stderr",', str(Path.cwd()), "start_time"):
        assert gone not in text, gone
    assert text.endswith("}\n")
    assert [c.source for c in after.cells] == [c.source for c in before.cells]
    assert [c.id for c in after.cells] == [c.id for c in before.cells]
    assert [k for c in after.cells for o in c.get("outputs", []) for k in o.get("data", {})] == [
        "image/png",
        "text/plain",
    ]
    store_executed(batch / "out" / "00_good.ipynb", target)
    assert target.read_text() == text


def test_store_writes_back_only_after_success(tmp_path: Path) -> None:
    path = make_notebook(tmp_path / "n", "00_a", code("print(seed)"))
    plan = make_plan(Request(notebooks=str(tmp_path / "n"), out=str(tmp_path / "o"), seed=7))
    assert run_notebooks(plan, store=True) == 0
    assert nbformat.read(path, 4).cells[2].outputs[0].text == "7\n"
    # What was written back counts as the same source: nothing to do.
    assert Ledger(plan.out).entry("00_a")["status"] == "ok"


def test_a_later_notebook_waits_for_what_it_reads(tmp_path: Path) -> None:
    make_notebook(tmp_path / "n", "00_reader", code("print(open(out + '/results/01.json').read())"), after="all")
    make_notebook(tmp_path / "n", "01_writer", recording("01"))
    plan = make_plan(Request(notebooks=str(tmp_path / "n"), out=str(tmp_path / "o")))
    assert run_notebooks(plan, jobs=2) == 0


def test_cluster_jobs_through_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    make_notebook(tmp_path / "n", "00_a", code("import os\nprint(os.environ['LCMAE_HEADLESS'])"))
    make_notebook(tmp_path / "n", "01_b", code("1 / 0"))
    plan = make_plan(Request(notebooks=str(tmp_path / "n"), out=str(tmp_path / "o")))
    assert run_notebooks(plan, executor="submitit-local", slurm={"timeout_min": 5}) == 1
    assert {name: e["status"] for name, e in read_ledger(plan.out).items()} == {"00_a": "ok", "01_b": "failed"}
    with pytest.raises(ValueError, match=r"unknown SLURM parameter 'partiton' .* did you mean 'partition'\?"):
        run_notebooks(plan, executor="slurm", slurm={"partiton": "gpu"})


def test_a_batch_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    cell = code("import os, pathlib, time\npathlib.Path(out, 'pid').write_text(str(os.getpid()))\ntime.sleep(60)")
    make_notebook(tmp_path / "n", "00_slow", cell)
    parent = Started(*CLI, "run", "--notebooks", str(tmp_path / "n"), "--out", str(tmp_path / "o"))
    pid = tmp_path / "o" / "pid"
    wait_until(lambda: pid.exists() and bool(pid.read_text()))
    parent.kill()
    assert parent.wait(timeout=30) == -9
    wait_until(lambda: not alive(int(pid.read_text())))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_time_is_estimated_from_last_time_then_from_the_notebook(tmp_path: Path) -> None:
    from lcmae_core.execute.discover import NotebookFile

    notebook = NotebookFile(make_notebook(tmp_path, "00_a", seconds={"quick": 20, "lab": 900}))
    known = Ledger(tmp_path)
    assert expected_seconds(notebook, "lab", known) == 900
    assert expected_seconds(notebook, "paper", known) == 20
    known.put("00_a", {"status": "ok", "seconds": 5.5})
    assert expected_seconds(notebook, "lab", known) == 5.5
    assert json.loads((tmp_path / "ledger.json").read_text())["00_a"]["seconds"] == 5.5
    assert [in_words(s) for s in (8, 200, 7500)] == ["8 s", "3 min", "2 h 05 min"]


def test_several_at_once_begin_with_the_longest_chain(tmp_path: Path) -> None:
    plan = make_plan(Request(profile="quick", out=str(tmp_path)))
    even = longest_first(plan, {n.name: 1.0 for n in plan.notebooks})
    assert (even[0].number, even[-1].number) == ("00", "10"), "04, 08 and 10 wait for 00"
    slow = longest_first(plan, {n.name: 60.0 if n.number == "09" else 1.0 for n in plan.notebooks})
    assert (slow[0].number, slow[-1].number) == ("09", "10")
    assert {n.name for n in slow} == {n.name for n in plan.notebooks}
