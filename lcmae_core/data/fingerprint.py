"""What files hold, in ten hex digits: the same on every machine and under every path.

Relative names and sizes of all files count, and the content of 256 of them, evenly spaced in the order of their names;
of a large file (a shard, a table) evenly spaced blocks. No time stamp and no absolute path counts. What this does not
see: a change that keeps every name and size and lies in none of the files or blocks that are read.
"""

import json
import os
import stat
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np

FILES, BLOCKS, BLOCK = 256, 256, 2**16
"""Files that are read at most, blocks of them in all (at least `WHOLE` a file), and bytes of a block."""
WHOLE = 16
"""Blocks of a file that is read whole, however many files there are: photographs up to 1 MB."""


def fingerprint(files: Iterable[tuple[str, Path]]) -> str:
    """Digest of (name, place) pairs; the names count in one Unicode form, in any order."""
    listing = sorted((unicodedata.normalize("NFC", name), *_looked_at(place), str(place)) for name, place in files)
    chosen = evenly(len(listing), FILES)
    blocks = max(WHOLE, BLOCKS // max(1, len(chosen)))
    contents = [content_digest(listing[i][3], listing[i][1], listing[i][2], blocks) for i in chosen]
    text = json.dumps([[entry[:2] for entry in listing], contents])
    return sha256(text.encode()).hexdigest()[:10]


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` numbers, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist() if count else []


def _looked_at(place: Path) -> tuple[int, int]:
    """Size, and when it was changed (which only says whether to read it again); -1 for what is no readable file."""
    try:
        status = os.stat(place)
    except OSError:
        return -1, 0
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (-1, 0)


@lru_cache(maxsize=2**14)
def content_digest(place: str, size: int, changed: int, blocks: int) -> str:
    """Digest of a file, or of evenly spaced blocks of one that is larger."""
    if size < 0:
        return ""
    starts = range(0, size, BLOCK) if size <= blocks * BLOCK else np.linspace(0, size - BLOCK, blocks).astype(int)
    digest = sha256()
    try:
        with Path(place).open("rb") as file:
            for start in starts:
                file.seek(int(start))
                digest.update(file.read(BLOCK))
    except OSError:  # it cannot be read: opening the picture will say so
        return "unreadable"
    return digest.hexdigest()
