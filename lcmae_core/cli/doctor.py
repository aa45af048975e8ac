"""What this machine has for the project, and what to do about what is missing."""

import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from lcmae_core.config import LcmaeError
from lcmae_core.config.resolve import Asked
from lcmae_core.store.cores import usable_cores

GB = 1e9
DISK_GB, RAM_GB = 2.0, 4.0
"""Below these the quick profile is at risk."""


class Diagnosis(NamedTuple):
    """One line of the examination: state is ok, missing (work fails), or note (something is left out)."""

    group: str
    name: str
    state: str
    detail: str
    advice: str = ""


def main(out: str | None = None, gpu: bool = False) -> int:
    """Print the findings as a table; 1 if something required is missing, else 0. With `gpu`, see `doctor_gpu`.

    Raises:
        LcmaeError: a folder for `gpu`, which writes nothing.
    """
    if gpu and out is not None:
        raise LcmaeError(f"--out: got {out!r} with --gpu, which writes nothing, expected one of the two")
    if gpu:
        from lcmae_core.cli.doctor_gpu import main as check_gpu

        return check_gpu()
    from rich.markup import escape
    from rich.table import Table

    from lcmae_core.execute.progress import make_console

    table, console = Table(show_edge=False, pad_edge=False), make_console()
    for column in ("", "what", "", "found", "what to do"):
        table.add_column(column, overflow="fold")
    missing, before = 0, ""
    for finding in examine(out):
        colour = {"ok": "green", "note": "yellow", "missing": "red"}[finding.state]
        group = "" if finding.group == before else finding.group
        state = f"[{colour}]{finding.state}[/]"
        table.add_row(group, escape(finding.name), state, escape(finding.detail), escape(finding.advice))
        before, missing = finding.group, missing + (finding.state == "missing")
    console.print(table)
    console.print(f"{missing} missing" if missing else "all that is required is there")
    return 1 if missing else 0


def examine(out: str | None = None) -> Iterator[Diagnosis]:
    """Every finding, in groups. A check that breaks down is itself a finding."""
    checks: tuple[Callable[[], Iterator[Diagnosis]], ...] = (
        check_python, check_packages, check_device, lambda: check_storage(out), check_data, check_jupyter, check_tools,
    )  # fmt: skip
    for check in checks:
        try:
            yield from check()
        except Exception as error:
            name = getattr(check, "__name__", "check").strip("_<>")
            yield Diagnosis(name, "check", "missing", f"{type(error).__name__}: {error}", "report this as a bug")


def check_python() -> Iterator[Diagnosis]:
    """Python's version."""
    good = sys.version_info >= (3, 11)
    yield Diagnosis("Python", platform.python_version(), "ok" if good else "missing", sys.executable,
                  "" if good else "install Python 3.11 or later")  # fmt: skip


class Requirement(NamedTuple):
    """A package, the lowest version that works, and the extra it belongs to ('' for the core)."""

    package: str
    bound: str
    extra: str


def requirements() -> list[Requirement]:
    """What the installed package's metadata asks for, extras included."""
    required = []
    for line in metadata.requires("lcmae-core") or []:
        match = re.match(r"([\w.-]+)\s*(?:>=\s*([\w.]+))?.*?(?:extra\s*==\s*['\"](\w+)['\"])?$", line)
        if match and match[1] != "lcmae-core" and "[" not in line:
            required.append(Requirement(match[1], match[2] or "", match[3] or ""))
    return required


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def check_packages() -> Iterator[Diagnosis]:
    """The libraries, by installed version."""
    good: dict[str, list[str]] = {}
    for package, bound, extra in requirements():
        if extra == "dev":
            continue
        name = f"lcmae-core[{extra}]" if extra else "lcmae-core"
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            state = "note" if extra else "missing"
            yield Diagnosis("packages", package, state, "not installed", f"pip install '{name}'")
            continue
        if _numbers(version) < _numbers(bound):
            advice = f"pip install '{package}>={bound}'"
            yield Diagnosis("packages", package, "note" if extra else "missing", f"{version}, needs {bound}", advice)
        else:
            good.setdefault(extra, []).append(f"{package} {version}")
    for extra, names in good.items():
        yield Diagnosis("packages", extra or "core", "ok", ", ".join(names))


