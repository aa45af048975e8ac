"""`torch.compile` takes every method's forward pass as one graph, on the CPU, and training does not notice.

Claims: with `fullgraph=True` each method is one graph, compiled in the first step and never again, although the
prototypes of DINO begin to be trained on the way; losses equal the eager ones within `RTOL`; a stopped and resumed run
has the weights of an uninterrupted one, bit by bit; a planted graph break and a planted changing constant are seen.
"""

import json
import os
from typing import Any

import pytest

from tests.data.made_pictures import write_folder
from tests.gpu.compiled import PLANTED, STEPS, STOP
from tests.started import completed

NAMES = ["MAE", "LC-MAE", "AE", "DINO", "supervised, mixed", "Siamese"]
RTOL = 1e-5
"""Of each of the five losses: the graph may add in another order."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the program prints, by case and fault."""
    out = tmp_path_factory.mktemp("compiled")
    write_folder(out / "pictures", [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "ab" for i in "012"])
    ended = completed("-m", "tests.gpu.compiled", json.dumps(NAMES), str(out), env=os.environ | {"LCMAE_HEADLESS": "1"})
    assert ended.returncode == 0, ended.stderr[-2000:]
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return {line.pop("name"): line for line in lines}


@pytest.mark.slow
def test_one_graph_is_compiled_once(found: dict[str, dict[str, Any]]) -> None:
    assert {name: found[name]["graphs"] for name in NAMES} == {name: [1] * STEPS for name in NAMES}


@pytest.mark.slow
def test_losses_are_the_eager_ones(found: dict[str, dict[str, Any]]) -> None:
    for name in NAMES:
        assert len(set(found[name]["eager"])) == STEPS, f"{name} is trained"
        assert found[name]["compiled"] == pytest.approx(found[name]["eager"], rel=RTOL), name


@pytest.mark.slow
def test_a_resumed_run_is_bit_equal(found: dict[str, dict[str, Any]]) -> None:
    assert {name: len(found[name]["resumed"]) for name in NAMES} == dict.fromkeys(NAMES, STEPS - STOP)
    assert {name for name in NAMES if found[name]["bit_equal"]} == set(NAMES)


@pytest.mark.slow
def test_planted_faults_are_seen(found: dict[str, dict[str, Any]]) -> None:
    assert set(PLANTED) < set(found)
    assert "graph_break" in found["a graph break"]["refused"], found["a graph break"]
    assert found["a changing constant"]["graphs"][-1] > 1, found["a changing constant"]
