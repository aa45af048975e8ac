"""Progress: a bar for whoever watches, lines for a log, nothing where it is not wanted.

Claims: without a terminal no carriage return is written, whatever works; there is a line at the start, one a minute
with what is done, its speed and the time left, and one at the end, on stderr, of what takes longer than the delay, and
none of what is done sooner; the time left is right within a factor of 1.5 after the first minute, however slow the
start; `progress=false` and a notebook without anybody at it silence everything; a terminal gets the bar, which says in
words what is trained; every bar of the package comes from here.
"""

import os
import re
import sys
import time
from pathlib import Path

from lcmae_core.config import profile, replace
from lcmae_core.config.downstream import FineTune
from lcmae_core.store import progress
from lcmae_core.store.evaluations import Evaluation
from lcmae_core.store.progress import Lines, Silent, progress_bar
from lcmae_core.store.runs import Run
from tests.started import CLI, completed

PACKAGE = Path(progress.__file__).parents[1]
READ = """
import time
import numpy as np
from lcmae_core.config import Data
from lcmae_core.data import loader
from lcmae_core.data.sources import open_source
from lcmae_core.data.splits import Split
from lcmae_core.store import progress
progress.progress_bar.__kwdefaults__["delay"] = {delay}
split = open_source(Data()).validation
loader.Loader(split, Data(image_size=32), seed=0, batch_size=4, device="cpu", progress={wanted})
loader.hold(split, (32, 32), 3, 1.0, progress={wanted})
"""
TRAIN = [*CLI, "train", "--profile", "smoke", "-p", "depth=1", "-p", "steps=3", "--device", "cpu"]


def stderr_of(words, **environment):
    """What a process writes to stderr, which is a pipe."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("LCMAE_")} | environment
    ended = completed(*words, env=around)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def reading(delay=0.0, wanted=True, **environment):
    """What reading two splits into memory says."""
    return stderr_of(["-c", READ.format(delay=delay, wanted=wanted)], **environment)


def test_a_log_gets_a_line_at_the_start_and_one_at_the_end():
    said = reading()
    assert "\r" not in said
    lines = said.splitlines()
    assert len(lines) == 4, said
    assert lines[0] == lines[2] == "reading validation: 256 images ..."
    assert all(re.fullmatch(r"reading validation: 256 of 256 images, \d+ s", last) for last in lines[1::2]), said


def test_what_is_done_soon_or_not_wanted_or_unwatched_says_nothing():
    assert reading(delay=30) == ""
    assert reading(wanted=False) == ""
    assert reading(LCMAE_HEADLESS="1") == ""


def test_a_training_in_a_pipe_writes_no_carriage_return(tmp_path):
    quiet = [*TRAIN, "--out", str(tmp_path / "quiet")]
    assert stderr_of(quiet) == ""  # smoke asks for none
    loud = [*TRAIN, "--out", str(tmp_path / "loud"), "-p", "progress=true"]
    lines = stderr_of(loud).split("\n")  # none, or on a slow machine one at the start and one at the end
    assert all("\r" not in line and (not line or line.startswith("reading train: ")) for line in lines), lines
    assert next((tmp_path / "loud").glob("runs/*/model.safetensors"))


def test_lines_count_and_say_what_stands_beside_them(capsys):
    with Lines("run", 5, "step", done=2, delay=0.05) as lines:
        lines.update()
        assert capsys.readouterr().err == ""
        time.sleep(0.06)
        lines.set_postfix_str("loss 0.500")
        lines.update()
        lines.update()
    lines.close()
    assert capsys.readouterr().err == "run: 5 steps ...\nrun: 5 of 5 steps, 0 s, loss 0.500\n"
    with Lines("cut", 5, "step", delay=0.0) as lines:
        lines.update(3)
    assert capsys.readouterr().err == "cut: 5 steps ...\ncut: 3 of 5 steps, 0 s\n"


def test_a_log_gets_a_heartbeat_with_the_time_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = Lines("training MAE", 1000, "step", done=200)
    now[0] = 40.0  # nothing for a while: the pictures are read
    for _ in range(800):
        lines.update()
        lines.set_postfix_str("loss 0.500, 32 images/s")
        now[0] += 0.5
    lines.close()
    first, *beats, last = capsys.readouterr().err.splitlines()
    assert first == "training MAE: 1000 steps ..."
    assert last == "training MAE: 1000 of 1000 steps, 440 s, loss 0.500, 32 images/s"
    assert len(beats) == 6  # one a minute of the 400 s
    for beat in beats:
        said = re.fullmatch(
            r"training MAE: (\d+) of 1000 steps, loss 0.500, 32 images/s, about (\d+) (s|min) left", beat
        )
        assert said, beat
        left = int(said[2]) * (60 if said[3] == "min" else 1)
        assert 1 / 1.5 < left / (0.5 * (1000 - int(said[1]))) < 1.5, beat


def test_a_training_is_named_in_words(tmp_path):
    base = profile("smoke")
    named = {
        "training MAE, seed 0": {},
        "training MAE + cross-view, mask ratio 0.5, seed 3": {"cross_view": 1.0, "mask_ratio": 0.5, "seed": 3},
        "training cross-view loss alone, seed 0": {"reconstruction": 0.0, "cross_view": 1.0},
        "training MAE, decoder average, seed 0": {"decoder": "average"},
        "training MAE, decoder of 8 layers, seed 0": {"decoder_depth": 8},
        "training DINO, seed 0": {"method": "dino"},
    }
    for words, changes in named.items():
        assert Run(tmp_path, replace(base, changes)).words == words
    judged = Evaluation(tmp_path, base, FineTune(), "mae-s0-12")
    assert judged.words == "fine-tuning of mae-s0-12, seed 0"


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.delenv("LCMAE_HEADLESS", raising=False)
    assert isinstance(progress_bar("x", 2, "step"), Lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(progress_bar("x", 2, "step", wanted=False), Silent)
    with progress_bar("x", 2, "step", leave=True) as bar:
        bar.update(2)
    assert "\r" in capsys.readouterr().err
    with progress_bar("x", 2, "step") as bar:  # sooner done than the delay
        bar.update(2)
    assert "2/2" not in capsys.readouterr().err
    monkeypatch.setenv("LCMAE_HEADLESS", "1")
    assert isinstance(progress_bar("x", 2, "step"), Silent)


def test_every_bar_comes_from_here():
    made = re.compile(r"\btqdm\b.*import|import tqdm|import.*\bProgress\b")
    texts = {p.relative_to(PACKAGE).as_posix(): p.read_text(encoding="utf-8") for p in PACKAGE.rglob("*.py")}
    makers = {name for name, text in texts.items() if made.search(text)}
    assert makers == {"store/progress.py", "execute/progress.py"}
    assert "disable=not console.is_terminal" in texts["execute/progress.py"]
