"""The Siamese network of v1: no masking and no decoder. A RECONSTRUCTION: only the abstract of v1 is public.

The abstract says that a Siamese architecture joins the essence of MAE and contrastive learning "without masking and
explicit decoder". Losses, crops and projector were never published; what stands here is the plainest network that fits
the words and the theory around them, and its open parts are the settings `Siamese`. One Vision Transformer sees two
whole random crops of an image. In the decoder's place stands the Gaussian average of v2 Table 2, without parameters.
A linear projector gives v. Tokens of the two crops that show the same place are pulled together; inside each crop v is
asked to have the similarities of the pixels (Eq. 6). There is no momentum encoder, predictor or stop-gradient.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, N patches of a crop, T = 1 + N tokens, D width, V width
of v. In words: values (of a patch or token).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lcmae_core.config import LcmaeError, Settings
from lcmae_core.data.views import Place
from lcmae_core.models.decoders import gaussian_weights
from lcmae_core.models.encoder import Encoder
from lcmae_core.models.initialize import initialize_encoder, initialize_layers
from lcmae_core.models.linear import use_quick_linears


class Projection(NamedTuple):
    """latent: the encoder's normalised tokens, CLS first. tokens: their averages, CLS dropped. projected: v."""

    latent: Float[Tensor, "B T D"]
    tokens: Float[Tensor, "B N D"]
    projected: Float[Tensor, "B N V"]


class Positives(NamedTuple):
    """partner: for every token of the first crop one of the second. positive: whether the two count as a pair."""

    partner: Int64[Tensor, "B N"]
    positive: Bool[Tensor, "B N"]


class Siamese(nn.Module):
    """Encoder, Gaussian average and projector, shared by the two crops: they come in as one batch, [crop 1; crop 2]."""

    mixing: Tensor

    def __init__(self, settings: Settings):
        super().__init__()
        arch, data = settings.model, settings.data
        self.encoder = Encoder(
            data.image_size, arch.patch_size, data.channels, arch.width, arch.depth, arch.heads, arch.mlp_ratio
        )
        self.grid = self.encoder.grid
        self.projector = nn.Linear(arch.width, arch.projector_dim)
        self.token_average = settings.siamese.token_average
        shares = gaussian_weights(self.grid, arch.decoder_kernel, arch.decoder_sigma)
        self.register_buffer("mixing", shares, persistent=False)  # follows from the settings: not saved
        use_quick_linears(self)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Projection:
        """v of every patch of whole crops, from the average of the tokens around it."""
        latent = self.encoder(images)
        tokens = self.average(latent[:, 1:])
        return Projection(latent, tokens, self.projector(tokens))

    def average(self, values: Float[Tensor, "B N values"]) -> Float[Tensor, "B N values"]:
        """The Gaussian average of the patches around each (`gaussian_weights`), in float32; without it, as they are.

        L_in averages pixels by the same, so that v and x at a place speak of the same surroundings.
        """
        if not self.token_average:
            return values
        real = torch.promote_types(values.dtype, torch.float32)
        with torch.autocast(values.device.type, enabled=False):
            return self.mixing.to(real) @ values.to(real)


def build_siamese(settings: Settings) -> Siamese:
    """The network with weights from the seed alone, initialised as MAE is."""
    model, generator = Siamese(settings), torch.Generator().manual_seed(settings.seed)
    initialize_layers(model, generator)
    initialize_encoder(model.encoder, generator)
    return model


def mutual_positives(one: Place, two: Place, grid: tuple[int, int], radius: float = 0.5) -> Positives:
    """Pairs of tokens that are each other's nearest and whose centres in the picture lie within `radius` patches.

    The centre of the patch in row r and column c of a crop of h x w pixels at (top, left) is
    (top + (r + 1/2) h / rows, left + (c + 1/2) w / columns), c counted from the right where the crop was mirrored. The
    patch that `radius` counts in is that of the crop in which it is smaller: the root of its area in the picture
    **[open]**. Ties go to the token that comes first. All distances are whole numbers, so every device finds the same.

    Raises:
        LcmaeError: the two crops are not of the same images.
    """
    if one.box.shape != two.box.shape:
        raise LcmaeError(f"places: got {len(one.box)} and {len(two.box)} boxes, expected two crops of the same images")
    square = (
        (token_centres(one, grid)[:, :, None] - token_centres(two, grid)[:, None]).square().sum(dim=-1)
    )  # (B, N, N)
    nearest, partner = square.min(dim=2)  # (B, N)
    back = square.argmin(dim=1)  # (B, N): of the second crop's tokens
    mutual = back.gather(1, partner) == torch.arange(square.shape[1], device=square.device)
    area = torch.minimum(*(place.box[:, 2] * place.box[:, 3] for place in (one, two)))  # (B,) of a crop
    patch = 4 * grid[0] * grid[1] * area  # of a patch, in the units of `token_centres`
    near = nearest.double() <= radius**2 * patch[:, None].double()
    return Positives(partner, mutual & near)


def same_place(images: int, patches: int, device: torch.device | str = "cpu") -> Positives:
    """The ablation "by position only": every token with the one at the same place of the other crop's grid."""
    places = torch.arange(patches, device=device).expand(images, -1)
    return Positives(places, torch.ones_like(places, dtype=torch.bool))


def token_centres(place: Place, grid: tuple[int, int]) -> Int64[Tensor, "B N 2"]:
    """(y, x) of every token's centre in the picture, in pixels times 2 * rows * columns: whole numbers."""
    rows, cols = grid
    top, left, height, width = (side[:, None] for side in place.box.unbind(1))  # (B, 1)
    row, col = (torch.arange(side, device=top.device) for side in grid)
    col = torch.where(place.mirrored[:, None], cols - 1 - col, col)  # (B, columns)
    y = 2 * rows * cols * top + (2 * row + 1) * height * cols  # (B, rows)
    x = 2 * rows * cols * left + (2 * col + 1) * width * rows  # (B, columns)
    y, x = y[:, :, None].expand(-1, -1, cols), x[:, None].expand(-1, rows, -1)
    return torch.stack([y, x], dim=-1).flatten(1, 2)  # (B, N, 2)
