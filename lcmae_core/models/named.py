"""Models by what a user calls them: what kind of thing is meant, what part it plays, where its file is or should be.

Nothing here loads torch: a wrong name, a missing file and a silent hub are said before that.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.models.hub import HF_FILES, TIMM_FILES, checkpoints, fetch, is_hub_id

ROLES = ("MAE", "DINO", "supervised", "other")
"""The part that a model plays in a claim; one of the last takes part in none."""
ALIASES = {"mae": "MAE", "dino": "DINO", "supervised": "supervised", "deit": "supervised", "other": "other"}
SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
PUBLIC = "https://dl.fbaipublicfiles.com"
OFFICIAL: dict[str, str] = {
    **{f"mae_visualize_vit_{size}.pth": f"{PUBLIC}/mae/visualize/mae_visualize_vit_{size}.pth"
       for size in ("base", "large", "huge")},
    **{f"mae_pretrain_vit_{size}{part}.pth": f"{PUBLIC}/mae/pretrain/mae_pretrain_vit_{size}{part}.pth"
       for size in ("base", "large", "huge") for part in ("", "_full")},
    **{f"dino_{name}_pretrain.pth": f"{PUBLIC}/dino/dino_{name}_pretrain/dino_{name}_pretrain.pth"
       for name in ("vitbase16", "vitbase8", "deitsmall16", "deitsmall8")},
    **{f"dinov2_{name}_pretrain.pth": f"{PUBLIC}/dinov2/dinov2_{name}/dinov2_{name}_pretrain.pth"
       for name in ("vits14", "vitb14", "vitl14")},
    **{f"deit_{name}.pth": f"{PUBLIC}/deit/deit_{name}.pth"
       for name in ("base_patch16_224-b5f2ef4d", "small_patch16_224-cd65a155", "tiny_patch16_224-a1311bcf")},
}  # fmt: skip
"""Files of the official repositories and where these offer them."""
ON_THE_HUB = {
    "vit_base_patch16_224.mae", "vit_large_patch16_224.mae", "vit_base_patch16_224.dino", "vit_small_patch16_224.dino",
    "deit_base_patch16_224.fb_in1k", "deit_small_patch16_224.fb_in1k", "vit_base_patch14_dinov2.lvd142m",
    "vit_small_patch14_dinov2.lvd142m",
}  # fmt: skip
"""timm's names whose repository on the hub is known without loading timm: timm/<name>."""

Kind = Literal["demo", "run", "folder", "file", "hub", "timm"]


@dataclass(frozen=True)
class Named:
    """given: the word. kind: what it means. name: how tables call it. role: the part that it plays, None where only
    its weights tell. path: of a file or folder here; of the hub's models once they are `at_hand`. commit: the hub's."""

    given: str
    kind: Kind
    name: str
    role: str | None = None
    path: Path | None = None
    commit: str | None = None

    @property
    def repo(self) -> tuple[str, str | None]:
        """Repository and revision on the hub."""
        repo, _, revision = self.given.partition("@")
        return (repo if self.kind == "hub" else f"timm/{repo}"), revision or None


def named(word: str) -> Named:
    """What `word` means: "demo", a run's folder, a folder of Hugging Face, a file (of the official repositories also
    by its bare name, where it lies in data/checkpoints), owner/name of the hub, or a timm ViT; the last two with or
    without @revision. "DINO=word" says the part that it plays, where its name does not.

    Raises:
        LcmaeError: nothing is there, or an unknown part.
    """
    role, word = _role_said(word)
    model = _kind_found(word)
    return replace(model, role=role or model.role or role_of(model.name))


def at_hand(model: Named) -> Named:
    """The model with its files here: what is on the hub is asked for, once and with a deadline.

    Raises:
        LcmaeError: no answer and no file, or the hub has no such thing (`hub.fetch`).
    """
    if model.path is not None or model.kind not in ("hub", "timm"):
        return model
    (path, *_), commit = fetch(model.repo[0], HF_FILES if model.kind == "hub" else TIMM_FILES, model.repo[1])
    return replace(model, path=path.parent if model.kind == "hub" else path, commit=commit)


