"""The decoder g: tokens of visible patches in, a prediction for every patch out. One class for each row of v2 Table 2.

All three start alike (`Decoder.sequence`): visible tokens go through one linear layer and back to their places, mask
tokens fill the hidden ones, positions are added. They differ in how a place then learns of the others: by attention, by
one convolution, or by a fixed Gaussian average. v2 does not say what enters the two local decoders **[open]**.

Letters (CONTRIBUTING.md): B images, N patches, K kept patches, P values predicted for a patch, D width of the encoder,
D' width of the decoder, T = 1 + K tokens.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from timm.layers import LayerNorm, Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lcmae_core import config
from lcmae_core.models.encoder import gather_patches, sincos_positions


class Decoded(NamedTuple):
    """tokens: decoder features of the patches, from which alone each is predicted; pred: h(x, m), the predictions."""

    tokens: Float[Tensor, "B N D'"]
    pred: Float[Tensor, "B N P"]


class Decoder(nn.Module):
    """What every decoder has: an embedding, a mask token and fixed sin-cos positions."""

    def __init__(self, grid: tuple[int, int], encoder_width: int, width: int):
        super().__init__()
        self.grid = grid
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(sincos_positions(width, grid), requires_grad=False)

    def sequence(self, latent: Float[Tensor, "B T D"], restore: Int64[Tensor, "B N"]) -> Float[Tensor, "B N+1 _"]:
        """Input of the decoder: CLS, then every patch in its place, visible or mask token, positions added."""
        tokens = self.embed(latent)  # (B, 1+K, D')
        masked = self.mask_token.expand(len(tokens), restore.shape[1] + 1 - tokens.shape[1], -1)
        shuffled = torch.cat([tokens, masked], dim=1)  # (B, 1+N, D'): CLS, kept, hidden
        places = torch.cat([torch.zeros_like(restore[:, :1]), restore + 1], dim=1)  # CLS stays first
        ordered = gather_patches(shuffled, places)  # (B, 1+N, D')
        return ordered + self.pos_embed  # float32 even under autocast, like the encoder's residual stream


class TransformerDecoder(Decoder):
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
        super().__init__(grid, encoder_width, width)
        self.blocks = nn.Sequential(*(Block(width, heads, mlp_ratio, qkv_bias=True) for _ in range(depth)))
        self.norm = LayerNorm(width)
        self.pred = nn.Linear(width, values)

    def forward(self, latent: Float[Tensor, "B T D"], restore: Int64[Tensor, "B N"]) -> Decoded:
        """Decode; the CLS token takes part in attention and is dropped at the end."""
        tokens = self.norm(self.blocks(self.sequence(latent, restore)))[:, 1:]  # (B, N, D')
        return Decoded(tokens, self.pred(tokens))


class ConvolutionDecoder(Decoder):
    """The "Conv Layer" of v2 Table 2: one k x k convolution over the grid of tokens, then a linear layer predicts.

    Nothing but the convolution mixes places, and nothing in the decoder is non-linear. CLS is dropped at the start; the
    border is padded with zeros (what lies outside is neither a visible patch nor a hidden one). **[open]**
    """

    def __init__(self, grid: tuple[int, int], encoder_width: int, width: int, kernel: int, values: int):
        super().__init__(grid, encoder_width, width)
        self.convolution = nn.Conv2d(width, width, kernel, padding=kernel // 2)
        self.pred = nn.Linear(width, values)

    def forward(self, latent: Float[Tensor, "B T D"], restore: Int64[Tensor, "B N"]) -> Decoded:
        """Decode; a patch hears of the k x k places around it alone."""
        places = self.sequence(latent, restore)[:, 1:].unflatten(1, self.grid)  # (B, rows, columns, D')
        tokens = self.convolution(places.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, D')
        return Decoded(tokens, self.pred(tokens))


class AverageDecoder(Decoder):
    """The "Weighted Average" of v2 Table 2: a Gaussian average of tokens without any parameter, then an MLP predicts.

    CLS is dropped at the start. The average takes the mask tokens in, so that it is defined where no patch around is
    visible, and the MLP (one hidden layer) is told by their share how much was. **[open]**
    """

    def __init__(
        self,
        grid: tuple[int, int],
        encoder_width: int,
        width: int,
        kernel: int,
        sigma: float,
        values: int,
        mlp_ratio: float = 4.0,
    ):
        super().__init__(grid, encoder_width, width)
        self.kernel, self.sigma = kernel, sigma
        self.mlp = Mlp(width, int(width * mlp_ratio), values)

    def forward(self, latent: Float[Tensor, "B T D"], restore: Int64[Tensor, "B N"]) -> Decoded:
        """Decode; `tokens` are the averages, which the MLP sees one by one."""
        places = self.sequence(latent, restore)[:, 1:]  # (B, N, D')
        weights = gaussian_weights(self.grid, self.kernel, self.sigma, places.device)
        with torch.autocast(places.device.type, enabled=False):
            tokens = weights @ places  # (B, N, D')
        return Decoded(tokens, self.mlp(tokens))


def gaussian_weights(
    grid: tuple[int, int], kernel: int = 5, sigma: float = 1.0, device: torch.device | str = "cpu"
) -> Float[Tensor, "N N"]:
    """Row i: the share of every patch in the average around patch i, exp(-d^2 / (2 sigma^2)) over the sum of its row.

    d is the distance in patches; beyond kernel // 2 rows or columns the share is 0 (v2 section 4.1: sigma = 1, about
    5 x 5). At the border the places that exist share the whole weight, so every row sums to 1. **[open]**
    """
    rows, cols = (_line_weights(side, kernel // 2, sigma, device) for side in grid)
    return torch.kron(rows, cols)  # a Gaussian on a rectangle is separable, and so is its sum


def _line_weights(side: int, radius: int, sigma: float, device: torch.device | str) -> Tensor:
    """The same in one dimension, (side, side)."""
    place = torch.arange(side, device=device)
    distance = (place[:, None] - place).abs()
    shares = (-distance.float().square() / (2 * sigma**2)).exp() * (distance <= radius)
    return shares / shares.sum(dim=1, keepdim=True)


def build_decoder(arch: config.Model, grid: tuple[int, int], values: int) -> Decoder:
    """The decoder that `arch.decoder` names, predicting `values` numbers for every patch."""
    sizes = (grid, arch.width, arch.decoder_width)
    if arch.decoder == "convolution":
        return ConvolutionDecoder(*sizes, arch.decoder_kernel, values)
    if arch.decoder == "average":
        return AverageDecoder(*sizes, arch.decoder_kernel, arch.decoder_sigma, values, arch.mlp_ratio)
    return TransformerDecoder(*sizes, arch.decoder_depth, arch.decoder_heads, values, arch.mlp_ratio)
