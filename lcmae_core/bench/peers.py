"""Other people's MAEs in the shape of ours: Hugging Face's, lightly's, and a plain one from the textbook.

Each by its own public interface, with the same images and the same patches hidden. Letters: B images, N patches.

Letters (CONTRIBUTING.md): B images, H x W pixels, N patches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lcmae_core.bench.textbook import TextbookMae
from lcmae_core.config import Settings


class Built(NamedTuple):
    """A model, the loss of a forward pass as a call, and the first blocks of its encoder and decoder."""

    model: nn.Module
    loss: Callable[[], Tensor]
    blocks: tuple[nn.Module, nn.Module]


class Peer(NamedTuple):
    """The package that it comes from (None: this one), and what builds it of images (B, 3, H, W) and noise (B, N)."""

    package: str | None
    build: Callable[[Settings, Tensor, Tensor], Built]


def hugging_face(settings: Settings, images: Tensor, noise: Tensor) -> Built:
    """ViTMAE of transformers, with PyTorch's fused attention."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    arch = settings.model
    config = ViTMAEConfig(  # type: ignore[call-arg]
        hidden_size=arch.width, num_hidden_layers=arch.depth, num_attention_heads=arch.heads,
        intermediate_size=int(arch.width * arch.mlp_ratio), image_size=settings.data.image_size[0],
        patch_size=arch.patch_size, decoder_hidden_size=arch.decoder_width,
        decoder_num_hidden_layers=arch.decoder_depth, decoder_num_attention_heads=arch.decoder_heads,
        decoder_intermediate_size=int(arch.decoder_width * arch.mlp_ratio), mask_ratio=settings.masking.mask_ratio,
        norm_pix_loss=True, attn_implementation="sdpa",
    )  # fmt: skip
    model: Any = ViTMAEForPreTraining(config)
    model.to(images.device).train()
    firsts = (
        next(m for m in part.modules() if type(m).__name__ == "ViTMAELayer") for part in (model.vit, model.decoder)
    )
    encoder, decoder = firsts
    return Built(model, lambda: model(images, noise=noise).loss, (encoder, decoder))


class Lightly(nn.Module):
    """lightly's MAE as its example puts it together: a timm ViT, a decoder of blocks, a layer before and one after."""

    def __init__(self, settings: Settings):
        from lightly.models.modules import MaskedVisionTransformerDecoderTIMM, MaskedVisionTransformerTIMM
        from timm.models.vision_transformer import VisionTransformer

        super().__init__()
        arch, side = settings.model, settings.data.image_size[0]
        vit = VisionTransformer(
            img_size=side, patch_size=arch.patch_size, embed_dim=arch.width, depth=arch.depth, num_heads=arch.heads,
            mlp_ratio=arch.mlp_ratio, num_classes=0, global_pool="token",
        )  # fmt: skip
        self.backbone = MaskedVisionTransformerTIMM(vit=vit)
        self.decoder_embed = nn.Linear(arch.width, arch.decoder_width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=settings.num_patches, embed_dim=arch.decoder_width, depth=arch.decoder_depth,
            num_heads=arch.decoder_heads, mlp_ratio=arch.mlp_ratio,
        )  # fmt: skip
        self.predict = nn.Linear(arch.decoder_width, arch.patch_size**2 * settings.data.channels)
        self.patch, self.length = arch.patch_size, settings.num_patches + 1

    def forward(self, images: Tensor, keep: Tensor, hidden: Tensor) -> Tensor:
        """The mean squared error of normalised hidden patches; `keep` and `hidden` count tokens, CLS being 0."""
        from lightly.models import utils

        latent = self.decoder_embed(self.backbone.encode(images=images, idx_keep=keep))
        tokens = utils.repeat_token(self.decoder.mask_token, (len(images), self.length))
        tokens = utils.set_at_index(tokens, keep, latent.type_as(tokens))
        pred = self.predict(utils.get_at_index(self.decoder(tokens), hidden))
        target = utils.get_at_index(utils.patchify(images, self.patch), hidden - 1)
        return nn.functional.mse_loss(pred.float(), utils.normalize_mean_var(target))


def lightly(settings: Settings, images: Tensor, noise: Tensor) -> Built:
    """The MAE of lightly, which ranks tokens by the same noise in every step."""
    model: Any = Lightly(settings).to(images.device).train()
    kept = int(settings.num_patches * (1 - settings.masking.mask_ratio))

    def loss() -> Tensor:
        order = noise.argsort(dim=1) + 1
        cls = torch.zeros_like(order[:, :1])
        value: Tensor = model(images, torch.cat([cls, order[:, :kept]], dim=1), order[:, kept:])
        return value

    return Built(model, loss, (model.backbone.vit.blocks[0], model.decoder.blocks[0]))


def textbook(settings: Settings, images: Tensor, noise: Tensor) -> Built:
    """The plain MAE of `textbook.py`."""
    model = textbook_of(settings).to(images.device).train()
    return Built(model, lambda: model(images, noise), (model.blocks[0], model.decoder_blocks[0]))


def textbook_of(settings: Settings) -> TextbookMae:
    """A textbook MAE of the shape of ours."""
    arch = settings.model
    return TextbookMae(
        settings.data.image_size[0], arch.patch_size, arch.width, arch.depth, arch.heads,
        arch.decoder_width, arch.decoder_depth, arch.decoder_heads,
    )  # fmt: skip


PEERS = {
    "hf": Peer("transformers", hugging_face),
    "hf-compiled": Peer("transformers", hugging_face),
    "lightly": Peer("lightly", lightly),
    "textbook": Peer(None, textbook),
}
"""Name -> peer."""
