"""Claims: fine-tuning (mixed, augmented, averaged, in micro-batches), the probes, ridge regression and kNN have by
several ranks the losses, weights and answers of one process, for a number of images that they do not divide evenly; the
command says torchrun's call, and a batch that ranks cannot share is one line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from lcmae_core import cli
from lcmae_core.config import replace
from tests.data.made_pictures import write_folder
from tests.started import CLI, all_forks, completed

FILES = [f"train/{c}/{i}.png" for c in "abc" for i in range(7)] + [f"val/{c}/{i}.png" for c in "abc" for i in range(5)]
RANKS = [pytest.param((1, 2), id="2 ranks"), pytest.param((1, 2, 4), id="2 and 4 ranks", marks=pytest.mark.fault)]


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    return f"folder:{write_folder(tmp_path / 'pictures', FILES)}"


@pytest.mark.slow
@pytest.mark.parametrize("worlds", RANKS)
def test_every_evaluation_is_that_of_one_process(worlds, tiny, pictures, tmp_path):
    settings = replace(tiny, source=pictures, workers=0, depth=2, log_every=1, cache_gb=0.0)
    words = json.dumps(settings.model_dump(mode="json")), str(tmp_path), ",".join(map(str, worlds))
    ended = completed("-m", "tests.training.rank_evaluations", *words, timeout=280)
    assert ended.returncode == 0, ended.stderr[-3000:]
    one, *others = [json.loads((tmp_path / str(world) / "found.json").read_text()) for world in worlds]
    assert len(one) == 7
    for name, expected in one.items():
        assert len(expected["predicted"]) == 15
        if "probe" in name or "," in name or name == "fine-tuned":
            assert len(set(expected["loss"])) == 6, "it moves"
        for other in others:
            same(other[name], expected, name)


def same(found: dict, expected: dict, name: str) -> None:
    assert found.keys() == expected.keys()
    assert found["predicted"] == expected["predicted"], name
    for key in found.keys() & {"loss", "confidence"}:
        np.testing.assert_allclose(found[key], expected[key], rtol=1e-4, err_msg=f"{name}: {key}")
    for key, values in found.get("weights", {}).items():
        np.testing.assert_allclose(values, expected["weights"][key], rtol=1e-3, atol=2e-5, err_msg=f"{name}: {key}")


def test_the_command_says_what_ranks_cannot_share(tiny, pictures, capsys, tmp_path):
    words = ["evaluate", "untrained", "--profile", "smoke", "--data", pictures, "--out", str(tmp_path / "o")]
    for more, line in (
        (["--by", "finetune", "-p", "batch_size=6", "--nproc", "4"], "batch_size: got 6 on 4 ranks with accum_steps 1"),
        (
            ["--by", "finetune", "-p", "batch_size=8", "-p", "accum_steps=4", "--nproc", "4"],
            "batch_size: got 8 on 4 ranks with accum_steps 4, expected a multiple of 16",
        ),
        (["--by", "knn", "--nproc", "0"], "--nproc: got 0, expected at least 1"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, *more])
        assert ended.value.code == 2
        assert line in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_has_ranks_judge(pictures, tmp_path):
    words = ["evaluate", "untrained", "--profile", "smoke", "--data", pictures, "--out", str(tmp_path / "o")]
    words += ["--by", "probe", "-p", "batch_size=8", "-p", "steps=3", "--nproc", "2"]
    done = completed(*CLI, *words, env=os.environ | all_forks())
    assert done.returncode == 0, done.stderr
    assert "torch.distributed.run --standalone --nproc-per-node=2" in done.stdout.splitlines()[0]
    assert done.stdout.count("evaluation: ") == 1, "the first rank alone says it"
    (evaluation,) = (tmp_path / "o" / "evaluations").iterdir()
    assert (evaluation / "predictions.npz").is_file()
