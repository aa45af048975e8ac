"""A fork of the server is what an interpreter would be: what it writes where, how it ends, its arguments and folder;
and a kernel of Jupyter is one too."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.fork_server import ADDRESS, write_kernel
from tests.loops import over
from tests.started import ROOT, Started, address_of_server, completed

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


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A kernel as Jupyter starts it, a fork of the server, and who speaks to it."""
    kernel_sockets = pytest.importorskip("tests.kernel_sockets", exc_type=ImportError)  # without Jupyter
    write_kernel(tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    manager = kernel_sockets.kernel_manager(kernel_name="python3")
    manager.start_kernel(env=os.environ | {ADDRESS: address_of_server()}, cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def said(client, code):
    """What a cell prints, and the name of its error."""
    printed = []
    reply = client.execute_interactive(code, timeout=60, output_hook=lambda m: printed.append(m["content"]))
    return "".join(c.get("text", "") for c in printed), reply["content"].get("ename")


def gone(pid):
    """Whether no process has this number, within ten seconds."""
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}"):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_kernel_is_a_fork_that_is_interrupted_and_goes_with_its_client(kernel, tmp_path):
    manager, client = kernel
    printed, _ = said(client, "import os, sys; print('torch' in sys.modules, os.getcwd(), os.getpid())")
    loaded, folder, pid = printed.split()
    assert (loaded, folder) == ("True", str(tmp_path))
    figure = "import matplotlib.pyplot as plt; plt.plot([1]); plt.show(); print(plt.get_backend())"
    assert "inline" in said(client, figure)[0]
    process = manager.provisioner.process
    threading.Timer(1, process.send_signal, [signal.SIGINT]).start()  # as Jupyter interrupts
    assert said(client, "import time; time.sleep(30)") == ("", "KeyboardInterrupt")
    process.kill()
    assert gone(pid)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_kernel_that_dies_is_seen_to(kernel):
    manager, client = kernel
    client.execute("import os; os._exit(7)")
    assert manager.provisioner.process.wait(20) == 7
