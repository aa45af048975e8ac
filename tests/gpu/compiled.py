"""A program of `test_compiled`, in a process of its own because the shape checks of the tests cannot be captured.

Trains each case in its first argument by `pretrain`: eagerly, compiled as one graph, and compiled, stopped and resumed;
then plants faults. Prints one line of JSON each. The second argument names a folder with `pictures` in it.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.exc import Unsupported
from torch._dynamo.testing import CompileCounterWithBackend

from lcmae_core.models.encoder import Encoder
from lcmae_core.store.checkpoint import sha256
from lcmae_core.store.runs import MODEL, Run
from lcmae_core.store.stopping import Stopped
from lcmae_core.training.loop import Moment, pretrain
from tests.gpu.cases import settings_of

STEPS, STOP = 5, 3
BACKEND = "aot_eager"
"""Captures, and traces forward and backward pass as for the real backend, without a C++ compiler's minutes."""
COUNTER = CompileCounterWithBackend(BACKEND)


def breaks(plain: Any) -> Any:
    """What cannot be captured: the graph ends there."""

    def encode(self: Encoder, *given: Any) -> Any:
        torch._dynamo.graph_break()
        return plain(self, *given)

    return encode


def changes(plain: Any) -> Any:
    """A number in the model that is another at every step, which a graph takes for a constant."""

    def encode(self: Encoder, *given: Any) -> Any:
        self.steps_seen = getattr(self, "steps_seen", 0) + 1
        return plain(self, *given) * (1.0 if self.steps_seen % 2 else 1.1)

    return encode


PLANTED = {"a graph break": breaks, "a changing constant": changes}


def trained(name: str, out: Path, stop: int | None = None, **more: Any) -> tuple[Run | None, list[int]]:
    """The run, or None where it was stopped as asked, and the graphs compiled until after each of its steps."""
    plain, graphs = torch.compile, []
    how = {"depth": 1, "steps": STEPS, "log_every": 1, "checkpoint_every": 2} | more
    settings = settings_of(name, out=str(out), **how)

    def note(moment: Moment) -> None:
        graphs.append(COUNTER.frame_count)
        if moment.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    if stop is None:  # else what was compiled for the whole run serves again
        torch._dynamo.reset()
        COUNTER.clear()
    torch.compile = lambda model: plain(model, backend=COUNTER, fullgraph=True)
    try:
        return pretrain(settings, callbacks=[note]), graphs
    except Stopped:
        return None, graphs
    finally:
        torch.compile = plain


def case(name: str, out: Path, **more: Any) -> dict[str, Any]:
    """Of one case: losses eager and compiled, graphs after each step, and whether a resumed run is bit-equal."""
    eager, _ = trained(name, out / "eager", **more)
    whole, graphs = trained(name, out / "whole", compile=True, **more)
    stopped, _ = trained(name, out / "parts", STOP, compile=True, **more)
    parts, resumed = trained(name, out / "parts", compile=True, **more)
    assert stopped is None
    assert eager is not None
    assert whole is not None
    assert parts is not None
    equal = sha256(parts.path / MODEL) == sha256(whole.path / MODEL)
    losses = {said: [entry["loss"] for entry in run.history] for said, run in (("eager", eager), ("compiled", whole))}
    return losses | {"graphs": graphs, "resumed": resumed, "bit_equal": equal}


def planted(fault: str, out: Path, **more: Any) -> dict[str, Any]:
    """The graphs of a MAE with a fault, or the line that refuses it."""
    plain = Encoder.encode_patches
    Encoder.encode_patches = PLANTED[fault](plain)
    try:
        return {"graphs": trained("MAE", out, compile=True, steps=2, **more)[1]}
    except Unsupported as error:
        return {"refused": str(error).strip().splitlines()[0]}
    finally:
        Encoder.encode_patches = plain


def main(names: list[str], out: Path) -> None:
    """Print what is found of each case, and of each fault."""
    torch.set_num_threads(1)
    source = f"folder:{out / 'pictures'}"
    for name in names:
        print(json.dumps({"name": name} | case(name, out / name, source=source)), flush=True)
    for fault in PLANTED:
        print(json.dumps({"name": fault} | planted(fault, out / fault, source=source)), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
