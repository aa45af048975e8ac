"""Claims: what cannot be used is said in one line, or left out by name, in notebooks and on the command line: a folder
of three pictures, pictures without labels, a checkpoint without a decoder, a silent hub, an unknown model.
"""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from lcmae_core.cli.main import main
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.store.files import read_json
from lcmae_core.training.held_out import named_pictures
from tests.notebook_cells import executed
from tests.studies.checkpoint_files import dino_file

pytestmark = pytest.mark.slow


@pytest.fixture
def three(tmp_path):
    """Three pictures without labels, named as a camera does."""
    home = tmp_path / "three"
    home.mkdir()
    for index, picture in enumerate(np.random.default_rng(0).random((3, 90, 120, 3))):
        Image.fromarray((255 * picture).astype("uint8")).save(home / f"IMG_{index}.jpg")
    return home


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Executes a notebook at smoke on a folder; what it printed, or its error."""
    monkeypatch.setenv("LCMAE_HEADLESS", "1")

    def go(number, folder, **parameters):
        given = {"profile": "smoke", "data": f"folder:{folder}", "out": str(tmp_path / "out"), **parameters}
        try:
            for _ in executed(number, given):
                pass
        except LcmaeError as error:
            return str(error)
        return capsys.readouterr().out

    return go


@pytest.mark.timeout(600)
def test_a_folder_of_three(run, three):
    assert "numbers recorded" in run("00", three)
    said = run("05", three)
    assert "3 images: " in said
    assert all(f"IMG_{index}.jpg" in said for index in range(3)), "a model that saw none of them is shown all"
    assert run("03", three) == "data: got 1 held-out image, expected at least 2: v is compared across images"
    assert run("04", three) == "S_attn: got 1 image, expected at least two"
    said = run("06", three)
    assert "supervised: left out (labels: got none in 'folder:" in said
    assert "numbers recorded" in said


def test_a_checkpoint_without_a_decoder_is_asked_about_its_encoder(run, three, tmp_path):
    said = run("05", three, model=str(dino_file(tmp_path)))
    assert "no decoder that attends: the encoder's maps of whole images instead" in said
    assert "S_attn: left out (it takes a decoder under a mask, and two images)" in said
    assert "numbers recorded" in said


def test_training_pictures_come_after_those_held_out_and_none_twice(three):
    settings = replace(profile("smoke"), {"source": f"folder:{three}", "image_size": 64})
    found = named_pictures(settings, 3)
    assert sorted(found.names) == ["IMG_0.jpg", "IMG_1.jpg", "IMG_2.jpg"]
    assert found.names[0] == named_pictures(settings, 1).names[0], "the one that is held out"
    assert found.batch.images.shape == (3, 3, 64, 64)
    with pytest.raises(LcmaeError, match="folder"):
        named_pictures(replace(settings, source=f"folder:{three / 'gone'}"), 3)


SILENT = "http://10.255.255.1:9"
"""An address from which no answer ever comes."""


def test_a_hub_that_does_not_answer(three, tmp_path):
    words = ["run", "05", "-p", "model=facebook/vit-mae-base", "--data", f"folder:{three}", "--profile", "smoke"]
    around = {k: v for k, v in os.environ.items() if not k.startswith("LCMAE_")}
    around |= {"HF_ENDPOINT": SILENT, "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "lcmae_core.cli", *words, "--out", str(tmp_path / "out")],
                          capture_output=True, text=True, env=around, timeout=200)  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "hub:" in line]
    assert line.startswith("    hub: got no answer for 'facebook/vit-mae-base'")
    assert "and put them into" in line
    assert "Traceback" not in done.stdout + done.stderr
    assert time.monotonic() - began < 180
    outcome = read_json(tmp_path / "out" / "ledger.json")["05_attention_browser"]
    assert outcome["status"] == "failed"


def test_an_unknown_model_and_an_empty_folder_start_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("LCMAE_DATA", raising=False)
    (tmp_path / "empty").mkdir()
    for words, line in (
        (["-p", "model=vit_base_patch16_224.dinno"], "did you mean 'vit_base_patch16_224.dino'?"),
        (["--data", f"folder:{tmp_path / 'empty'}"], "empty"),
    ):
        with pytest.raises(SystemExit) as error:
            main(["run", "05", "--profile", "smoke", "--out", str(tmp_path / "out"), *words])
        assert error.value.code == 2
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
