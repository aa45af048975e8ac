"""A notebook at a large profile trains nothing by itself: it shows what is there, and says what is missing.

Claims: one switch refuses every training by name; such a notebook is incomplete, not failed, and is executed again.
"""

from pathlib import Path

import nbformat
import pytest

from lcmae_core.config import LcmaeError, NotTrainedError, profile, replace
from lcmae_core.config.downstream import RidgeProbe
from lcmae_core.store.outputs import read_ledger
from lcmae_core.store.results import Notebook
from lcmae_core.studies.trials import rows
from lcmae_core.training.downstream import Origin
from lcmae_core.training.finetune import from_scratch
from lcmae_core.training.loop import pretrain, pretrain_all
from lcmae_core.training.probe import linear_probe
from tests.data.made_pictures import few_pictures
from tests.execute.test_run import lcmae
from tests.execute.toys import code, make_notebook, prose
from tests.studies.tiny_studies import tiny_settings

FRAME = (
    'from lcmae_core.store.results import Notebook\nnb = Notebook("00", "Toy", profile, data, seed, out, train=train)'
)
TRAIN = "train = None  # True | False: train here what is missing; None: at smoke and quick alone\n"
NEEDS = "from lcmae_core.training.loop import pretrain\nrun = pretrain(nb.settings(steps=2, epochs=None, batch_size=4))"


def toy(folder: Path) -> Path:
    """A notebook that shows something, then needs a run, then speaks of it."""
    shown = code("print('from the records')")
    return make_notebook(
        folder, "00_toy", code(FRAME), shown, code(NEEDS), prose("*A caption of the run.*"), more=TRAIN
    )


def test_the_profile_decides_unless_it_is_said(tmp_path):
    for name, said, trains in (("smoke", None, True), ("quick", None, True), ("desk", None, False),
                               ("lab", None, False), ("desk", True, True), ("quick", False, False)):  # fmt: skip
        nb = Notebook("00", "t", name, out=str(tmp_path), train=said)
        assert nb.trains is trains, (name, said)
        assert nb.settings().runtime.train is trains
    with pytest.raises(LcmaeError, match="train: got 'maybe', expected True, False or None"):
        Notebook("00", "t", "smoke", out=str(tmp_path), train="maybe").settings()


def test_all_that_is_missing_is_named_and_nothing_is_made(tmp_path):
    base = replace(profile("smoke"), out=str(tmp_path), train=False)
    wanted = {seed: replace(base, seed=seed) for seed in (0, 1)}
    with pytest.raises(
        NotTrainedError, match=r"mae-s0-\w+, mae-s1-\w+: not trained .*lcmae study.*-p train=true"
    ) as error:
        pretrain_all(wanted)
    assert str(error.value).count("\n") == 0
    with pytest.raises(NotTrainedError, match=r"^mae-s0-\w+: not trained"):
        pretrain(base)
    assert not (tmp_path / "runs").exists()


def test_what_is_trained_is_read_and_its_evaluations_are_refused_too(tmp_path):
    base = tiny_settings(tmp_path)
    run = pretrain(base)
    locked = replace(base, train=False)
    assert pretrain(locked).name == run.name, "permission is no part of a run's name"
    assert pretrain_all({"a": locked})["a"].done
    for judge in (
        lambda: linear_probe(Origin.of_run(run), RidgeProbe(), settings=locked),
        lambda: from_scratch(locked),
    ):
        with pytest.raises(NotTrainedError):
            judge()
    done = linear_probe(Origin.of_run(run), RidgeProbe(), settings=base)
    assert linear_probe(Origin.of_run(run), RidgeProbe(), settings=locked).name == done.name


def test_rows_of_a_study_are_read_alone(tmp_path):
    base = replace(tiny_settings(tmp_path), train=False)
    found = rows("latents", base, "smoke")
    assert found
    assert not any(found.values())
    assert any(rows("latents", replace(base, train=True), "smoke", measures=("recovery",)).values())


def test_incomplete_then_trained_then_up_to_date(tmp_path):
    toy(tmp_path / "n")
    words = ("run", "--notebooks", str(tmp_path / "n"), "--out", str(tmp_path / "out"), "--profile", "smoke",
             "--data", few_pictures())  # fmt: skip
    first = lcmae(*words, "-p", "train=false")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "00_toy: incomplete" in first.stdout
    assert "1 of 1 incomplete: 00. Missing: mae-s0-" in first.stdout.splitlines()[-1]
    kept = nbformat.read(tmp_path / "out" / "00_toy.ipynb", 4)
    assert kept.cells[-1].source.startswith("**This notebook ends here.**")
    assert "mae-s0-" in kept.cells[-1].source
    texts = str(kept)
    assert "from the records" in texts
    assert "A caption of the run" not in texts
    assert "Traceback" not in texts
    assert read_ledger(tmp_path / "out")["00_toy"]["status"] == "incomplete"
    assert ">incomplete<" in (tmp_path / "out" / "report.html").read_text()
    again = lcmae(*words, "-p", "train=false")
    assert "incomplete" in again.stdout.splitlines()[-1], "it is tried again, not taken for up to date"
    assert "00_toy: ok" in lcmae(*words).stdout
    assert "00_toy: ok" in lcmae(*words, "-p", "train=false").stdout, "now the run is there"


def test_data_of_the_profile_may_be_missing_but_not_those_that_were_named(tmp_path):
    cell = code("from lcmae_core.data.sources import open_source\nopen_source(nb.settings().data)")
    make_notebook(tmp_path / "n", "00_toy", code(FRAME), cell, more=TRAIN)
    words = ("run", "--notebooks", str(tmp_path / "n"), "--out", str(tmp_path / "out"), "--profile", "paper")
    absent = lcmae(*words)
    assert absent.returncode == 0, absent.stdout
    assert "incomplete: 00. Missing: source 'folder:" in absent.stdout.splitlines()[-1]
    named = lcmae(*words, "--data", f"folder:{tmp_path / 'gone'}")
    assert named.returncode == 2, named.stdout
    assert "expected a folder or file that exists" in named.stderr


def test_a_wrong_word_is_one_line_before_anything_starts(tmp_path):
    toy(tmp_path / "n")
    done = lcmae("run", "--notebooks", str(tmp_path / "n"), "--out", str(tmp_path / "o"), "-p", "train=maybe")
    assert done.returncode == 2
    assert done.stderr.strip() == "lcmae: error: train: got 'maybe' for 00_toy, expected one of: True, False"
