"""The processor cores that this process may use, and how many of them are idle."""

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")


def usable_cores() -> int:
    """Their number: those it is bound to, where the system says that."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def idle_cores(seconds: float = 0.1) -> float | None:
    """How many of the usable cores nobody needed for so long; processes that were told to be nice give way and count as
    idle. None where the system does not say it."""
    before = _ticks()
    if not before:
        return None
    time.sleep(seconds)
    shares = [(now[0] - then[0]) / max(now[1] - then[1], 1) for then, now in zip(before, _ticks())]
    return sum(shares)


def _ticks() -> list[tuple[int, int]]:
    """(idle, all) ticks of each usable core since the machine started."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    found = []
    for line in STAT.read_text().splitlines() if STAT.exists() else ():
        name, *numbers = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(number) for number in numbers[:8]]  # user nice system idle iowait irq softirq steal
            found.append((ticks[1] + ticks[3] + ticks[4], sum(ticks)))
    return found
