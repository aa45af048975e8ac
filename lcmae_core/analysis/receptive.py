"""The effective receptive field: from where on the image the gradient of a token comes (Luo et al. 2016).

It is not attention distance: a token hears of a patch through every layer, and through MLPs and residual paths.

Letters (CONTRIBUTING.md): B images, h x w pixels, C channels, N patches, D width, Q queries. In words: probes.
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
    tokens: Tokens,
    images: Float[Tensor, "B C h w"],
    patch: int,
    queries: Sequence[int],
    probes: Float[Tensor, "probes B D"],
) -> Float[Tensor, "B Q N"]:
    """Sum over the pixels x of each patch of mean_s (d <w_s, z_q> / d x)^2, z_q the token of a query.

    With the D unit vectors times sqrt(D) as probes it is the squared Jacobian |d z_q / d x|^2 itself; with random signs
    it is that in expectation (Hutchinson), from one backward pass a probe and query instead of D a query.
    """
    with torch.enable_grad():
        pixels = images.detach().clone().requires_grad_()
        out = tokens(pixels)  # (B, N, D)
        of_query = [
            [torch.autograd.grad((out[:, q] * w).sum(), pixels, retain_graph=True)[0] for w in probes] for q in queries
        ]
    energies = [torch.stack([patchify(g, patch).square().sum(-1) for g in parts]).mean(0) for parts in of_query]
    return torch.stack(energies, dim=1)  # (B, Q, N)


def within(
    energy: Float[Tensor, "B Q N"], grid: tuple[int, int], queries: Sequence[int], radii: Sequence[float | int]
) -> Float[Tensor, "B radii"]:
    """Share of the energy on patches whose centres lie within each radius, in patches, of the query's; mean over
    queries. Where a token depends on nothing at all the shares are 0."""
    apart = patch_distances(grid)[list(queries)]  # (Q, N)
    near = torch.stack([apart <= radius + 1e-9 for radius in radii]).to(energy)  # (radii, Q, N)
    share = energy / energy.sum(-1, keepdim=True).clamp(min=1e-30)
    return torch.einsum("bqn,rqn->br", share, near) / len(queries)


def fixed_queries(grid: tuple[int, int]) -> list[int]:
    """The four patches a quarter of the way from each corner of the grid, as indices; fewer in a tiny grid."""
    rows, cols = (sorted({side // 4, (3 * side) // 4}) for side in grid)
    return [row * grid[1] + col for row in rows for col in cols]
