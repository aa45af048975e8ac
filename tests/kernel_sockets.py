"""Plugin (`-p tests.kernel_sockets`): the kernels of notebooks under test listen on sockets in a folder of their own.

Jupyter chooses TCP ports, frees them, and the kernel binds them when it has loaded. Between the two another process may
have taken one, and the kernel dies: of three that start at once about one time in 170 where loading takes seconds.
"""

import itertools
import tempfile
from pathlib import Path

import nbval.kernel
from jupyter_client.manager import KernelManager

FOLDER = tempfile.TemporaryDirectory(prefix="kernels-")  # short: the path of a socket has at most 107 characters
NUMBERS = itertools.count()


class KernelManagerOfSockets(KernelManager):
    """A kernel manager whose channels are files, which nobody else can have taken."""

    def __init__(self, **settings: object):
        super().__init__(transport="ipc", ip=str(Path(FOLDER.name, str(next(NUMBERS)))), **settings)


nbval.kernel.KernelManager = KernelManagerOfSockets
