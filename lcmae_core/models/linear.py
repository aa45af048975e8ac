"""Linear layers whose float32 products run in oneDNN on a CPU, where eager PyTorch would call MKL.

MKL takes its AVX2 path on AMD processors even where they have AVX-512; oneDNN does not ask who made the processor. On
two Zen 5 cores it multiplies the shapes of ViT-B at 430-480 GFLOP/s instead of MKL's 200-215. (On Intel's, MKL is the
quicker of the two, by a tenth.) PyTorch sends float32 convolutions to oneDNN but not float32 matrix products, and a 1x1
convolution over rows laid out as a channels-last image is that product, without a copy and with PyTorch's own
gradients. Elsewhere (other devices, types, autocast, other CPUs, `torch.compile`) nothing changes.
"""

import platform
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """`nn.Linear`, with `linear` as its forward pass: same weights, same names, same values to rounding."""

    def forward(self, input: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows E"]:
        """x W^T + b."""
        return linear(input, self.weight, self.bias)


def linear(
    rows: Float[Tensor, "*rows D"], weight: Float[Tensor, "E D"], bias: Float[Tensor, " E"] | None = None
) -> Float[Tensor, "*rows E"]:
    """x W^T + b by the quicker of PyTorch's two CPU libraries; equals `F.linear` to float32 rounding."""
    if not _onednn_is_quicker(rows, weight):
        return F.linear(rows, weight, bias)
    image = rows.reshape(1, 1, -1, rows.shape[-1]).permute(0, 3, 1, 2)  # (1, D, 1, rows), channels last
    # One pixel has nothing to dilate; on one thread PyTorch leaves an undilated 1x1 convolution to MKL.
    product = F.conv2d(image, weight[:, :, None, None], bias, dilation=2)  # (1, E, 1, rows)
    return product.permute(0, 2, 3, 1).reshape(*rows.shape[:-1], -1)


def use_quick_linears(model: nn.Module) -> None:
    """Turn every plain `nn.Linear` inside `model` (timm's blocks name the class outright) into a `Linear`, in place."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear


def _onednn_is_quicker(rows: Tensor, weight: Tensor) -> bool:
    """Whether the product is a float32 one on an AMD CPU with AVX-512 and nothing will change its type."""
    return bool(
        rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and rows.numel() > _SMALLEST
        and rows.numel() * len(weight) > _WORTH_IT
        and _MKL_AVOIDS_AVX512
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


_SMALLEST = 20480
"""PyTorch itself keeps convolutions of images up to this many values from oneDNN."""
_WORTH_IT = 25_000_000
"""Multiplications below which what surrounds a convolution costs more than oneDNN gains: on one Zen 5 core forward and
backward of 2 080 rows, 96 to 96, take 1.54 ms as a convolution and 1.38 ms by MKL; 544 rows, 128 to 384, the same."""


def _made_by_amd() -> bool:
    """Whether the processor says so: in /proc/cpuinfo on Linux, in its name elsewhere."""
    listed = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (listed.read_text() if listed.exists() else platform.processor())


_MKL_AVOIDS_AVX512 = (
    torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512" and _made_by_amd()
)
