"""The effective receptive field: from where on the image the gradient of a token comes (Luo et al. 2016).

It is not attention distance: a token hears of a patch through every layer, and through MLPs and residual paths.

Letters: B images of h x w pixels, C channels, N patches, D width, S probes, R radii.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lcmae_core.analysis.metrics import patch_distances
from lcmae_core.models.patches import patchify

Tokens = Callable[[Tensor], Tensor]
"""Images (B, C, h, w) to patch tokens (B, N, D), without prefix."""


def gradient_energy(
    tokens: Tokens, images: Float[Tensor, "B C h w"], patch: int, query: int, probes: Float[Tensor, "S B D"]
) -> Float[Tensor, "B N"]:
    """Sum over the pixels x of each patch of mean_s (d <w_s, z_query> / d x)^2, z_query the query's token.

    With the D unit vectors times sqrt(D) as probes it is the squared Jacobian |d z_query / d x|^2 itself; with random
    signs it is that in expectation (Hutchinson), from S backward passes instead of D.
    """
    with torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        said = tokens(pixels)[:, query]  # (B, D)
        parts = [torch.autograd.grad((said * probe).sum(), pixels, retain_graph=True)[0] for probe in probes]
    return torch.stack([patchify(part, patch).square().sum(-1) for part in parts]).mean(0)  # (B, N)


def within(
    energy: Float[Tensor, "B N"], grid: tuple[int, int], query: int, radii: Sequence[float | int]
) -> Float[Tensor, "B R"]:
    """Share of the energy on patches whose centres lie within each radius, in patches, of the query's. Where a token
    depends on nothing at all the shares are 0."""
    near = torch.stack([patch_distances(grid)[query] <= radius + 1e-9 for radius in radii]).to(energy)  # (R, N)
    return energy @ near.T / energy.sum(1, keepdim=True).clamp(min=1e-30)


def fixed_queries(grid: tuple[int, int]) -> list[int]:
    """The four patches a quarter of the way from each corner of the grid, as indices; fewer in a tiny grid."""
    rows, cols = (sorted({side // 4, (3 * side) // 4}) for side in grid)
    return [row * grid[1] + col for row in rows for col in cols]
