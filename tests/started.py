"""Processes of the package that need not load torch anew: `python -m ...` and `python -c ...` as forks of a server that
has loaded it (multiprocessing's, one for each process of the tests). They look like those of `subprocess`.

Where it is the loading that is tested, or what is read while loading (HF_HOME), an interpreter is started instead.
"""

import atexit
import multiprocessing
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import chdir, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
CLI = ("-m", "lcmae_core.cli")
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.loaded"])
_ALIVE: "weakref.WeakSet[Started]" = weakref.WeakSet()


@atexit.register  # after multiprocessing's own, so before it: that waits for those which a failed test has left
def _kill_what_is_left() -> None:
    for process in list(_ALIVE):
        process.kill()


class Started:
    """A process as `subprocess.Popen` has it, with pipes for what it writes; in a session of its own.

    words: "-m", a module and its arguments, or "-c", code and its arguments. merged: stderr goes where stdout goes.
    """

    def __init__(self, *words: str, env: Mapping[str, str] = os.environ, cwd: Path = ROOT, merged: bool = False):
        self.args = words
        (out, write_out), (err, write_err) = _forks.Pipe(duplex=False), _forks.Pipe(duplex=False)
        writes = (write_out, write_out if merged else write_err)
        self._process = _forks.Process(target=_become, args=(words, dict(env), str(cwd), *writes))
        with chdir(ROOT):  # where the server finds what it loads, whoever is the first to start one
            self._process.start()
        write_out.close()
        write_err.close()
        self.stdout, self.stderr = (open(os.dup(end.fileno()), newline="\n") for end in (out, err))  # noqa: SIM115
        self.pid = self._process.pid or 0
        _ALIVE.add(self)
        for stream in (self.stdout, self.stderr):
            weakref.finalize(self, stream.close)

    @property
    def returncode(self) -> int | None:
        """The exit code, negative after a signal; None as long as it runs."""
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        """Until it ends.

        Raises:
            TimeoutExpired: it did not.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._process.exitcode

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


def completed(*words: str, timeout: float = 120, **around) -> subprocess.CompletedProcess[str]:
    """What a process wrote and its exit code, when it has ended; as `subprocess.run` has it."""
    process = Started(*words, **around)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(words, process.wait(), out, err)


def _become(words: tuple[str, ...], environment: dict[str, str], folder: str, out: Connection, err: Connection) -> None:
    """The life of the new process: that of `python words`."""
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # those that it starts itself: as everywhere, not by this server
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a background shell
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    out.close()
    if not err.closed:
        err.close()
    at_once = bool(environment.get("PYTHONUNBUFFERED"))
    sys.stdout = open(1, "w", closefd=False, buffering=1 if at_once else -1)  # noqa: SIM115  # as for any pipe
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, folder)
    import torch

    # what torch reads when it is loaded; and it mends its pool in a fork at the first such call, which two threads must
    # not make at once
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", torch.get_num_threads())))
    kind, what, *more = words
    sys.argv = [kind, *more]
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), vars(sys.modules["__main__"]))
    except KeyboardInterrupt:
        sys.stdout.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        atexit._run_exitfuncs()
