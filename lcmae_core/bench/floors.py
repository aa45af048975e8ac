"""How fast a step can be at best: its FLOPs at the rate of large products, its bytes at the rate of memory.

Both rates are measured on the machine that is judged, in the same run; what is said of a card that is not there comes
from its data sheet and is called a projection.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from lcmae_core.bench.counts import Cost
from lcmae_core.models.linear import linear
from lcmae_core.store.accelerator import wait_for

Clock = Callable[[], float]
TRIALS = 6
"""Of which the best counts."""


class Floors(NamedTuple):
    """Rates that no step can exceed: FLOP/s of large products, bytes/s of copies (read and written)."""

    flops: float
    bytes: float


class Floor(NamedTuple):
    """The least seconds an image, and which rate sets them."""

    seconds: float
    bound: str

    def share(self, seconds: float) -> float:
        """The floor as a share of what an image really takes: 1 is as fast as can be."""
        return self.seconds / seconds


CARDS = {"H100 SXM": Floors(989e12, 3.35e12), "H200 SXM": Floors(989e12, 4.8e12)}
"""Data sheets (NVIDIA): dense bf16 and memory bandwidth. For projections alone."""


def floor(cost: Cost, floors: Floors) -> Floor:
    """Of an image: the slower of computing its FLOPs and moving its bytes, as if the two went on side by side."""
    by = {"products": cost.flops / floors.flops, "memory": cost.bytes / floors.bytes}
    bound = max(by, key=lambda name: by[name])
    return Floor(by[bound], bound)


def measure_floors(device: torch.device, dtype: torch.dtype = torch.float32, *, quick: bool = False) -> Floors:
    """Both rates on this device: one large product (the better of `torch.mm` and our linear layers'), one large copy.

    `quick` takes small ones, which fit a cache: a smoke test, no measurement.
    """
    large = device.type != "cpu"
    side = 256 if quick else 8192 if large else 2048
    rates = products(device, dtype, side, clock_of(device))
    values = 2**18 if quick else 2**28 if large else 2**26  # float32: 1 GB on a card, 256 MB on a CPU
    source = torch.zeros(values, device=device)
    target = torch.empty_like(source).fill_(1.0)  # touched, or the kernel hands its pages out in the timed copy
    copied = min(timed(lambda: target.copy_(source), device, clock_of(device)) for _ in range(TRIALS))
    return Floors(max(rates.values()), 2 * 4 * values / copied)


def products(device: torch.device, dtype: torch.dtype, side: int, clock: Clock = time.perf_counter) -> dict[str, float]:
    """FLOP/s of a square product of this side: `torch.mm`, and what the linear layers of our models use."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    calls: dict[str, Callable[[], Any]] = {
        "torch.mm": lambda: torch.mm(left, right), "linear": lambda: linear(left, right),
    }  # fmt: skip
    return {name: 2 * side**3 / min(timed(call, device, clock) for _ in range(TRIALS)) for name, call in calls.items()}


def timed(call: Callable[[], Any], device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Seconds of a call on a device that has nothing else to do, by a clock."""
    wait_for(device)
    began = clock()
    call()
    wait_for(device)
    return clock() - began


def clock_of(device: torch.device) -> Clock:
    """The wall's; on one thread of a CPU the processor's, which other work on the machine distorts less. Rates and
    steps that are compared are measured by the same."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
