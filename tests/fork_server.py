"""One process that has loaded torch, of which those that the tests start are forks: each would else load it anew.

`python -m tests.fork_server COMMAND ...` runs a command beside a server, which its tests find in the environment, and
whose Jupyter kernels are forks too: Jupyter starts a small client (`fork_client.py`) in place of each. Without it
`tests.started` begins a server of its own (`python -m tests.fork_server` alone, the address in the environment). Where
`ALL` is in the environment of a fork, what it starts by `sys.executable` is one as well.

A client asks over a socket: four bytes for the length of what follows, JSON (words, environment, folder), and with it
the three files that are to be stdin, stdout and stderr. It reads a line with the number of the process, and one with
its exit status, negative after a signal. When a client goes, its process is killed.
"""

import atexit
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ADDRESS = "FORK_SERVER_OF_TESTS"
"""Environment variable: the socket on which a server listens."""
ALL = "ALL_ARE_FORKS_OF_TESTS"
"""Environment variable: the program that stands for the interpreter (`interpreter`)."""
FILES = 3
CLIENT = (sys.executable, "-S", "-E", str(Path(__file__).with_name("fork_client.py")))


def main(command: list[str]) -> int:
    """Run a command beside a server and end as it does; without one, be the server."""
    if not command:
        serve(os.environ[ADDRESS])
    with tempfile.TemporaryDirectory() as folder:
        address = str(Path(folder, "server"))
        write_kernel(Path(folder))
        path = os.pathsep.join(filter(None, (folder, os.environ.get("JUPYTER_PATH"))))
        server = subprocess.Popen([sys.executable, "-m", "tests.fork_server"], env=os.environ | {ADDRESS: address})
        try:
            return subprocess.run(
                command, env=os.environ | {"JUPYTER_PATH": path, ADDRESS: address}, check=False
            ).returncode
        finally:
            server.terminate()
            server.wait()


def write_kernel(folder: Path) -> None:
    """What makes Jupyter start a fork as its kernel `python3`, for whom `folder` is in JUPYTER_PATH."""
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [*CLIENT, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3 (a fork)", "language": "python"}))


def interpreter(folder: Path) -> Path:
    """A program that is called as an interpreter is."""
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(CLIENT)} "$@"\n')
    program.chmod(0o755)
    return program


def ask(server: socket.socket, words: Sequence[str], environment: Mapping[str, str], folder: str, files: list[int]):
    """For a client: a process of these words, with these files as its stdin, stdout and stderr."""
    asked = json.dumps({"words": words, "environment": dict(environment), "folder": folder}).encode()
    server.sendall(len(asked).to_bytes(4, "big"))
    sent = socket.send_fds(server, [asked], files)
    server.sendall(asked[sent:])


class _Client(NamedTuple):
    pid: int
    socket: socket.socket


def serve(address: str) -> None:
    """Fork a process for each client. Returns never, and ends by SIGTERM or with the process that began it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    ended, woken = socket.socketpair()
    woken.setblocking(False)
    ended.setblocking(False)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address + ".begun")
    listening.listen(256)
    os.rename(address + ".begun", address)  # whoever sees it can connect
    import tests.loaded  # noqa: F401

    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    ready, clients = selectors.DefaultSelector(), dict[int, _Client]()
    ready.register(listening, selectors.EVENT_READ)
    ready.register(ended, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj is listening:
                client = _forked(listening, [ended, woken, *(other.socket for other in clients.values())])
                if client is not None:
                    clients[client.pid] = client
                    ready.register(client.socket, selectors.EVENT_READ, client.pid)
            elif key.fileobj is ended:
                with suppress(BlockingIOError):
                    ended.recv(4096)
            elif key.data in clients:  # a client says nothing after its question: it is gone
                ready.unregister(clients[key.data].socket)
                with suppress(ProcessLookupError):
                    os.kill(key.data, signal.SIGKILL)
        for pid in list(clients):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                client = clients.pop(pid)
                with suppress(KeyError):
                    ready.unregister(client.socket)
                with suppress(OSError):
                    client.socket.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                client.socket.close()


def _forked(listening: socket.socket, others: list[socket.socket]) -> _Client | None:
    client, _ = listening.accept()
    try:
        size = int.from_bytes(client.recv(4, socket.MSG_WAITALL), "big")
        text, files, *_ = socket.recv_fds(client, size, FILES)
        while text and len(text) < size:
            text += client.recv(size - len(text))
        asked = json.loads(text)
    except (OSError, ValueError):  # it went before it had asked
        client.close()
        return None
    if pid := os.fork():
        for file in files:
            os.close(file)
        with suppress(OSError):
            client.sendall(f"{pid}\n".encode())
        return _Client(pid, client)
    signal.set_wakeup_fd(-1)
    for held in (listening, client, *others):
        held.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    try:
        _become(**asked)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(1)


def _become(words: list[str], environment: dict[str, str], folder: str) -> None:
    """The life of the new process: that of `python words`. Does not return."""
    os.setsid()
    for number, way in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, 0), (signal.SIGCHLD, 0)):
        signal.signal(number, way or signal.SIG_DFL)
    at_once = bool(environment.get("PYTHONUNBUFFERED"))
    sys.stdout = open(1, "w", closefd=False, buffering=1 if at_once else -1)  # noqa: SIM115  # as for any pipe
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, folder)
    sys.executable = environment.get(ALL, sys.executable)
    _read_anew(environment)
    kind, what, *more = words
    sys.argv = [kind, *more]
    status: object = 1
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), vars(sys.modules["__main__"]))
        status = 0
    except KeyboardInterrupt:
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    _end(status)


def _read_anew(environment: dict[str, str]) -> None:
    """What libraries read of the environment when they are loaded."""
    import matplotlib as mpl
    import torch

    # it mends its pool in a fork at the first such call, which two threads must not make at once
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", torch.get_num_threads())))
    if (backend := environment.get("MPLBACKEND")) is not None:
        mpl.rcParams["backend"] = backend


def _end(status: object) -> None:
    """As an interpreter ends: threads are waited for, what is registered is called, what was written is sent."""
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
