"""Some seventy ways to say something wrong, over all commands: one line on stderr that names the nearest right word or
what was expected, exit code 2, within three seconds on an idle machine, and nothing is written."""

import os
import re
import resource
import shlex
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
    "train --profile smoke --device gpu": "device: got 'gpu', did you mean 'cuda'?",
    "train --profile smoke --data foldr:x": "did you mean 'folder",
    "train --profile smoke --data folder:/not/there": "expected a folder",
    "train --resume /not/there": "expected a run's folder",
    "train --profile smoke --nproc 0": "expected at least 1",
    "train --profile smoke --device cuda:99": "device: got 'cuda:99'",
    "train --profile smoke --device meta": "device: got 'meta', expected one of",
    "train --profile smoke --seed 99999999999999999999": "below 2\\^63",
    "train --profile smoke --data parquet:/etc/passwd": "which is no parquet file",
    "train --profile smoke -p steps=99999999999999999999": "steps: got 99999999999999999999, expected",
    "train --profile smoke -p depth=100000": "depth: got 100000, expected",
    "train --profile smoke -p width=4000000 -p heads=1": "width: got 4000000, expected",
    "train --profile smoke -p workers=100000": "workers: got 100000, expected",
    "train --profile smoke -p image_size=[64,64,64]": "expected a number, or two: height and width",
    "run 42": "42",
    "run 00 --jobs 0": "expected at least 1",
    "run 00 -p ratio=0.5 --profile smoke": "ratio",
    "run 00 --executor slrum": "slurm",
    "run 00 -s partition=x": "expected --executor slurm",
    "study tabel1": "did you mean 'table1'?",
    "study fig6 -p nope=1": "unknown setting 'nope' .*: expected one of those that lcmae train --list shows",
    "study fig6 --device cuda:99": "device: got 'cuda:99'",
    "study fig6 --seeds 99999999 --budget 1s": "--seeds: got 99999999, expected at most 1000",
    "study status fig6 --out FILE": "which is no folder",
    "study status --profile labb": "did you mean 'lab'?",
    "study status tabel1": "did you mean 'table1'?",
    "study fig6 --budget 25": "expected a time such as",
    "study fig6 --seeds 0": "expected at least 1",
    "evaluate /not/there --by knn": "not there|expected",
    "evaluate untrained --by knnn": "invalid choice|did you mean",
    "evaluate untrained -p nope=1": "unknown setting 'nope' .*: expected one of those that lcmae train --list shows",
    "evaluate untrained -p lr=1": "did you mean 'base_lr'?",
    "evaluate untrained --device meta": "device: got 'meta', expected one of",
    "bench --batch -1": "bench: batch: got -1, expected at least 1",
    "bench --bach 1": "did you mean '--batch'?",
    "bench --models hff": "did you mean 'hf'?",
    "bench --cases nope": "expected one of: vit-b, desk",
    "bench --device cuda:99": "device: got 'cuda:99'",
    "published": "MODEL|required",
    "published demo --images 1": "--images: got 1, expected at least 2",
    "published demo -p mask_rato=0.5": "did you mean 'mask_ratio'?",
    "published demo demo": "got 'demo' twice",
    "doctor --gpuu": "did you mean '--gpu'?",
    "doctor now": "unexpected 'now'",
    "export /not/there x --to timm": "which is not there",
    "export x y --to tim": "invalid choice|did you mean",
    "report --out /not/there": "which is not there",
    "report --out EMPTY": "which holds no notebook or result",
    "notebooks": "DIR|required",
    "prepare /not/there --to x --size 64": "expected an image folder or a .tar",
    "prepare /usr --to x": "--size",
    "prepare '' --to x --size 64": "source: got '', expected a path",
    "prepare /usr --to '' --size 64": "--to: got '', expected a path",
    "prepare z.zip --to x --size 64": "which is not read, .*unpack it",
    "prepare /usr --to x --size 4": "--size: got 4, expected 8 to 16384",
    "prepare /usr --to x --sise 64": "did you mean '--size'|--size",
}


def said_of(words: str, home: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """What a command says, and its processor seconds."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LCMAE_")} | {"LCMAE_OUT": str(home / "o")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "lcmae_core.cli", *shlex.split(words)],
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
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    there = sorted(tmp_path.rglob("*"))
    done, seconds = said_of(words.replace("FILE", "file").replace("EMPTY", "empty"), tmp_path)
    print(f"{seconds:.1f} s: {done.stderr}")
    assert done.returncode == 2, done.stderr
    if words:
        assert done.stderr.count("\n") == 1, done.stderr
        assert re.search(WRONG[words], done.stderr), done.stderr
    assert seconds < 3 * slowness
    assert sorted(tmp_path.rglob("*")) == there
