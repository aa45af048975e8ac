"""`lcmae doctor --gpu` tells what a person with a new GPU has to know, and breaks down at nothing.

Claims: without a GPU the command says so in one line, tries every check on the CPU and finds nothing; losses that are
off or no number, waits, graphs compiled later, floors that are beaten and whatever raises are one numbered line each,
and exit code 1; what there was no time for is said; on a card its memory chooses the batch of the timed ViT-B/16.
"""

import os
from typing import Any

import pytest
import torch
from rich.console import Console

from lcmae_core import cli
from lcmae_core.bench import checkup
from lcmae_core.bench.checkup import Checkup, MethodRow, bench_of, check, compare, few_pictures
from lcmae_core.bench.floors import Floors
from lcmae_core.bench.rehearsal import METHODS, Prepared, Rehearsed, furthest
from lcmae_core.cli import doctor_gpu
from lcmae_core.config import replace
from tests.gpu.cases import plant, read_back
from tests.gpu.standin import CARD, stand_in
from tests.loops import over
from tests.started import CLI, completed

CPU = torch.device("cpu")
ABOUT = {"device": "a card", "commit": "abc", "date": "today", "versions": {"torch": "2.15"}}


@pytest.mark.slow
def test_without_a_gpu_the_command_says_so_and_tries_its_checks() -> None:
    """In a process of its own: the shape checks of the tests cannot be captured."""
    ended = completed(*CLI, "doctor", "--gpu", env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert lines[0].startswith(doctor_gpu.NO_GPU)
    rows = {line.split("│")[0].strip(): [cell.strip() for cell in line.split("│")[1:]] for line in lines if "│" in line}
    assert set(METHODS) <= set(rows)
    for name in METHODS:
        *away, graphs, waits, _, _, _, report = rows[name]
        assert away[0] == "0.0e+00", f"{name}: the CPU against itself"
        assert 0 < float(away[1]) < 0.03, f"{name}: bf16 is coarser, and near"
        assert float(away[2]) < 1e-5
        assert (graphs, waits, report) == ("1 + 0", "0", "nothing")
    assert lines[-1] == "nothing to report"


def said(rows: list[MethodRow], **more: Any) -> list[str]:
    """What is printed of a checkup, line by line."""
    console = Console(width=200, highlight=False)
    with console.capture() as capture:
        found = Checkup(rows, more.get("floors"), 12.0)
        doctor_gpu.show(console, found, ABOUT)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_problems_are_numbered_and_counted() -> None:
    one = MethodRow("MAE", {"fp32": 1e-7}, (1, 1), 0, 3.21, 39_900.0, 0.382)
    two = MethodRow("DINO", {"fp32": 2e-2}, problems=["first", "second [x]"], left_out=["compiled"])
    lines = said([one, MethodRow("AE", problems=["zero"]), two], floors=Floors(8e14, 4e12))
    cells = {
        line.split("│")[0].strip(): [cell.strip() for cell in line.split("│")[1:]] for line in lines if "│" in line
    }
    assert cells["MAE"] == ["1.0e-07", "-", "-", "1 + 0", "0", "3.2", "39,900", "38.2%", "nothing"]
    assert cells["AE"][-1] == "1"
    assert cells["DINO"][-1] == "2, 3; no time: compiled"
    assert [line for line in lines if line[:1].isdigit()] == [
        "1. AE: zero", "2. DINO: first", "3. DINO: second [x]",
        "12 s in all; graphs: compiled in the first steps + later; waits: after the first steps",
        "3 to report: file all that is printed here as an issue",
    ]  # fmt: skip
    assert "not all fitted into 180 s: run it again, what was compiled is kept" in lines
    assert any("large products 800.00 TFLOP/s, memory 4,000 GB/s" in line for line in lines)
    assert "a card, commit abc, today, torch 2.15" in lines


@over(("rows", "code"), [([MethodRow("MAE")], 0), ([MethodRow("MAE"), MethodRow("AE", problems=["x"])], 1)])
def test_only_problems_fail(rows: list[MethodRow], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor_gpu, "check", lambda bench, say: Checkup(rows, None, 1.0))
        patch.setattr(doctor_gpu, "pick_device", lambda: CPU)
        assert cli.main(["doctor", "--gpu"]) == code
    assert capsys.readouterr().out.splitlines()[0].startswith(doctor_gpu.NO_GPU)


def test_a_driver_that_torch_cannot_use_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor_gpu.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor_gpu, "check", lambda bench, say: Checkup([MethodRow("MAE")], None, 1.0))
    monkeypatch.setattr(doctor_gpu, "pick_device", lambda: CPU)
    assert doctor_gpu.main() == 0
    assert capsys.readouterr().out.splitlines()[0] == doctor_gpu.NO_GPU + doctor_gpu.OLD_DRIVER


def test_a_folder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["doctor", "--gpu", "--out", "x"])
    assert "--out: got 'x' with --gpu, which writes nothing" in capsys.readouterr().err


def rehearsed(losses: list[float], waits: list[str] | None = None, graphs: tuple[int, int] = (0, 0)) -> Rehearsed:
    return Rehearsed(losses, waits or [], graphs)


