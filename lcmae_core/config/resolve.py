"""Where profile, data, seed, device and output folder come from: the same answer for every command and every notebook.

In this order: an option (`--seed 3`), a parameter (`-p seed=3`, or the parameters cell of a notebook), the environment
($LCMAE_PROFILE, $LCMAE_DATA, $LCMAE_OUT), and what the profile says itself. Two routes may say the same; where an
option and a parameter differ, neither wins.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lcmae_core.config.errors import LcmaeError, nearest
from lcmae_core.config.names import printable, todays
from lcmae_core.config.places import anchored, find
from lcmae_core.config.profiles import DEFAULT, PROFILES

PACKAGE = Path(__file__).resolve().parents[1]
DEVICES = ("auto", "cuda", "mps", "cpu", "xpu")
"""Kinds of device; of several, cuda:1 is the second."""
SCHEMES = ("photos", "folder:", "parquet:", "wds:", "hf:", "torchvision:")
"""How a source begins. `data.sources` has what opens each; here they are names alone, so that a mistyped one is refused
before torch is loaded (a test holds both lists together)."""


def project_root() -> Path:
    """The checkout when we run in or from one, else the current folder; default outputs stand below it."""
    for folder in [Path.cwd(), *Path.cwd().parents, PACKAGE.parent]:
        if (folder / "lcmae_core" / "config").is_dir() and (folder / "pyproject.toml").exists():
            return folder
    return Path.cwd()


def check_profile(name: str) -> str:
    """The name itself.

    Raises:
        LcmaeError: there is no such profile.
    """
    if name not in PROFILES:
        raise LcmaeError(f"unknown profile {name!r}: {nearest(name, PROFILES)}")
    return name


def check_source(source: str) -> str:
    """A data source with a known scheme; paths are made absolute from the current folder and must exist.

    Raises:
        LcmaeError: unknown scheme, nothing after it, or a path that is not there.
    """
    scheme, colon, rest = source.partition(":")
    form = scheme if scheme == "photos" else scheme + colon  # photos has a number after it or nothing
    if form not in SCHEMES and source and Path(source).expanduser().exists():
        raise LcmaeError(f"data: got {source!r}, did you mean 'folder:{source}'?")
    if form not in SCHEMES:
        raise LcmaeError(f"data: got {source!r}, {nearest(form, SCHEMES)}")
    if colon and not rest:
        raise LcmaeError(f"data: got {source!r}, expected something after {scheme + colon!r}")
    if scheme not in ("folder", "parquet"):
        return anchored(source, project_root())
    path = find(rest, project_root())
    if path is None:
        raise LcmaeError(f"data: got {source!r}, expected a folder or file that exists")
    if scheme == "parquet" and path.is_file() and not _is_parquet(path):
        raise LcmaeError(f"data: got {source!r}, which is no parquet file, expected one, or a folder of them")
    return printable(f"{scheme}:{path.resolve()}")


def _is_parquet(file: Path) -> bool:
    """By its first bytes, without loading what reads it; one that may not be read is left to that."""
    try:
        with file.open("rb") as content:
            return content.read(4) in (b"PAR1", b"PARE")
    except OSError:
        return True


def _check_seed(seed: int) -> int:
    if not 0 <= seed < 2**63:
        raise LcmaeError(f"seed: got {seed}, expected a number of at least 0" + (" below 2^63" if seed > 0 else ""))
    return seed


def check_device(name: str) -> str:
    """Its form alone; whether it is there is seen when it is used.

    Raises:
        LcmaeError: no device is called so.
    """
    if name.partition(":")[0] not in DEVICES:
        raise LcmaeError(f"device: got {name!r}, {nearest('cuda' if name == 'gpu' else name, DEVICES)}")
    return name


class _Common(NamedTuple):
    kind: type
    keys: tuple[str, ...]
    """What a parameter may be called that says it."""
    variable: str | None = None
    check: Callable[[Any], Any] = lambda value: value


COMMON: dict[str, _Common] = {
    "profile": _Common(str, ("profile",), "LCMAE_PROFILE", check_profile),
    "data": _Common(str, ("data", "source"), "LCMAE_DATA", check_source),
    "seed": _Common(int, ("seed",), check=_check_seed),
    "out": _Common(str, ("out",), "LCMAE_OUT"),
    "device": _Common(str, ("device",), check=check_device),
}
"""What every command and notebook can be told, by options or by parameters."""


@dataclass(frozen=True)
class Asked:
    """What was asked for. Each answer is found, and each error raised, when it is looked at.

    options: by the name in `COMMON`, None where not given. parameters: what was given by name, more than `COMMON`
    among it. base: the folder from which a relative output folder is meant: the current one, as in a shell, where None.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    base: Path | None = None

    @property
    def profile(self) -> str:
        """The profile's name; quick where nothing says one.

        Raises:
            LcmaeError: there is no such profile, or two are asked for.
        """
        return self._answer("profile") or DEFAULT

    @property
    def data(self) -> str | None:
        """A checked source with an absolute path; None where the profile's own is meant.

        Raises:
            LcmaeError: a malformed source, a path that is not there, or two sources.
        """
        return self._answer("data")

    @property
    def seed(self) -> int | None:
        """The seed; None where nothing says one.

        Raises:
            LcmaeError: it is no number from 0 on, or there are two.
        """
        return self._answer("seed")

    @property
    def device(self) -> str | None:
        """The device's name; None where the profile's own is meant.

        Raises:
            LcmaeError: it is no text, or there are two.
        """
        return self._answer("device")

    @property
    def out(self) -> Path:
        """The output folder, absolute; it need not be there. Where nothing says one: the project's outputs/<profile>.

        Raises:
            LcmaeError: it is no text, is empty, or there are two.
        """
        given = self._answer("out")
        return self._folder(given) if given else project_root() / "outputs" / self.profile

    @property
    def own(self) -> dict[str, Any]:
        """The parameters that say something else than what is common to all, by the names that settings have today."""
        common = {key for entry in COMMON.values() for key in entry.keys}
        return todays({name: value for name, value in self.parameters.items() if name not in common})

    def given(self, name: str) -> bool:
        """Whether an option or a parameter says it (not the environment)."""
        return bool(self._routes(name))

    def _routes(self, name: str) -> list[tuple[str, Any]]:
        keys = COMMON[name].keys
        values = [(f"--{name}", self.options.get(name))]
        values += [("-p" if key == name else f"-p {key}", self.parameters.get(key)) for key in keys]
        return [(route, value) for route, value in values if value is not None]

    def _answer(self, name: str) -> Any:
        routes, variable = self._routes(name), COMMON[name].variable
        if not routes:
            value = os.environ.get(variable) if variable else None
            return self._checked(name, value) if value else None
        (route, value), *others = routes
        answer = self._checked(name, value)
        for other, second in others:
            if self._same(name, self._checked(name, second)) != self._same(name, answer):
                raise LcmaeError(f"{name}: got {value!r} by {route} and {second!r} by {other}, expected one of the two")
        return answer

    def _checked(self, name: str, value: Any) -> Any:
        kind = COMMON[name].kind
        if not isinstance(value, kind) or isinstance(value, bool):
            raise LcmaeError(f"{name}: got {value!r} ({type(value).__name__}), expected {kind.__name__}")
        if name in ("out", "device") and not value:
            raise LcmaeError(f"{name}: got {value!r}, expected {'a folder' if name == 'out' else 'a name'}")
        return COMMON[name].check(value)

    def _same(self, name: str, value: Any) -> Any:
        return self._folder(value) if name == "out" else value

    def _folder(self, given: str) -> Path:
        return ((self.base or Path()) / Path(given).expanduser()).resolve()
