"""The most memory that a part of this process takes, by what Linux counts: freed pages are handed back before."""

import ctypes
import gc
from pathlib import Path
from types import TracebackType
from typing import Self

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
KIB = 1024


class Peak:
    """Inside, the peak of resident memory is counted from what was resident at the start; `mib` when it is left."""

    def __init__(self) -> None:
        self.mib = 0.0
        self._before = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        RESET.write_text("5")  # the kernel's mark of the highest begins anew (proc(5))
        self._before = self.resident()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mib = said("VmHWM") - self._before
        gc.collect()

    @staticmethod
    def resident() -> float:
        """MiB now."""
        return said("VmRSS")


def said(name: str) -> float:
    """MiB of a line of this process's status."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) / KIB
