"""The models that notebooks look at, each with where it comes from: a run, published weights, or a file.

A notebook always says which one it used: it prints the `origin`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from lcmae_core.config import LcmaeError, NoLabelsError, Settings, nearest, replace
from lcmae_core.models.build import model_of
from lcmae_core.models.decoders import TransformerDecoder
from lcmae_core.models.demonstration import DEMO, demo_card
from lcmae_core.models.interop import load_mae
from lcmae_core.models.mae import MAE
from lcmae_core.models.named import at_hand, named
from lcmae_core.models.pretrained import REFERENCES, expected_images, load_vit
from lcmae_core.studies.registry import deep_decoder, references
from lcmae_core.training.loop import pretrain

COMPARED = {"MAE": "MAE", "DINO": "DINO", "supervised": "supervised (DeiT)"}
"""Name in the figures -> name of the published model."""


class Subject(NamedTuple):
    """model: in evaluation mode on the CPU. origin: what it is, in words. settings: how images are read for it."""

    model: MAE | VisionTransformer
    origin: str
    settings: Settings

    @property
    def part(self) -> str:
        """Where its attention is most telling: the decoder, if it has one that attends."""
        attends = isinstance(self.model, MAE) and isinstance(self.model.decoder, TransformerDecoder)
        return "decoder" if attends else "encoder"

    @property
    def encoder(self) -> VisionTransformer:
        """The ViT that sees the images."""
        return self.model.encoder if isinstance(self.model, MAE) else self.model

    @property
    def shape(self) -> dict[str, Any]:
        """The leaves of settings under which a model of the same grid is trained."""
        return {"image_size": self.settings.data.image_size, "patch_size": self.settings.model.patch_size}

    def prepare(self, images: Tensor) -> Tensor:
        """Images of the collection (normalised by ImageNet's statistics) as the model expects them."""
        return expected_images(self.model, images)


def compared(
    base: Settings, profile: str, source: str = "trained", names: Sequence[str] = tuple(COMPARED)
) -> dict[str, Subject]:
    """MAE, DINO and a supervised ViT (v2 Fig. 3 and 5): trained here on the same data, or the published ViT-B weights.
    What needs labels that the data do not have is left out, with a line that says so.

    Raises:
        LcmaeError: another source than "trained" or "published", a hub that does not answer.
    """
    if source == "published":
        return {name: _published(REFERENCES[COMPARED[name]].name, base) for name in names}
    if source != "trained":
        raise LcmaeError(f"references: got {source!r}, {nearest(source, ('trained', 'published'))}")
    settings = {"MAE": base} | references(base, profile)
    subjects = {}
    for name in names:
        try:
            subjects[name] = _run(settings[name], name)
        except NoLabelsError as error:
            print(f"{name}: left out ({error})")
    return subjects


def open_model(spec: str | None, base: Settings, profile: str) -> Subject:
    """A model to look at: None or "demo" is the one that comes with the package, "run" the collection's own run with
    the deep decoder; else what `models.named` knows: an MAE checkpoint (a file or folder of the public code, Hugging
    Face or ours, an id of the hub) or the name of a timm ViT. Files and folders called "demo" or "run" are said as
    "./demo" and "./run".

    Raises:
        LcmaeError: neither a path nor a name, a file that does not fit, a hub that does not answer.
    """
    if spec == "run":
        return _run(deep_decoder(base, profile), "MAE")
    if spec in (None, DEMO):
        return _checkpoint(DEMO, f"demonstration MAE, {demo_card()['epochs']} epochs of {demo_card()['data']}", base)
    model = named(spec)
    if model.kind == "timm":
        return _published(model.given, base)
    path = at_hand(model).path or Path(spec).expanduser()
    return _checkpoint(path, f"checkpoint {spec if model.kind == 'hub' else path.name}", base)


def _checkpoint(path: Path | str, origin: str, base: Settings) -> Subject:
    model = load_mae(path)
    settings = replace(
        base, image_size=model.image_size, patch_size=model.arch.patch_size, channels=model.channels, mask_unit=1
    )
    return Subject(model, origin, settings)


def _run(settings: Settings, name: str) -> Subject:
    run = pretrain(settings)
    loaded: Any = model_of(run)
    model = loaded if isinstance(loaded, MAE) else loaded.encoder
    return Subject(model, f"{name} trained here, {run.results['steps']} steps ({run.name})", settings)


def _published(name: str, base: Settings) -> Subject:
    model = load_vit(name)
    patches = model.model.patch_embed
    settings = replace(
        base, image_size=patches.img_size, patch_size=patches.patch_size[0], channels=patches.proj.in_channels
    )
    return Subject(model.model, f"published {model.weights}", settings)
