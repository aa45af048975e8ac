"""How cost grows is measured of what is said, fitted as is said, and extrapolated by a mean.

Claims: a known power comes back with an interval that holds it; the peak of memory is that of what was inside; hours
are images over the rate of batches; what is recorded is whole and its figure is there.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import growth
from benchmarks.memory import RESET, Peak

ROOT = Path(__file__).parents[2]
linux = pytest.mark.skipif(not RESET.exists(), reason="the kernel does not say the peak")


def test_a_known_power_comes_back() -> None:
    rows = [{"flops": x, "seconds": 3 * x**0.8 * math.exp(0.01 * (-1) ** x)} for x in range(1, 9)]
    found = growth.exponent(rows)
    assert found["low"] < 0.8 < found["high"]
    assert found["high"] - found["low"] < 0.05
    exact = growth.exponent([{"flops": x, "seconds": 2.0 * x} for x in (1, 2, 4)])
    assert (exact["slope"], exact["low"]) == (pytest.approx(1), pytest.approx(1))


@linux
def test_the_peak_is_that_of_what_was_inside() -> None:
    big = 200 * 2**20
    with Peak() as peak:
        torch.ones(big // 4).sum()
        torch.ones(1000).sum()
    assert peak.mib == pytest.approx(200, abs=60)
    with Peak() as after:
        torch.ones(1000).sum()
    assert after.mib < 60, "what was freed before does not count"


def test_hours_are_images_over_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(growth, "fair_clock", lambda: float(next(ticks)))

    def twice(source: Callable[[], Iterator[Tensor]]) -> None:
        for _ in range(2):
            assert sum(1 for _ in source()) == 4

    found = growth.stream(twice, torch.zeros(5, 1), 3)
    assert found["passes"] == 2
    assert found["batch_seconds"] == [2.0, 2.0, 2.0], "a second in each pass, the first batch left out"
    assert found["hours"] == pytest.approx(growth.IMAGES / 5 * 2 / 3600)
    assert found["hours_low"] == pytest.approx(found["hours"])


@linux
def test_a_point_counts_what_it_runs() -> None:
    small = growth.point("mask_ratio", 0.75, True)
    large = growth.point("mask_ratio", 0.1, True)
    assert small["tokens"] == (2 * (1 + 4), 2 * (1 + 16))
    assert large["tokens"] == (2 * (1 + 14), 2 * (1 + 16))
    assert large["flops"] > small["flops"]
    assert small["images_per_s"] == pytest.approx(2 / small["seconds"])


def test_what_is_recorded_is_whole() -> None:
    found = json.loads((ROOT / "benchmarks/results/growth.json").read_text())
    assert not found["quick"]
    assert {axis: [row["value"] for row in rows] for axis, rows in found["points"].items()} == {
        axis: list(values) for axis, values in growth.AXES.items()
    }
    assert all(one["low"] <= one["slope"] <= one["high"] for one in found["exponents"].values())
    assert {"load_before", "others_share", "device", "commit", "date"} <= set(found)
    assert (ROOT / "outputs/reference/growth.png").stat().st_size > 10_000
