"""How other implementations name the weights of a masked autoencoder, and files that they load.

Key names of a file are functions from a key of `MAE.state_dict()` to the keys that hold it there: one for most, three
where query, key and value are stored apart. Reading (`interop.load_mae`) and writing use the same functions. The
projector has no place in any of the formats and is left out.

Letters (CONTRIBUTING.md): D and D' widths of encoder and decoder.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import LayerNorm
from torch import Tensor

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.data.augment import IMAGENET_MEAN, IMAGENET_STD
from lcmae_core.models.decoders import TransformerDecoder
from lcmae_core.models.mae import MAE
from lcmae_core.models.weights import Names
from lcmae_core.store.checkpoint import save_tensors, write_atomic, write_json
from lcmae_core.store.machine import writable_folder

EPS = 1e-6
"""Epsilon of every LayerNorm in the public MAE code, in timm and here; Hugging Face configurations state theirs."""

_CLASSIC = {
    "norm1": ["layernorm_before"],
    "norm2": ["layernorm_after"],
    "attn.qkv": ["attention.attention.query", "attention.attention.key", "attention.attention.value"],
    "attn.proj": ["attention.output.dense"],
    "mlp.fc1": ["intermediate.dense"],
    "mlp.fc2": ["output.dense"],
}
_RENAMED = {
    "norm1": ["layernorm_before"],
    "norm2": ["layernorm_after"],
    "attn.qkv": ["attention.q_proj", "attention.k_proj", "attention.v_proj"],
    "attn.proj": ["attention.o_proj"],
    "mlp.fc1": ["mlp.fc1"],
    "mlp.fc2": ["mlp.fc2"],
}
_HF_OUTSIDE_BLOCKS = {
    "encoder.cls_token": "embeddings.cls_token",
    "encoder.pos_embed": "embeddings.position_embeddings",
    "encoder.patch_embed.proj": "embeddings.patch_embeddings.projection",
    "encoder.norm": "layernorm",
    "decoder.mask_token": "decoder.mask_token",
    "decoder.pos_embed": "decoder.decoder_pos_embed",
    "decoder.embed": "decoder.decoder_embed",
    "decoder.norm": "decoder.decoder_norm",
    "decoder.pred": "decoder.decoder_pred",
}
HF_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "decoder_hidden_size": 512, "decoder_num_hidden_layers": 8, "decoder_num_attention_heads": 16,
    "decoder_intermediate_size": 2048, "image_size": 224, "patch_size": 16, "num_channels": 3,
    "layer_norm_eps": 1e-12, "qkv_bias": True, "hidden_act": "gelu",
}  # fmt: skip
"""What a ViTMAE configuration means where it is silent."""
_TIMM_STEMS = {
    (192, 12, 3): "vit_tiny",
    (384, 12, 6): "vit_small",
    (768, 12, 12): "vit_base",
    (1024, 24, 16): "vit_large",
    (1280, 32, 16): "vit_huge",
}
"""(width, depth, heads) -> what timm calls that size."""


@dataclass(frozen=True)
class HfStyle:
    """What differs between Hugging Face files: the prefix of the encoder, the names of the blocks and inside them.

    transformers 4 and the hub's files are classic; transformers 5 names its modules anew, and its `save_pretrained`
    writes decoder blocks as `decoder_encoder.layer` (5.23).
    """

    encoder: str = "vit."
    encoder_blocks: str = "encoder.layer"
    decoder_blocks: str = "decoder_layers"
    inside: Mapping[str, list[str]] = field(default_factory=lambda: _CLASSIC)

    @classmethod
    def of(cls, keys: Iterable[str]) -> "HfStyle":
        """The style of a file with these keys."""
        keys = list(keys)
        encoder = "vit." if any(key.startswith("vit.") for key in keys) else ""
        return cls(
            encoder,
            "layers" if any(key.startswith(f"{encoder}layers.") for key in keys) else "encoder.layer",
            "decoder_encoder.layer" if any("decoder_encoder.layer." in key for key in keys) else "decoder_layers",
            _RENAMED if any(".q_proj." in key for key in keys) else _CLASSIC,
        )

    def __call__(self, key: str) -> list[str]:
        """Keys that hold a weight, as `Names`."""
        block = re.fullmatch(r"(encoder|decoder)\.blocks\.(\d+)\.(.+)\.(weight|bias)", key)
        if block:
            part, number, module, kind = block.groups()
            stem = f"{self.encoder}{self.encoder_blocks}" if part == "encoder" else f"decoder.{self.decoder_blocks}"
            return [f"{stem}.{number}.{name}.{kind}" for name in self.inside[module]]
        stem, _, kind = key.rpartition(".")
        name = _HF_OUTSIDE_BLOCKS[key] if key in _HF_OUTSIDE_BLOCKS else f"{_HF_OUTSIDE_BLOCKS[stem]}.{kind}"
        return [name if name.startswith("decoder.") else f"{self.encoder}{name}"]


def official_names(key: str) -> list[str]:
    """The names of the public MAE code; of its encoder, also timm's."""
    part, _, rest = key.partition(".")
    return [rest if part == "encoder" or rest == "mask_token" else f"decoder_{rest}"]


class TimmExport(NamedTuple):
    """How to load the file: `timm.create_model(model_name, checkpoint_path=path, **kwargs)`, which loads strictly."""

    path: str
    model_name: str
    kwargs: dict[str, Any]


