"""Weights read from a file without running any of it, and put into a model with every key and shape checked."""

import argparse
import difflib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models import clean_state_dict
from torch import Tensor, nn

from lcmae_core.config import LcmaeError
from lcmae_core.store.checkpoint import load_tensors

Names = Callable[[str], list[str]]
"""From a key of `MAE.state_dict()` to the keys that hold it in a file: one, or three for query, key and value apart."""
WRAPPERS = ("model", "state_dict", "module", "model_state_dict", "model_ema", "state_dict_ema", "ema_state_dict", "ema")
"""Keys under which files keep their state dict, looked up in this order: the trained weights before their moving
average."""


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The state dict in a safetensors or PyTorch file, prefixes of DDP and torch.compile removed.

    Raises:
        LcmaeError: the file cannot be read, holds more than tensors and `HARMLESS` data, or no weights.
    """
    content = load_tensors(file) if file.suffix == ".safetensors" else _unpickle(file)
    for _ in range(2):  # Lightning and some others wrap twice
        inner = next((n for n in WRAPPERS if isinstance(content, dict) and isinstance(content.get(n), dict)), None)
        content = content if inner is None else content[inner]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise LcmaeError(f"checkpoint: got {str(file)!r} without weights, expected a state dict")
    return clean_state_dict({str(key): value for key, value in content.items() if isinstance(value, Tensor)})


def find_shape(tensors: Mapping[str, Tensor], key: str, dimensions: int, file: Path) -> tuple[int, ...]:
    """The shape of one tensor.

    Raises:
        LcmaeError: it is missing, or has another number of dimensions.
    """
    if key not in tensors:
        raise LcmaeError(f"key: {key!r} is missing in {str(file)!r}, nearest there: {_nearest(key, tensors)!r}")
    if tensors[key].ndim != dimensions:
        raise LcmaeError(f"{key}: got shape {tuple(tensors[key].shape)}, expected {dimensions} dimensions")
    return tuple(tensors[key].shape)


@torch.no_grad()
def fit(model: nn.Module, tensors: Mapping[str, Tensor], names: Names, file: Path) -> None:
    """Copy the tensors of `file` into the model, each of whose weights must be there, in the right shape, and no more.

    Raises:
        LcmaeError: the first key that is missing, unexpected or misnamed, or the first shape that does not fit.
    """
    places = {key: names(key) for key in model.state_dict()}
    _check_keys([name for place in places.values() for name in place], tensors, file)
    own = model.state_dict()  # what it returns are the weights themselves
    for key, value in own.items():
        expected = (value.shape[0] // len(places[key]), *value.shape[1:])
        for name in places[key]:
            if tensors[name].shape != expected:
                got = tuple(tensors[name].shape)
                raise LcmaeError(f"{name}: got shape {got} in {str(file)!r}, expected {expected}")
    for key, value in own.items():  # one at a time: a copy of them all would be the size of the model once more
        value.copy_(torch.cat([tensors[name] for name in places[key]]))


class _Beside:
    """What stands in for a harmless value beside the weights (a numpy number, a path, a date): nothing of it is kept,
    and none of its own code runs."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _mapping(*_: Any) -> OrderedDict[Any, Any]:
    """Stands in for a mapping that fills itself."""
    return OrderedDict()


_CORE = ("core.multiarray", "_core.multiarray")  # before and since numpy 2
_NUMPY = ("dtype", "ndarray", *(f"{core}.{name}" for core in _CORE for name in ("scalar", "_reconstruct")))
_PLAIN = ("list", "dict", "set", "int", "float", "str", "bool", "tuple", "frozenset", "complex", "bytearray")
_PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    (_mapping, "collections.defaultdict"),
    *((_Beside, f"numpy.{name}") for name in _NUMPY),
    *((_Beside, f"numpy.dtypes.{name}") for name in np.dtypes.__all__),
    *((_Beside, f"{module}.{name}") for module in ("builtins", "__builtin__") for name in _PLAIN),
    *((_Beside, f"{module}.{name}") for module in ("pathlib", "pathlib._local") for name in _PATHS),
    *((_Beside, f"datetime.{name}") for name in ("datetime", "date", "time", "timedelta", "timezone")),
)
"""What may stand beside the weights, and what stands in for it while the file is read."""


def _unpickle(file: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(HARMLESS)):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception:
        raise LcmaeError(f"checkpoint: got {str(file)!r}, expected a readable PyTorch file ({_why(file)})") from None


def _why(file: Path) -> str:
    """The classes that were refused and the way out, else how much is there: PyTorch's own word may be IndexError."""
    try:
        with torch.serialization.safe_globals(list(HARMLESS)):
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # not even a pickle
        refused = []
    if not refused:
        return f"its {file.stat().st_size:,} bytes are none, or not whole"
    return (
        f"it holds {', '.join(sorted(refused))}, which is not run: where you trust it, save its weights alone, "
        "torch.save(model.state_dict(), file)"
    )


def _check_keys(expected: list[str], tensors: Mapping[str, Tensor], file: Path) -> None:
    known = set(expected)
    missing = [name for name in expected if name not in tensors]
    surplus = [name for name in tensors if name not in known]
    more = f" ({len(missing)} missing, {len(surplus)} unexpected)" if len(missing) + len(surplus) > 2 else ""
    if surplus:
        near = _nearest(surplus[0], missing or expected)
        raise LcmaeError(f"key: got unexpected {surplus[0]!r} in {str(file)!r}, did you mean {near!r}?{more}")
    if missing:
        near = _nearest(missing[0], tensors)
        raise LcmaeError(f"key: {missing[0]!r} is missing in {str(file)!r}, nearest there: {near!r}{more}")


def _nearest(name: str, candidates: Iterable[str]) -> str:
    return difflib.get_close_matches(name, list(candidates), n=1, cutoff=0)[0]
