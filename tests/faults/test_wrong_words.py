"""Thirty-nine ways to say something wrong, over all commands: one line on stderr that names the nearest right word or
what was expected, exit code 2, within three seconds on an idle machine, and nothing is written."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

WRONG = {
    "trian": "did you mean 'train'?",
    "": "expected one of|usage|train",
    "train --profil smoke": "did you mean '--profile'?",
    "train --profile smok": "did you mean 'smoke'?",
    "train --profile smoke -p mask_ration=0.5": "did you mean 'mask_ratio'?",
    "train --profile smoke -p mask_ratio=1.5": "mask_ratio: got 1.5",
    "train --profile smoke -p mask_ratio": "expected name=value|NAME=VALUE|expected",
    "train --profile smoke -p batch_size=ten": "batch_size: got 'ten'",
    "train --profile smoke -p batch_size=0": "batch_size: got 0",
    "train --profile smoke -p patch_size=7": "patch_size|image_size",
    "train --profile smoke -p method=maee": "did you mean|expected",
    "train --profile smoke -p local_size=16": "does not read",
    "train --profile smoke -p block=3": "does not read",
    "train --profile smoke --seed -1": "seed: got -1",
    "train --profile smoke --seed one": "invalid int value",
    "train --profile smoke --seed 1 -p seed=2": "expected one of the two",
    "train --profile smoke --device gpu": "device: got 'gpu'",
    "train --profile smoke --data foldr:x": "did you mean 'folder",
    "train --profile smoke --data folder:/not/there": "expected a folder",
    "train --resume /not/there": "expected a run's folder",
    "train --profile smoke --nproc 0": "expected at least 1",
    "run 42": "42",
    "run 00 --jobs 0": "expected at least 1",
    "run 00 -p ratio=0.5 --profile smoke": "ratio",
    "run 00 --executor slrum": "slurm",
    "run 00 -s partition=x": "expected --executor slurm",
    "study tabel1": "did you mean 'table1'?",
    "study fig6 --budget 25": "expected a time such as",
    "study fig6 --seeds 0": "expected at least 1",
    "evaluate /not/there --by knn": "not there|expected",
    "evaluate untrained --by knnn": "invalid choice|did you mean",
    "export /not/there x --to timm": "which is not there",
    "export x y --to tim": "invalid choice|did you mean",
    "report --out /not/there": "which is not there",
    "notebooks": "DIR|required",
    "prepare /not/there --to x --size 64": "expected an image folder or a .tar",
    "prepare /usr --to x": "--size",
    "prepare /usr --to x --size 4": "--size: got 4, expected 8 to 16384",
    "prepare /usr --to x --sise 64": "did you mean '--size'|--size",
}


LOADING = {"study tabel1"}
"""The names of studies lie beside what is measured of them, which loads torch, timm and scikit-learn."""


def said_of(words: str, home: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """What a command says, and its processor seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LCMAE_")} | {"LCMAE_OUT": str(home / "o")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "lcmae_core.cli", *words.split()],
        capture_output=True, text=True, cwd=home, env=environment, timeout=120,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def slowness() -> float:
    """How much slower than an idle one this machine is now: loading torch takes 1.5 processor seconds there."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", "import torch, timm"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return max(1.0, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 2.5)


@pytest.mark.fault
@pytest.mark.parametrize("words", WRONG)
def test_it_is_one_line_and_nothing_is_written(words: str, tmp_path: Path, slowness: float) -> None:
    done, seconds = said_of(words, tmp_path)
    print(f"{seconds:.1f} s: {done.stderr}")
    assert done.returncode == 2, done.stderr
    if words:
        assert done.stderr.count("\n") == 1, done.stderr
        assert re.search(WRONG[words], done.stderr), done.stderr
    assert seconds < (6 if words in LOADING else 3) * slowness
    assert not list(tmp_path.iterdir())
