"""Whole training loops as contestants: pictures are cut, a loss is minimised, the optimiser steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from lcmae_core.bench.peers import textbook_of
from lcmae_core.bench.rehearsal import Prepared
from lcmae_core.bench.textbook import TextbookStep
from lcmae_core.config import Settings
from lcmae_core.data.loader import Loader
from lcmae_core.data.sources import open_source
from lcmae_core.training.guards import LossGuard
from lcmae_core.training.steps import one_step

ENDLESS = 10**6
"""Steps of a loop that nobody goes to the end of."""


class Loop(NamedTuple):
    """A step with all that belongs to it, its model, and the first blocks of encoder and decoder."""

    step: Callable[[], Any]
    model: nn.Module
    blocks: tuple[nn.Module, nn.Module]


def ours(settings: Settings) -> Loop:
    """The step of `pretrain`, its guard included, without checkpoints and log lines."""
    prepared: Any = Prepared(settings, steps=ENDLESS)
    batches, guard, steps = prepared.task.batches(0, ENDLESS), LossGuard(), iter(range(ENDLESS))

    def step() -> None:
        one_step(prepared.task, next(batches), next(steps), guard.check)

    model = prepared.model
    return Loop(step, model, (model.encoder.blocks[0], model.decoder.blocks[0]))


def textbook(settings: Settings) -> Loop:
    """The textbook's step on the same pictures, held decoded as ours are."""
    batch = settings.optim.batch_size
    source = open_source(settings.data).train
    held: Any = Loader(source, settings.data, seed=0, batch_size=batch, device="cpu", progress=False)
    side = settings.data.image_size[0]
    step = TextbookStep(held._canvas.pixels, textbook_of(settings), batch, side)
    return Loop(step, step.model, (step.model.blocks[0], step.model.decoder_blocks[0]))


LOOPS: dict[str, Callable[[Settings], Loop]] = {"loop": ours, "textbook-loop": textbook}
"""Name -> loop."""
