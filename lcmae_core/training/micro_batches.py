"""The micro-batches of a step, whose gradients are summed, and what becomes of the step if a stop is asked for."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import nn

from lcmae_core.store.stopping import stop_asked
from lcmae_core.training.distributed import ranks

Part = TypeVar("Part")


class StepDroppedError(Exception):
    """A stop was asked for between two micro-batches; the model is what it was before the step."""


def micro_batches(parts: Iterable[Part], model: nn.Module) -> Iterator[Part]:
    """Each micro-batch of a step in turn. Where a stop is asked for between two of them, what their forward and
    backward passes did to the model is undone: many of them can take longer than a scheduler waits. Several ranks,
    which would have to agree to that in the middle of a step, finish it.

    Raises:
        StepDroppedError: a stop was asked for.
    """
    listed = list(parts)
    may_stop = len(listed) > 1 and ranks().of == 1
    # running statistics: weights change after the last micro-batch, buffers with each
    before = [buffer.clone() for buffer in model.buffers()] if may_stop else []
    for number, part in enumerate(listed):
        if number and may_stop and stop_asked() is not None:
            with torch.no_grad():
                for buffer, earlier in zip(model.buffers(), before, strict=True):
                    buffer.copy_(earlier)
            model.zero_grad(set_to_none=True)
            raise StepDroppedError
        yield part
