"""A fork of the server is what an interpreter would be: what it writes where, how it ends, its arguments and folder."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

from tests.loops import over
from tests.started import ROOT, Started, completed

SAYS = """
import os, sys
print(sys.argv, __name__, os.getcwd(), os.environ.get("LCMAE_TRIED"))
print("aside", file=sys.stderr)
"""


@over(
    ("code", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("sys.exit('one line')", 1),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import atexit; atexit.register(print, 'at the end')", 0),
    ],
)
def test_it_ends_as_an_interpreter_does(code, status, tmp_path):
    words = ("-c", SAYS + code, "a", "b c")
    around = {"env": os.environ | {"LCMAE_TRIED": "yes"}, "cwd": tmp_path}
    plain = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, **around)
    ours = completed(*words, **around)
    assert ours.returncode == plain.returncode == status
    assert ours.stdout == plain.stdout
    if status != -signal.SIGINT:  # whose traceback names another file
        assert ours.stderr == plain.stderr


def test_what_it_writes_is_read_while_it_runs_and_signals_reach_it():
    process = Started("-c", "import time; print('begun', flush=True); time.sleep(60)")
    assert process.stdout.readline() == "begun\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == process.returncode == -signal.SIGTERM


def test_a_module_is_its_own_main_and_torch_is_there_at_once():
    ended = completed("-m", "tests.training.rank_cases", "{}", "nowhere")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "{}\n", "")
    loaded = "import sys; print('lcmae_core.cli.train' in sys.modules)"
    assert completed("-c", loaded, cwd=ROOT).stdout == "True\n"


def test_processes_of_its_own_are_started_as_everywhere():
    code = "import multiprocessing; print(multiprocessing.get_start_method())"
    assert completed("-c", code).stdout == f"{multiprocessing.get_start_method()}\n"
