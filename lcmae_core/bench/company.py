"""Whether a benchmark had the machine to itself: what else computed while it ran, and the load averages around it."""

import os
import time
from collections.abc import Mapping
from typing import Any

from lcmae_core.store.cores import ticks

NOTICED = 0.05
"""Share of the machine's processor time from which other work is said in words."""


class Company:
    """Begun with a benchmark; `record` at its end, when its own processes are gone, is what a record keeps."""

    def __init__(self) -> None:
        self._load, self._began = _load(), time.perf_counter()
        self._all, self._own = all_seconds(), own_seconds()

    def record(self) -> dict[str, Any]:
        """Load averages before and after, seconds, and the share of the machine's processor time that others had."""
        seconds, share = time.perf_counter() - self._began, None
        if self._all is not None and (now := all_seconds()) is not None:
            others = (now - self._all) - (own_seconds() - self._own)
            share = round(max(0.0, others / (seconds * (os.cpu_count() or 1))), 3)
        return {"load_before": self._load, "load_after": _load(), "seconds": round(seconds, 1), "others_share": share}


def busy(result: Mapping[str, Any]) -> str | None:
    """A sentence if others computed while a record was made."""
    share = result["others_share"]
    if share is None or share < NOTICED:
        return None
    return f"The machine had other work: {share:.0%} of its processor time."


def _load() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def all_seconds() -> float | None:
    """Processor seconds of everything since the machine started; None where they are not said."""
    if (of := ticks().get("cpu")) is None:
        return None
    return (of.user + of.nice + of.system + of.irq + of.softirq) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Processor seconds of this process and of its children that ended."""
    return sum(os.times()[:4])
