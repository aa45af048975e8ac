"""Which device computes, and what is said of it beside every number."""

import ctypes
import os
import platform
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lcmae_core import CALM
from lcmae_core.config import LcmaeError
from lcmae_core.store import accelerator
from lcmae_core.store.cores import idle_cores, usable_cores
from lcmae_core.store.progress import in_notebook

REPOSITORY = Path(__file__).resolve().parents[2]
"""The checkout, when the package is installed from one; else the folder above the installed package."""


def pick_device(name: str = "auto") -> torch.device:
    """CUDA, else Apple's MPS, else the CPU; or the one named.

    Raises:
        LcmaeError: the named device is not there.
    """
    if name == "auto":
        name = [*accelerator.kinds(), "cpu"][0]
    if name == "cuda" and "LOCAL_RANK" in os.environ:  # torchrun starts a process a GPU
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        torch.empty(1, device=name).cpu()  # which the device "meta" cannot
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        known = ", ".join(["auto", *accelerator.kinds(), "cpu"])
        raise LcmaeError(f"device: got {name!r}, expected one of: {known}") from error
    return torch.device(name)


def machine_memory() -> float | None:
    """RAM in bytes, or what a container may use of it; None where neither is said."""
    limits = []
    with suppress(ValueError, OSError, AttributeError):
        limits.append(float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(ValueError, OSError):
            limits.append(float(Path(path).read_text()))
    return min(limits, default=None)


def device_memory(device: torch.device) -> float | None:
    """Bytes that tensors on a device may take at most, where that is known."""
    return accelerator.card(device).memory if device.type == "cuda" else machine_memory()


def device_name(device: torch.device) -> str:
    """The device in words, such as 'NVIDIA H200' or 'CPU, 2 threads (x86_64)'."""
    if device.type == "cuda":
        return accelerator.card(device).name
    if device.type == "mps":
        return f"Apple MPS ({platform.machine()})"
    count = torch.get_num_threads()
    return f"CPU, {count} thread{'s' * (count > 1)} ({platform.machine()})"


def leave_room() -> int:
    """Threads that torch uses from now on. In a notebook: as many as there are idle cores, at least one, where waiting
    threads spin (torch was loaded before this package could say otherwise) and the user did not say how many."""
    settled = CALM or any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"))
    if in_notebook() and not settled and (idle := idle_cores()) is not None:
        torch.set_num_threads(max(1, min(usable_cores(), round(idle))))
    return torch.get_num_threads()


def keep_freed_memory() -> bool:
    """Let glibc reuse freed memory instead of handing it back; whether it was told so (only on Linux with glibc).

    Tensors above 32 MB are otherwise mapped afresh at every allocation, and the kernel zeroes their pages anew: 2.3 of
    9.7 s of an LC-MAE ViT-B/16 step at batch 16. The process then keeps its peak memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_max = -1, -4  # names in malloc.h
    return bool(mallopt(trim_threshold, 2**31 - 1) and mallopt(mmap_max, 0))


@cache
def commit() -> str:
    """Short hash of the checkout's commit, '+' when files differ from it, 'unknown' outside a checkout."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        top = subprocess.run(
            [*git, "rev-parse", "--show-toplevel", "--short", "HEAD"], capture_output=True, text=True, timeout=10
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno", "lcmae_core"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    lines = top.stdout.split()
    if top.returncode or len(lines) != 2 or Path(lines[0]) != REPOSITORY:
        return "unknown"
    return lines[1] + ("+" if dirty.stdout.strip() else "")


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    installed = {"python": platform.python_version()}
    for package in ("lcmae-core", "torch", "timm", "torchvision", "numpy"):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = "absent"
    return installed


def provenance(device: torch.device) -> dict[str, object]:
    """Device, versions, commit and date: what every results file says of where its numbers come from."""
    return {
        "device": device_name(device),
        "versions": versions(),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def absolute_folder(path: str | os.PathLike[str]) -> Path:
    """Where a folder lies: relative ones stand below the repository (or the current folder, outside one)."""
    base = REPOSITORY if (REPOSITORY / "pyproject.toml").exists() else Path.cwd()
    return base / Path(path).expanduser()


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """The folder, made if need be; relative ones stand below the repository (or the current folder, outside one).

    Raises:
        LcmaeError: it cannot be made or written to.
    """
    folder = absolute_folder(path)
    probe = folder / f".writable-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LcmaeError(
            f"out: got {str(folder)!r}, expected a folder that can be written ({error.strerror})"
        ) from None
    return folder
