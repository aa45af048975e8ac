"""Three views of representational collapse: effective rank, mean cosine, and spread of each dimension.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, V width of a vector. In words: vectors.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import entr
from torch import Tensor

from lcmae_core.config import LcmaeError
from lcmae_core.config.names import former_keywords
from lcmae_core.losses import unit
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import Mask
from lcmae_core.models.siamese import Siamese


class Collapse(NamedTuple):
    """effective_rank: 1 (collapsed) to min(vectors, V). mean_cosine: 1 when collapsed. spread: 0 when collapsed, near 1
    when directions are isotropic."""

    effective_rank: float
    mean_cosine: float
    spread: float


def collapse(vectors: Float[Tensor, "vectors V"]) -> Collapse:
    """All three at once, for vectors gathered over images and positions.

    Raises:
        LcmaeError: fewer than two vectors.
    """
    if len(vectors) < 2:
        raise LcmaeError(f"vectors: got {len(vectors)}, expected at least 2")
    return Collapse(effective_rank(vectors), mean_cosine(vectors), spread(vectors))


def effective_rank(vectors: Float[Tensor, "vectors V"]) -> float:
    """RankMe: exp of the entropy of the singular values, normalised to sum 1 (Garrido et al. 2023)."""
    exact = vectors.detach().cpu().double().numpy()  # MPS has no float64
    few, many = sorted((exact, exact.T), key=len)
    gram = few @ many  # numpy works out one half of a matrix times its own transpose: half the time of torch's
    singular = np.sqrt(np.linalg.eigvalsh(gram).clip(min=0))
    return float(np.exp(entr(singular / max(singular.sum(), 1e-300)).sum()))


def mean_cosine(vectors: Float[Tensor, "vectors V"]) -> float:
    """Mean of cos(v_i, v_j) over ordered pairs i != j: (||sum u||^2 - sum ||u||^2) / (n (n - 1)), n unit vectors u."""
    units = unit(vectors.cpu().double())
    count = len(units)
    return float((units.sum(dim=0).square().sum() - units.square().sum()) / (count * (count - 1)))


def spread(vectors: Float[Tensor, "vectors V"]) -> float:
    """Standard deviation of each dimension of v / ||v||, averaged over dimensions, times sqrt(V)."""
    units = unit(vectors.cpu().double())
    return float(units.std(dim=0, unbiased=False).mean() * units.shape[1] ** 0.5)


ALIKE, TIMES_CHANCE = 0.95, 5.0
"""From which cosine on vectors of different images count as one, and how often an image must be found again."""


@former_keywords({"found": "retrieved"})
def collapses(same_place: float, retrieved: float, chance: float) -> bool:
    """Whether v is collapsed: it does not depend on the image.

    It is not only where both hold: v at the same place of other images is less than .95 alike, and the image is found
    across two masks at a place (`retrieved`, a share) more than 5 times as often as by chance. The second is a low bar,
    but shuts out a v of position or mask alone, which the first and the mean cosine over everything let pass.
    """
    return not (same_place < ALIKE and retrieved > TIMES_CHANCE * chance)


@torch.no_grad()
def hidden_vectors(model: MAE | Siamese, images: Float[Tensor, "B C H W"], mask: Mask) -> Float[Tensor, "vectors V"]:
    """v of every hidden patch of every image, in order; the prediction itself where a model has no projector.

    The Siamese network hides nothing: of it, v of every patch of whole images, whatever the mask.
    """
    if isinstance(model, Siamese):
        return model(images).projected.flatten(0, 1)
    output = model(images, mask)
    return (output.pred if output.projected is None else output.projected)[mask.hidden]
