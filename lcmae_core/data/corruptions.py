"""The fifteen common corruptions of ImageNet-C (Hendrycks and Dietterich, ICLR 2019), as `imagecorruptions` makes them.

The package is installed as `imagecorruptions-imaug`, the fork of it that runs with today's scikit-image and numpy.

Letters (CONTRIBUTING.md): M images, C channels, H x W pixels.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lcmae_core.config import LcmaeError

SMALLEST = 32
"""Pixels a side that the package asks for."""
_SEEDED = ("impulse_noise", "glass_blur")
"""Those that take a seed; all others draw from numpy's global generator."""


@cache
def why_not() -> str | None:
    """Why the package cannot be used here, in one line; None where it can. (It needs OpenCV, and that libGL.)"""
    try:
        _keep_compiled(_package().corruptions)
    except Exception as error:  # a missing package, or a library that one of them misses
        return f"corruptions need imagecorruptions ({error}): pip install imagecorruptions-imaug"
    return None


def _package() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import imagecorruptions
    return imagecorruptions


def _keep_compiled(functions: Any) -> None:
    """What numba compiles of the package takes seconds: once, and not in every process."""
    with suppress(RuntimeError):  # no folder to keep it in
        for compiled in vars(functions).values():
            if hasattr(compiled, "enable_caching"):
                compiled.enable_caching()


def corruption_names() -> tuple[str, ...]:
    """The fifteen common ones, in the order of the benchmark.

    Raises:
        LcmaeError: the package cannot be imported.
    """
    if problem := why_not():
        raise LcmaeError(problem)
    return tuple(_package().get_corruption_names("common"))


def corrupted(
    images: UInt8[np.ndarray, "M H W C"], severities: Sequence[int] = (3,)
) -> UInt8[np.ndarray, "corruptions severities M H W C"]:
    """Every image under every common corruption, at severities from 1 to 5, drawn from the image's place alone.

    The parameters are those of the benchmark for pictures of 224 px: on smaller ones blurs are stronger. The last
    answer is kept, since a study asks for the same images for each of its encoders; it is read-only.

    Raises:
        LcmaeError: the package cannot be imported, images smaller than 32 px, a severity beyond 1 to 5.
    """
    if wrong := [s for s in severities if s not in range(1, 6)]:
        raise LcmaeError(f"severity: got {wrong[0]}, expected 1 to 5")
    if min(images.shape[1:3]) < SMALLEST:
        height, width = images.shape[1:3]
        raise LcmaeError(f"image_size: got {height}x{width} px, expected at least {SMALLEST} px a side to corrupt")
    return corrupted_once(images.tobytes(), images.shape, tuple(severities))


@lru_cache(maxsize=1)
def corrupted_once(pixels: bytes, shape: tuple[int, ...], severities: tuple[int, ...]) -> np.ndarray:
    """`corrupted` of images that were checked, as bytes of a shape, by which the last answer is found again."""
    images, names = np.frombuffer(pixels, np.uint8).reshape(shape), corruption_names()
    corrupted = np.empty((len(names), len(severities), *shape), np.uint8)
    for k, name in enumerate(names):
        for s, severity in enumerate(severities):
            for m, image in enumerate(images):
                corrupted[k, s, m] = _one(image, name, severity, seed=1000 * k + m)
    corrupted.setflags(write=False)  # it is kept and handed out again
    return corrupted


def _one(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    seeded = {"seed": seed} if name in _SEEDED else {}
    with _global_seed(seed):
        out = _package().corrupt(image, severity=severity, corruption_name=name, **seeded)
    return out if image.shape[2] == 3 else out.mean(axis=2, keepdims=True).round().astype(np.uint8)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """numpy's global generator, which the package draws from, set and given back as it was."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
