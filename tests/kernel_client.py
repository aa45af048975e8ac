"""What Jupyter starts in place of a kernel (`tests.fork_server`); it loads next to nothing."""

import os
import signal
import socket
import sys

from fork_server import ADDRESS, ask  # beside this file, and of the standard library alone


def main(connection: str) -> None:
    """Ask for a kernel, pass signals on to it, and end as it does."""
    environment = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", **os.environ}  # else IPython sets it
    words = ["-m", "ipykernel_launcher", "-f", connection]
    server = socket.socket(socket.AF_UNIX)
    server.connect(os.environ[ADDRESS])
    ask(server, words, environment, os.getcwd(), [0, 1, 2])
    lines = server.makefile()
    pid = int(lines.readline())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    status = int(lines.readline() or 1)
    if status < 0:
        if status != -signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


main(sys.argv[1])
