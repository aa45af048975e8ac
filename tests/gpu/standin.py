"""A stand-in for `torch.cuda` that records what is asked of it: one card, idle, on which nothing is computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from lcmae_core.store import accelerator

CARD = SimpleNamespace(name="NVIDIA Stand-in", total_memory=80 * 10**9)


class StandInCuda:
    """What `lcmae_core.store.accelerator` asks of `torch.cuda`; `asked` lists the calls in order."""

    def __init__(self, there: bool = True):
        self.there, self.asked, self.debug = there, [], "default"

    def is_available(self) -> bool:
        return self.there

    def device_count(self) -> int:
        return 1

    def get_device_properties(self, device: Any) -> SimpleNamespace:
        return CARD

    def set_device(self, device: Any) -> None:
        self.asked.append(f"use {device}")

    def synchronize(self, device: Any) -> None:
        self.asked.append(f"wait for {device}")

    def reset_peak_memory_stats(self, device: Any) -> None:
        self.asked.append(f"watch {device}")

    def max_memory_allocated(self, device: Any) -> int:
        return 3 * 2**20

    def get_sync_debug_mode(self) -> str:
        return self.debug

    def set_sync_debug_mode(self, mode: str) -> None:
        self.debug = mode
        self.asked.append(f"debug {mode}")

    def current_stream(self, device: Any) -> str:
        return f"stream of {device}"

    def Event(self) -> SimpleNamespace:  # noqa: N802
        number = sum(words.startswith("record") for words in self.asked)
        return SimpleNamespace(
            record=lambda stream: self.asked.append(f"record {number} on {stream}"),
            synchronize=lambda: self.asked.append(f"wait for {number}"),
        )


@contextmanager
def stand_in(there: bool = True) -> Iterator[StandInCuda]:
    """`torch.cuda` of the package replaced; the generators of a device that is not there are left alone."""
    with pytest.MonkeyPatch.context() as patch:
        cuda = StandInCuda(there)
        patch.setattr(accelerator, "cuda", cuda)
        patch.setattr(accelerator, "devices_with_generators", lambda device: [])
        yield cuda
