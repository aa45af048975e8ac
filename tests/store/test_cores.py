"""Claims: threads that wait for work sleep soon, unless the user said otherwise or torch was there first; a notebook in
which it was takes as many threads as there are idle cores, at least one; niced processes count as idle."""

import os
import subprocess
import sys

import pytest
import torch

from lcmae_core.store import cores, machine

SAY = "import os, lcmae_core; print(os.environ.get('GOMP_SPINCOUNT'), lcmae_core.CALM)"


def spins(code=SAY, **environment):
    """What a new process says of how its threads wait."""
    around = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=around).stdout.split()


def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise():
    assert spins() == ["1000", "True"]
    assert spins(GOMP_SPINCOUNT="7") == ["7", "True"]
    assert spins(OMP_WAIT_POLICY="ACTIVE") == ["None", "True"]
    assert spins(f"import sys; sys.modules['torch'] = sys; {SAY}") == ["None", "False"]


def stat(folder, *lines):
    """A file such as /proc/stat: user nice system idle iowait irq softirq steal of each core."""
    file = folder / "stat"
    file.write_text(
        "cpu 1 1 1 1 1 1 1 1\n" + "".join(f"cpu{i} {line} 0 0\n" for i, line in enumerate(lines)) + "intr 5\n"
    )
    return file


def test_idle_cores_are_those_that_nobody_needs_or_only_the_nice_do(tmp_path, monkeypatch):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    monkeypatch.setattr(cores, "STAT", stat(tmp_path, "0 0 0 0 0 0 0 0", "9 9 9 9 9 9 9 9", "5 0 0 0 0 0 0 0"))
    later = ("50 0 0 50 0 0 0 0", "99 9 9 9 9 9 9 9", "5 80 0 20 0 0 0 0")
    monkeypatch.setattr(cores.time, "sleep", lambda _: stat(tmp_path, *later))
    assert cores.idle_cores() == pytest.approx(0.5 + 1.0)
    monkeypatch.setattr(cores, "STAT", tmp_path / "none")
    assert cores.idle_cores() is None


@pytest.mark.parametrize(("idle", "threads"), [(0.2, 1), (0.9, 1), (1.8, 2), (9.0, 2)])
def test_a_notebook_leaves_room_for_what_else_runs(idle, threads, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(machine, "CALM", False)
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    monkeypatch.setattr(machine, "idle_cores", lambda: idle)
    before = torch.get_num_threads()
    try:
        assert machine.leave_room() == before, "no notebook"
        monkeypatch.setattr(machine, "in_notebook", lambda: True)
        assert machine.leave_room() == torch.get_num_threads() == threads
        torch.set_num_threads(before)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert machine.leave_room() == before, "the user said how many"
        monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setattr(machine, "CALM", True)
        assert machine.leave_room() == before, "they sleep"
    finally:
        torch.set_num_threads(before)
