"""The local contrastive form of MAE: the identities Eq. 2-4 of v2 section 3.2, term by term.

Letters (CONTRIBUTING.md): B images, N patches, P values of a patch. Differences are taken patch by patch; norms are
over P.
"""

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor


class Decomposition(NamedTuple):
    """||contrast + error||^2 = ||contrast||^2 + ||error||^2 + 2 <contrast, error>, for every patch.

    loss: the left side, computed on its own. contrast: the local contrastive term. error: the prediction error
    e_pred. cross: twice their inner product. Units: squared values of the target.
    """

    loss: Float[Tensor, "B N"]
    contrast: Float[Tensor, "B N"]
    error: Float[Tensor, "B N"]
    cross: Float[Tensor, "B N"]

    @property
    def residual(self) -> float:
        """Largest departure from the identity: zero up to rounding."""
        return float((self.loss - (self.contrast + self.error + self.cross)).abs().max())


def cross_view_form(
    pred_a: Float[Tensor, "B N P"], pred_b: Float[Tensor, "B N P"], target: Float[Tensor, "B N P"]
) -> Decomposition:
    """Eq. 2: L_j = ||(h(x, m_a)_j - h(x, m_b)_j) + e_pred(j | m_b)||^2 with e_pred = h(x, m_b)_j - x_j (Eq. 3)."""
    return _decompose(pred_a - target, pred_a - pred_b, pred_b - target)


def in_view_form(
    pred: Float[Tensor, "B N P"], target: Float[Tensor, "B N P"], partner: Int64[Tensor, "B N"]
) -> Decomposition:
    """Eq. 4: L_i = ||[(h_i - h_j) - (x_i - x_j)] + e_pred(j | m)||^2, where j = partner[i] is another patch."""
    index = partner[:, :, None].expand_as(target)
    pred_j, target_j = pred.gather(1, index), target.gather(1, index)
    return _decompose(pred - target, (pred - pred_j) - (target - target_j), pred_j - target_j)


def _decompose(total: Tensor, contrast: Tensor, error: Tensor) -> Decomposition:
    return Decomposition(
        total.square().sum(-1), contrast.square().sum(-1), error.square().sum(-1), 2 * (contrast * error).sum(-1)
    )
