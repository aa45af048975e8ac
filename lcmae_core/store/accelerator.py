"""All that is asked of torch's accelerators by name, so that no other file does and a test can stand in for the device.

`torch.cuda` and `torch.backends.mps` are named in this file alone (a test sees to it). What works on any device by
`tensor.device` (autocast, `.to`, factories) needs nothing of this.
"""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

cuda: Any = torch.cuda
"""What is asked for CUDA; the tests put a recording stand-in here."""
mps: Any = torch.backends.mps
"""What is asked for Apple's MPS."""


class Card(NamedTuple):
    """A CUDA device: name, and memory in bytes."""

    name: str
    memory: int


def kinds() -> list[str]:
    """Kinds of accelerators that are there, the preferred one first."""
    return [kind for kind, there in (("cuda", cuda.is_available()), ("mps", mps.is_available())) if there]


def cards() -> list[Card]:
    """Every CUDA device, by index."""
    return [card(torch.device("cuda", index)) for index in range(cuda.device_count())] if cuda.is_available() else []


def card(device: torch.device) -> Card:
    """One CUDA device."""
    properties = cuda.get_device_properties(device)
    return Card(properties.name, properties.total_memory)


def use(device: torch.device) -> None:
    """Make a CUDA device the current one of this process; nothing elsewhere."""
    if device.type == "cuda":
        cuda.set_device(device)


def wait_for(device: torch.device) -> None:
    """Until everything queued on a device is done; a CPU has done it."""
    if device.type == "cuda":
        cuda.synchronize(device)
    elif device.type != "cpu":
        torch.accelerator.synchronize(device)


class Late(NamedTuple):
    """A number on its way from the device: read `value` after `wait`."""

    value: Tensor
    event: Any

    def wait(self) -> None:
        """Until the number has come, not until the device is idle."""
        self.event.synchronize()


def read_late(value: Tensor) -> Late | None:
    """Start copying a tensor from a CUDA device without waiting for it; None where nothing is gained by being late."""
    if value.device.type != "cuda":
        return None
    copy = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    copy.copy_(value.detach(), non_blocking=True)
    event = cuda.Event()
    event.record(cuda.current_stream(value.device))
    return Late(copy, event)


def kept_randomness(device: torch.device) -> AbstractContextManager[None]:
    """Inside, torch's global generators may be seeded: the CPU's and a CUDA device's stand afterwards as before."""
    return torch.random.fork_rng(devices_with_generators(device))


def devices_with_generators(device: torch.device) -> list[torch.device]:
    """Devices beside the CPU whose generators are kept."""
    return [device] if device.type == "cuda" else []


def watch_peak(device: torch.device) -> None:
    """Begin to count the most memory that tensors take on a CUDA device."""
    cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> float:
    """The most that tensors took on a CUDA device since then, in MiB."""
    return cuda.max_memory_allocated(device) / 2**20


@contextmanager
def waits_said(device: torch.device) -> Iterator[list[str]]:
    """On CUDA, what made the host wait for the device inside (torch's sync debug mode); fills the list at the end."""
    places: list[str] = []
    if device.type != "cuda":
        yield places
        return
    before = cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            cuda.set_sync_debug_mode(before)
    places += [f"{w.filename}:{w.lineno}" for w in caught if "synchronizing" in str(w.message)]
