"""`lcmae train --nproc 8 --nnodes 2`: torchrun trains or evaluates by several processes; its call is printed first."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lcmae_core.cli.rank import FOLDER, STOPPED, code_of_the_end
from lcmae_core.cli.words import without
from lcmae_core.config import LcmaeError, Settings
from lcmae_core.store.cores import started_processes, usable_cores
from lcmae_core.store.stopping import CODES, StopRequest, stop_requests

OWN = ("--nproc", "--nnodes", "--rendezvous")
RESTARTS = 3
"""How often the ranks are started again, from the last checkpoint, after one of them was lost."""
STEP, GRACE = 600, 5.0
"""Seconds that ranks get to end a step and to save when they are told to stop, and to end by themselves after one of
them has said why they all must."""


class WantedRanks(NamedTuple):
    """The processes that were asked for."""

    nproc: int
    nnodes: int
    rendezvous: str | None


def wanted_of(options: Namespace) -> WantedRanks | None:
    """What the options say; None for this process alone.

    Raises:
        LcmaeError: a place to meet that is none, or for one machine alone.
    """
    place = options.rendezvous
    if place is not None and not re.fullmatch(r"(\[[\da-fA-F:.]+\]|[\w.-]+):\d{1,5}", place):
        raise LcmaeError(f"--rendezvous: got {place!r}, expected HOST:PORT, such as node0:29500")
    if place is not None and options.nnodes == 1:
        raise LcmaeError(f"--rendezvous: got {place!r} for one machine, expected it with --nnodes of 2 or more")
    if options.nproc is None and options.nnodes == 1:
        return None
    return WantedRanks(1 if options.nproc is None else options.nproc, options.nnodes, options.rendezvous)


def check_ranks(wanted: WantedRanks, batch_size: int, accum_steps: int = 1) -> None:
    """See, before anything is started, whether so many ranks can share batches of this size.

    Raises:
        LcmaeError: a number below 1, a batch that does not divide, or several machines that are not told where to meet.
    """
    from lcmae_core.training.distributed import Ranks, share_of

    for name, count in (("nproc", wanted.nproc), ("nnodes", wanted.nnodes)):
        if count < 1:
            raise LcmaeError(f"--{name}: got {count}, expected at least 1")
    if wanted.nnodes > 1 and not wanted.rendezvous:
        got = f"got none with --nnodes {wanted.nnodes}"
        raise LcmaeError(f"--rendezvous: {got}, expected HOST:PORT of one of the machines")
    share_of(batch_size, accum_steps, Ranks(0, wanted.nproc * wanted.nnodes))


def torchrun(words: Sequence[str], nproc: int, nnodes: int = 1, rendezvous: str | None = None) -> list[str]:
    """The command; it is the same on every machine."""
    meet = ["--standalone"]
    if nnodes > 1:
        meet = [f"--nnodes={nnodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={rendezvous}", "--rdzv-id=lcmae"]
    each = [f"--nproc-per-node={nproc}", f"--max-restarts={RESTARTS}", "-m", "lcmae_core.cli"]
    return [sys.executable, "-m", "torch.distributed.run", *meet, *each, *without(words, *OWN)]


def check_work(settings: Settings) -> None:
    """See, before anything is started, what every rank would refuse: a device that is not there, data that cannot be
    opened, a model or batch that does not fit.

    Raises:
        LcmaeError: one of these.
    """
    from lcmae_core.data.sources import source_identity
    from lcmae_core.store.machine import pick_device
    from lcmae_core.training.guards import refuse_too_large

    source_identity(settings.data.source)
    refuse_too_large(settings, pick_device(settings.runtime.device))


def say_alone(asked: Mapping[str, Any]) -> None:
    """A line where weights are to be spread over ranks and there is only one. It is no error: a run of several ranks
    may go on with one."""
    if asked.get("fsdp") is True and started_processes() == 1:
        print("fsdp: nothing to spread over one process; give --nproc with two or more", file=sys.stderr)


def launch(words: Sequence[str], wanted: WantedRanks) -> int:
    """Print torchrun's command, have it made, and return the exit code: the signal's own at a signal, at which the
    ranks are saved first; that of the rank which found an error of the user's making, after which none is started
    again."""
    command = torchrun(words, *wanted)
    print(shlex.join(command), flush=True)
    with stop_requests() as stop, tempfile.TemporaryDirectory(prefix="lcmae-ranks-") as folder:
        agent = _started(command, folder, wanted.nproc)
        try:
            code = _awaited(agent, folder, stop)
        finally:  # after Ctrl-C twice, for one
            end_at_once(agent, folder)
        ended, saved = code_of_the_end(folder), Path(folder, STOPPED).exists()
    if ended is not None:
        return ended
    if stop.exit_code and not saved:
        print("lcmae: stopped before any training; the same command resumes", file=sys.stderr)
    if code < 0 and not stop.exit_code:
        print(f"lcmae: error: torchrun was ended by signal {-code}; the same command resumes", file=sys.stderr)
    return stop.exit_code or (code if code in (2, *CODES.values()) else 1 if code else 0)


def _started(command: Sequence[str], folder: str, nproc: int) -> "subprocess.Popen[bytes]":
    """torchrun, in a session of its own: Ctrl-C is meant for this process, which passes it on when it is time."""
    at = command.index("torch.distributed.run")
    made = [*command[:at], "lcmae_core.cli.agent", f"--log-dir={folder}", *command[at + 1 :]]
    usual = {"OMP_NUM_THREADS": str(max(1, usable_cores() // nproc)), "LOGLEVEL": "ERROR"}
    usual["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(STEP)
    # a restart after a lost rank hung in one of three trials where the store is shared
    always = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", FOLDER: folder}
    return subprocess.Popen(
        made, env=usual | os.environ | always, start_new_session=True, preexec_fn=_leave_the_warning_to_the_ranks
    )


def _awaited(agent: "subprocess.Popen[bytes]", folder: str, stop: StopRequest) -> int:
    """torchrun's exit code. It is told to end at a signal, and when a rank has said that there is no more to do."""
    while agent.poll() is None and not stop.is_set() and code_of_the_end(folder) is None:
        time.sleep(0.1)
    if not stop.is_set():
        with suppress(subprocess.TimeoutExpired):
            return agent.wait(GRACE if code_of_the_end(folder) is not None else None)
    agent.terminate()
    return agent.wait()


def end_at_once(agent: "subprocess.Popen[bytes]", folder: str) -> None:
    """Kill the agent, if it is alive, and the ranks that it left."""
    if agent.poll() is not None:
        return
    agent.kill()
    for file in Path(folder).glob("pid.*"):
        with suppress(OSError, ValueError):
            os.kill(int(file.read_text()), signal.SIGKILL)
    agent.wait()


def _leave_the_warning_to_the_ranks() -> None:
    """torchrun itself would die of the signal that SLURM sends before a time limit."""
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
