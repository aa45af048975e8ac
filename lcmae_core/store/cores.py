"""The processor: whose it is, the cores that this process may use, what they did, and how many are idle."""

import os
import platform
import re
import time
from pathlib import Path
from typing import NamedTuple

STAT = Path("/proc/stat")


def usable_cores() -> int:
    """Their number: those it is bound to, where the system says that."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def started_processes() -> int:
    """How many torchrun has started for one work, on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


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
    mine = [of for name, of in ticks().items() if name[3:].isdigit() and int(name[3:]) in cores]
    return [(of.nice + of.idle + of.iowait, sum(of)) for of in mine]


class Ticks(NamedTuple):
    """What a core did since the machine started, in ticks (proc(5))."""

    user: int
    nice: int
    system: int
    idle: int
    iowait: int
    irq: int
    softirq: int
    steal: int


def ticks() -> dict[str, Ticks]:
    """By name: cpu0 and so on, and cpu for all together; empty where the system does not say it."""
    lines = [line.split() for line in STAT.read_text().splitlines()] if STAT.exists() else []
    return {name: Ticks(*map(int, numbers[:8])) for name, *numbers in lines if name.startswith("cpu")}


class Processor(NamedTuple):
    """Maker ("amd", "intel", "" where another or none is said) and family (0 where none is)."""

    maker: str
    family: int


def processor(listed: Path = Path("/proc/cpuinfo")) -> Processor:
    """By /proc/cpuinfo on Linux, by the processor's name elsewhere."""
    text = listed.read_text() if listed.exists() else platform.processor()
    maker = re.search("AuthenticAMD|GenuineIntel", text)
    family = re.search(r"(?i)(?:cpu family\s*:|family) (\d+)", text)
    makers = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}
    return Processor(makers[maker[0]] if maker else "", int(family[1]) if family else 0)
