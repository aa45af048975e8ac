"""Where the notebooks are, and which of them a name means."""

import difflib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.config.resolve import PACKAGE, project_root

PATTERN = "[0-9][0-9]_*.ipynb"


@dataclass(frozen=True)
class NotebookFile:
    """A numbered notebook of the collection, read as plain JSON."""

    path: Path

    @property
    def name(self) -> str:
        """File name without its ending, such as 03_lcmae."""
        return self.path.stem

    @property
    def number(self) -> str:
        """Its two digits."""
        return self.path.stem[:2]

    @cached_property
    def content(self) -> dict[str, Any]:
        """The notebook's JSON.

        Raises:
            LcmaeError: the file is no notebook.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            content["cells"], content["metadata"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise LcmaeError(f"notebook: got {str(self.path)!r}, expected a readable .ipynb file ({error})") from None
        return content

    @property
    def hints(self) -> dict[str, Any]:
        """What the notebook says of itself in metadata.lcmae: seconds (by profile), after (numbers, or "all")."""
        return self.content["metadata"].get("lcmae", {})


def cell_source(cell: dict[str, Any]) -> str:
    """A cell's text, which nbformat stores as one string or as a list of lines."""
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def notebook_folder(given: str | Path | None = None) -> Path:
    """The folder given, else the checkout's notebooks/, else the copies that come with the installed package.

    Raises:
        LcmaeError: no numbered notebook there.
    """
    places = [Path(given)] if given else [project_root() / "notebooks", PACKAGE / "notebooks"]
    for folder in places:
        if any(folder.glob(PATTERN)):
            return folder.resolve()
    looked = " or ".join(repr(str(p)) for p in places)
    raise LcmaeError(f"notebooks: got {looked}, expected a folder with numbered notebooks such as 00_quickstart.ipynb")


def all_notebooks(folder: Path) -> list[NotebookFile]:
    """Every numbered notebook of a folder, in order; failed partial copies are none."""
    return [NotebookFile(p) for p in sorted(folder.glob(PATTERN)) if not p.stem.endswith(".failed")]


def select(names: Sequence[str], folder: Path) -> list[NotebookFile]:
    """The notebooks that names mean (03, 03_lcmae or a file name), in the order given; none named means all.

    Raises:
        LcmaeError: a name that means none of them.
    """
    there = all_notebooks(folder)
    if not names:
        return there
    by_name = {key: n for n in there for key in (n.number, n.name)}
    chosen: dict[NotebookFile, None] = {}
    for name in names:
        key = Path(name).name.removesuffix(".ipynb")
        if key.isdigit():
            key = key.zfill(2)
        if key not in by_name:
            close = [] if key.isdigit() else difflib.get_close_matches(key, by_name, n=1, cutoff=0.5)
            tail = nearest(key, close) if close else f"expected one of: {', '.join(n.number for n in there)}"
            raise LcmaeError(f"unknown notebook {name!r}: {tail}")
        chosen[by_name[key]] = None
    return list(chosen)


def copy_notebooks(target: str | Path, folder: Path | None = None) -> list[Path]:
    """Copy the collection into a folder; files of that name that differ are left alone.

    Raises:
        LcmaeError: one of the files is already there with other content, or the folder cannot be written.
    """
    target, sources = Path(target), all_notebooks(folder or notebook_folder())
    if target.exists() and not target.is_dir():
        raise LcmaeError(f"folder: got {str(target)!r}, which is a file, expected a folder")
    copies = [target / s.path.name for s in sources]
    for source, copy in zip(sources, copies):
        if copy.exists() and copy.read_bytes() != source.path.read_bytes():
            raise LcmaeError(f"folder: got {str(copy)!r}, which was changed, expected an empty or new folder")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for source, copy in zip(sources, copies):
            shutil.copyfile(source.path, copy)
    except OSError as error:
        raise LcmaeError(f"folder: got {str(target)!r}, expected one that can be written ({error.strerror})") from None
    return copies
