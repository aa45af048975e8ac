"""Checkpoints whose every byte is checked by a sha256 manifest, and state dicts as safetensors."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lcmae_core.config import LcmaeError
from lcmae_core.store.files import flush, room_for, sha256, write_atomic, write_json

__all__ = [
    "Shards", "damaged", "load_checkpoint", "load_rest", "load_tensors", "newest", "save_checkpoint",
    "save_shared", "save_tensors", "sha256", "write_atomic",
    "write_json", "write_manifest",
]  # fmt: skip
MANIFEST = "manifest.json"
REST = "rest.pt"
"""What a checkpoint has beside the weights."""
WEIGHTS = "model.safetensors"
"""In a checkpoint of one process; where it is not there, processes wrote their shards (`save_shared`)."""


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A state dict as safetensors, atomically.

    Raises:
        DiskFullError: there is no room for it.
    """
    # safetensors writes no strided tensor
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomic(path, lambda p: save_file(plain, p, metadata), _bytes(plain))


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

    Raises:
        DiskFullError: there is no room for it; the checkpoints before it stay.
    """
    target = folder / f"step-{step:08d}"
    # beside its target, for within one disk a rename is one move; hidden, so that `newest` does not see it
    temporary = folder / f".{target.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    try:
        with room_for(target, _bytes(model) + _bytes(rest)):
            temporary.mkdir()
            save_tensors(temporary / WEIGHTS, model)
            _complete(temporary, target, {"step": step, **rest}, keep)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Shards(NamedTuple):
    """How several processes write one checkpoint together. write: this one's share, into a folder; all call it at once.
    size: bytes of all shares. first: whether this one does the rest. wait: until all are here."""

    write: Callable[[Path], None]
    size: int
    first: bool
    wait: Callable[[], None]


def save_shared(folder: Path, step: int, rest: dict[str, Any], shards: Shards, keep: int = 2) -> None:
    """As `save_checkpoint`, weights and optimiser written by all processes at once; every one has to call it.

    Raises:
        DiskFullError: there is no room for it, in every process; the checkpoints before it stay.
    """
    target = folder / f"step-{step:08d}"
    # one name for all ranks, each of which has a process id of its own
    temporary = folder / f".{target.name}-shards"
    if shards.first:
        shutil.rmtree(temporary, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        temporary.mkdir()
    shards.wait()  # nobody writes into a folder that the first has yet to make
    try:
        with room_for(target, shards.size):
            shards.write(temporary)
            shards.wait()  # the manifest has a digest of every share
            if shards.first:
                _complete(temporary, target, {"step": step, **rest}, keep)
    finally:
        if shards.first:
            shutil.rmtree(temporary, ignore_errors=True)
    shards.wait()  # no rank trains on before the checkpoint has its name


def _complete(temporary: Path, target: Path, rest: dict[str, Any], keep: int) -> None:
    """Add what is no weight and the manifest, give the folder its name, and drop old ones."""
    torch.save(rest, temporary / REST)
    flush(temporary / REST)
    write_manifest(temporary)
    shutil.rmtree(target, ignore_errors=True)  # a damaged one of this step: nothing is renamed onto a full folder
    temporary.rename(target)
    flush(target.parent)  # the new name is an entry of the folder above
    # only now: until the new one has its name, the old ones are all there is
    for old in sorted(target.parent.glob("step-*"))[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Weights and the rest of the newest checkpoint whose bytes agree with its manifest; None if there is none."""
    newest_whole = newest(folder)
    return None if newest_whole is None else (load_tensors(newest_whole / WEIGHTS), load_rest(newest_whole))


def newest(folder: Path) -> Path | None:
    """The newest checkpoint whose bytes agree with its manifest; None if there is none."""
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        if not (broken := damaged(candidate)):
            return candidate
        print(f"checkpoint {candidate.name} is left out: {', '.join(broken)} damaged", file=sys.stderr)
    return None


def load_rest(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint has beside the weights."""
    return torch.load(checkpoint / REST, map_location="cpu", weights_only=True)  # else a pickle may run code


def remove_begun_checkpoints(folder: Path) -> None:
    """Remove those that killed processes did not finish, which have no name yet, for the folder's only writer."""
    for left in folder.glob(".step-*"):
        shutil.rmtree(left, ignore_errors=True)


def write_manifest(folder: Path) -> None:
    """Size and sha256 of every file in the folder, into its manifest.json."""
    files = {f.name: {"bytes": f.stat().st_size, "sha256": sha256(f)} for f in sorted(folder.iterdir()) if f.is_file()}
    write_json(folder / MANIFEST, {name: entry for name, entry in files.items() if name != MANIFEST})


def damaged(folder: Path) -> list[str]:
    """Files that are missing or differ from the manifest (the manifest itself, where that cannot be read)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        digests = {name: entry["sha256"] for name, entry in manifest.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # of whatever form damage leaves
        return [MANIFEST]
    if REST not in digests:
        return [MANIFEST]
    return [name for name, digest in digests.items() if not _intact(folder / name, digest)]


def _bytes(tree: Any) -> int:
    """Bytes of all tensors in nested containers."""
    return sum(leaf.nbytes for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def _intact(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest
