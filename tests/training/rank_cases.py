"""A program of `test_distributed`: trains the cases in its first argument, each by some ranks on gloo, all forked from
one process that has loaded everything; prints the losses of each as JSON."""

import faulthandler
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from lcmae_core.config import parse, replace
from lcmae_core.data import loader, randaugment
from lcmae_core.store.runs import Run
from lcmae_core.training import loop
from lcmae_core.training.loop import pretrain
from lcmae_core.training.objectives import OBJECTIVES


def in_double() -> None:
    """From here on this process trains in float64 what it would in float32; pictures are cut as ever."""
    single, real = torch.Tensor.float, loop.backward_pass

    def backward(*given):
        torch.Tensor.float = torch.Tensor.double
        try:
            return real(*given)
        finally:
            torch.Tensor.float = single

    loop.backward_pass = backward
    for module in (loader, randaugment):
        normalize = module.normalize
        module.normalize = lambda pixels, plain=normalize: plain(pixels).double()
    for objective in OBJECTIVES.values():
        build = objective.build
        objective.build = lambda self, plain=build: plain(self).double()
        objective.held_out = lambda self, model, loader: {}  # measured outside of what is patched


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def together(work: Callable[[int], object], world: int) -> set[int]:
    """Exit codes of so many forked ranks, each of which does the work for its number."""
    port, children = free_port(), []
    for rank in range(world):
        if pid := os.fork():
            children.append(pid)
            continue
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1",
                          MASTER_PORT=str(port))  # fmt: skip
        code = 1
        try:
            torch.set_num_threads(1)  # at the first such call in a fork torch mends its pool: two threads must not
            work(rank)
            code = 0
        except SystemExit as stopped:
            code = getattr(stopped, "exit_code", 1)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children}


def ranked(settings, world: int, double: bool, steps: int | None = None) -> None:
    """Train by so many ranks; with `steps` a signal stops one of them there."""

    def work(rank: int) -> None:
        if double:
            in_double()
        if steps is not None and rank == world - 1:
            stop_at(steps)
        pretrain(settings)

    codes = together(work, world)
    assert codes == {143 if steps is not None else 0}, codes


def stop_at(step: int, number: int = signal.SIGTERM) -> None:
    """This process alone gets a signal in a step."""
    real, calls = loop.backward_pass, []

    def backward(*given):
        calls.append(1)
        if len(calls) == step:
            os.kill(os.getpid(), number)
        return real(*given)

    loop.backward_pass = backward


def main() -> None:
    torch.set_num_threads(1)
    faulthandler.enable()  # in the ranks too: where one crashed is said
    cases, out, found = json.loads(sys.argv[1]), Path(sys.argv[2]), {}
    for name, (settings, worlds, double, stop) in cases.items():
        place = out / name.replace(" ", "_")
        first, *_, last = [replace(parse(s), {"out": str(place)}) for s in (settings[0], settings[-1])]
        if stop is not None:
            ranked(first, worlds[0], double, stop)
        ranked(last, worlds[-1], double)
        (folder,) = (place / "runs").iterdir()
        found[name] = Run(folder, last).curve("loss")[1]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
