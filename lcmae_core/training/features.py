"""Features of whole images under a frozen encoder, made once for all that judges it: kNN and the linear probes.

Letters (CONTRIBUTING.md): B images of a batch, M images of a split, T tokens, D width.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lcmae_core.config import Settings
from lcmae_core.data.loader import Loader
from lcmae_core.data.sources import open_source, source_identity
from lcmae_core.models.encoder import Encoder
from lcmae_core.training.distributed import my_part, parts_of_all
from lcmae_core.training.downstream import Examined, Origin
from lcmae_core.training.held_out import evaluation_loader

Precision = Literal["fp32", "bf16"]
CHUNK, CPU_CHUNK = 1024, 64
"""Images encoded at once, whatever the batch; on a CPU few, so that what is between the layers stays in its cache (at
quick a sixth quicker than 16 or 256)."""


class Features(NamedTuple):
    """values: one vector an image. labels: None where the source has none."""

    values: Float[Tensor, "M D"]
    labels: Int64[Tensor, "M"] | None


class Tokens(NamedTuple):
    """Both features of each image, and its label, on the CPU."""

    cls: Float[Tensor, "M D"]
    mean: Float[Tensor, "M D"]
    labels: Int64[Tensor, "M"] | None

    def of(self, token: str, device: torch.device | str = "cpu") -> Features:
        """The features by one token, "cls" or "mean", on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return Features((self.cls if token == "cls" else self.mean).to(device), labels)


class Encoded(NamedTuple):
    """Features of a source under one encoder; they are shared, so nobody writes to them."""

    train: Tokens
    validation: Tokens
    device: torch.device


def pooled(tokens: Float[Tensor, "B T D"], token: str) -> Float[Tensor, "B D"]:
    """The feature of an image: its CLS token ("cls"), or the mean of its patch tokens ("mean")."""
    return tokens[:, 0] if token == "cls" else tokens[:, 1:].mean(dim=1)


def _size(loader: Loader) -> int | None:
    return CPU_CHUNK if loader.device.type == "cpu" else None


@torch.no_grad()
def image_features(encoder: Encoder, loader: Loader, limit: int | None = None, token: str = "mean") -> Features:
    """Features of whole, unmasked images (centre view), in order; of several ranks each encodes its part."""
    whole = loader.evaluation(_size(loader), limit, my_part())
    made = parts_of_all([(pooled(encoder(batch.images), token), batch.labels) for batch in whole])
    values, labels = ([part.to(loader.device) for part in parts if part is not None] for parts in zip(*made))
    return Features(torch.cat(values), torch.cat(labels) if labels else None)


@torch.no_grad()
def both_tokens(encoder: Encoder, loader: Loader, precision: Precision = "fp32") -> Tokens:
    """CLS and mean of the patch tokens of whole images (centre view), in order, from one forward pass; of several ranks
    each encodes its part, and all have the whole."""
    cls, mean, labels = [], [], list[Tensor]()
    for batch in loader.evaluation(_size(loader), share=my_part()):
        for images in batch.images.split(CHUNK):
            with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
                tokens = encoder(images)
            cls.append(pooled(tokens, "cls").float().cpu())
            mean.append(pooled(tokens, "mean").float().cpu())
        labels += [] if batch.labels is None else [batch.labels.cpu()]
    cls, mean, labels = map(parts_of_all, (cls, mean, labels))
    return Tokens(torch.cat(cls), torch.cat(mean), torch.cat(labels) if labels else None)


def encoded(origin: Origin, settings: Settings, precision: Precision = "fp32") -> Encoded:
    """Features of all training and held-out images of the settings' source. Those asked for last are kept, so that kNN
    and the probes of both tokens, taken one after the other, read and encode every image once.

    Raises:
        LcmaeError: the source cannot be read, an encoder of another shape.
    """
    asked = settings.model_dump_json(exclude={"runtime", "optim"})
    name = (origin.name, asked, settings.runtime.out, settings.runtime.device, source_identity(settings.data.source))
    return _encoded(_Asked(name, precision, origin, settings))


@dataclass(frozen=True)
class _Asked:
    name: tuple[str, ...]
    precision: Precision
    origin: Origin = field(compare=False)
    settings: Settings = field(compare=False)


@lru_cache(maxsize=1)
def _encoded(asked: _Asked) -> Encoded:
    source = open_source(asked.settings.data)
    encoder = Examined(asked.origin, asked.settings, source, classes=0).encoder
    loaders = [evaluation_loader(asked.settings, split=split, source=source) for split in ("validation", "train")]
    validation, train = (both_tokens(encoder, loader, asked.precision) for loader in loaders)
    return Encoded(train, validation, loaders[0].device)
