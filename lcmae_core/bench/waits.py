"""What makes the host wait for the device, found without one: on the CPU, tensors are marked as if they lay on it.

A mark is handed on by every operation, forward, backward and in the optimiser, as a device is. Reading a marked value
is what a GPU would be waited for. Two kinds of wait need no mark, since torch's fake devices refuse them (tests/gpu):
shapes that depend on values, and copies to the device. On CUDA itself `store.accelerator.waits_said` asks torch.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from lcmae_core.data.loader import Batch

PACKAGE = str(Path(__file__).resolve().parents[1])
READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
"""`.item()`, `bool()`, `int()`, `float()`, and comparing as a whole."""
COPIES = ("cpu", "numpy", "tolist", "__array__", "__dlpack__", "__repr__")
"""Methods of a tensor that hand its values over without any operation that is seen, on a CPU."""


class Wait(NamedTuple):
    """What was asked of a marked tensor, in which step, and the line of the package that asked."""

    what: str
    step: int
    place: str


class Waits(TorchDispatchMode):
    """Inside, what reads marked tensors is noted in `noted`; `step` is what it is noted with."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Wait] = []
        self.step = 0
        self._marked = WeakIdKeyDictionary()
        self._copies = _Copies(self)

    def mark(self, value: Any) -> Any:
        """Say of all tensors in a value that they lie on the device; the value itself."""
        for tensor in tree_leaves(value):
            if isinstance(tensor, Tensor):
                self._marked[tensor] = True
        return value

    def mark_batch(self, batch: Batch) -> Batch:
        """The batch, of which all but `at` lies on the device; what it shares with that is copied first."""
        sent = batch._replace(epoch=batch.epoch.clone(), index=batch.index.clone(), at=None)
        return self.mark(sent)._replace(at=batch.at)

    def mark_model(self, model: nn.Module) -> None:
        """The weights and buffers of a model."""
        self.mark([*model.parameters(), *model.buffers()])

    def marked(self, values: Iterable[Any]) -> bool:
        """Whether one of these lies on the device."""
        return any(isinstance(value, Tensor) and value in self._marked for value in values)

    def note(self, what: str) -> None:
        """A wait, at the innermost line of the package."""
        frame = sys._getframe(1)
        while frame and (not frame.f_code.co_filename.startswith(PACKAGE) or frame.f_code.co_filename == __file__):
            frame = frame.f_back  # type: ignore[assignment]
        place = f"{Path(frame.f_code.co_filename).relative_to(PACKAGE)}:{frame.f_lineno}" if frame else "?"
        self.noted.append(Wait(what, self.step, place))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = self.marked(tree_leaves((args, kwargs)))
        if known and func in READS:
            self.note(str(func).removeprefix("aten.").partition(".")[0])
        out = func(*args, **(kwargs or {}))
        sent_late = func is torch.ops.aten.copy_.default and not self.marked(args[:1])  # pinned memory of the host
        return self.mark(out) if known and not sent_late else out

    def __enter__(self) -> Self:
        self._copies.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._copies.__exit__(*error)


class _Copies(TorchFunctionMode):
    """Notes the methods in `COPIES`, which are no operations."""

    def __init__(self, waits: Waits):
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in COPIES and self._waits.marked(args[:1]):
            self._waits.note(f".{func.__name__}()")
        return func(*args, **(kwargs or {}))
