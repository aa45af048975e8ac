"""Of what v depends: its variance split into position, mask, image and what they do together.

Letters (CONTRIBUTING.md): M images, V width of v. In words: views (masks that all images share), places (patches of the
grid).
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Shares(NamedTuple):
    """Shares of the total variance; they sum to 1, or are all 0 where v is one constant."""

    position: float
    mask: float
    image: float
    interaction: float


def variance_shares(v: Float[Tensor, "views M places V"]) -> Shares:
    """Sums of squares of a three-way analysis of variance over all dimensions, as shares of their total.

    With g the mean of v over everything, position is mean_i ||v_i - g||^2 with v_i the mean over masks and images at
    place i, likewise mask and image; interaction is the rest of mean ||v - g||^2. Every place is hidden in every view
    (a balanced design), so the parts are orthogonal. A v that depends on position alone has position 1.
    """
    v = v.double().cpu()
    centred = v - v.mean((0, 1, 2))
    total = float(centred.square().mean())
    if total <= EXACT * float(v.square().mean()):
        return Shares(0.0, 0.0, 0.0, 0.0)
    position, mask, image = (float(centred.mean(o).square().mean()) / total for o in ((0, 1), (1, 2), (0, 2)))
    return Shares(position, mask, image, 1 - position - mask - image)


EXACT = 1e-12
"""Variance over the mean square below which v is a constant: what rounding leaves of one."""
