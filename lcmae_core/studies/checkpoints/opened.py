"""A checkpoint as the measures need it: the part it plays, how images are read for it, its weights and their twin."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from lcmae_core.config import LcmaeError, Settings, replace
from lcmae_core.data.augment import IMAGENET_MEAN, IMAGENET_STD
from lcmae_core.models.decoders import TransformerDecoder
from lcmae_core.models.demonstration import demo_folder
from lcmae_core.models.inputs import are_imagenets, own_statistics, patch_sides, take_imagenet_images
from lcmae_core.models.interop import load_mae
from lcmae_core.models.mae import MAE, initialize
from lcmae_core.models.named import SUFFIXES, Named
from lcmae_core.models.pretrained import vit_from
from lcmae_core.models.weights import find_shape, read_tensors
from lcmae_core.store.files import read_json, sha256
from lcmae_core.store.runs import MODEL, load_run

Model = MAE | VisionTransformer
HEADS = ("encoder_heads", "decoder_heads")
DINOV2 = {(384, 14): "small", (768, 14): "base", (1024, 14): "large"}
"""Width and patch of the published DINOv2 -> timm's word for the size."""


@dataclass(frozen=True)
class Checkpoint:
    """named: what was asked for. role: MAE, DINO, supervised or other. settings: how its images and masks are made.
    decodes: whether it is a masked autoencoder whose decoder attends. sha256: of its weights' file. heads: given by
    hand."""

    named: Named
    role: str
    settings: Settings
    decodes: bool
    sha256: str
    heads: tuple[int | None, int | None] = (None, None)

    @property
    def name(self) -> str:
        """How tables call it."""
        return self.named.name

    def load(self) -> Model:
        """The model in evaluation mode on the CPU; it takes images of ImageNet's statistics."""
        return _load(self.named, self.heads)

    def untrained(self, model: Model) -> Model:
        """A model of the same shape with weights drawn from the seed, as its training would begin."""
        if isinstance(model, MAE):
            twin = MAE(model.arch, model.image_size, model.channels, decoder=model.decoder is not None)
            return initialize(twin, torch.Generator().manual_seed(self.settings.seed)).eval()
        with torch.random.fork_rng(devices=[]):  # timm draws from the global generator
            torch.manual_seed(self.settings.seed)
            return cast(VisionTransformer, timm.create_model(_timm_name(self.named) or "").eval())

    def __str__(self) -> str:
        data, patch = self.settings.data, self.settings.model.patch_size
        rows, cols = self.settings.grid
        height, width = data.image_size
        commit = f" @ {self.named.commit[:12]}" if self.named.commit else ""
        return (
            f"{self.name}{commit}: {self.role}, {height} x {width} px, {rows} x {cols} patches of {patch}, "
            f"{'with' if self.decodes else 'no'} decoder, sha256 {self.sha256[:12]}"
        )


