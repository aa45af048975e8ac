"""Attention rollout: how much of each token has reached another through all layers so far.

Letters (CONTRIBUTING.md): B images, L layers, H heads, T tokens.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def attention_rollout(maps: Float[Tensor, "B L H T T"]) -> Float[Tensor, "B L T T"]:
    """R_l = (A_l + I) / 2 R_(l-1) with R_0 = I and A_l the mean over the heads of layer l, counted from the first
    (Abnar & Zuidema 2020, arXiv 2005.00928, section 3).

    Row t of R_l: shares of the first layer's inputs in token t after layer l; it sums to 1. The half of I stands for
    the residual path. Values, MLPs and norms are not in it: it says what can have flowed, not what did.
    """
    rolled = []
    reached = torch.eye(maps.shape[-1], dtype=maps.dtype, device=maps.device).expand(len(maps), -1, -1)  # (B, T, T)
    for layer in maps.mean(2).unbind(1):
        reached = (layer @ reached + reached) / 2
        rolled.append(reached)
    return torch.stack(rolled, 1)
