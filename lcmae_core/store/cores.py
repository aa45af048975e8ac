"""The processor cores that this process may use."""

import os


def usable_cores() -> int:
    """Their number: those it is bound to, where the system says that."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
