"""Claims: where there is no terminal a batch says once a minute what runs, at which step, how fast, and the time left,
which grows as soon as a notebook takes longer than it should; a mistyped model stops before a kernel is started, a
path to one holds wherever the kernel starts."""

import io
import json
import time

import pytest
from rich.console import Console

from lcmae_core.cli.main import main
from lcmae_core.config import LcmaeError
from lcmae_core.execute import Request, make_plan
from lcmae_core.execute import progress as shown
from lcmae_core.execute.progress import Board, training_now
from tests.execute.toys import make_notebook
from tests.studies.checkpoint_files import dino_file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_notebook(tmp_path / "notebooks", "05_browser", more="model = None\n")
    make_notebook(tmp_path / "notebooks", "11_models", more='models = "demo"\n')
    return tmp_path / "notebooks"


def test_a_batch_has_a_heartbeat(monkeypatch):
    now, page = [0.0], io.StringIO()
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    board = Board(Console(file=page, width=200), {"00_a": 60.0, "01_b": 120.0}, 1)
    board.start("00_a")
    for _ in range(300):  # two minutes and a half, four times as long as it was meant to take
        now[0] += 0.5
        board.tick(lambda: "mae-s0-12 at step 40, 32 images/s")
    lines = page.getvalue().splitlines()
    assert lines[0] == "2 notebooks, about 3 min left"
    assert len(lines) == 3, lines
    assert lines[1].startswith("[0/2] running: 00_a for 60 s; mae-s0-12 at step 40, 32 images/s; about ")
    assert lines[2] == "[0/2] running: 00_a for 2 min; mae-s0-12 at step 40, 32 images/s; about 5 min left"
    now[0] += 90
    board.finish("00_a", "ok", 240.0)
    board.start("01_b")
    now[0] += 60
    board.tick()
    lines = page.getvalue().splitlines()
    assert lines[-1] == "[1/2] running: 01_b for 60 s; about 7 min left"  # 245 / 65 x 120 s - 60 s


def test_what_trains_is_read_from_its_log(tmp_path):
    assert training_now(tmp_path) == ""
    log = tmp_path / "runs" / "mae-s0-12" / "history.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("".join(json.dumps({"step": s, "images_per_s": 31.6}) + "\n" for s in (10, 20)))
    assert training_now(tmp_path) == "mae-s0-12 at step 20, 32 images/s"
    log.write_text('{"step": 20')
    assert training_now(tmp_path) == ""
    time.sleep(0.01)
    assert training_now(tmp_path, within=0.001) == ""


WRONG = [
    ("model=xyz", "model: got 'xyz', which timm does not know: did you mean "),
    ("model=vit_base_patch16_224.dinno", "did you mean 'vit_base_patch16_224.dino'?"),
    ("model=gone.pth", "model: got 'gone.pth', which is not there, nor in "),
    ("model=mae_visualize_vit_base.pth", "which is not there: get https://dl.fbaipublicfiles.com/mae/visualize/"),
    ("models=demo deti=x.pth", "which says the part 'deti', expected one of: MAE, DINO"),
]


@pytest.mark.parametrize(("parameter", "line"), WRONG)
def test_a_mistyped_model_stops_before_a_kernel_starts(parameter, line, folder, capsys):
    words = ["run", "--notebooks", str(folder), "--out", "made", "-p", parameter]
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert not (folder.parent / "made").exists()


def test_a_path_to_a_model_holds_wherever_the_kernel_starts(folder):
    file = dino_file(folder.parent, "mine.pth")
    plan = make_plan(Request(parameters={"model": "mine.pth", "models": "demo DINO=mine.pth"}, notebooks=str(folder)))
    assert plan.parameters["05_browser"]["model"] == str(file)
    assert plan.parameters["11_models"]["models"] == f"demo DINO={file}"
    for usual in ("run", "demo", "vit_base_patch16_224.dino", "facebook/vit-mae-base"):
        plan = make_plan(Request(parameters={"model": usual}, notebooks=str(folder)))
        assert plan.parameters["05_browser"]["model"] == usual
    with pytest.raises(LcmaeError, match="vit_base_patch16_224"):
        make_plan(Request(parameters={"model": "vit_bse_patch16_224"}, notebooks=str(folder)))
