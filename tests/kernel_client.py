"""What Jupyter starts in place of a kernel (`tests.fork_server`); it loads next to nothing."""

import json
import os
import signal
import socket
import sys


def main(connection: str) -> None:
    """Ask for a kernel, pass signals on to it, and end as it does."""
    environment = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", **os.environ}  # else IPython sets it
    words = ["-m", "ipykernel_launcher", "-f", connection]
    asked = json.dumps({"words": words, "environment": environment, "folder": os.getcwd()}).encode()
    server = socket.socket(socket.AF_UNIX)
    server.connect(os.environ["FORK_SERVER_OF_TESTS"])
    server.sendall(len(asked).to_bytes(4, "big"))
    sent = socket.send_fds(server, [asked], [0, 1, 2])
    server.sendall(asked[sent:])
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
