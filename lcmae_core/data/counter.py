"""Random numbers and image order as pure functions of (seed, stream, epoch, index): there is no state to save.

Letters (CONTRIBUTING.md): B images of a batch, M images of a split.
"""

import hashlib
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_WORD = 2**64
_GAMMA = 0x9E3779B97F4A7C15  # the odd constant of splitmix64: 2^64 / golden ratio
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


class Positions(NamedTuple):
    """Where a training batch lies in the endless stream of epochs."""

    epoch: Int64[Tensor, "B"]
    index: Int64[Tensor, "B"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls


class Share(NamedTuple):
    """The rows of a batch that one of several processes takes: its part of every micro-batch, so that micro-batch by
    micro-batch all processes together hold what one would."""

    number: int = 0
    of: int = 1
    micro_batches: int = 1

    def rows(self, batch_size: int) -> Int64[Tensor, "B"]:
        """Their places in the batch, ascending."""
        return torch.arange(batch_size).view(self.micro_batches, self.of, -1)[:, self.number].flatten()


WHOLE = Share()


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word: torch has no full unsigned arithmetic, but int64 wraps alike."""
    word %= _WORD
    return word - _WORD if word >= _WORD // 2 else word


def _shift(x: Tensor, by: int) -> Tensor:
    """Logical right shift; torch's `>>` copies the sign bit, which is masked away."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def mix(x: Int64[Tensor, "*any"]) -> Int64[Tensor, "*any"]:
    """splitmix64's finaliser (Steele, Lea, Flood 2014): a bijection of 64 bits that mixes every bit into every bit."""
    x = (x ^ _shift(x, 30)) * _signed(_MIX[0])
    x = (x ^ _shift(x, 27)) * _signed(_MIX[1])
    return x ^ _shift(x, 31)


@lru_cache(maxsize=256)
def stream_key(seed: int, stream: str) -> int:
    """Start of a named stream, the same in every process (unlike `hash`)."""
    return _signed(int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], "little"))


def counter_uniform(
    seed: int, stream: str, epoch: Int64[Tensor, "B"], index: Int64[Tensor, "B"], count: int
) -> Float[Tensor, "B draws"]:
    """`count` float32 numbers in [0, 1) for each image, a pure function of the arguments, on the tensors' device.

    Epoch and index are mixed in one after the other; then splitmix64 counts on from there, and the top 24 bits of each
    word become a float32 exactly. An image gets the same numbers in whatever batch, process or device it is drawn.
    """
    gamma = _signed(_GAMMA)
    key = mix(epoch * gamma + stream_key(seed, stream))
    key = mix(key + index * gamma)  # (B,)
    steps = torch.arange(1, count + 1, device=index.device) * gamma  # (draws,)
    return _shift(mix(key[:, None] + steps), 40).to(torch.float32) * 2.0**-24  # (B, draws)


@lru_cache(maxsize=8)
def epoch_order(seed: int, epoch: int, size: int) -> Int64[Tensor, "M"]:
    """The order in which epoch `epoch` visits the M = `size` images; shared between callers, so do not write to it."""
    key = stream_key(seed, f"order/{epoch}") & (2**63 - 1)
    return torch.randperm(size, generator=torch.Generator().manual_seed(key))


def positions(seed: int, step: int, batch_size: int, size: int, share: Share = WHOLE) -> Positions:
    """Epochs and images of training step `step`, on the CPU; of the whole batch, or of one process's share.

    The stream is the endless concatenation of the epochs' permutations and a batch is its next `batch_size` places:
    any number of images goes with any batch size, and a batch may span epochs.
    """
    place = torch.arange(step * batch_size, (step + 1) * batch_size)
    epoch = place // size
    first, last = step * batch_size // size, ((step + 1) * batch_size - 1) // size
    orders = torch.stack([epoch_order(seed, e, size) for e in range(first, last + 1)])  # (epochs, M)
    at = Positions(epoch, orders[epoch - first, place % size])
    return at if share.of == 1 else Positions(*(values[share.rows(batch_size)] for values in at))
