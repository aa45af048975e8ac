"""Linear layers whose float32 products run in oneDNN on a CPU, where eager PyTorch would call MKL.

MKL takes its AVX2 path on AMD processors even where they have AVX-512; oneDNN does not ask who made the processor. On
two Zen 5 cores it multiplies the shapes of ViT-B at 430-480 GFLOP/s instead of MKL's 200-215; on Zen 4 a tenth faster,
and only where there are many rows. (On Intel's, MKL is the quicker of the two, by a tenth.) PyTorch sends float32
convolutions to oneDNN but not float32 matrix products, and a 1x1 convolution over rows laid out as a channels-last
image is that product, without a copy and with PyTorch's own gradients. Elsewhere (other devices, types, autocast, other
CPUs, `torch.compile`) nothing changes.

Letters (CONTRIBUTING.md): D width of what goes in, E width of what comes out.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lcmae_core.store.cores import processor


class Linear(nn.Linear):
    """`nn.Linear`, with `linear` as its forward pass: same weights, same names, same values to rounding."""

    def forward(self, input: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows E"]:
        """x W^T + b."""
        return linear(input, self.weight, self.bias)


def linear(
    rows: Float[Tensor, "*rows D"], weight: Float[Tensor, "E D"], bias: Float[Tensor, " E"] | None = None
) -> Float[Tensor, "*rows E"]:
    """x W^T + b by the quicker of PyTorch's two CPU libraries; equals `F.linear` to float32 rounding."""
    if not onednn_is_quicker(rows, weight):
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


def onednn_is_quicker(rows: Tensor, weight: Tensor) -> bool:
    """Whether the product is a float32 one on an AMD CPU with AVX-512 and nothing will change its type."""
    return bool(
        rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and rows.numel() > _SMALLEST
        and MKL_AVOIDS_AVX512
        and rows.numel() // rows.shape[-1] >= LEAST.rows
        and rows.numel() * len(weight) > LEAST.multiplications
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


_SMALLEST = 20480
"""PyTorch itself keeps convolutions of images up to this many values from oneDNN."""


class Least(NamedTuple):
    """Rows and multiplications below which what surrounds a convolution costs more than oneDNN gains."""

    rows: int
    multiplications: int


WHOLE, HALVED = Least(1, 25_000_000), Least(800, 150_000_000)
"""Where AVX-512 is computed in one pass (Zen 5), and in two halves (Zen 4), so that MKL's AVX2 is nearly as quick. One
Zen 5 core: forward and backward of 2 080 rows, 96 to 96, take 1.54 ms as a convolution and 1.38 ms by MKL; 544 rows,
128 to 384, the same. One Zen 4 core, times of oneDNN by MKL's: 100 rows, 768 to 3 072, 1.19; 400 rows 1.01; 1 600 rows
0.92; 1 600 rows, 512 to 2 048, 0.90; 544 rows, 128 to 512, 1.13."""
ZEN_5 = 26
"""Family by which AMD's processors say it."""


_PROCESSOR = processor()
LEAST = WHOLE if _PROCESSOR.family >= ZEN_5 else HALVED
MKL_AVOIDS_AVX512 = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and _PROCESSOR.maker == "amd"
)
