"""Training by several processes of torch.distributed (ranks), started by torchrun: what they share, and what one does.

Every rank takes its rows of each batch; order, crops and masks are functions of (seed, epoch, index), so any number of
ranks sees what one process would. Gradients and all numbers that belong to a whole batch are means over ranks. The
first rank alone writes. Without torchrun there is one rank, and nothing here does anything.

Letters (CONTRIBUTING.md): B images of all ranks.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.data.counter import Positions, Share
from lcmae_core.data.loader import Batch
from lcmae_core.store.accelerator import use
from lcmae_core.store.cores import started_processes
from lcmae_core.store.machine import pick_device
from lcmae_core.store.runs import Run
from lcmae_core.store.stopping import CODES, StopRequest
from lcmae_core.training.sharding import shard, sharded

T = TypeVar("T")
R = TypeVar("R", bound=Run)


class Ranks(NamedTuple):
    """Which of how many processes this is."""

    number: int = 0
    of: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.number == 0


def ranks() -> Ranks:
    """This process among those that train together."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The group of the processes that torchrun started; one rank where it started none, or inside another `joined`.

    Values on the CPU go through gloo, those on CUDA devices through NCCL.
    """
    if started_processes() == 1 or ranks().of > 1:
        yield ranks()
        return
    place = pick_device(device)
    use(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    try:
        yield ranks()
    finally:
        dist.destroy_process_group()


@contextmanager
def opened_by_all(
    opening: Callable[[], R], device: str, *, resume: bool, patience: float = -1
) -> Iterator[tuple[R, Ranks]]:
    """A run that all ranks work on together: `joined`, its folder locked by the first, and emptied where it is not to
    be resumed. All wait for each other before the work and after it."""
    with joined(device) as group:
        run = opening()
        with run.lock(patience) if group.first else nullcontext():
            if not resume and group.first:
                run.clear()
                run = opening()
            wait_for_all()
            yield run, group
            wait_for_all()


def share_of(batch_size: int, accum_steps: int = 1, mine: Ranks | None = None) -> Share:
    """The rows of every batch that are this rank's, or those of `mine`: its part of each of the micro-batches.

    Raises:
        LcmaeError: the batch does not divide among the ranks.
    """
    mine = mine or ranks()
    if batch_size % (mine.of * accum_steps):
        raise LcmaeError(
            f"batch_size: got {batch_size} on {mine.of} ranks with accum_steps {accum_steps}, "
            f"expected a multiple of {mine.of * accum_steps}"
        )
    return Share(mine.number, mine.of, accum_steps)


def spread(model: nn.Module, settings: Settings) -> nn.Module:
    """The model with gradients averaged over ranks in its backward pass; itself where there is one. With `runtime.fsdp`
    its weights are spread over the ranks (`sharding`), else each has a copy (DDP).

    DDP looks for weights without a gradient where there are some: the decoder's last layer without L_MAE.
    """
    if ranks().of == 1:
        return model
    if settings.runtime.fsdp:
        return shard(model)
    return copied(model, unused=settings.method == "mae" and settings.loss.reconstruction == 0)


def copied(model: nn.Module, *, unused: bool = False) -> nn.Module:
    """The model with gradients averaged over ranks, each of which has a copy (DDP); itself where there is one rank.
    unused: whether some weights get no gradient."""
    return model if ranks().of == 1 else DistributedDataParallel(model, find_unused_parameters=unused)


def gradients_later(forward: Any, later: bool) -> AbstractContextManager[Any]:
    """For all micro-batches of a step but the last: gradients add up here and are averaged over ranks once."""
    if ranks().of == 1:
        return nullcontext()
    forward = getattr(forward, "_orig_mod", forward)  # of torch.compile
    if sharded(forward):
        forward.set_requires_gradient_sync(not later)
        return nullcontext()
    return forward.no_sync() if later else nullcontext()


@torch.no_grad()
def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of a tensor over ranks, without gradient."""
    if ranks().of == 1:
        return value
    total = value.detach().to(torch.promote_types(value.dtype, torch.float32), copy=True)
    dist.all_reduce(total)
    return total / ranks().of


@torch.no_grad()
def rows_of_all(rows: Tensor, dim: int = 0) -> Tensor:
    """The rows of all ranks in the order of one process, without gradient."""
    if ranks().of == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(ranks().of)]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts, dim=dim)


def my_part() -> Share:
    """This rank's part of images that are looked at one after the other (`Loader.evaluation`)."""
    return Share(*ranks())


def parts_of_all(parts: list[T]) -> list[T]:
    """The parts of all ranks, in their order; every rank has to call it, one without any too."""
    if ranks().of == 1:
        return parts
    every: list[list[T]] = [[] for _ in range(ranks().of)]
    dist.all_gather_object(every, parts)
    return [part for of_rank in every for part in of_rank]


def batch_of_all(batch: Batch) -> Batch:
    """The (micro-)batch of all ranks, for what mixes its images with each other."""
    if ranks().of == 1:
        return batch
    labels = None if batch.labels is None else rows_of_all(batch.labels)
    at = None if batch.at is None else Positions(*map(rows_of_all, batch.at))  # through gloo: no device waits for it
    return Batch(rows_of_all(batch.images), rows_of_all(batch.epoch), rows_of_all(batch.index), labels, at=at)


def mean_terms_over_ranks(terms: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Terms of a batch from those of its shares: every rank sees the same loss, and stops at the same step if it is no
    number."""
    if ranks().of == 1:
        return terms
    means = mean_over_ranks(torch.stack([value.double() for value in terms.values()]))
    return {name: mean.to(value.dtype) for (name, value), mean in zip(terms.items(), means)}


def agree(stop: StopRequest) -> bool:
    """Whether one of the ranks is asked to stop, which then all are: a signal reaches them between different steps, and
    one that comes while they agree counts at the next."""
    if ranks().of == 1:
        return stop.is_set()
    names = [None, *CODES]
    asked = torch.tensor(1 + names.index(stop.signal) if stop.is_set() else 0)  # on the CPU: no device waits for it
    dist.all_reduce(asked, dist.ReduceOp.MAX)
    if asked:
        stop.set(names[int(asked) - 1])
    return bool(asked)


def wait_for_all() -> None:
    """Until every rank is here."""
    if ranks().of > 1:
        dist.all_reduce(torch.zeros(()))  # unlike a barrier by gloo, whatever the devices are
