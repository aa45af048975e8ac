"""The history of a run: one line of JSON for each logged step."""

import json
import sys
from pathlib import Path


def read_history(file: Path) -> list[dict[str, float]]:
    """One entry for each logged step, in order; none where there is no file.

    A last line that is torn (by a full disk, a loss of power) is left out: the step comes again. Damaged ones before it
    are left out too, and said: what was trained does not depend on them.
    """
    lines = file.read_text(errors="replace").splitlines() if file.exists() else []
    if lines and not lines[-1].endswith("}"):
        lines.pop()
    entries = {number: _entry(line) for number, line in enumerate(lines, 1)}
    if broken := [str(number) for number, entry in entries.items() if entry is None]:
        many = "s" * (len(broken) > 1)
        print(f"{file.parent.name}: line{many} {', '.join(broken)} of {file.name} damaged, left out", file=sys.stderr)
    return [entry for entry in entries.values() if entry is not None]


def _entry(line: str) -> dict[str, float] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    numbers = isinstance(entry, dict) and all(isinstance(value, int | float) for value in entry.values())
    return entry if numbers and isinstance(entry.get("step"), int) else None
