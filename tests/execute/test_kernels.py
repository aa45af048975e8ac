"""Kernels of a batch take no ports, which others could have taken before they do; where no socket can lie they do."""

import os
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager

from lcmae_core.execute.kernels import channels
from tests.execute.toys import code, make_notebook
from tests.started import CLI, all_forks, completed

SPEAKS = """import json
from pathlib import Path
from ipykernel.connect import get_connection_info
by = json.loads(get_connection_info())
print(by["transport"], oct(Path(by["ip"]).parent.stat().st_mode)[-3:], by["ip"])"""


@pytest.mark.slow
def test_the_kernels_of_a_batch_listen_on_files_of_their_owner(tmp_path: Path) -> None:
    notebooks, out = tmp_path / "notebooks", tmp_path / "out"
    for name in ("00_first", "01_second"):
        make_notebook(notebooks, name, code(SPEAKS))
    words = ("run", "--notebooks", str(notebooks), "--out", str(out), "--jobs", "2")
    done = completed(*CLI, *words, env=os.environ | all_forks())
    assert done.returncode == 0, done.stdout + done.stderr
    said = [
        nbformat.read(out / name, 4).cells[-1].outputs[0].text.split() for name in os.listdir(out) if "ipynb" in name
    ]
    assert [(transport, mode) for transport, mode, _ in said] == [("ipc", "700")] * 2
    homes = {Path(ip).parent for *_, ip in said}
    assert len(homes) == 2
    assert not any(home.exists() for home in homes), "left behind"


def test_ports_are_taken_where_no_socket_can_lie(tmp_path: Path) -> None:
    long = tmp_path / ("long" * 25)
    long.mkdir()
    for folder, transport in ((long, "tcp"), (tmp_path / "missing", "tcp"), (tmp_path, "ipc")):
        assert AsyncKernelManager(config=channels(folder)).transport == transport
    assert not list(long.iterdir())
