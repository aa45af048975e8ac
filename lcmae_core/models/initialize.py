"""How weights begin: the public MAE initialisation, shared by every model of the collection.

Randomness comes in as a generator; nothing is drawn from torch's global one.
"""

from typing import cast

import torch
from timm.layers import LayerNorm
from torch import Tensor, nn

from lcmae_core.models.decoders import ConvolutionDecoder, Decoder
from lcmae_core.models.encoder import Encoder


@torch.no_grad()
def initialize_encoder(encoder: Encoder, generator: torch.Generator) -> None:
    """Patch embedding like a linear layer with the convolution's own bias; CLS token N(0, 0.02)."""
    patch = encoder.patch_embed.proj
    nn.init.xavier_uniform_(patch.weight.view(len(patch.weight), -1), generator=generator)
    bound = patch.weight[0].numel() ** -0.5
    nn.init.uniform_(patch.bias, -bound, bound, generator=generator)
    nn.init.normal_(encoder.cls_token, std=0.02, generator=generator)


@torch.no_grad()
def initialize_layers(model: nn.Module, generator: torch.Generator) -> None:
    """Linear layers Xavier-uniform with zero bias, norms (1, 0)."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
        elif isinstance(module, LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


@torch.no_grad()
def initialize_decoder(decoder: Decoder, generator: torch.Generator) -> None:
    """Mask token N(0, 0.02). A convolution between tokens: Xavier-uniform as a linear layer, with zero bias."""
    nn.init.normal_(decoder.mask_token, std=0.02, generator=generator)
    if isinstance(decoder, ConvolutionDecoder):
        kernel = decoder.convolution
        nn.init.xavier_uniform_(kernel.weight.view(len(kernel.weight), -1), generator=generator)
        nn.init.zeros_(cast(Tensor, kernel.bias))