LOSSES = [2.0, 1.0]
NAN = [2.0, float("nan")]
FINE = rehearsed(LOSSES)
FOUND: dict[str, tuple[list[Rehearsed], str]] = {
    "fp32": ([FINE, rehearsed([2.0, 1.1]), rehearsed([2.0, 1.1])], "losses in fp32 are 1.0e-01 from the CPU"),
    "bf16": ([FINE, FINE, rehearsed([2.0, 1.2])], "losses in bf16 are 2.0e-01 from float32"),
    "NaN": ([FINE, rehearsed(NAN), FINE], "losses in fp32 are nan from the CPU"),
    "waits": ([FINE, rehearsed(LOSSES, ["a.py:3"] * 4), FINE], "waits for the device at a.py"),
}
"""What the CPU, float32 and bf16 give, and the line that follows."""


@over("case", FOUND)
def test_what_is_off_is_a_problem(case: str) -> None:
    results, line = FOUND[case]
    row, left = MethodRow("MAE"), list(results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkup, "Prepared", lambda *_, **__: type("P", (), {"watched": lambda self: left.pop(0)})())
        compare(bench_of(CPU), row, None)  # type: ignore[arg-type]
    assert any(problem.startswith(line) for problem in row.problems), row.problems
    assert row.waits == 4 * (case == "waits")


def test_graphs_compiled_later_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    given = rehearsed(LOSSES, ["b.py:7"], (1, 3))
    monkeypatch.setattr(checkup, "Prepared", lambda *_, **__: type("P", (), {"watched": lambda self: given})())
    row = MethodRow("MAE")
    checkup.compile_and_compare(bench_of(CPU), row, None, rehearsed([2.0, 1.5]))  # type: ignore[arg-type]
    assert row.problems == [
        "losses in compiled are 3.3e-01 from the eager ones, expected at most 1e-03",
        "compiled 1 graphs in the first steps and 2 after, expected one and none",
        "compiled, waits for the device at b.py:7",
    ]


def test_a_planted_wait_is_found_in_the_real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, read_back)
    row, bench = MethodRow("MAE"), bench_of(CPU)
    compare(bench, row, few_pictures(bench.small))
    assert row.waits == 2 * (checkup.STEPS - 2), "in float32 and bf16, each step after the warm-up"
    assert [problem.rpartition(":")[0] for problem in row.problems] == ["waits for the device at models/encoder.py"]


def test_what_breaks_is_a_finding_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(checkup, "compare", lambda bench, row, source: rehearsed(LOSSES))
    monkeypatch.setattr(checkup, "compile_and_compare", lambda *_: None)
    monkeypatch.setattr(checkup, "rates_of", lambda bench: Floors(1e12, 1e12))
    monkeypatch.setattr(checkup, "time_step", broken)
    told: list[str] = []
    found = check(bench_of(CPU), ("MAE", "AE"), told.append)
    assert [row.problems for row in found.rows] == [["timing failed: OutOfMemoryError: CUDA out of memory."]] * 2
    assert told == [
        f"{m}: {what}" for what in ("float32 and bf16", "time of a step", "compiled") for m in ("MAE", "AE")
    ]


def test_what_there_is_no_time_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "compare", lambda bench, row, source: rehearsed(LOSSES))
    monkeypatch.setattr(checkup, "LAST_TIMING", 0.0)
    monkeypatch.setattr(checkup, "LAST_COMPILATION", 0.0)
    found = check(bench_of(CPU), ("MAE",))
    assert found.rows[0].left_out == ["timing", "compiled"]
    assert found.rows[0].problems == []


def test_a_step_is_timed_and_no_floor_is_beaten() -> None:
    bench, row = bench_of(CPU), MethodRow("DINO")
    source = few_pictures(bench.small)
    checkup.time_step(bench, row, source, Floors(1e13, 1e13))
    assert row.problems == []
    assert row.share is not None
    assert row.milliseconds is not None
    assert row.images_per_s == pytest.approx(1e3 / row.milliseconds), "a quarter of 4 images"
    assert 0 < row.share < 1
    checkup.time_step(bench, row, source, Floors(1e3, 1e13))
    assert "rates or formulas are wrong" in row.problems[0]


def test_memory_chooses_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    for memory, batch in ((80e9, 128), (24e9, 32), (8e9, 8)):
        monkeypatch.setattr(CARD, "total_memory", memory)
        with stand_in():
            bench = bench_of(torch.device("cuda", 0))
        assert (bench.backend, bench.timed.optim.batch_size, bench.timed.optim.precision) == ("inductor", batch, "bf16")
        assert (bench.timed.model.width, bench.timed.data.image_size, bench.timed.runtime.compile) == (
            768,
            (224, 224),
            False,
        )
        assert all(replace(bench.timed, leaves).optim.batch_size == batch for leaves in METHODS.values()), (
            "all are valid"
        )
        assert bench.small.runtime.device == bench.timed.runtime.device == "cuda:0"


def test_curves_are_compared_as_shares() -> None:
    assert furthest([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="longer"):
        furthest([1.0], [1.0, 2.0])


def test_the_median_leaves_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([9.0, 9.0, 1.0, 3.0, 2.0])
    monkeypatch.setattr("lcmae_core.bench.rehearsal.timed", lambda call, device, clock: next(times))
    assert Prepared(bench_of(CPU).small, steps=5).seconds() == 2.0
