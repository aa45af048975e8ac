"""Claims: `lcmae published` measures official files of MAE, DINO and DeiT, says the time before it begins, judges what
can be judged and exits with 0; given again it does nothing; after kill -9 it goes on and repeats nothing that was done;
what is wrong is one line, said before torch is loaded and before a folder is made."""

import os
import signal
import time
from pathlib import Path

import pytest
from PIL import Image

from lcmae_core import cli
from tests.cli.test_main import fails
from tests.loops import over
from tests.started import CLI, Started, completed
from tests.studies.checkpoint_files import deit_file, dino_file, mae_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The three official files."""
    folder = tmp_path_factory.mktemp("files")
    return [str(make(folder)) for make in (mae_file, dino_file, deit_file)]


def records(out):
    return {path.name.rpartition("-")[0]: path for path in (out / "results" / "published").glob("*.json")}


def test_killed_and_given_again_it_goes_on(files, tmp_path):
    out = tmp_path / "out"
    words = [*CLI, "published", *files[:2], "--images", "8", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = []
    with Started(*words, env=environment, cwd=tmp_path) as began:
        assert began.stdout is not None
        for line in began.stdout:
            before.append(line)
            if line.startswith("dino_vitbase16_pretrain: distance"):
                break
        began.send_signal(signal.SIGKILL)
    said = "".join(before)
    assert "8 images of photos (8 held out); inference only, on the CPU" in said
    assert "passes of an image forward or backward, timed on a batch (mae_visualize_vit_base " in said
    assert said.index("about ") < said.index("mae_visualize_vit_base: distance")
    done = records(out)["mae_visualize_vit_base"]
    kept = done.read_bytes(), done.stat().st_mtime_ns
    again = completed(*words, env=environment, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "mae_visualize_vit_base: already measured with these settings" in again.stdout
    assert "dino_vitbase16_pretrain: distance" not in again.stdout
    assert "dino_vitbase16_pretrain: receptive" in again.stdout
    assert (done.read_bytes(), done.stat().st_mtime_ns) == kept
    assert not list(done.parent.glob(".*tmp*"))


def test_three_official_files(files, tmp_path, capsys):
    words = ["published", *files, "--images", "8", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "deit_base_patch16_224-b5f2ef4d: supervised, 128 x 128 px, 4 x 4 patches of 32, no decoder" in said
    assert "left out of dino_vitbase16_pretrain: similarity, terms, semantic, reconstruction (no decoder" in said
    assert "mae_visualize_vit_base beside dino_vitbase16_pretrain and deit_base_patch16_224-b5f2ef4d" in said
    lines = (tmp_path / "published.csv").read_text().splitlines()
    judged = {line.partition(",")[0] for line in lines[1:] if line.split(",")[-1] in ("yes", "no", "open")}
    assert judged == {"C1", "C2", "C7", "C13", "C14", "C20"}
    times = {path: path.stat().st_mtime_ns for path in records(tmp_path).values()}
    began = time.monotonic()
    assert cli.main(words) == 0
    assert "about" not in capsys.readouterr().out.replace("about training", "")
    assert time.monotonic() - began < 60
    assert times == {path: path.stat().st_mtime_ns for path in records(tmp_path).values()}


@over(("words", "line"), [
        ([], "the following arguments are required: MODEL"),
        (["demo", "--images", "1"], "--images: got 1, expected at least 2"),
        (["demo", "--images", "x"], "argument --images: invalid int value: 'x'"),
        (["demo", "-p", "mask_rato=.5"], "-p mask_rato: got it for lcmae published, which does not read it, "
         "did you mean 'mask_ratio'?"),
        (["demo", "-p", "device=cuda"], "-p device: got 'cuda' for lcmae published, "
         "expected 'cpu', where it always runs"),
        (["demo", "-p", "mask_ratio=1"], "mask_ratio: got 1, expected less than 1"),
        (["demo", "demo"], "model: got 'demo' twice, expected models of different names"),
        (["DNIO=demo"], "model: got 'DNIO=demo', which says the part 'DNIO', did you mean 'DINO'?"),
        (["demo", "--data", "folder:nope"], "data: got 'folder:nope', expected a folder or file that exists"),
        (["demo", "--imags", "3"], "unknown option '--imags' of lcmae published: did you mean '--images'?"),
        (["gone/model"], "model: got 'gone/model', which is not there, expected 'demo', a checkpoint or folder that "
         "exists, a hub id such as 'facebook/vit-mae-base', or a timm ViT such as 'vit_base_patch16_224.dino'"),
        (["vit_bass_patch16_224.dino"], "model: got 'vit_bass_patch16_224.dino', which timm does not know: did you "
         "mean 'vit_base_patch16_224.dino'?"),
    ])  # fmt: skip
def test_wrong_words(words, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir(exist_ok=True)
    assert fails(["published", *words], capsys) == line
    assert [path.name for path in tmp_path.iterdir()] == ["gone"]


def test_what_is_missing_is_left_out_by_name(tmp_path, capsys):
    """An encoder-only MAE, a folder of three photographs without labels, and a ViT whose part nothing says."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for place in range(3):
        Image.effect_mandelbrot((150, 140), (-2, -1, 1, 1 + place / 2), 20).convert("RGB").save(
            pictures / f"{place}.png"
        )
    encoder = dino_file(tmp_path, "mae_pretrain_vit_base.pth")
    words = [str(encoder), str(dino_file(tmp_path, "theirs.pth"))]
    assert cli.main(["published", *words, "--data", f"folder:{pictures}", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "3 images of folder:" in said
    assert "of its training split), fewer than the 256 asked for; inference only, on the CPU" in said
    decoder = "similarity, terms, semantic, reconstruction (no decoder of attention blocks in it)"
    assert f"left out of mae_pretrain_vit_base: {decoder}" in said
    assert "left out of mae_pretrain_vit_base: knn (the images have no labels)" in said
    assert f"theirs takes part in no claim: say MAE=, DINO= or supervised={words[1]}" in said
    rows = {line.split(",")[0]: line for line in (tmp_path / "out" / "published.csv").read_text().splitlines()}
    assert all(",not judged," in rows[claim] for claim in ("C1", "C2", "C7", "C13", "C14"))
    assert ",mae_pretrain_vit_base," in rows["C20"]
