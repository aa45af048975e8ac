"""A CUDA device that is not there: tensors on it have shape, type and device and no values (torch's FakeTensorMode).

What stays on the CPU is computed as ever, so that the loader draws real boxes; what is sent to the device is fake from
there on. Refused: reading a value back, a copy to the CPU, CPU tensors among the device's (numbers without a dimension
apart, which CUDA takes too), shapes that hang on values, and copies to the device that make the host wait.
"""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)


class RefusedError(RuntimeError):
    """What a real device could do only by waiting, or not at all."""


class PretendedCuda(TorchDispatchMode):
    """Everything that touches the device is only worked out in shape; everything else is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=False)
        self.setting_up = False  # before the first step the host may wait for what it sends

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat, spec = tree_flatten((args, kwargs))
        tensors = [value for value in flat if isinstance(value, Tensor)]
        place = kwargs.get("device")
        to_device = place is not None and torch.device(place).type == "cuda"
        if not to_device and not any(isinstance(t, FakeTensor) for t in tensors):
            with _disable_current_modes():  # the device's own mode, which stands below this one
                return func(*args, **kwargs)
        self._judge(func, tensors, kwargs, to_device)
        flat = [self._faked(value) if isinstance(value, Tensor) else value for value in flat]
        args, kwargs = tree_unflatten(flat, spec)
        return func(*args, **kwargs)  # by the device's own mode

    def __enter__(self) -> Self:
        self.fake.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def _judge(self, func: Any, tensors: list[Tensor], kwargs: Mapping[str, Any], to_device: bool) -> None:
        """Refuse what makes the host wait and what mixes devices; `FakeTensorMode` refuses the rest."""
        host = [t for t in tensors if t.device.type == "cpu"]
        if func in COPIES:
            place = torch.device(kwargs.get("device") or tensors[0].device)
            source = tensors[-1]
            if place.type == "cpu" and source.device.type != "cpu":
                raise RefusedError(f"{func}: a copy to the CPU, which waits for the device")
            late = kwargs.get("non_blocking", False) or self.setting_up
            if place.type == "cuda" and source.device.type == "cpu" and source.ndim and not late:
                raise RefusedError(f"{func}: a copy of {tuple(source.shape)} to the device that the host waits for")
            return
        mixed = [t for t in host if t.ndim]
        if mixed:
            raise RefusedError(f"{func}: a CPU tensor of shape {tuple(mixed[0].shape)} among the device's")

    def _faked(self, value: Tensor) -> Tensor:
        return value if isinstance(value, FakeTensor) else self.fake.from_tensor(value)

    def place(self, model: nn.Module) -> nn.Module:
        """A model of real weights, its weights and buffers on the device; as `Module.to`, which cannot make fakes."""
        for module in model.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    module._parameters[name] = nn.Parameter(self._like(value), requires_grad=value.requires_grad)
            for name, value in module._buffers.items():
                if value is not None:
                    module._buffers[name] = self._like(value)
        return model

    @staticmethod
    def _like(value: Tensor) -> Tensor:
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)
