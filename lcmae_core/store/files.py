"""Files that are whole or absent: atomic writes, JSON that may be damaged, and a full disk said in one line."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lcmae_core.config import LcmaeError

FULL = (errno.ENOSPC, errno.EDQUOT)
SEAL = "sha256_of_rest"
"""Key of a sealed JSON object: the sha256 of all else that it holds. A flipped bit inside a number is valid JSON."""


class DiskFullError(LcmaeError):
    """A file found no room: failed work, not a user's mistake. What was there before is intact."""

    exit_code = 1


class DamagedError(LcmaeError):
    """A file is not what was written."""


@contextmanager
def room_for(path: Path, needed: int | None = None) -> Iterator[None]:
    """Say of a full disk which file of how many bytes did not fit, however a library says it.

    Raises:
        DiskFullError: it is full.
    """
    try:
        yield
    except Exception as error:
        if not _full(error, path, needed):
            raise
        size = "more" if needed is None else f"{needed:,} bytes"
        line = f"disk: {str(path)!r} got {free_bytes(path):,} bytes of room, expected {size}"
        raise DiskFullError(f"{line}; what was there before is intact") from None


def _full(error: Exception, path: Path, needed: int | None) -> bool:
    """Whether an error comes from a full disk: safetensors has only a text for it, torch.save not even that."""
    if isinstance(error, DiskFullError):  # of a part: the whole says it
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    if "No space left on device" in str(error):
        return True
    return isinstance(error, RuntimeError) and "inline_container" in str(error) and free_bytes(path) < (needed or 4096)


def free_bytes(path: Path) -> int:
    """Room on the disk on which a path lies or would lie."""
    parent = next(p for p in path.absolute().parents if p.exists())
    return shutil.disk_usage(parent).free


def write_atomic(path: Path, write: Callable[[Path], object], needed: int | None = None) -> None:
    """Let `write` fill a temporary neighbour, flush it to disk, then put it in the place of `path` in one move.

    Raises:
        DiskFullError: there is no room for it (`needed` bytes, where that is known).
    """
    temporary: Path | None = None
    try:
        with room_for(path, needed):
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=path.suffix)
            os.close(handle)
            temporary = Path(name)
            write(temporary)
            temporary.chmod(0o644)
            flush(temporary)
            temporary.replace(path)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_begun(path: Path) -> None:
    """Remove what killed processes began to write in place of `path` (or of a pattern), for its only writer."""
    for left in path.parent.glob(f".{path.name}-*"):
        left.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A text as UTF-8, atomically.

    Raises:
        DiskFullError: there is no room for it.
    """
    content = text.encode()
    write_atomic(path, lambda p: p.write_bytes(content), len(content))


def write_json(path: Path, content: Any, *, indent: int | None = 1, sealed: bool = False) -> None:
    """Plain data as a JSON file, atomically; on one line without `indent`, which halves what is mostly numbers.

    sealed: an object gets its own sha256, by which `read_json` sees later that it is what was written.

    Raises:
        DiskFullError: there is no room for it.
    """
    if sealed:
        rest = json.loads(json.dumps(content))  # as it will be read: keys are texts, tuples are lists
        content = rest | {SEAL: _seal_of(rest)}
    write_text(path, json.dumps(content, indent=indent, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object, without its seal. One that was written before there were seals has none, and is taken.

    Raises:
        DamagedError: it cannot be read, is empty or cut off, is no object, or is not what was sealed.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DamagedError(f"{path.name}: got {str(path)!r}, expected a readable file ({error.strerror})") from None
    except (ValueError, RecursionError):
        size = path.stat().st_size
        what = "which is empty" if size == 0 else f"{size} bytes that are no JSON"
        raise DamagedError(f"{path.name}: got {str(path)!r}, {what}, expected it as it was written") from None
    if not isinstance(content, dict):
        raise DamagedError(f"{path.name}: got a {type(content).__name__} in {str(path)!r}, expected an object")
    seal = content.pop(SEAL, None)
    if any(map(_near_seal, content)) or (seal is not None and seal != _seal_of(content)):
        raise DamagedError(
            f"{path.name}: got {str(path)!r}, which is damaged or was edited: it differs from its own sha256, expected "
            f"it as it was written: delete it and give the command again, or take {SEAL!r} out of it to keep an edit"
        )
    return content


def _seal_of(rest: Any) -> str:
    """The same of equal contents, however they are laid out."""
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _near_seal(key: str) -> bool:
    """Whether a key is the seal's but for one character: with a bit of its name flipped it would go unseen."""
    return len(key) == len(SEAL) and sum(one != other for one, other in zip(key, SEAL)) == 1


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Force a file (or a folder's entries) to the disk, so that a rename never outruns the bytes it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
