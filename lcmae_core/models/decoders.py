"""The decoder g: tokens of visible patches in, a prediction for every patch out.

Letters: B images, N patches, K kept patches, P values of a patch, D encoder width, D' decoder width.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lcmae_core.models.encoder import gather_patches, sincos_positions


class Decoded(NamedTuple):
    """tokens: last normalised decoder features of the patches; pred: h(x, m), the predicted patches."""

    tokens: Float[Tensor, "B N D'"]
    pred: Float[Tensor, "B N P"]


class TransformerDecoder(nn.Module):
    """The decoder of MAE: mask tokens fill the hidden places, blocks mix, a linear layer predicts."""

    def __init__(
        self,
        grid: tuple[int, int],
        encoder_width: int,
        width: int,
        depth: int,
        heads: int,
        values: int,
        mlp_ratio: float = 4.0,
    ):
        super().__init__()
        self.grid = grid
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(sincos_positions(width, grid), requires_grad=False)
        self.blocks = nn.Sequential(*(Block(width, heads, mlp_ratio, qkv_bias=True) for _ in range(depth)))
        self.norm = LayerNorm(width)
        self.pred = nn.Linear(width, values)

    def sequence(self, latent: Float[Tensor, "B T D"], restore: Int64[Tensor, "B N"]) -> Float[Tensor, "B N+1 _"]:
        """Input of the first block: CLS, then every patch in its place, visible or mask token, positions added."""
        tokens = self.embed(latent)  # (B, 1+K, D')
        masked = self.mask_token.expand(len(tokens), restore.shape[1] + 1 - tokens.shape[1], -1)
        shuffled = torch.cat([tokens, masked], dim=1)  # (B, 1+N, D'): CLS, kept, hidden
        places = torch.cat([torch.zeros_like(restore[:, :1]), restore + 1], dim=1)  # CLS stays first
        ordered = gather_patches(shuffled, places)  # (B, 1+N, D')
        return ordered + self.pos_embed  # float32 even under autocast, like the encoder's residual stream

    def forward(self, latent: Float[Tensor, "B T D"], restore: Int64[Tensor, "B N"]) -> Decoded:
        """Decode; the CLS token takes part in attention and is dropped at the end."""
        tokens = self.norm(self.blocks(self.sequence(latent, restore)))[:, 1:]  # (B, N, D')
        return Decoded(tokens, self.pred(tokens))
