"""The benchmark of floors says what it measured, and what it did not.

Claims: a floor is the slower of products and memory, worked out by hand; every method has a row with its share; what is
said of cards that are not there is called a projection and in bf16 whatever was timed; wrong words are one line.
"""

import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lcmae_core.bench import floors, rehearsal
from lcmae_core.bench.counts import Cost
from lcmae_core.bench.floors import Floors, floor, measure_floors, timed
from tests.loops import over

CPU = torch.device("cpu")
TINY = ["image_size=32", "width=32", "depth=1", "heads=2", "decoder_width=16", "decoder_heads=2", "batch_size=4",
        "local_crops=2", "local_size=16", "dino_dim=32"]  # fmt: skip


@pytest.fixture
def flops(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with small products and copies in place of large ones."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import flops

    plain = measure_floors
    monkeypatch.setattr(flops, "measure_floors", lambda device, dtype: plain(device, dtype, quick=True))
    return flops


def run(flops: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    changes = [word for change in TINY for word in ("-p", change)]
    monkeypatch.setattr(sys, "argv", ["flops.py", "--device", "cpu", *changes, *words])
    flops.main()


def test_every_method_has_its_share(
    flops: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(flops, monkeypatch, "--steps", "1", "--json", str(tmp_path / "out.json"))
    said, found = capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text())
    assert set(found["methods"]) == set(rehearsal.METHODS)
    for name, row in found["methods"].items():
        rates = Floors(found["product_flops_per_s"], found["memory_bytes_per_s"])
        least = floor(Cost(row["flops"], row["bytes"]), rates)
        assert row["share"] == pytest.approx(row["images_per_s"] * least.seconds), name
        assert 0 < row["share"] < 1, "no step beats its floor"
    assert {"device", "versions", "commit", "date", "threads"} <= set(found)
    assert all(f"{card} (projected)" in said for card in floors.CARDS)
    assert "PROJECTIONS, nothing measured" in said


def test_counts_alone_take_no_step(
    flops: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(flops, "Prepared", refuse)
    run(flops, monkeypatch, "--steps", "0", "--methods", "MAE,Siamese")
    fine = capsys.readouterr().out
    run(flops, monkeypatch, "--steps", "0", "--methods", "MAE,Siamese", "-p", "precision=bf16")
    coarse = capsys.readouterr().out
    assert fine.splitlines()[-2:] == coarse.splitlines()[-2:], "projections are of bf16 in both"
    assert "AE  " not in fine.splitlines()[4]


@over(
    ("words", "line"),
    [
        (["--methods", "MEA"], "unknown method 'MEA': did you mean 'MAE'?"),
        (["--profile", "quik"], "unknown profile 'quik': did you mean 'quick'?"),
        (["--steps", "-1"], "steps: got -1, expected 0 or more"),
        (["-p", "widht=3"], "unknown setting 'widht' (= 3): did you mean 'width'?"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], line: str, flops: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(flops, monkeypatch, *words)
    assert capsys.readouterr().err == f"flops: error: {line}\n"


def test_a_floor_by_hand() -> None:
    assert floor(Cost(100.0, 10.0), Floors(50.0, 10.0)) == (2.0, "products")
    assert floor(Cost(100.0, 40.0), Floors(50.0, 10.0)) == (4.0, "memory")
    assert floor(Cost(100.0, 40.0), Floors(50.0, 10.0)).share(8.0) == 0.5


def test_rates_are_those_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floors, "timed", lambda call, device, clock: 0.5)
    found = measure_floors(CPU, quick=True)
    assert found.flops == 2 * 256**3 / 0.5
    assert found.bytes == 2 * 4 * 2**18 / 0.5


def test_one_thread_is_timed_by_its_processor() -> None:
    """A call that sleeps takes no time of a processor, and all of the wall's."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        clock = floors.clock_of(CPU)
        assert timed(lambda: time.sleep(0.1), CPU, clock) < 0.05
        torch.set_num_threads(2)
        assert timed(lambda: time.sleep(0.1), CPU, floors.clock_of(CPU)) > 0.09
    finally:
        torch.set_num_threads(before)
