"""How near a reconstruction is to its picture, in structure (SSIM, FSIM) and in pixels (PSNR, MSE), all by piq.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels. Pixels are in [0, 1].
"""

from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from lcmae_core.config import LcmaeError

WINDOW = 11
"""Side of SSIM's Gaussian window (sigma 1.5), in pixels: the smallest picture that can be judged."""


class Fidelity(NamedTuple):
    """One number an image. ssim, fsim: 1 if equal (of colour pictures SSIM is the channels' mean, FSIM is FSIM_C).
    psnr: dB. mse: mean squared error of a value."""

    ssim: Float[Tensor, "B"]
    fsim: Float[Tensor, "B"]
    psnr: Float[Tensor, "B"]
    mse: Float[Tensor, "B"]


def fidelity(guess: Float[Tensor, "B C H W"], truth: Float[Tensor, "B C H W"]) -> Fidelity:
    """The four measures of HLV (arXiv 2306.04898) for every image; values beyond [0, 1] are clipped first.

    Raises:
        LcmaeError: a side shorter than SSIM's window; piq is not installed.
    """
    piq = _piq()
    if min(guess.shape[2:]) < WINDOW:
        height, width = guess.shape[2:]
        raise LcmaeError(f"image_size: got {height}x{width} px, expected at least {WINDOW} px a side for SSIM")
    guess, truth = guess.clamp(0, 1), truth.clamp(0, 1)
    ssim, psnr = (measure(guess, truth, reduction="none") for measure in (piq.ssim, piq.psnr))
    fsim = piq.fsim(guess, truth, reduction="none", chromatic=guess.shape[1] == 3)
    return Fidelity(ssim, fsim, psnr, (guess - truth).square().mean(dim=(1, 2, 3)))


def _piq() -> Any:
    try:
        import piq
    except ImportError as error:
        raise LcmaeError(f"fidelity needs piq ({error}): pip install piq") from None
    return piq