def opened(named: Named, base: Settings, own: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint that was looked into once. `own`: what the user said of masks, targets and heads.

    Raises:
        LcmaeError: a file that does not fit, or patches that are not square.
    """
    heads = (own.get("heads"), own.get("decoder_heads"))
    model = _load(named, heads)
    settings = _settings(named, model, base, own)
    role, decodes = named.role or _role(named, model), False
    if role == "MAE" and isinstance(model, MAE) and model.block == 1:
        decodes = isinstance(model.decoder, TransformerDecoder) and len(model.decoder.blocks) > 0
    return Checkpoint(named, role, settings, decodes, sha256(_file(named)), heads)


def _load(named: Named, heads: tuple[int | None, int | None]) -> Model:
    if (vit := _timm_name(named)) is not None:
        return _adapted(vit_from(vit, _source(named)), named.name)
    source = named.given if named.kind == "demo" else _source(named)
    return load_mae(source, **(dict(zip(HEADS, heads)) if named.kind == "file" else {}))


def _timm_name(named: Named) -> str | None:
    """timm's name of a model that our own class does not have: one asked for by it, or DINOv2 in an official file."""
    if named.kind == "timm":
        return named.name
    return dinov2_name(_source(named)) if named.kind == "file" and "dinov2" in named.name.lower() else None


@lru_cache(maxsize=8)
def dinov2_name(file: Path) -> str:
    """timm's name of the DINOv2 whose official weights a file holds, by their shapes.

    Raises:
        LcmaeError: another width than the published ones.
    """
    tensors = read_tensors(file)
    width, _, patch, _ = find_shape(tensors, "patch_embed.proj.weight", 4, file)
    if (width, patch) not in DINOV2:
        known = ", ".join(f"{w} with patches of {p}" for w, p in DINOV2)
        raise LcmaeError(
            f"dinov2: got width {width} with patches of {patch} in {str(file)!r}, expected one of: {known}"
        )
    registers = "_reg4" if "register_tokens" in tensors else ""
    return f"vit_{DINOV2[width, patch]}_patch14{registers}_dinov2.lvd142m"


def _source(named: Named) -> Path:
    return Path(named.given).expanduser() if named.path is None else named.path


def _file(named: Named) -> Path:
    """The file with the weights."""
    if named.kind in ("file", "timm"):
        return _source(named)
    folder = demo_folder() if named.kind == "demo" else _source(named)
    known = [folder / MODEL, folder / "pytorch_model.bin"]
    return next(path for path in [*known, *sorted(folder.iterdir())] if path.is_file() and path.suffix in SUFFIXES)


def _adapted(vit: VisionTransformer, name: str) -> VisionTransformer:
    """The ViT changed so that images of ImageNet's statistics give the tokens that its own would."""
    projection: Any = getattr(vit.patch_embed, "proj", None)
    stated = own_statistics(cast(Any, vit.pretrained_cfg), 3)
    if len(set(patch_sides(vit))) > 1 or not isinstance(projection, nn.Conv2d) or projection.in_channels != 3:
        raise LcmaeError(f"model: got {name!r}, expected a ViT that cuts colour images into square patches")
    if stated is not None and not are_imagenets(*stated):
        take_imagenet_images(projection, *stated)
        vit.pretrained_cfg = dict(cast(Any, vit.pretrained_cfg), mean=IMAGENET_MEAN, std=IMAGENET_STD)  # type: ignore[assignment]
    return vit


def _settings(named: Named, model: Model, base: Settings, own: Mapping[str, Any]) -> Settings:
    if isinstance(model, MAE):
        size, patch, channels = model.image_size, model.arch.patch_size, model.channels
    else:
        size, patch, channels = model.patch_embed.img_size, patch_sides(model)[0], 3
    changes: dict[str, Any] = {"image_size": size, "patch_size": patch, "channels": channels, "mask_unit": 1}
    changes |= _said_of_training(named) | {key: own[key] for key in ("mask_ratio", "norm_pix") if key in own}
    return replace(base, changes)


def _said_of_training(named: Named) -> dict[str, Any]:
    """Mask ratio and target of its training, where its folder states them; of official files the name tells whether
    the target was pixels (*visualize*) or normalised patches."""
    if named.kind in ("run", "demo"):
        settings = load_run(demo_folder() if named.kind == "demo" else _source(named)).settings
        return {"mask_ratio": settings.masking.mask_ratio, "norm_pix": settings.loss.norm_pix}
    if named.kind in ("folder", "hub"):
        stated = read_json(_source(named) / "config.json")
        return {"mask_ratio": stated.get("mask_ratio", 0.75), "norm_pix": stated.get("norm_pix_loss", False)}
    return {"norm_pix": "visualize" not in named.name}


def _role(named: Named, model: Model) -> str:
    """By its weights or its settings, where its name does not say it."""
    if named.kind == "run":
        method = load_run(_source(named)).settings.method
        return {"mae": "MAE", "dino": "DINO", "supervised": "supervised"}.get(method, "other")
    return "MAE" if isinstance(model, MAE) and model.decoder is not None else "other"
