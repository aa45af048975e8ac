"""Where a person waits before anything happens: `python -m benchmarks.startup [--record DIR]`, two minutes.

Seconds (wall, and of the processor with its children) of commands and imports in fresh interpreters, medians of a few,
and the modules that they load; of a notebook the kernel's start and the time until its first cells run, as papermill
noted them.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from lcmae_core.bench.check import kind_of_processor
from lcmae_core.bench.company import Company, busy
from lcmae_core.store.machine import REPOSITORY, provenance

NOTEBOOK = "00_quickstart"
KERNEL = """
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel()
client.execute_interactive("1", timeout=60)
manager.shutdown_kernel(now=True)
"""
CODE = {
    "python": "pass",
    "lcmae --help": "from lcmae_core.cli import main; main(['--help'])",
    "import torch": "import torch",
    "import lcmae_core.losses": "import lcmae_core.losses",
    "import lcmae_core.training.loop": "import lcmae_core.training.loop",
    "kernel started, asked and stopped": KERNEL,
}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tries", type=int, default=5, metavar="N", help="of each (default 5)")
    parser.add_argument("--record", type=Path, metavar="DIR", help="write startup.json there")
    options = parser.parse_args()
    company, found = Company(), dict[str, Any]()
    for name, code in CODE.items():
        tries = [timed([sys.executable, "-c", code]) for _ in range(options.tries)]
        found[name] = medians(tries) | {"modules": modules(code)}
    with tempfile.TemporaryDirectory() as folder:
        found |= notebook(Path(folder))
        tries = [timed([*lcmae("report"), "--profile", "smoke", "--out", folder]) for _ in range(options.tries)]
        found["lcmae report, one notebook"] = medians(tries)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(REPOSITORY / "outputs/desk", folder, dirs_exist_ok=True)
        desk = [*lcmae("report"), "--profile", "desk", "--out", folder]
        found["lcmae report, records of desk"] = medians([timed(desk) for _ in range(options.tries)])
    about = {"tries": options.tries, "processor": kind_of_processor()} | company.record()
    print(report(found, about))
    if options.record:
        text = json.dumps({"waits": found} | about | provenance(torch.device("cpu")), indent=1) + "\n"
        (options.record / "startup.json").write_text(text, encoding="utf-8")


def lcmae(command: str) -> list[str]:
    """The command line of a command."""
    return [sys.executable, "-m", "lcmae_core.cli", command]


def timed(words: list[str]) -> dict[str, float]:
    """Seconds of a command."""
    began, before = time.perf_counter(), os.times()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPOSITORY)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": time.perf_counter() - began, "cpu_seconds": used}


def medians(tries: list[dict[str, float]]) -> dict[str, Any]:
    """Of every number, and the fewest and most seconds."""
    found: dict[str, Any] = {name: statistics.median(one[name] for one in tries) for name in tries[0]}
    return found | {"range": [min(one["seconds"] for one in tries), max(one["seconds"] for one in tries)]}


def modules(code: str) -> int:
    """Loaded in the end."""
    told = f"import atexit, sys\natexit.register(lambda: print('modules', len(sys.modules)))\n{code}"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, cwd=REPOSITORY)
    return int(done.stdout.split()[-1])


def notebook(out: Path) -> dict[str, Any]:
    """`lcmae run 00` at smoke: seconds until the first cell begins, until its imports are done, and in all."""
    began = time.time()
    whole = timed([*lcmae("run"), "00", "--profile", "smoke", "--out", str(out)])
    (executed,) = out.rglob(f"{NOTEBOOK}*.ipynb")
    cells = [cell["metadata"]["papermill"] for cell in json.loads(executed.read_text())["cells"]
             if cell["cell_type"] == "code" and cell["metadata"].get("papermill", {}).get("start_time")]  # fmt: skip
    starts = [datetime.fromisoformat(cell["start_time"]).timestamp() for cell in cells]
    slow = max(cells, key=lambda cell: cell["duration"])
    return {
        "lcmae run 00, until the first cell": {"seconds": min(starts) - began},
        "lcmae run 00, at smoke, whole": whole | {"slowest_cell_seconds": slow["duration"]},
    }


def report(found: dict[str, Any], about: dict[str, Any]) -> str:
    """The numbers in words."""
    lines = [f"{about['processor']}, {busy(about) or 'no other work'}, medians of {about['tries']}"]
    for name, one in found.items():
        cpu = f"{one['cpu_seconds']:8.2f} s of the processor" if "cpu_seconds" in one else ""
        count = f"{one['modules']:7d} modules" if "modules" in one else ""
        lines.append(f"{name:<40}{one['seconds']:8.2f} s{cpu}{count}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
