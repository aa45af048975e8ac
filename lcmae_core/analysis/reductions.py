"""What a test looks at in a profile over layers: linear functionals, so that a mean over seeds and images of the
reduced numbers is the reduced mean, and two smooth ones for ratios.

Letters (CONTRIBUTING.md): L layers.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Reduced = np.ndarray | np.floating
"""(...), of one profile a number."""
Reduction = Callable[[np.ndarray], Reduced]


def over_all(values: Float[np.ndarray, "*rest L"]) -> Reduced:
    """Mean over layers."""
    return values.mean(-1)


def deeper(values: Float[np.ndarray, "*rest L"]) -> Reduced:
    """Mean over the deeper half of the layers (of an odd number, the middle one too)."""
    return values[..., values.shape[-1] // 2 :].mean(-1)


def shallower(values: Float[np.ndarray, "*rest L"]) -> Reduced:
    """Mean over the other layers."""
    return values[..., : values.shape[-1] // 2].mean(-1)


def deeper_less_shallower(values: Float[np.ndarray, "*rest L"]) -> Reduced:
    """Mean over the deeper half, less that over the shallower."""
    return deeper(values) - shallower(values)


def layer(index: int) -> Reduction:
    """One layer, counted from 0."""
    return lambda values: values[..., index]


def layer_less(index: int, other: int) -> Reduction:
    """One layer less another, counted from 0."""
    return lambda values: values[..., index] - values[..., other]


def depth_slope(values: Float[np.ndarray, "*rest L"]) -> Reduced:
    """Change from the first to the last layer of a line fitted through all."""
    return values @ np.array(slope_weights(values.shape[-1]))


def slope_weights(count: int) -> tuple[float, ...]:
    """Weights whose sum over `count` evenly spaced numbers is the change, from the first to the last, of a line fitted
    through all."""
    place = np.linspace(-0.5, 0.5, count)
    return tuple((place / (place @ place)).tolist())


def early_share(values: Float[np.ndarray, "L"]) -> float:
    """Mean of the first two layers over that of all: smooth, of means only."""
    return float(values[:2].mean() / values.mean())


def variation(values: Float[np.ndarray, "L"]) -> float:
    """Standard deviation over layers over their mean: smooth where layers differ, of means only."""
    return float(values.std() / values.mean())


def is_linear(reduce: Reduction, values: Float[np.ndarray, "count *rest"]) -> bool:
    """Whether reducing the mean of these profiles gives the mean of what is reduced: false of a maximum that is not
    always at the same layer. Numbers that are not finite tell nothing."""
    apart = reduce(values.mean(0)) - reduce(values).mean(0)
    if not np.isfinite(values).all() or not np.isfinite(apart).all():
        return True
    return bool(np.allclose(apart, 0, atol=1e-9 * max(float(np.abs(values).max()), 1e-300)))