def check_device() -> Iterator[Diagnosis]:
    """Whether torch imports, and what it computes on."""
    try:
        import torch
    except Exception as error:
        yield Diagnosis(
            "device", "torch", "missing", f"does not import: {error}", "pip install --force-reinstall torch"
        )
        return
    from lcmae_core.store import accelerator
    from lcmae_core.store.machine import machine_memory

    cards = accelerator.cards()
    for index, card in enumerate(cards):
        yield Diagnosis("device", f"cuda:{index}", "ok", f"{card.name}, {card.memory / GB:.0f} GB")
    if not cards:
        seen = shutil.which("nvidia-smi")
        advice = "the driver is older than torch's CUDA, or torch is a CPU build" if seen else ""
        yield Diagnosis("device", "CUDA", "note", "none" + (", though nvidia-smi is there" if seen else ""), advice)
    if "mps" in accelerator.kinds():
        yield Diagnosis("device", "mps", "ok", f"Apple MPS ({platform.machine()})")
    cores = usable_cores()
    yield Diagnosis("device", "CPU", "ok", f"{cores} cores, {torch.get_num_threads()} threads for torch")
    memory = machine_memory()
    if memory is not None:
        low = memory < RAM_GB * GB
        advice = f"run one job at a time; {RAM_GB:.0f} GB are comfortable" if low else ""
        yield Diagnosis("device", "memory", "note" if low else "ok", f"{memory / GB:.1f} GB", advice)


def check_storage(out: str | None) -> Iterator[Diagnosis]:
    """The output folder, whether it can be written, and what its cache takes."""
    folder = Asked({"out": out}).out
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        yield Diagnosis(
            "outputs", str(folder), "missing", f"{there} cannot be written", "choose another folder with --out"
        )
        return
    free = shutil.disk_usage(there).free
    low = free < DISK_GB * GB
    advice = f"quick needs about {DISK_GB:.0f} GB: make room or choose another folder with --out" if low else ""
    yield Diagnosis("outputs", str(folder), "missing" if low else "ok", f"{free / GB:.0f} GB free", advice)
    yield _cache(folder / "cache")


def _cache(folder: Path) -> Diagnosis:
    from lcmae_core.config.groups import Runtime
    from lcmae_core.data.cache import taken

    count, size = taken(folder)
    limit = Runtime().cache_gb
    contents = f"{size / GB:.2f} GB in {count} sets of pictures, at most {limit:g} GB (cache_gb)"
    return Diagnosis("outputs", str(folder), "ok", contents, "may be deleted at any time" if count else "")


def check_data() -> Iterator[Diagnosis]:
    """The sources that can be opened here."""
    from lcmae_core.config import Data
    from lcmae_core.data.sources import open_source

    try:
        source = open_source(Data())
        source.train.read(0)
        counts = f"{len(source.train)} training and {len(source.validation)} validation images"
        yield Diagnosis("data", "photos", "ok", counts)
    except Exception as error:
        advice = "reinstall: pip install --force-reinstall --no-deps lcmae-core"
        yield Diagnosis("data", "photos", "missing", f"{type(error).__name__}: {error}", advice)
    given = os.environ.get("LCMAE_DATA")
    if given:
        try:
            yield Diagnosis("data", "LCMAE_DATA", "ok", str(Asked().data))
        except LcmaeError as error:
            yield Diagnosis("data", "LCMAE_DATA", "missing", str(error), "correct it, or unset LCMAE_DATA")
    else:
        yield Diagnosis("data", "LCMAE_DATA", "ok", "not set: each profile's own source")
    reached = hub_reachable()
    advice = "" if reached else "hf: sources and hub ids need it; photos, folder: and parquet: do not"
    yield Diagnosis(
        "data", "model hub", "ok" if reached else "note", "reachable" if reached else "not reachable", advice
    )


def hub_reachable(timeout: float = 2.0) -> bool:
    """Whether the hub that huggingface_hub is set to accepts a connection; directly, or through a proxy."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    try:
        from huggingface_hub.constants import ENDPOINT
    except ImportError:
        return False
    address = urlsplit(getproxies().get("https") or ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=timeout).close()
    except OSError:
        return False
    return True


def check_jupyter() -> Iterator[Diagnosis]:
    """The packages that notebooks need, and for what."""
    for package, purpose in (
        ("ipykernel", "executing notebooks"), ("papermill", "lcmae run"), ("ipywidgets", "live controls"),
        ("anywidget", "the attention browser"), ("jupyterlab", "working in notebooks by hand"),
    ):  # fmt: skip
        try:
            yield Diagnosis("Jupyter", package, "ok", metadata.version(package))
        except metadata.PackageNotFoundError:
            advice = f"needed for {purpose}: pip install 'lcmae-core[notebooks]'"
            yield Diagnosis("Jupyter", package, "note", "not installed", advice)


def check_tools() -> Iterator[Diagnosis]:
    """Programs beside Python: a browser, SLURM."""
    browsers = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((path for name in browsers if (path := shutil.which(name))), None)
    yield Diagnosis("tools", "browser", "ok" if browser else "note", browser or "no chromium found",
                  "" if browser else "only the browser tests need it: install chromium")  # fmt: skip
    cluster = shutil.which("sbatch")
    yield Diagnosis("tools", "cluster", "ok" if cluster else "note", cluster or "no sbatch found",
                  "" if cluster else "only --executor slurm needs it")  # fmt: skip
