"""A plain training step of MAE, as textbooks write it, to time ours against: none of this package's code.

timm's blocks, torchvision's transforms image by image, argsort and gather, `torch.optim.AdamW` as it comes.
Letters (CONTRIBUTING.md): B images, N patches, K kept patches, T tokens, D width, P values of a patch, H x W pixels, M
images.
"""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.transforms import v2

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TextbookMae(nn.Module):
    """Masked autoencoder on square colour images; the mask is drawn inside, as in the public code."""

    def __init__(self, side: int = 64, patch: int = 8, width: int = 128, depth: int = 4, heads: int = 4,
                 decoder_width: int = 96, decoder_depth: int = 2, decoder_heads: int = 4):  # fmt: skip
        super().__init__()
        self.patch, count = patch, (side // patch) ** 2
        self.embed = nn.Conv2d(3, width, patch, stride=patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, count + 1, width) * 0.02, requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_positions = nn.Parameter(torch.randn(1, count + 1, decoder_width) * 0.02, requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_width, decoder_heads, qkv_bias=True) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_width)
        self.predict = nn.Linear(decoder_width, patch**2 * 3)

    def forward(self, images: Tensor, noise: Tensor | None = None, ratio: float = 0.75) -> Tensor:
        """The mean squared error of normalised hidden patches; `noise` (B, N), if given, ranks those to hide."""
        tokens = self.embed(images).flatten(2).transpose(1, 2) + self.positions[:, 1:]  # (B, N, D)
        batch, count, width = tokens.shape
        kept = int(count * (1 - ratio))
        noise = torch.rand(batch, count, device=images.device) if noise is None else noise
        shuffle = noise.argsort(dim=1)
        restore = shuffle.argsort(dim=1)
        visible = torch.gather(tokens, 1, shuffle[:, :kept, None].repeat(1, 1, width))  # (B, K, D)
        hidden = (restore >= kept).float()
        cls = (self.cls_token + self.positions[:, :1]).expand(batch, -1, -1)
        latent = torch.cat([cls, visible], dim=1)  # (B, T, D)
        for block in self.blocks:
            latent = block(latent)
        latent = self.decoder_embed(self.norm(latent))
        masked = self.mask_token.repeat(batch, count - kept, 1)
        ordered = torch.cat([latent[:, 1:], masked], dim=1)
        ordered = torch.gather(ordered, 1, restore[:, :, None].repeat(1, 1, ordered.shape[2]))
        tokens = torch.cat([latent[:, :1], ordered], dim=1) + self.decoder_positions
        for block in self.decoder_blocks:
            tokens = block(tokens)
        pred = self.predict(self.decoder_norm(tokens))[:, 1:]  # (B, N, P)
        target = self.targets(images)
        error = (pred - target).square().mean(dim=-1)
        return (error * hidden).sum() / hidden.sum()

    def targets(self, images: Tensor) -> Tensor:
        """Patches, each normalised by its own mean and variance."""
        side = images.shape[2] // self.patch
        cut = images.reshape(len(images), 3, side, self.patch, side, self.patch)
        patches = torch.einsum("bchpwq->bhwpqc", cut).reshape(len(images), side * side, -1)
        mean, var = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
        return (patches - mean) / (var + 1e-6) ** 0.5


class TextbookStep:
    """One step on uint8 pictures (M, 3, H, W): crops by torchvision, loss, gradients, AdamW."""

    def __init__(self, pictures: Tensor, model: TextbookMae, batch: int, side: int = 64):
        self.pictures, self.batch, self.model = pictures, batch, model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(side, scale=(0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __call__(self) -> float:
        chosen = torch.randint(len(self.pictures), (self.batch,))
        images = torch.stack([self.transform(self.pictures[i]) for i in chosen])
        loss = self.model(images)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
