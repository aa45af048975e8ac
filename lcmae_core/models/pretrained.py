"""Vision Transformers that others trained, by timm's names: which revision, which bytes, and images as they expect.

Letters: B images, C channels, H x W pixels.
"""

import difflib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import timm
import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lcmae_core.config import LcmaeError
from lcmae_core.models.inputs import PICTURES, image_grid, in_its_type, own_statistics, renormalize
from lcmae_core.store.files import sha256

DEADLINE = 5.0
"""Seconds within which the hub must answer the first question."""
_WEIGHTS = "model.safetensors"
T = TypeVar("T")


class Reference(NamedTuple):
    """A published model: timm's name, and the hub's revision where one is pinned (None: the newest, recorded)."""

    name: str
    revision: str | None = None


REFERENCES: dict[str, Reference] = {
    "DINO": Reference("vit_base_patch16_224.dino"),
    "supervised (DeiT)": Reference("deit_base_patch16_224.fb_in1k"),
    "MAE": Reference("vit_base_patch16_224.mae"),
}
"""The published models that the figures compare. No commit is pinned where none could be verified: `Weights.revision`
says which one was used."""


@dataclass(frozen=True)
class Weights:
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
    weights: Weights


def load_vit(name: str, *, revision: str | None = None, checkpoint: str | Path | None = None) -> Pretrained:
    """A pretrained ViT of timm by name, for example "vit_base_patch16_224.dino" or "name@revision".

    Weights come from the Hugging Face hub (its cache answers where the hub does not), or from a local `checkpoint` that
    `timm.create_model(name, checkpoint_path=...)` loads.

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
        return Pretrained(model, Weights(name, file.name, None, sha256(file)))
    repo = repository_of(name)
    file, commit = _download(repo, revision)
    model = _create(name, file, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
    return Pretrained(model, Weights(name, repo, commit, sha256(file)))


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


def check_name(name: str, pretrained: bool) -> None:
    """Whether timm knows the architecture (and the weights) and it is a ViT; builds it without memory."""
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


def _download(repo: str, revision: str | None) -> tuple[Path, str]:
    """The weights' file and the commit it belongs to: asked for once, with a deadline, then fetched by that commit.

    huggingface_hub repeats an unanswered request for minutes; this question is put once. Without an answer the cache
    may still have the file.
    """
    from huggingface_hub import errors, hf_hub_download

    missing = (errors.EntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
    try:
        commit = _within(DEADLINE, lambda: _commit(repo, revision))
        return Path(hf_hub_download(repo, _WEIGHTS, revision=commit)), commit
    except Exception as error:  # refused, no name, no route, timeout, proxy: each client has its own classes
        if isinstance(error, missing) and not isinstance(error, errors.LocalEntryNotFoundError):  # the hub did answer
            raise LcmaeError(
                f"hub: got no {_WEIGHTS} of {repo!r} at revision {revision or 'main'!r} ({type(error).__name__}), "
                "expected a revision that the hub has"
            ) from None
        return _cached(repo, revision, error)


def _cached(repo: str, revision: str | None, cause: Exception) -> tuple[Path, str]:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, _WEIGHTS, revision=revision)
    if not isinstance(found, str):
        raise LcmaeError(
            f"hub: got no answer for {repo!r} ({type(cause).__name__}), expected a hub that answers, a cached copy, "
            "or a local checkpoint; the collection trains its own DINO and supervised references without it"
        ) from None
    return Path(found), Path(found).parent.name  # <cache>/models--.../snapshots/<commit>/model.safetensors


def _commit(repo: str, revision: str | None) -> str:
    """The commit that a revision means on the hub now."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    found = get_hf_file_metadata(hf_hub_url(repo, _WEIGHTS, revision=revision), timeout=DEADLINE).commit_hash
    if found is None:
        raise ConnectionError("the hub named no commit")
    return found


def _within(seconds: float, question: Callable[[], T]) -> T:
    """The answer, or TimeoutError: looking up a name can hang longer than a client's own timeout."""
    answer: list[T] = []
    failure: list[Exception] = []

    def ask() -> None:
        try:
            answer.append(question())
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not answer:
        raise TimeoutError(f"no answer within {seconds} s")
    return answer[0]
