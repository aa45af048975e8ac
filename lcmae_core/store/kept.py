"""How long was spent on what is kept for the next time: trained runs and recorded measures.

Who executes a notebook asks for it by an environment variable, and knows then what the notebook takes without them.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

KEPT = "LCMAE_KEPT"
"""Environment variable: the file to which each run and measure adds a line, when it ended and the seconds it took."""


def note_kept(seconds: float) -> None:
    """Something that took so long has just been kept. Nobody fails for want of an estimate."""
    if os.environ.get(KEPT):
        with suppress(OSError), Path(os.environ[KEPT]).open("a") as file:
            file.write(f"{time.time():.3f} {seconds:.3f}\n")


def kept_seconds(file: Path, since: float) -> float:
    """Seconds after `since` (by `time.time`) that went into what was kept; a measure that trains a run counts once."""
    try:
        words = [line.split() for line in file.read_text().splitlines()]
        spans = sorted((float(end) - float(seconds), float(end)) for end, seconds in words)
    except (OSError, ValueError):  # it is not there, or a full disk has torn a line
        return 0.0
    total, before = 0.0, since
    for start, end in spans:
        total += max(0.0, end - max(start, before))
        before = max(before, end)
    return total
