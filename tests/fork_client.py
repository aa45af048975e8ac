"""What is started in place of an interpreter (`tests.fork_server`); it loads next to nothing."""

import os
import signal
import socket
import sys

from fork_server import ADDRESS, ask  # beside this file, and of the standard library alone

KERNEL = "ipykernel"
INLINE = "module://matplotlib_inline.backend_inline"


def main(words: list[str]) -> None:
    """Ask for a process of these words, pass signals on to it, and end as it does."""
    environment = dict(os.environ)
    if words[0] == "-u":
        environment["PYTHONUNBUFFERED"] = words.pop(0)
    if words[0] not in ("-c", "-m"):
        os.execve(sys.executable, [sys.executable, *words], environment)
    if KERNEL in words[1]:
        environment.setdefault("MPLBACKEND", INLINE)  # as IPython would, before anything is drawn
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


main(sys.argv[1:])
