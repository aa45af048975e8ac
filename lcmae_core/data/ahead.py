"""Batches that worker processes make before they are asked for."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from ..config import LcmaeError
from ..store.stopping import leave_signals_to_the_parent
from .counter import Positions


class _Lazy:
    """An iterable made anew for each pass: a long run's positions never exist all at once."""

    def __init__(self, start: Callable[[], Iterator[list[tuple[int, int]]]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self._start()


def read_ahead(
    pictures: Dataset[Any], count: int, places: Callable[[], Iterator[Positions]], workers: int, *, pin: bool
) -> Iterator[tuple[Positions, Any]]:
    """`count` batches: the positions of each and what `pictures[epoch, index]` gives there, stacked.

    Up to `workers` processes read ahead (0: this process does it). Each call of `places` gives the positions from the
    first: the processes go through them once, and what they return is labelled by going through them again.

    Raises:
        LcmaeError: `UnreadableImage`, or a damaged table; in one line, from whatever process.
    """
    ahead = DataLoader(
        pictures,
        batch_sampler=_Lazy(lambda: (list(zip(e.tolist(), i.tolist())) for e, i in places())),
        num_workers=min(workers, count),
        pin_memory=pin,
        generator=torch.Generator(),  # or it would draw from the global one
        worker_init_fn=leave_signals_to_the_parent,
    )
    pictures_ahead = iter(ahead)
    try:
        yield from zip(places(), pictures_ahead, strict=True)
    except LcmaeError as error:  # torch wraps a worker's error in its traceback: keep the line that says it
        raise type(error)(str(error).strip().rsplit(f"{type(error).__name__}: ", 1)[-1]) from None
    finally:  # an error's traceback keeps the reader alive, and at exit its workers ignore the signal to end
        if isinstance(pictures_ahead, _MultiProcessingDataLoaderIter):
            pictures_ahead._shutdown_workers()
