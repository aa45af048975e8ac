"""A benchmark says whether it had the machine to itself.

Claims: what this process and its ended children compute is no other work; what others compute is, as a share of all
cores; from a twentieth on it is said in words.
"""

import os
import subprocess
import sys
import time

import pytest

from lcmae_core.bench import company
from lcmae_core.bench.company import NOTICED, Company, busy

BURN = "import time; b = time.process_time()\nwhile time.process_time() - b < 0.5: pass"


def test_own_work_and_that_of_children_is_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    before = company.own_seconds()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert 0.5 <= company.own_seconds() - before < 2


def test_the_share_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    every, own, clock = iter([100.0, 112.0]), iter([3.0, 8.0]), iter([50.0, 57.0])
    monkeypatch.setattr(company, "all_seconds", lambda: next(every))
    monkeypatch.setattr(company, "own_seconds", lambda: next(own))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    said = Company().record()
    assert said["others_share"] == 0.5, "of 12 seconds 5 were ours, and 7 of 2 x 7 there were others'"
    assert said["seconds"] == 7.0
    assert busy(said) == "The machine had other work: 50% of its processor time."
    assert busy(said | {"others_share": NOTICED / 2}) is None
    assert busy(said | {"others_share": None}) is None


def test_the_machine_counts_all_work() -> None:
    before = company.all_seconds()
    if before is None:
        pytest.skip("the system does not say what was computed")
    subprocess.run([sys.executable, "-c", BURN], check=True)
    assert (company.all_seconds() or 0) - before >= 0.4
