"""The masked autoencoder h = g o f, with the projector p of LC-MAE (v2 sections 3.1 and 3.3).

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels, N patches, K kept patches, P values predicted for a
patch, D and D' widths, V width of v.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lcmae_core import config
from lcmae_core.config import LcmaeError
from lcmae_core.models.decoders import Decoder, build_decoder
from lcmae_core.models.encoder import Encoder
from lcmae_core.models.initialize import initialize_decoder, initialize_encoder, initialize_layers
from lcmae_core.models.linear import use_quick_linears
from lcmae_core.models.masking import Mask, erase_patches, no_mask


class Output(NamedTuple):
    """What a forward pass leaves, named, so that no analysis needs a hook.

    pred: h(x, m), all patches. tokens: last decoder features. projected: v = p(h(x, m)), None without a projector.
    latent: the encoder's normalised tokens, CLS first.
    """

    pred: Float[Tensor, "B N P"]
    tokens: Float[Tensor, "B N D'"]
    projected: Float[Tensor, "B N V"] | None
    latent: Float[Tensor, "B K+1 D"]


class MAE(nn.Module):
    """Encoder, decoder and optional projector. Masks come in from outside; nothing draws inside `forward`.

    LC-MAE is the same model with a projector: repeat images and masks as [view 1; view 2], then `.chunk(2)` the output.
    An autoencoder (v2 Fig. 7) predicts for every patch the `block` x `block` patches centred on it: P = block^2 p^2 C.
    Where patches are `erased`, hidden ones get the mean colour and all are encoded: no token is left out or masked.
    """

    def __init__(
        self,
        arch: config.Model,
        image_size: tuple[int, int],
        channels: int = 3,
        *,
        projector: bool = False,
        decoder: bool = True,
        block: int = 1,
        erased: bool = False,
    ):
        super().__init__()
        self.arch, self.channels, self.image_size, self.block, self.erased = arch, channels, image_size, block, erased
        values = (block * arch.patch_size) ** 2 * channels
        self.encoder = Encoder(
            image_size, arch.patch_size, channels, arch.width, arch.depth, arch.heads, arch.mlp_ratio
        )
        self.grid = self.encoder.grid
        self.decoder: Decoder | None = build_decoder(arch, self.grid, values) if decoder else None
        source = values if arch.project_from == "pred" else arch.decoder_width
        self.projector = nn.Linear(source, arch.projector_dim) if projector else None
        use_quick_linears(self)

    @property
    def num_patches(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def forward(self, images: Float[Tensor, "B C H W"], mask: Mask) -> Output:
        """Encode the visible patches (all, where hidden ones are erased instead), predict all of them.

        Raises:
            LcmaeError: the model has no decoder (an encoder-only checkpoint), or the mask is for another grid.
        """
        if self.decoder is None:
            raise LcmaeError(
                "decoder: got an encoder-only checkpoint, expected a full one: "
                "nothing can be reconstructed without decoder weights"
            )
        if mask.hidden.shape != (len(images), self.num_patches):
            raise LcmaeError(f"mask: got shape {tuple(mask.hidden.shape)}, expected {(len(images), self.num_patches)}")
        if self.erased:  # which patches are hidden decides what is seen, not how many tokens there are
            images = erase_patches(images, mask.hidden, self.grid)
            mask = no_mask(len(images), self.num_patches, images.device)
        latent = self.encoder(images, mask.keep)
        tokens, pred = self.decoder(latent, mask.restore)
        return Output(pred, tokens, self._project(tokens, pred), latent)

    def _project(self, tokens: Tensor, pred: Tensor) -> Tensor | None:
        if self.projector is None:
            return None
        return self.projector(pred if self.arch.project_from == "pred" else tokens)


def build_mae(settings: config.Settings) -> MAE:
    """The (masked) autoencoder of these settings on the CPU, its weights drawn from the seed alone."""
    data, masked = settings.data, settings.method == "mae"
    model = MAE(
        settings.model,
        data.image_size,
        data.channels,
        projector=masked and settings.loss.needs_projector,
        block=settings.predicted_block,
        erased=masked and settings.masking.erased,
    )
    return initialize(model, torch.Generator().manual_seed(settings.seed))


def initialize(model: MAE, generator: torch.Generator) -> MAE:
    """The public MAE initialisation: all layers, then patch embedding and CLS token, then the decoder's own parts."""
    initialize_layers(model, generator)
    initialize_encoder(model.encoder, generator)
    if model.decoder is not None:
        initialize_decoder(model.decoder, generator)
    return model
