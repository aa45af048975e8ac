"""A plan: every check that can fail, before anything is executed, and then the list of jobs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lcmae_core.config import LEAVES, PROFILES, Data, LcmaeError, nearest, replace
from lcmae_core.config import profile as load_profile
from lcmae_core.config.places import anchored, is_local
from lcmae_core.execute.discover import Notebook, notebook_folder, project_root, select
from lcmae_core.execute.parameters import assign

SCHEMES = ("photos", "folder:", "parquet:", "wds:", "hf:", "torchvision:")
COMMON: dict[str, type] = {"profile": str, "data": str, "seed": int, "out": str}
"""Parameters that every notebook has, and the type they take when they are not None."""


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


@dataclass(frozen=True)
class Plan:
    """Checked notebooks with the parameters of each, the profile, the folder, and lines that the user should see."""

    notebooks: tuple[Notebook, ...]
    parameters: Mapping[str, Mapping[str, Any]]
    profile: str
    out: Path
    notes: tuple[str, ...]

    def upstream(self, notebook: Notebook) -> list[Notebook]:
        """Those planned notebooks whose results this one reads (metadata.lcmae.after: numbers, or "all")."""
        after = notebook.hints.get("after", [])
        others = [n for n in self.notebooks if n != notebook]
        return others if after == "all" else [n for n in others if n.number in after]


def make_plan(request: Request) -> Plan:
    """Check a request and plan it; the output folder is made last, when all else is right.

    Raises:
        LcmaeError: unknown notebook, parameter or profile, a value of the wrong type, a malformed data source, a folder
            that cannot be written.
    """
    common = _common(request)
    profile = check_profile(common.pop("profile", None))
    if "data" in common:
        common["data"] = check_source(common["data"])
    elif os.environ.get("LCMAE_DATA"):
        check_source(os.environ["LCMAE_DATA"])
    out = output_folder(common.pop("out", None), profile)
    chosen = select(request.names, notebook_folder(request.notebooks))
    own = {name: value for name, value in request.parameters.items() if name not in COMMON}
    shares, notes = assign(common | own, chosen)
    replace(load_profile(profile), {name: value for name, value in own.items() if name in LEAVES})
    if is_local(common.get("data", "photos"), project_root()):
        _look_at(common["data"], own.get("on_unreadable", "stop"))
    everywhere = {"profile": profile, "out": str(out)}
    parameters = {n.name: everywhere | shares[n.name] for n in chosen}
    check_writable(out)
    return Plan(tuple(chosen), parameters, profile, out, tuple(notes))


def _look_at(source: str, on_unreadable: str) -> None:
    """Open the source, so that an empty folder is said before any notebook starts."""
    from lcmae_core.data.sources import open_source

    open_source(Data(source=source, on_unreadable="skip" if on_unreadable == "skip" else "stop"))


def _common(request: Request) -> dict[str, Any]:
    """profile, data, seed and out, said by option or by -p, but not twice and differently."""
    found: dict[str, Any] = {}
    for name, kind in COMMON.items():
        option, given = getattr(request, name), request.parameters.get(name)
        if option is not None and given is not None and option != given:
            raise LcmaeError(f"{name}: got {option!r} by --{name} and {given!r} by -p, expected one of the two")
        value = given if option is None else option
        if value is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise LcmaeError(f"{name}: got {value!r} ({type(value).__name__}), expected {kind.__name__}")
        found[name] = value
    if found.get("seed", 0) < 0:
        raise LcmaeError(f"seed: got {found['seed']}, expected a number of at least 0")
    return found


def check_profile(name: str | None) -> str:
    """The profile named, else $LCMAE_PROFILE, else quick.

    Raises:
        LcmaeError: there is no such profile.
    """
    name = name or os.environ.get("LCMAE_PROFILE") or "quick"
    if name not in PROFILES:
        raise LcmaeError(f"unknown profile {name!r}: {nearest(name, PROFILES)}")
    return name


def check_source(source: str) -> str:
    """A data source with a known scheme; paths are made absolute from the current folder and must exist.

    Raises:
        LcmaeError: unknown scheme, nothing after it, or a path that is not there.
    """
    scheme, colon, rest = source.partition(":")
    if scheme + colon not in SCHEMES and Path(source).expanduser().exists():
        raise LcmaeError(f"data: got {source!r}, did you mean 'folder:{source}'?")
    if scheme + colon not in SCHEMES:
        raise LcmaeError(f"data: got {source!r}, {nearest(scheme + colon, SCHEMES)}")
    if colon and not rest:
        raise LcmaeError(f"data: got {source!r}, expected something after {scheme + colon!r}")
    if scheme not in ("folder", "parquet"):
        return anchored(source, project_root())
    path = Path(rest).expanduser()
    if not path.is_absolute() and not path.exists() and (project_root() / path).exists():
        path = project_root() / path
    if not path.exists():
        raise LcmaeError(f"data: got {source!r}, expected a folder or file that exists")
    return f"{scheme}:{path.resolve()}"


def output_folder(given: str | None, profile: str) -> Path:
    """The folder given or in $LCMAE_OUT, from the current one as in a shell, else the project's outputs/<profile>."""
    given = given or os.environ.get("LCMAE_OUT")
    return Path(given).expanduser().resolve() if given else project_root() / "outputs" / profile


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
