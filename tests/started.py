"""Processes of the package that need not load torch anew: `python -m ...` and `python -c ...` as forks of a server that
has loaded it (`tests.fork_server`). They look like those of `subprocess`.

Where it is the loading that is tested, or what is read while loading (HF_HOME), an interpreter is started instead.
"""

import atexit
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.fork_server import ADDRESS, ALL, ask, interpreter

ROOT = Path(__file__).parents[1]
CLI = ("-m", "lcmae_core.cli")


@cache
def address_of_server() -> str:
    """Where the server of this run of tests listens; of its own, if nobody began one."""
    if ADDRESS in os.environ:
        return os.environ[ADDRESS]
    folder = tempfile.mkdtemp()
    address = str(Path(folder, "server"))
    words = [sys.executable, "-m", "tests.fork_server"]
    server = subprocess.Popen(words, cwd=ROOT, env=os.environ | {ADDRESS: address})  # killed: so are its processes
    atexit.register(lambda: (server.terminate(), server.wait(), shutil.rmtree(folder, ignore_errors=True)))
    return address


def _connected() -> socket.socket:
    server, until = socket.socket(socket.AF_UNIX), time.monotonic() + 60
    while True:
        try:
            server.connect(address_of_server())
            return server
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


class Started:
    """A process as `subprocess.Popen` has it, with pipes for what it writes; in a session of its own.

    words: "-m", a module and its arguments, or "-c", code and its arguments. merged: stderr goes where stdout goes.
    """

    def __init__(self, *words: str, env: Mapping[str, str] = os.environ, cwd: Path = ROOT, merged: bool = False):
        self.args, self._status = words, None
        (out, write_out), (err, write_err), nothing = os.pipe(), os.pipe(), os.open(os.devnull, os.O_RDONLY)
        self._server = _connected()
        ask(self._server, words, env, str(cwd), [nothing, write_out, write_out if merged else write_err])
        self.stdout, self.stderr = (open(end, newline="\n") for end in (out, err))  # noqa: SIM115
        for end in (write_out, write_err, nothing):
            os.close(end)
        self._lines = self._server.makefile()
        self.pid = int(self._lines.readline())
        for thing in (self.stdout, self.stderr, self._lines, self._server):
            weakref.finalize(self, thing.close)

    @property
    def returncode(self) -> int | None:
        """The exit code, negative after a signal; None as long as it runs."""
        return self._ended(0)

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        """Until it ends.

        Raises:
            TimeoutExpired: it did not.
        """
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def _ended(self, timeout: float | None) -> int | None:
        if self._status is None and select.select([self._server], [], [], timeout)[0]:
            self._status = int(self._lines.readline())
        return self._status

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it still writes, until it ends."""
        texts: dict[str, str] = {}
        readers = [threading.Thread(target=lambda n=n: texts.update({n: getattr(self, n).read()}), daemon=True)
                   for n in ("stdout", "stderr")]  # fmt: skip
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():  # a process that it started still has the pipe
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return texts.get("stdout", ""), texts.get("stderr", "")

    def send_signal(self, number: int) -> None:
        """A signal to this process alone, if it still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *raised: object) -> None:
        self.wait()


@cache
def all_forks() -> dict[str, str]:
    """What to add to a process's environment so that those it starts are forks of the server, too: where no process is
    killed, since a fork has another parent and group."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return {ADDRESS: address_of_server(), ALL: str(interpreter(Path(folder)))}


def completed(*words: str, timeout: float = 120, **around) -> subprocess.CompletedProcess[str]:
    """What a process wrote and its exit code, when it has ended; as `subprocess.run` has it."""
    process = Started(*words, **around)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(words, process.wait(), out, err)