def export_timm(model: MAE, path: str | Path) -> TimmExport:
    """Write the encoder as a file for timm; `forward_features` of the loaded model equals `model.encoder(images)`.

    Raises:
        LcmaeError: a suffix other than .safetensors, .pth, .pt or .bin, or a folder that cannot be written.
    """
    # No mask token: timm takes a file that has one for DINOv2.
    tensors = {official_names(f"encoder.{key}")[0]: value for key, value in model.encoder.state_dict().items()}
    file = _save(tensors, path)
    return TimmExport(str(file), *timm_model(model))


def export_official(model: MAE, path: str | Path) -> Path:
    """Write {"model": weights} with the keys of facebookresearch/mae, whose classes load it (LayerNorm eps 1e-6).

    Raises:
        LcmaeError: images that are not square, a decoder that is no transformer, an autoencoder of larger blocks, or a
            file that cannot be written.
    """
    _check_representable(model, "facebookresearch/mae")
    return _save(_renamed(model, official_names), path, wrap="model")


def export_hf(model: MAE, folder: str | Path, *, mask_ratio: float = 0.75, norm_pix: bool = True) -> Path:
    """Write config.json and model.safetensors for `transformers.ViTMAEForPreTraining.from_pretrained(folder)`, or for
    `ViTMAEModel` where there is no decoder; `mask_ratio` and `norm_pix` go into the configuration.

    Raises:
        LcmaeError: images that are not square, a decoder that is no transformer, an autoencoder of larger blocks, or a
            folder that cannot be written.
    """
    _check_representable(model, "Hugging Face ViTMAE")
    target = writable_folder(Path(folder).expanduser().absolute())
    style = HfStyle(encoder="vit." if model.decoder is not None else "")
    save_tensors(target / "model.safetensors", _renamed(model, style), {"format": "pt"})
    write_json(target / "config.json", _hf_config(model, mask_ratio, norm_pix))
    return target


def _renamed(model: MAE, names: Names) -> dict[str, Tensor]:
    return {
        name: part
        for key, value in model.state_dict().items()
        if not key.startswith("projector.")
        for name, part in zip(names(key), value.chunk(len(names(key))))
    }


def _save(tensors: dict[str, Tensor], path: str | Path, wrap: str = "") -> Path:
    """The tensors as safetensors or PyTorch's format, by the suffix; the latter as {wrap: tensors} if asked."""
    file = Path(path).expanduser().absolute()
    suffixes = [".pth", ".pt", ".bin", *([] if wrap else [".safetensors"])]
    if file.suffix not in suffixes:
        raise LcmaeError(f"path: got suffix {file.suffix!r} in {str(path)!r}: {nearest(file.suffix, suffixes)}")
    writable_folder(file.parent)
    if file.suffix == ".safetensors":
        save_tensors(file, tensors)
    else:
        plain = {name: value.detach().cpu().clone() for name, value in tensors.items()}
        write_atomic(file, lambda temporary: torch.save({wrap: plain} if wrap else plain, temporary))
    return file


def _check_representable(model: MAE, whose: str) -> None:
    if model.image_size[0] != model.image_size[1]:
        raise LcmaeError(f"image size: got {model.image_size}, expected square images, the only ones that {whose} has")
    if not isinstance(model.decoder, TransformerDecoder | None):
        raise LcmaeError(f"decoder: got {type(model.decoder).__name__}, expected a transformer, as in {whose}")
    if model.block != 1:
        raise LcmaeError(f"block: got {model.block} patches a token, expected 1, as in {whose}; `export_timm` takes it")


def _eps(model: MAE) -> float:
    norm: Any = model.encoder.norm
    return float(norm.eps)


def timm_model(model: MAE) -> tuple[str, dict[str, Any]]:
    """Name of timm's model nearest in size, and the arguments that make it this one."""
    arch = model.arch
    sizes = {"embed_dim": arch.width, "depth": arch.depth, "num_heads": arch.heads}
    stem = _TIMM_STEMS.get((arch.width, arch.depth, arch.heads))
    named = f"{stem}_patch{arch.patch_size}_224"
    known = stem is not None and timm.is_model(named)
    # timm would state the statistics of its own weights of that size, which are often others
    overlay = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    kwargs: dict[str, Any] = {"num_classes": 0, "pretrained_cfg_overlay": overlay}
    kwargs |= {} if known else {**sizes, "patch_size": arch.patch_size}
    kwargs |= {} if model.image_size == (224, 224) else {"img_size": model.image_size}
    kwargs |= {} if model.channels == 3 else {"in_chans": model.channels}
    kwargs |= {} if arch.mlp_ratio == 4 else {"mlp_ratio": arch.mlp_ratio}
    kwargs |= {} if _eps(model) == EPS else {"norm_layer": partial(LayerNorm, eps=_eps(model))}
    return (named if known else "vit_base_patch16_224"), kwargs


def _hf_config(model: MAE, mask_ratio: float, norm_pix: bool) -> dict[str, Any]:
    arch = model.arch
    return {
        "architectures": ["ViTMAEModel" if model.decoder is None else "ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "hidden_size": arch.width,
        "num_hidden_layers": arch.depth,
        "num_attention_heads": arch.heads,
        "intermediate_size": int(arch.width * arch.mlp_ratio),
        "decoder_hidden_size": arch.decoder_width,
        "decoder_num_hidden_layers": arch.decoder_depth,
        "decoder_num_attention_heads": arch.decoder_heads,
        "decoder_intermediate_size": int(arch.decoder_width * arch.mlp_ratio),
        "image_size": model.image_size[0],
        "patch_size": arch.patch_size,
        "num_channels": model.channels,
        "hidden_act": "gelu",
        "layer_norm_eps": _eps(model),
        "qkv_bias": True,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "mask_ratio": mask_ratio,
        "norm_pix_loss": norm_pix,
    }
