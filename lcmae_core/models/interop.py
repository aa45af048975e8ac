"""Masked autoencoders from files of any origin, in one model class; the way back is in `export`.

Letters (CONTRIBUTING.md): N patches, D and D' widths of encoder and decoder, p side of a patch, C channels.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from torch import Tensor, nn

from lcmae_core import config
from lcmae_core.config import LcmaeError, nearest
from lcmae_core.models.demonstration import DEMO, demo_folder
from lcmae_core.models.export import (
    EPS,
    HF_DEFAULTS,
    HfStyle,
    TimmExport,
    export_hf,
    export_official,
    export_timm,
    official_names,
)
from lcmae_core.models.heads import PUBLISHED, HeadCounts, agree, known_heads
from lcmae_core.models.hub import HF_FILES, fetch, is_hub_id
from lcmae_core.models.inputs import PICTURES, are_imagenets, own_statistics, take_imagenet_images
from lcmae_core.models.mae import MAE
from lcmae_core.models.pretrained import load_vit
from lcmae_core.models.weights import Names, find_shape, fit, read_tensors
from lcmae_core.store.files import read_json
from lcmae_core.store.runs import MODEL, SETTINGS, refuse_damaged

__all__ = ["TimmExport", "export_hf", "export_official", "export_timm", "load_mae"]

_SUFFIXES = {".pth", ".pt", ".bin", ".safetensors"}
_HF_WEIGHTS = HF_FILES[1]


class _Shape(NamedTuple):
    """All that is needed to build the model of a file."""

    arch: config.Model
    image_size: tuple[int, int]
    channels: int
    decoder: bool
    projector: bool = False
    block: int = 1
    eps: float = EPS


def load_mae(path_or_repo: str | Path, *, encoder_heads: int | None = None, decoder_heads: int | None = None) -> MAE:
    """The model in a file, folder or hub repository, in evaluation mode on the CPU, float32.

    Read are: "demo", the model that comes along (./demo is a folder); files of facebookresearch/mae (.pth, full or
    encoder only); Hugging Face ViTMAE (a folder, or a hub id such as "facebook/vit-mae-base"); runs of this project
    (the folder, its model.safetensors or a snapshot); encoders of timm ("timm:vit_base_patch16_224.mae", or a
    state-dict file, whose classifier head is left out). Positions are
    those of the file. Without decoder weights `model.decoder` is None and a forward pass says so. Sizes come from the
    weights or the configuration; heads are in the configuration or follow from the published widths, else they must be
    given. The model takes images of ImageNet's statistics: where a configuration states others (timm's, or
    preprocessor_config.json), the patch embedding is changed so that its tokens are the same.

    Raises:
        LcmaeError: nothing there, no checkpoint, a key missing or unexpected, a shape that does not fit, unknown heads,
            weights of a run whose bytes differ from its manifest.

    Warns:
        UserWarning: heads that the file does not say, at a width at which published models differ.
    """
    heads, name = HeadCounts(encoder_heads, decoder_heads), str(path_or_repo)
    path = Path(name).expanduser()
    if name == DEMO:
        return _load_folder(demo_folder(), heads)
    if name.startswith("timm:"):
        return _load_timm(name.removeprefix("timm:"), heads)
    if path.is_dir():
        return _load_folder(path, heads)
    if path.is_file():
        return _load_file(path, heads)
    if is_hub_id(name) and path.suffix not in _SUFFIXES and not path.parent.exists():
        return _load_hub(name, heads)
    raise LcmaeError(
        f"checkpoint: got {name!r}, which does not exist, expected 'demo', a .pth or .safetensors file, a folder of a "
        "run or of Hugging Face, a hub id such as 'facebook/vit-mae-base', or 'timm:vit_base_patch16_224.mae'"
    )


def _load_folder(folder: Path, heads: HeadCounts) -> MAE:
    if (folder / "config.json").exists():
        return _load_hf(folder, heads)
    if (folder / SETTINGS).exists():
        return _load_own(_first(folder, [MODEL]), heads)
    raise LcmaeError(
        f"checkpoint: got folder {str(folder)!r}, expected {SETTINGS} (a run) or config.json (ViTMAE) in it"
    )


def _load_file(file: Path, heads: HeadCounts) -> MAE:
    """Whose file it is, by its keys."""
    tensors = read_tensors(file)
    if any(key.startswith(("encoder.blocks.", "encoder.patch_embed.")) for key in tensors):
        return _load_own(file, heads)
    if any("embeddings.patch_embeddings" in key or "attention.attention." in key for key in tensors):
        return _load_hf(file.parent, heads, file)
    if not any(re.match(r"blocks\.\d", key) for key in tensors):
        keys = ", ".join(map(repr, sorted(tensors)[:3])) or "none"
        raise LcmaeError(f"checkpoint: got {str(file)!r} with keys {keys}, expected those of a masked autoencoder")
    return _load_official(tensors, heads, file)


def _load_own(file: Path, heads: HeadCounts) -> MAE:
    places = [folder / SETTINGS for folder in (file.parent, file.parent.parent)]  # snapshots lie one folder deeper
    if (stated := next((place for place in places if place.exists()), None)) is None:
        raise LcmaeError(f"checkpoint: got {str(file)!r} without {SETTINGS}, expected it beside the weights of a run")
    refuse_damaged(stated.parent, file)
    settings, tensors = config.parse(read_json(stated)), read_tensors(file)
    if settings.method not in ("mae", "ae"):  # a reference has an encoder alone (DINO: its teacher's)
        tensors = {key: value for key, value in tensors.items() if key.startswith("encoder.")}
    arch, data = settings.model, settings.data
    agree("encoder_heads", heads.encoder, arch.heads, stated)
    agree("decoder_heads", heads.decoder, arch.decoder_heads, stated)
    parts = {key.partition(".")[0] for key in tensors}
    kinds = ("decoder" in parts, "projector" in parts, settings.predicted_block)
    shape = _Shape(arch, data.image_size, data.channels, *kinds)
    return _build(shape, tensors, lambda key: [key], file)


def _load_official(tensors: dict[str, Tensor], heads: HeadCounts, file: Path) -> MAE:
    full = any(key.startswith(("decoder_", "mask_token")) for key in tensors)
    if not full:
        tensors = {key: value for key, value in tensors.items() if not key.startswith("head.")}
    return _build(_official_shape(tensors, full, heads, file), tensors, official_names, file)


def _official_shape(tensors: dict[str, Tensor], full: bool, heads: HeadCounts, file: Path) -> _Shape:
    """Sizes from shapes: the patch embedding is (D, C, p, p), positions (1, 1 + N, D), the first MLP layer (4 D, D)."""
    width, channels, patch, _ = find_shape(tensors, "patch_embed.proj.weight", 4, file)
    positions = find_shape(tensors, "pos_embed", 3, file)[1] - 1
    side = math.isqrt(max(positions, 0))
    if side**2 != positions:
        raise LcmaeError(f"pos_embed: got {positions} positions in {str(file)!r}, expected a square number of patches")
    hidden = find_shape(tensors, "blocks.0.mlp.fc1.weight", 2, file)[0]
    sizes: dict[str, Any] = {
        "patch_size": patch,
        "width": width,
        "depth": _depth(tensors, "blocks"),
        "mlp_ratio": _ratio(hidden, width),
    }
    sizes["heads"] = known_heads("encoder", width, heads.encoder, width in PUBLISHED, file)
    if full:
        narrow = find_shape(tensors, "decoder_embed.weight", 2, file)[0]
        sizes |= {"decoder_width": narrow, "decoder_depth": _depth(tensors, "decoder_blocks")}
        sizes["decoder_heads"] = known_heads("decoder", narrow, heads.decoder, width in PUBLISHED, file)
    return _Shape(config.Model(**sizes), (side * patch, side * patch), channels, full)


def _load_hf(folder: Path, heads: HeadCounts, file: Path | None = None) -> MAE:
    stated = folder / "config.json"
    if not stated.exists():
        raise LcmaeError(f"checkpoint: got {str(file)!r} without config.json, expected it beside Hugging Face weights")
    settings = HF_DEFAULTS | read_json(stated)
    file = file or _first(folder, _HF_WEIGHTS)
    tensors = read_tensors(file)
    names = HfStyle.of(tensors)
    shape = _hf_shape(settings, any(key.startswith("decoder.") for key in tensors), heads, stated)
    if not settings["qkv_bias"]:
        tensors |= _zero_biases(tensors, stated)
    prepared, model = folder / "preprocessor_config.json", _build(shape, tensors, names, file)
    if not prepared.exists():
        return model
    preparation = read_json(prepared)
    return _adapted(model, {"mean": preparation.get("image_mean"), "std": preparation.get("image_std")})


def _zero_biases(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The biases of query, key and value of a model that has none; ours always has them."""
    pattern = r"(.+\.(?:query|key|value|q_proj|k_proj|v_proj)\.)weight"
    stems = [match[1] for match in (re.fullmatch(pattern, key) for key in tensors) if match]
    stray = next((f"{stem}bias" for stem in stems if f"{stem}bias" in tensors), None)
    if stray:
        raise LcmaeError(f"qkv_bias: got False in {str(file)!r}, but the weights have {stray!r}, expected True")
    return {f"{stem}bias": torch.zeros(len(tensors[f"{stem}weight"])) for stem in stems}


