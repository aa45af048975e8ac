"""Files that are whole or absent: atomic writes, and checkpoints whose every byte is checked by a sha256 manifest."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lcmae_core.config import LcmaeError

MANIFEST = "manifest.json"


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary neighbour, flush it to disk, then put it in the place of `path` in one move."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Plain data as a JSON file, atomically; on one line without `indent`, which halves what is mostly numbers."""
    write_atomic(path, lambda p: p.write_text(json.dumps(content, indent=indent, sort_keys=True) + "\n"))


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A state dict as safetensors, atomically."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomic(path, lambda p: save_file(plain, p, metadata))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict in a safetensors file.

    Raises:
        LcmaeError: the file is missing or broken.
    """
    try:
        return load_file(path)
    except Exception as error:
        raise LcmaeError(f"weights: got {str(path)!r}, expected a readable safetensors file ({error})") from None


def save_checkpoint(folder: Path, step: int, model: dict[str, Tensor], rest: dict[str, Any], keep: int = 2) -> None:
    """Write `folder/step-<n>/` whole or not at all (weights, everything else, manifest); keep the newest few.

    The folder above `folder` is not made anew: who removed it wants no checkpoint in it.
    """
    target = folder / f"step-{step:08d}"
    temporary = folder / f".{target.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    temporary.mkdir()
    save_tensors(temporary / "model.safetensors", model)
    torch.save({"step": step, **rest}, temporary / "rest.pt")
    _flush(temporary / "rest.pt")
    write_manifest(temporary)
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    _flush(folder)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Weights and the rest of the newest checkpoint whose bytes agree with its manifest; None if there is none."""
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        if broken := damaged(candidate):
            print(f"checkpoint {candidate.name} is left out: {', '.join(broken)} damaged", file=sys.stderr)
        else:
            rest = torch.load(candidate / "rest.pt", map_location="cpu", weights_only=True)
            return load_tensors(candidate / "model.safetensors"), rest
    return None


def write_manifest(folder: Path) -> None:
    """Size and sha256 of every file in the folder, into its manifest.json."""
    files = {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in sorted(folder.iterdir()) if f.is_file()}
    write_json(folder / MANIFEST, {name: entry for name, entry in files.items() if name != MANIFEST})


def damaged(folder: Path) -> list[str]:
    """Files that are missing or differ from the manifest (the manifest itself, where that cannot be read)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return [MANIFEST]
    return [name for name, entry in manifest.items() if not _intact(folder / name, entry["sha256"])]


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _flush(path: Path) -> None:
    """Force a file (or a folder's entries) to the disk, so that a rename never outruns the bytes it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
