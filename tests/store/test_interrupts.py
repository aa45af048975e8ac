"""Claims: in a notebook an interrupt ends a cell with one line that says how to go on and no traceback, while a run is
trained (a checkpoint is kept, and the same cell goes on from it) and at any other time; the bar says in words what is
trained; what cells show can be told from a kernel that a front end would have."""

import os
import sys
import time
from pathlib import Path

import pytest

jupyter_client = pytest.importorskip("jupyter_client")
ROOT = Path(__file__).parents[2]
START = """
from lcmae_core.config import replace
from lcmae_core.store.results import Notebook
from lcmae_core.training.loop import pretrain
import time
nb = Notebook("00", "x", "smoke", out={out!r})
s = replace(nb.settings(), steps=100000, depth=1, decoder_depth=1, progress=True, log_every=5, checkpoint_every=100000)
"""


@pytest.fixture
def kernel(tmp_path):
    """Runs code in a kernel as a front end does: (text, ename, traceback); `until` is waited for, then interrupted."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("LCMAE_")}
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel(env=around | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)

    def run(code, until=None):
        sent, text, error, began, done = client.execute(code), "", ("", []), time.monotonic(), until is None
        while time.monotonic() - began < 120:
            if not done and until():
                manager.interrupt_kernel()
                done = True
            try:
                message = client.get_iopub_msg(timeout=0.2)
            except Exception:  # queue.Empty
                continue
            content = message["content"]
            if message["parent_header"].get("msg_id") != sent:
                continue
            text += content.get("text", "") + content.get("data", {}).get("text/plain", "")
            error = (content["ename"], content["traceback"]) if message["msg_type"] == "error" else error
            if content.get("execution_state") == "idle":
                return text, *error
        raise TimeoutError(code)

    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_an_interrupt_says_how_to_go_on_and_the_cell_goes_on(kernel, tmp_path):
    out = tmp_path / "out"
    kernel(START.format(out=str(out)))
    logs = lambda: [p.read_text() for p in out.glob("runs/*/history.jsonl")]  # noqa: E731
    text, name, traceback = kernel("run = pretrain(s)", until=lambda: any(logs()))
    assert name == "Stopped"
    said = "\n".join(traceback) + text
    assert "run the cell again to go on" in said
    assert "training MAE, decoder of 1 layer, seed 0" in text
    assert not [word for word in ("Traceback", "line 1", "To exit") if word in said]
    assert [*out.glob("runs/*/checkpoints/*")]
    before = logs()[0]
    text, name, _ = kernel("run = pretrain(s)", until=lambda: len(logs()[0]) > len(before) + 400)
    assert name == "Stopped"
    assert logs()[0].startswith(before), "it went on from its checkpoint"
    began = time.monotonic()
    text, name, traceback = kernel("time.sleep(60)", until=lambda: time.monotonic() > began + 1)
    assert (text, name, traceback) == ("interrupted: run the cell again to go on\n", "", [])
    assert kernel("print(1)")[0] == "1\n"
