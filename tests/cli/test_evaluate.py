"""`lcmae evaluate` judges a run or a checkpoint on any labelled images, and says in one line what does not fit."""

import pytest
import torch

from lcmae_core import cli
from lcmae_core.config import replace
from lcmae_core.models.build import build_model
from lcmae_core.models.interop import export_official
from lcmae_core.store.evaluations import load_evaluation
from lcmae_core.training.loop import pretrain
from tests.data.made_pictures import write_folder
from tests.loops import over
from tests.studies.tiny_studies import tiny_settings

SHORT = ["-p", "batch_size=4", "-p", "steps=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A pre-trained run of two steps on the embedded photographs."""
    return pretrain(tiny_settings(tmp_path_factory.mktemp("evaluate"), source="photos"))


def evaluated(capsys, *words):
    assert cli.main(["evaluate", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evaluate", *map(str, words)])
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip()
    assert line.count("\n") == 0
    return line


@pytest.mark.parametrize("way", ["knn", "probe", "finetune"])
def test_a_run_is_judged(run, way, capsys, tmp_path):
    said = evaluated(capsys, run.path, "--by", way, "--out", tmp_path, *([] if way == "knn" else SHORT))
    head, *rest = said.splitlines()
    assert run.name in head
    assert "of 256 held-out images, 10 classes" in head
    table = [line.split() for line in rest if len(line.split()) == 11]
    assert sum(int(n) for line in table for n in line[1:]) == 256
    right = sum(int(line[1 + i]) for i, line in enumerate(table))
    assert f"{right / 256:.1%} [" in head
    if way != "knn":
        found = load_evaluation(rest[-1].removeprefix("evaluation: "))
        assert found.accuracy == pytest.approx(right / 256)
        assert found.recipe.steps == 2


def test_a_checkpoint_is_judged_where_its_images_fit(run, capsys, tmp_path):
    wide = replace(run.settings, width=192, depth=1, heads=3, decoder_width=512, decoder_depth=1, decoder_heads=16)
    file = export_official(build_model(wide), tmp_path / "mae.pth")
    fits = ["-p", "image_size=32", "-p", "patch_size=8"]
    with pytest.warns(UserWarning, match="models of width (192 differ; took 3|512 differ; took 16)"):
        assert "kNN of weights-" in evaluated(capsys, file, "--by", "knn", "--out", tmp_path, *fits)
    fits += ["-p", "heads=3", "-p", "decoder_heads=16"]
    assert "kNN of weights-" in evaluated(capsys, file, "--by", "knn", "--out", tmp_path, *fits)
    heads = ["-p", "heads=3", "-p", "decoder_heads=16"]
    wrong = ["-p", "image_size=32", "-p", "patch_size=16", *heads]
    assert "patch_size: got 16, expected 8, that of the checkpoint" in refused(capsys, file, "--by", "knn", *wrong)
    assert "image_size: got (64, 64), expected (32, 32)" in refused(capsys, file, "--by", "knn", *heads)


@pytest.mark.parametrize("layout", ["timm", "official", "hf"])
def test_what_was_exported_is_judged(run, layout, capsys, tmp_path):
    file = tmp_path / {"timm": "timm.safetensors", "official": "official.pth", "hf": "folder"}[layout]
    assert cli.main(["export", str(run.path), str(file), "--to", layout]) == 0
    capsys.readouterr()
    fits = ["-p", "image_size=32", "-p", "patch_size=8", "--by", "knn", "--out", tmp_path]
    if layout != "hf":
        assert "expected -p heads=N" in refused(capsys, file, *fits)
    heads = [] if layout == "hf" else ["-p", "heads=2", "-p", "decoder_heads=2"]
    said = evaluated(capsys, file, *fits, *heads).splitlines()
    assert said[0].split(":")[1] == evaluated(capsys, run.path, *fits[4:]).splitlines()[0].split(":")[1]


def test_a_small_source_gets_a_smaller_batch(run, capsys, tmp_path):
    write_folder(
        tmp_path / "few", [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "ab" for i in range(4)]
    )
    said = evaluated(capsys, run.path, "--data", f"folder:{tmp_path / 'few'}", "--out", tmp_path, "-p", "steps=2")
    assert "of 8 held-out images, 2 classes" in said
    assert load_evaluation(said.splitlines()[-1].removeprefix("evaluation: ")).recipe.batch_size == 8


def test_an_untrained_encoder_is_judged(capsys, tmp_path):
    shape = ["-p", "image_size=32", "-p", "patch_size=8", "-p", "width=32", "-p", "depth=2", "-p", "heads=2"]
    assert "kNN of untrained0" in evaluated(capsys, "untrained", "--by", "knn", "--out", tmp_path, *shape)


@over(
    ("words", "line"),
    [
        (["-p", "patch_size=16"], "patch_size: got 16, expected 8, that of the run"),
        (["-p", "image_size=64"], "image_size: got (64, 64), expected (32, 32), that of the checkpoint"),
        (["--by", "prob"], "unknown --by 'prob': did you mean 'probe'?"),
        (["--by", "finetune", "--preset", "v3"], "--preset: got 'v3', did you mean 'v2'?"),
        (["-p", "bas_lr=1"], "unknown setting 'bas_lr' (= 1): did you mean 'base_lr'?"),
        (["--by", "finetune", "-p", "layer_decay=2"], "layer_decay: got 2, expected less than or equal to 1"),
        (["-p", "batch_size=5000"], "batch_size: got 5000 for 1024 training images, expected at most 1024"),
    ],
)
def test_what_does_not_fit_is_one_line(run, words, line, capsys, tmp_path):
    assert line in refused(capsys, run.path, "--out", tmp_path, *words)


def test_images_that_cannot_be_judged_are_one_line(run, capsys, tmp_path):
    write_folder(tmp_path / "one", [f"train/cat/{i}.png" for i in range(6)])
    write_folder(tmp_path / "flat", [f"{i}.png" for i in range(6)])
    for way in ([], ["--by", "knn"]):
        more = SHORT if not way else []
        assert "labels: got one class" in refused(capsys, run.path, "--data", f"folder:{tmp_path / 'one'}", *way, *more)
    for way in ("knn", "probe"):
        assert "labels: got none" in refused(capsys, run.path, "--by", way, "--data", f"folder:{tmp_path / 'flat'}")
    assert "which is not there" in refused(capsys, tmp_path / "nothing.pth")


def test_weights_are_not_changed_by_being_judged(run, capsys, tmp_path):
    before = run.weights()
    evaluated(capsys, run.path, "--by", "finetune", "--out", tmp_path, *SHORT)
    assert all(torch.equal(before[key], value) for key, value in run.weights().items())
