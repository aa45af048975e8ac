"""`lcmae train --nproc 8 --nnodes 2`: torchrun trains or evaluates by several processes; its call is printed first."""

import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import NamedTuple

from lcmae_core.cli.words import without
from lcmae_core.config import LcmaeError
from lcmae_core.store.cores import usable_cores
from lcmae_core.store.stopping import stop_requests

OWN = ("--nproc", "--nnodes", "--rendezvous")
RESTARTS = 3
"""How often the ranks are started again, from the last checkpoint, after one of them was lost."""


class WantedRanks(NamedTuple):
    """The processes that were asked for."""

    nproc: int
    nnodes: int
    rendezvous: str | None


def wanted_of(options: Namespace) -> WantedRanks | None:
    """What the options say; None for this process alone."""
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


def launch(words: Sequence[str], wanted: WantedRanks) -> int:
    """Print the command, run it, and return its exit code; at a signal the ranks are saved first, and the code is the
    signal's own."""
    command = torchrun(words, *wanted)
    print(shlex.join(command), flush=True)
    cores = usable_cores()
    threads = {"OMP_NUM_THREADS": str(max(1, cores // wanted.nproc))}
    # a restart after a lost rank hung in one of three trials where the store is shared
    environment = threads | os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with stop_requests() as stop:
        ranks = subprocess.Popen(command, env=environment, preexec_fn=_leave_the_warning_to_the_ranks)
        while ranks.poll() is None and not stop.is_set():
            time.sleep(0.1)
        if stop.is_set():
            ranks.terminate()
        code = ranks.wait()
        return stop.exit_code or (1 if code else 0)


def _leave_the_warning_to_the_ranks() -> None:
    """torchrun itself would die of the signal that SLURM sends before a time limit."""
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
