"""A process of ours ends as Python would end it, with its exit code, output, threads and `atexit`, but at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loops import over

PROGRAM = """
import atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from lcmae_core.store.leaving import left_after
sys.modules.setdefault("torch", sys) if {torch} else None
class Slow:
    def __del__(self): print("taken apart", flush=True)
kept = Slow()
def main():
    atexit.register(print, "at exit")
    said = threading.Event()
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"), said.set())).start()
    ThreadPoolExecutor(1).submit(lambda: (said.wait(), print("pool")))
    print("main", end=" ")
    print("aside", end="", file=sys.stderr)
    {ending}
left_after(main)
"""


def ended(ending: str, torch: bool) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PROGRAM.format(ending=ending, torch=torch)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


PLAIN = ["main thread", "pool", "at exit", "taken apart"]


@over(
    ("ending", "code", "written"),
    [
        ("return 0", 0, PLAIN[:3]),
        ("return 3", 3, PLAIN[:3]),
        ("raise SystemExit(2)", 2, PLAIN[:3]),
        ("sys.exit('a line')", 1, PLAIN),
        ("raise ValueError(7)", 1, PLAIN),
    ],
)
def test_code_output_threads_and_atexit_are_those_of_python(ending, code, written):
    plain, ours = ended(ending, torch=False), ended(ending, torch=True)
    assert ours.returncode == plain.returncode == code
    assert ours.stderr == plain.stderr
    assert plain.stdout.splitlines() == PLAIN
    assert ours.stdout.splitlines() == written


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_finds_no_room_is_said():
    code = PROGRAM.format(ending="return 0", torch=True).replace('print("main", end=" ")', 'sys.stdout.write("main")')
    words = [sys.executable, "-c", code.replace('print, "at exit"', "int").replace('print("', 'str("')]
    around = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=around)
    assert done.returncode == 120
    assert "No space left" in done.stderr
