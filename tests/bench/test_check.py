"""`lcmae bench --check` compares ratios with recorded ratios, and a slow-down turns it red.

Claims: equal ratios pass, whatever the times; a contestant of ours that sleeps, or a ratio below 0.9 of the recorded
one, fails with one line that names it; nothing is compared with another kind of processor or another shape; the table
of the README is that of the record.
"""

import json
import time
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from lcmae_core import bench
from lcmae_core.bench import workers
from lcmae_core.bench.cases import Shape
from lcmae_core.bench.check import LEAST, judge, kind_of_processor, record_of
from lcmae_core.bench.company import busy
from lcmae_core.bench.table import markdown
from lcmae_core.bench.workers import About
from tests.bench.test_bench import Here
from tests.loops import over

ROOT = Path(__file__).parents[2]
WORDS = ["--quick", "--image-size", "32", "--cases", "desk", "--steps", "3"]


class Fixed:
    """Takes as long as is said, in a machine of some speed."""

    times: ClassVar[dict[str, float]] = {"mae": 1.0, "textbook": 1.5, "lcmae": 3.0}
    speed = 1.0

    def __init__(self, name: str, shape: Shape, threads: int | None):
        self.name, self.about = name, About(10, (4, 4), 5, False)

    def seconds(self) -> float:
        return self.times[self.name] / self.speed

    def peak_mib(self) -> float | None:
        return None

    def stop(self) -> None:
        pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a record of three contestants that take as long as is said."""
    monkeypatch.setattr(workers, "start", Fixed)
    assert bench.main([*WORDS, "--models", "mae,textbook,lcmae", "--record", str(tmp_path)]) == 0
    return tmp_path


def test_equal_ratios_pass_on_a_slower_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Fixed, "speed", 0.1)
    capsys.readouterr()
    assert bench.main([*WORDS, "--check", str(folder)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "bench-check: desk: mae/textbook: got 1.500 [1.500, 1.500], expected at least 1.350, 0.9 of the recorded 1.500",
        "bench-check: desk: lcmae/mae: got 0.333 [0.333, 0.333], expected at least 0.300, 0.9 of the recorded 0.333",
    ]


@over(("slower", "code"), [(1.05, 0), (1.2, 1)])
def test_a_ratio_below_nine_tenths_fails(
    slower: float, code: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Fixed, "times", Fixed.times | {"lcmae": 3.0 * slower})
    assert bench.main([*WORDS, "--check", str(folder)]) == code
    fallen = [line for line in capsys.readouterr().err.splitlines() if line.startswith("bench-check")]
    assert len(fallen) == code
    assert all(line.startswith("bench-check: desk: lcmae/mae: got 0.278") for line in fallen)


def test_a_contestant_that_sleeps_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Sleeping(Here):
        def seconds(self) -> float:
            step = self.step
            if self.about.parameters == self.slow:
                self.step = lambda: (time.sleep(2.0), step())
            try:
                return super().seconds()
            finally:
                self.step = step

        slow = -1

        def __init__(self, name: str, shape: Shape, threads: int | None):
            super().__init__(name, shape, threads)
            self.about = self.about._replace(parameters=-1 if name == "mae" and Sleeping.planted else 1)

        planted = False

    monkeypatch.setattr(workers, "start", Sleeping)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert bench.main([*WORDS, "--models", "mae,textbook", "--record", str(tmp_path)]) == 0
        monkeypatch.setattr(Sleeping, "planted", True)
        assert bench.main([*WORDS, "--check", str(tmp_path)]) == 1
    finally:
        torch.set_num_threads(before)
    assert "bench-check: desk: mae/textbook: got 0.0" in capsys.readouterr().err


def test_nothing_is_compared_with_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main([*WORDS, "--check", str(tmp_path)]) == 0
    assert f"nothing is recorded for a processor of kind {kind_of_processor()}" in capsys.readouterr().out


@over(
    ("words", "line"),
    [
        (["--batch", "3"], "bench: check: batch: got 3, expected 2 as recorded"),
        (["--image-size", "64"], "bench: check: image_size: got 64, expected 32 as recorded"),
        (["--cases", "vit-b"], "bench: check: got case 'vit-b', expected one that is recorded: desk"),
    ],
)
def test_another_shape_is_refused(
    words: list[str], line: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert bench.main([*WORDS, *words, "--check", str(folder)]) == 2
    assert capsys.readouterr().err == f"lcmae: error: {line}\n"


def test_who_is_not_there_is_left_out_by_name(folder: Path) -> None:
    committed = json.loads(record_of(folder, kind_of_processor()).read_text())
    case = {"ratios": {}, "left_out": {"textbook": "failed: OSError: gone"}}
    said = judge({"cases": {"desk": case}}, committed)
    assert said.lines[0] == "bench-check: desk: mae/textbook: left out: textbook failed: OSError: gone"
    assert not said.fallen


def test_kinds_of_processors(tmp_path: Path) -> None:
    widest = torch.backends.cpu.get_cpu_capability().lower()
    info = tmp_path / "cpuinfo"
    for text, kind in (
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\n", f"amd-1ah-{widest}"),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\n", f"intel-06h-{widest}"),
    ):
        info.write_text(text)
        assert kind_of_processor(info) == kind


def test_the_table_of_the_readme_is_that_of_a_record() -> None:
    records = [json.loads(path.read_text()) for path in (ROOT / "benchmarks/results").glob("peers-*.json")]
    assert records
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert any(markdown(record) in text for record in records)
    for record in records:
        assert not record["quick"]
        assert all(case["rounds"] >= 15 for case in record["cases"].values())
        assert busy(record) is None or busy(record) in text, "a busy machine is said to have been one"
    assert LEAST == 0.9