def _hf_shape(settings: dict[str, Any], full: bool, heads: HeadCounts, file: Path) -> _Shape:
    for name, expected in (("model_type", "vit_mae"), ("hidden_act", "gelu")):
        if settings.get(name) != expected:
            raise LcmaeError(f"{name}: got {settings.get(name)!r} in {str(file)!r}, expected {expected!r}")
    for name in (name for name, default in HF_DEFAULTS.items() if type(default) is int):
        least = 0 if name == "decoder_num_hidden_layers" else 1
        if type(settings[name]) is not int or settings[name] < least:
            raise LcmaeError(f"{name}: got {settings[name]!r} in {str(file)!r}, expected a whole number from {least}")
    image, patch, width = settings["image_size"], settings["patch_size"], settings["hidden_size"]
    if image % patch:
        raise LcmaeError(f"patch_size: got {patch} in {str(file)!r}, expected a divisor of image_size {image}")
    ratio = _ratio(settings["intermediate_size"], width)
    sizes = {"patch_size": patch, "width": width, "depth": settings["num_hidden_layers"], "mlp_ratio": ratio}
    sizes["heads"] = agree("encoder_heads", heads.encoder, settings["num_attention_heads"], file)
    if full:
        narrow, deep = settings["decoder_hidden_size"], settings["decoder_num_hidden_layers"]
        sizes |= {"decoder_width": narrow, "decoder_depth": deep}
        sizes["decoder_heads"] = agree("decoder_heads", heads.decoder, settings["decoder_num_attention_heads"], file)
        if deep and int(narrow * ratio) != settings["decoder_intermediate_size"]:
            raise LcmaeError(
                f"decoder_intermediate_size: got {settings['decoder_intermediate_size']} in {str(file)!r}, "
                f"expected {int(narrow * ratio)}, the encoder's MLP ratio"
            )
    return _Shape(config.Model(**sizes), (image, image), settings["num_channels"], full, eps=settings["layer_norm_eps"])


