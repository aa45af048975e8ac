"""Which sources lie on this machine, and where: the one place that tells a path from the name of something remote."""

import os
from pathlib import Path

from lcmae_core.config.names import spellings

FILE = "file://"


def is_remote(address: str) -> bool:
    """Whether the address of shards is a URL or a pipe; file:// says a path."""
    return not address.startswith(FILE) and ("://" in address or address.startswith("pipe:"))


def is_path(name: str) -> bool:
    """Whether a name can only be meant as a path: no name of a hub begins like that."""
    return name.startswith(("/", "./", "../", "~", FILE)) or name in (".", "..")


def expanded(path: str) -> Path:
    """Without file:// and with the home folder for ~."""
    return Path(path.removeprefix(FILE)).expanduser()


def find(path: str, root: Path) -> Path | None:
    """What lies at a path as seen from the current folder, else from `root`, under whatever of its `spellings`."""
    given = map(expanded, spellings(path) if path else ())
    return next((place for way in given for place in (way, root / way) if os.path.exists(place)), None)


def hub_folder(name: str, root: Path) -> tuple[Path, str] | None:
    """Folder and configuration of `NAME` or `NAME@config` where it is a folder here; None where it is the hub's."""
    for path, config in ((name, ""), name.rpartition("@")[::2]):
        if path and (place := find(path, root)) and place.is_dir():
            return place, config
    return None


def is_local(source: str, root: Path) -> bool:
    """Whether a source string names files of a machine, be they here or not."""
    scheme, _, rest = source.partition(":")
    if scheme == "hf":
        return is_path(rest) or hub_folder(rest, root) is not None
    return scheme in ("folder", "parquet") or (scheme == "wds" and not is_remote(rest))


def anchored(source: str, root: Path) -> str:
    """A local source with an absolute path, so that it means the same from another folder; others as they are.

    Relative paths start in the current folder, or in `root` where more of the path lies there.
    """
    scheme, _, rest = source.partition(":")
    if not is_local(source, root):
        return source
    path = expanded(rest)
    base = max((Path.cwd(), root), key=lambda folder: _depth(folder, path, scheme))
    return f"{scheme}:{os.path.normpath(base / path)}"


def plain_name(source: str, root: Path) -> str:
    """The source without the folders in which it lies, such as folder:pets: what a record may say of a machine."""
    if not is_local(source, root):
        return source
    scheme, _, rest = source.partition(":")
    return f"{scheme}:{Path(os.path.abspath(expanded(rest))).name}"


def _depth(folder: Path, path: Path, scheme: str) -> int:
    """How many of the path's first parts lie below a folder; a configuration after @ is no part."""
    parts = path.parts
    if scheme == "hf" and parts and not os.path.exists(folder / path):
        parts = Path(str(path).rpartition("@")[0] or path).parts
    places = (folder.joinpath(*parts[: n + 1]) for n in range(len(parts)))
    return next((n for n, place in enumerate(places) if not os.path.exists(place)), len(parts))
