"""The kernel of a notebook that papermill executes: this interpreter, whatever kernels the user's Jupyter knows."""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcmae_core.execute.watch import KERNEL_PID
from lcmae_core.store.kept import KEPT
from lcmae_core.store.stopping import TRAINING

if TYPE_CHECKING:
    from traitlets.config import Config

NAME = "lcmae"
CODE = """
import os, signal
for name in ("SIGUSR1", "SIGUSR2", "SIGTERM"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
if hasattr(signal, "pthread_sigmask"):
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
with open(os.environ["LCMAE_KERNEL_PID"], "w") as file:
    file.write(str(os.getpid()))
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
from lcmae_core.store.leaving import leave
leave(0)
"""
"""The kernel ignores what SLURM sends to every process of a step; the training loop sets handlers that checkpoint."""


@contextmanager
def kernel() -> Iterator[dict[str, Any]]:
    """What papermill is to be told of the kernel; the files of the kernel go with the context."""
    with tempfile.TemporaryDirectory(prefix="lcmae-") as name:
        folder = Path(name)
        home = folder / "kernels" / NAME
        home.mkdir(parents=True)
        spec = {"display_name": NAME, "language": "python"}
        argv = [sys.executable, "-c", CODE, "-f", "{connection_file}"]
        (home / "kernel.json").write_text(json.dumps({**spec, "argv": argv}))
        path = os.pathsep.join(filter(None, (name, os.environ.get("JUPYTER_PATH"))))
        files = {KERNEL_PID: str(folder / "pid"), TRAINING: str(folder / "training"), KEPT: str(folder / "kept")}
        with environment({"JUPYTER_PATH": path, **files}):
            yield {"kernel_name": NAME, "config": channels(folder)}


def channels(folder: Path) -> "Config":
    """How Jupyter is to speak to a kernel: by sockets in `folder`, where there can be some, and else by TCP.

    Jupyter chooses TCP ports, frees them, and the kernel binds them when it has loaded. Of many kernels that start at
    once on a machine two can have chosen the same port, and one of them dies.
    """
    from traitlets.config import Config

    by = {"transport": "ipc", "ip": str(folder / "kernel")} if _sockets_in(folder) else {}
    return Config(KernelManager=by)


def _sockets_in(folder: Path) -> bool:
    """Whether a socket can lie there: some file systems have none, and a path may have about 100 characters."""
    if not hasattr(socket, "AF_UNIX"):
        return False
    path = folder / "kernel-0"  # as long as those of the kernel, which are counted from 1
    with socket.socket(socket.AF_UNIX) as tried:
        try:
            tried.bind(str(path))
        except OSError:
            return False
    path.unlink()
    return True


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Variables of the environment, set until the context ends."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
