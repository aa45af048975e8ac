"""FSDP2: weights, gradients and optimiser state spread over the ranks, each of which keeps its rows (`runtime.fsdp`).

A block's weights are whole only while it computes. Checkpoints are written by all ranks at once (torch's distributed
checkpoint) and read by any number of them, one process without torchrun among them; so are the whole checkpoints of one
process and of DDP. What is kept in the end, and for analysis, is whole.

The optimiser's state is saved by the names of weights: their numbers, by which an optimiser knows them, may differ in
another process. Imports of torch's sharding stand inside functions: they take half a second, and one process alone
needs none of them.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn


def shard(model: nn.Module) -> nn.Module:
    """The model with its weights spread over all ranks: block by block, then what lies outside of blocks."""
    from torch.distributed.fsdp import fully_shard

    for module in list(model.modules()):
        if isinstance(module, Block):
            fully_shard(module)
    fully_shard(model)
    return model


def sharded(model: nn.Module) -> bool:
    """Whether `shard` was called on it."""
    return hasattr(model, "set_requires_gradient_sync")


def local(value: Tensor) -> Tensor:
    """What this rank has of a tensor: all of it, where it is not sharded."""
    return value.to_local() if _spread(value) else value  # type: ignore[attr-defined]


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor with the rows of all ranks; every rank has to call it."""
    return {name: value.full_tensor() if _spread(value) else value for name, value in tensors.items()}  # type: ignore[attr-defined]


def placed(value: Tensor, like: Any) -> Tensor:
    """A whole tensor in the way that `like` is held: the rows of this rank, where `like` is sharded. Where ranks have
    different values, those of the first are taken."""
    if not _spread(like) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def load_whole(model: nn.Module, weights: Mapping[str, Tensor], optimizer: Any, state: Mapping[str, Any]) -> None:
    """Weights and the state of an optimiser from a whole checkpoint."""
    own = model.state_dict()
    model.load_state_dict({name: placed(value, own[name]) for name, value in weights.items()})
    parameters = dict(enumerate(_parameters(optimizer)))
    parts = {
        number: {key: placed(value, parameters[number]) if isinstance(value, Tensor) else value
                 for key, value in entry.items()}
        for number, entry in state["state"].items()
    }  # fmt: skip
    optimizer.load_state_dict({**state, "state": parts})


def save_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Weights and optimiser state, each rank its rows; every rank has to call it.

    Raises:
        OSError: a rank cannot write; or what else went wrong on the first of those where it did, on all of them.
    """
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.api import CheckpointException

    names = _names(model, optimizer)
    state = {name: optimizer.state[p] for name, p in names.items() if optimizer.state.get(p)}
    with _quietly():
        try:
            dcp.save({"model": model.state_dict(), "optimizer": state}, checkpoint_id=folder)
        except CheckpointException as error:  # no Exception: nothing that waits for one would see it
            raise error.failures[min(error.failures)][0] from None


def bytes_of_shards(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """What `save_shards` writes, by all ranks together: sizes are those of whole tensors, wherever their rows are."""
    every = [*model.state_dict().values(), *(v for entry in optimizer.state.values() for v in entry.values())]
    return sum(value.numel() * value.element_size() for value in every if isinstance(value, Tensor))


def load_shards(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> None:
    """What `save_shards` wrote, by however many ranks, into a model and its optimiser, sharded or not. Every rank has
    to call it. groups: the optimiser's parameter groups."""
    from torch import distributed as dist
    from torch.distributed import checkpoint as dcp

    names, kept = _names(model, optimizer), dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    state = {name: _room(kept, f"optimizer.{name}.", p) for name, p in names.items()}
    loaded = {"model": model.state_dict(), "optimizer": {name: entry for name, entry in state.items() if entry}}
    with _quietly():
        dcp.load(loaded, checkpoint_id=folder, no_dist=not dist.is_initialized())
    model.load_state_dict(loaded["model"])
    numbers = {p: number for number, p in enumerate(_parameters(optimizer))}
    parts = {numbers[names[name]]: entry for name, entry in loaded["optimizer"].items()}
    optimizer.load_state_dict({"state": parts, "param_groups": groups})


def _spread(value: Tensor) -> bool:
    return hasattr(value, "full_tensor")


def _room(kept: Mapping[str, Any], prefix: str, weight: Tensor) -> dict[str, Tensor]:
    """Room for what a checkpoint has of a weight in an optimiser: none, if the weight was never stepped."""
    room = {}
    for key in (key for key in kept if key.startswith(prefix)):
        shape, dtype = kept[key].size, kept[key].properties.dtype
        like = torch.zeros_like(weight, dtype=dtype) if shape == weight.shape else torch.zeros(shape, dtype=dtype)
        room[key.removeprefix(prefix)] = like.detach()
    return room


def _names(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    trained = {id(p) for p in _parameters(optimizer)}
    return {name: p for name, p in model.named_parameters() if id(p) in trained}


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    return (p for group in optimizer.param_groups for p in group["params"])


@contextmanager
def _quietly() -> Iterator[None]:
    """Without torch's remarks on its own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