def refuse_unknown(model: Named) -> None:
    """See whether timm knows a name that is said to be its own; loads torch, unless the name is a usual one.

    Raises:
        LcmaeError: with the nearest name that it knows.
    """
    if model.kind == "timm" and model.name not in ON_THE_HUB:
        from lcmae_core.models.pretrained import check_name

        check_name(model.name)


class WantedFile(NamedTuple):
    """A file that the comparison of the paper needs: the part it plays, its name, where it is offered, where it is
    looked for, and whether it is there."""

    role: str
    name: str
    address: str
    place: Path
    there: bool


def wanted() -> tuple[WantedFile, ...]:
    """The three ViT-B of v2 Fig. 2, 3 and 5: MAE with its decoder, DINO, DeiT."""
    names = ("mae_visualize_vit_base.pth", "dino_vitbase16_pretrain.pth", "deit_base_patch16_224-b5f2ef4d.pth")
    files = []
    for name in names:
        put, role = checkpoints() / name, role_of(name)
        files.append(WantedFile(role or "", name, OFFICIAL[name], put, put.is_file()))
    return tuple(files)


def role_of(name: str) -> str | None:
    """The part that a model plays by its name; None where it does not say. DINOv2 is another method than v2's DINO."""
    words = name.lower()
    if re.search(r"(?<![a-z])dinov\d", words):
        return "other"
    known = (("dino", "DINO"), ("deit", "supervised"), ("mae", "MAE"))
    return next((role for word, role in known if re.search(rf"(?<![a-z]){word}(?![a-z])", words)), None)


def _role_said(word: str) -> tuple[str | None, str]:
    role, sign, rest = word.partition("=")
    if not sign or "/" in role or Path(word).expanduser().exists():
        return None, word
    if role.lower() not in ALIASES:
        raise LcmaeError(f"model: got {word!r}, which says the part {role!r}, {nearest(role, ROLES)}")
    return ALIASES[role.lower()], rest


def _kind_found(word: str) -> Named:
    path = Path(word).expanduser()
    if word == "demo":
        return Named(word, "demo", word, "MAE")
    if path.is_dir():
        return _folder(word, path)
    if path.is_file():
        return Named(word, "file", path.stem, path=path)
    if path.suffix in SUFFIXES:
        return _official(word, path)
    if is_hub_id(word) and not path.parent.exists():
        return Named(word, "hub", word.partition("@")[0].rpartition("/")[2])
    if "/" in word or not word:
        raise LcmaeError(
            f"model: got {word!r}, which is not there, expected 'demo', a checkpoint or folder that exists, a hub id "
            "such as 'facebook/vit-mae-base', or a timm ViT such as 'vit_base_patch16_224.dino'"
        )
    return Named(word, "timm", word.partition("@")[0])


def _folder(word: str, path: Path) -> Named:
    if (path / "settings.json").exists():
        return Named(word, "run", path.resolve().name)
    if (path / "config.json").exists():
        return Named(word, "folder", path.resolve().name.rpartition("--")[2], "MAE")
    raise LcmaeError(
        f"model: got folder {word!r}, expected settings.json (a run) or config.json (Hugging Face's ViTMAE) in it"
    )


def _official(word: str, path: Path) -> Named:
    """A file that is not at its path: by its bare name it may lie where checkpoints are put."""
    put = checkpoints() / path.name
    if word == path.name and put.is_file():
        return Named(word, "file", path.stem, path=put)
    if path.name in OFFICIAL:
        raise LcmaeError(f"model: got {word!r}, which is not there: get {OFFICIAL[path.name]} and put it at {put}")
    near = nearest(path.name, [p.name for folder in (path.parent, checkpoints()) for p in _files(folder)] or OFFICIAL)
    raise LcmaeError(f"model: got {word!r}, which is not there, nor in {checkpoints()}: {near}")


def _files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.suffix in SUFFIXES] if folder.is_dir() else []