def _load_timm(name: str, heads: HeadCounts) -> MAE:
    if not timm.is_model(name.partition(".")[0]):
        raise LcmaeError(f"timm: unknown model {name!r}: {nearest(name, timm.list_pretrained('vit_*.mae'))}")
    vit = load_vit(name).model
    block: Any = vit.blocks[0]
    patches, norm = vit.patch_embed, cast(Any, vit.norm)
    known = {"width": vit.embed_dim, "depth": len(vit.blocks), "patch_size": patches.patch_size[0]}
    known["heads"] = agree("encoder_heads", heads.encoder, block.attn.num_heads, Path(name))
    arch = config.Model(**known, mlp_ratio=_ratio(block.mlp.fc1.out_features, vit.embed_dim))
    shape = _Shape(arch, patches.img_size, vit.in_chans, False, eps=norm.eps)
    weights = {key: value for key, value in vit.state_dict().items() if not key.startswith("head.")}
    return _adapted(_build(shape, weights, official_names, Path(name)), cast(Any, vit.pretrained_cfg))


def _load_hub(name: str, heads: HeadCounts) -> MAE:
    repo, _, revision = name.partition("@")
    (configuration, *_), _ = fetch(repo, HF_FILES, revision or None)
    return _load_hf(configuration.parent, heads)


def _build(shape: _Shape, tensors: dict[str, Tensor], names: Names, file: Path) -> MAE:
    """The model with the weights of the file; nothing is drawn on the way."""
    arch = shape.arch
    for part, width, heads in (
        ("encoder", arch.width, arch.heads),
        ("decoder", arch.decoder_width, arch.decoder_heads),
    ):
        if width % heads:
            raise LcmaeError(f"{part} heads: got {heads}, expected a divisor of width {width}")
    with torch.device("meta"):
        parts: dict[str, Any] = {"projector": shape.projector, "decoder": shape.decoder, "block": shape.block}
        model = MAE(arch, shape.image_size, shape.channels, **parts)
    model.to_empty(device="cpu")
    fit(model, tensors, names, file)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = shape.eps
    return model.eval()


def _adapted(model: MAE, cfg: Mapping[str, Any]) -> MAE:
    """The model made for images of ImageNet's statistics, whatever its own are."""
    stated = own_statistics(cfg, model.channels)
    if model.channels in PICTURES and stated is not None and not are_imagenets(*stated):
        take_imagenet_images(cast(nn.Conv2d, model.encoder.patch_embed.proj), *stated)
    return model


def _first(folder: Path, names: Sequence[str]) -> Path:
    """The first of the files that is there."""
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise LcmaeError(f"checkpoint: got folder {str(folder)!r} without weights, expected {' or '.join(names)} in it")
    return path


def _depth(tensors: Mapping[str, Tensor], stem: str) -> int:
    """Blocks, counted from 0 in the keys."""
    numbers = [re.match(rf"{re.escape(stem)}\.(\d+)\.", key) for key in tensors]
    return max((int(number[1]) + 1 for number in numbers if number), default=0)


def _ratio(hidden: int, width: int) -> float:
    """The MLP ratio r with int(r * width) = hidden, whatever rounding does."""
    ratio = hidden / width
    return ratio if int(ratio * width) == hidden else math.nextafter(ratio, math.inf)
