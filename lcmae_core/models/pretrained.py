"""Vision Transformers that others trained, by timm's names: which revision, which bytes, and images as they expect.

Letters (CONTRIBUTING.md): B images, C channels, H x W pixels.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lcmae_core.config import LcmaeError
from lcmae_core.models.hub import PINNED, TIMM_FILES, fetch
from lcmae_core.models.inputs import PICTURES, image_grid, in_its_type, own_statistics, renormalize
from lcmae_core.store.files import sha256


class Reference(NamedTuple):
    """A published model: timm's name."""

    name: str

    @property
    def revision(self) -> str | None:
        """The hub's commit where one is pinned; None: the newest, recorded as `WeightsOrigin.revision`."""
        return PINNED.get(repository_of(self.name))


REFERENCES: dict[str, Reference] = {
    "DINO": Reference("vit_base_patch16_224.dino"),
    "supervised (DeiT)": Reference("deit_base_patch16_224.fb_in1k"),
    "MAE": Reference("vit_base_patch16_224.mae"),
}
"""The published models that the figures compare."""


@dataclass(frozen=True)
class WeightsOrigin:
    """What a pretrained model is: timm's name, where from, the hub's commit (None for a file), the file's bytes."""

    name: str
    origin: str
    revision: str | None
    sha256: str

    def __str__(self) -> str:
        revision = f" @ {self.revision[:12]}" if self.revision else ""
        return f"{self.name} ({self.origin}{revision}, sha256 {self.sha256[:12]})"


@dataclass(frozen=True)
class Pretrained:
    """A model in evaluation mode on the CPU, and the record of what it is."""

    model: VisionTransformer
    weights: WeightsOrigin


def load_vit(name: str, *, revision: str | None = None, checkpoint: str | Path | None = None) -> Pretrained:
    """A pretrained ViT of timm by name, for example "vit_base_patch16_224.dino" or "name@revision".

    Weights come from a file put into `hub.place_of`, else the Hugging Face hub (its cache answers where the hub does
    not), or from a local `checkpoint` that `timm.create_model(name, checkpoint_path=...)` loads.

    Raises:
        LcmaeError: an unknown name, no Vision Transformer, a hub that does not answer within seconds and no cached
            file, an unknown revision, or a file that does not fit.
    """
    name, revision = _revision(name, revision)
    check_name(name, pretrained=checkpoint is None)
    if checkpoint is not None:
        if revision is not None:
            raise LcmaeError(f"revision: got {revision!r} beside a local checkpoint, expected only one of them")
        file = Path(checkpoint).expanduser().absolute()
        if not file.is_file():
            raise LcmaeError(f"checkpoint: got {str(checkpoint)!r}, which is no file, expected weights of {name}")
        model = _create(name, file, checkpoint_path=str(file))
        return Pretrained(model, WeightsOrigin(name, file.name, None, sha256(file)))
    repo = repository_of(name)
    (file,), commit = fetch(repo, TIMM_FILES, revision)
    return Pretrained(vit_from(name, file), WeightsOrigin(name, repo, commit, sha256(file)))


def vit_from(name: str, file: Path) -> VisionTransformer:
    """The ViT of that name with weights as the hub has them, in evaluation mode on the CPU.

    Raises:
        LcmaeError: an unknown name, no Vision Transformer, or a file that does not fit.
    """
    check_name(name, pretrained=True)
    return _create(name, file, pretrained=True, pretrained_cfg_overlay={"file": str(file)})


def images_for(model: VisionTransformer, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Images normalised by ImageNet's statistics, as the collection has them, re-normalised to the model's own and in
    its type. Images that are neither grey nor colour have no statistics of ImageNet: they are taken as they are.

    Raises:
        LcmaeError: images of another size or number of channels than the model takes, a model that states no
            statistics.
    """
    image_grid(model, images)
    cfg, channels = _configuration(model), images.shape[1]
    if channels not in PICTURES:
        return in_its_type(model, images)
    stated = own_statistics(cfg, channels)
    if stated is None:
        raise LcmaeError(f"model: got {type(model).__name__} without mean and std, expected a model of timm's registry")
    return in_its_type(model, renormalize(images, *stated))


def expected_images(model: nn.Module, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """`images_for` where timm says what the model expects; unchanged for the collection's own models.

    Raises:
        LcmaeError: images of another size or number of channels than the model takes.
    """
    if not isinstance(model, VisionTransformer) or own_statistics(_configuration(model), images.shape[1]) is None:
        return images
    return images_for(model, images)


def _configuration(model: nn.Module) -> dict[str, Any]:
    """What timm says of a model's weights; changed in place where others are loaded."""
    return getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}


def _revision(name: str, revision: str | None) -> tuple[str, str | None]:
    name, at, pinned = name.partition("@")
    if at and (not pinned or (revision is not None and revision != pinned)):
        raise LcmaeError(f"revision: got {name + at + pinned!r} and {revision!r}, expected one revision")
    return name, pinned or revision


def check_name(name: str, pretrained: bool = True) -> None:
    """Whether timm knows the architecture (and the weights) and it is a ViT; builds it without memory.

    Raises:
        LcmaeError: it does not.
    """
    weights, plain = timm.list_models(pretrained=True), timm.list_models()
    if name not in weights and name not in plain:
        near = difflib.get_close_matches(name, weights if "." in name else plain, n=1, cutoff=0)[0]
        raise LcmaeError(f"model: got {name!r}, which timm does not know: did you mean {near!r}?")
    with torch.device("meta"):
        model = timm.create_model(name)
    if not isinstance(model, VisionTransformer):
        raise LcmaeError(f"model: got {name!r}, a {type(model).__name__}, expected a VisionTransformer of timm")
    if pretrained and _pretrained_cfg(name) is None:
        near = difflib.get_close_matches(name, weights, n=1, cutoff=0)[0]
        raise LcmaeError(f"model: got {name!r}, for which timm has no weights: did you mean {near!r}?")


def _pretrained_cfg(name: str) -> Any:
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return cfg if cfg is not None and cfg.hf_hub_id else None


def repository_of(name: str) -> str:
    """The hub's repository of timm's weights: an id that ends in / takes the name with its tag."""
    cfg = _pretrained_cfg(name)
    full = f"{cfg.architecture}.{cfg.tag}" if cfg.tag else cfg.architecture
    return f"{cfg.hf_hub_id}{full}" if cfg.hf_hub_id.endswith("/") else cfg.hf_hub_id


def _create(name: str, file: Path, **how: Any) -> VisionTransformer:
    try:
        return cast(VisionTransformer, timm.create_model(name, **how).eval())
    except Exception as error:  # torch, safetensors and timm each have their own
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LcmaeError(f"checkpoint: got {str(file)!r} ({line}), expected weights of {name}") from None
