"""A plan: every check that can fail, before anything is executed, and then the list of jobs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcmae_core.config import LEAVES, Data, LcmaeError, replace
from lcmae_core.config import profile as load_profile
from lcmae_core.config.places import is_local
from lcmae_core.config.resolve import COMMON, Asked, project_root
from lcmae_core.config.unread import refuse_unread
from lcmae_core.execute.discover import NotebookFile, notebook_folder, select
from lcmae_core.execute.parameters import assign, read_parameters


@dataclass(frozen=True)
class Request:
    """What the user asked for; None leaves it to the environment and the defaults."""

    names: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    profile: str | None = None
    data: str | None = None
    seed: int | None = None
    out: str | None = None
    notebooks: str | None = None

    @property
    def asked(self) -> Asked:
        """What is common to all commands."""
        return Asked({name: getattr(self, name, None) for name in COMMON}, self.parameters)


@dataclass(frozen=True)
class Plan:
    """Checked notebooks with the parameters of each, the profile, the folder, and lines that the user should see."""

    notebooks: tuple[NotebookFile, ...]
    parameters: Mapping[str, Mapping[str, Any]]
    profile: str
    out: Path
    notes: tuple[str, ...]

    def upstream(self, notebook: NotebookFile) -> list[NotebookFile]:
        """Those planned notebooks whose results this one reads (metadata.lcmae.after: numbers, or "all")."""
        after = notebook.hints.get("after", [])
        others = [n for n in self.notebooks if n != notebook]
        return others if after == "all" else [n for n in others if n.number in after]


def make_plan(request: Request) -> Plan:
    """Check a request and plan it; the output folder is made last, when all else is right.

    Raises:
        LcmaeError: unknown notebook, parameter, profile or model, a value of the wrong type, a malformed data source, a
            folder that cannot be written.
    """
    asked = request.asked
    profile, data, out = asked.profile, asked.data, asked.out
    common = {"data": data, "seed": asked.seed, "device": asked.device}
    chosen = select(request.names, notebook_folder(request.notebooks))
    shares, notes = assign({name: value for name, value in common.items() if asked.given(name)} | asked.own, chosen)
    leaves = {name: value for name, value in asked.own.items() if name in LEAVES}
    refuse_unread(replace(load_profile(profile), leaves), leaves)
    if data and is_local(data, project_root()):
        _look_at(data, asked.own.get("on_unreadable", "stop"))
    shares = {name: _models_found(share) for name, share in shares.items()}
    everywhere = {"profile": profile, "out": str(out)}
    parameters = {n.name: everywhere | _from_environment(n, data) | shares[n.name] for n in chosen}
    check_writable(out)
    return Plan(tuple(chosen), parameters, profile, out, tuple(notes))


def _from_environment(notebook: NotebookFile, data: str | None) -> dict[str, Any]:
    """The source, for a notebook that has one: a kernel starts in another folder than a relative $LCMAE_DATA means."""
    return {"data": data} if data and "data" in read_parameters(notebook) else {}


def _models_found(share: Mapping[str, Any]) -> dict[str, Any]:
    """A notebook's parameters with the models that they name looked at: a mistyped one is said before a kernel starts,
    and a path holds wherever the kernel does."""
    resolved = dict(share)
    for name in ("model", "models"):
        if isinstance(share.get(name), str):
            words = [share[name]] if name == "model" else share[name].split()
            resolved[name] = " ".join(_model(word) for word in words)
    return resolved


def _model(word: str) -> str:
    """The word, or where the path that it means lies."""
    if word == "run":  # the collection's own
        return word
    from lcmae_core.models.named import named, refuse_unknown

    model = named(word)
    refuse_unknown(model)
    part, sign, path = word.rpartition("=")
    here = Path(path).expanduser()
    return f"{part}{sign}{here.resolve()}" if model.kind in ("run", "folder", "file") and here.exists() else word


def _look_at(source: str, on_unreadable: str) -> None:
    """Open the source, so that an empty folder is said before any notebook starts."""
    from lcmae_core.data.sources import open_source

    open_source(Data(source=source, on_unreadable="skip" if on_unreadable == "skip" else "stop"))


def check_writable(out: Path) -> None:
    """Make the folder, if need be, and write to it once.

    Raises:
        LcmaeError: that is not possible.
    """
    probe = out / f".writable-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LcmaeError(f"out: got {str(out)!r}, expected a folder that can be written ({error.strerror})") from None
