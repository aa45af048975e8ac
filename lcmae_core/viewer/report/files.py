"""Files of an output folder, read where they may be missing, and written whole or not at all."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object, or an empty one where there is none or it is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_page(text: str, target: Path) -> Path:
    """Write a page atomically and return where it is."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".report-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).chmod(0o644)
    Path(name).replace(target)
    return target
