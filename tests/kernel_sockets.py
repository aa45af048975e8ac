"""Plugin (`-p tests.kernel_sockets`): the kernels of notebooks under test listen on sockets in a folder of their own.

Jupyter chooses TCP ports, frees them, and the kernel binds them when it has loaded. Between the two another process may
have taken one, and the kernel dies: of three that start at once about one time in 170 where loading takes seconds.
"""

import tempfile
from pathlib import Path

import nbval.kernel
from jupyter_client.manager import KernelManager

from lcmae_core.execute.kernels import channels

FOLDER = tempfile.TemporaryDirectory(prefix="kernels-")


def kernel_manager(**settings: object) -> KernelManager:
    """A kernel manager whose channels are files, which nobody else can have taken."""
    return KernelManager(config=channels(Path(tempfile.mkdtemp(dir=FOLDER.name))), **settings)


nbval.kernel.KernelManager = kernel_manager
