"""What lies below a folder: each real picture once, whatever links lead to it, and counts of what is passed over."""

import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NO_PICTURES = frozenset([
    ".cfg", ".csv", ".db", ".html", ".ini", ".ipynb", ".json", ".jsonl", ".log", ".lst", ".md", ".md5", ".names", ".py",
    ".rst", ".sh", ".sha256", ".toml", ".tsv", ".txt", ".url", ".xml", ".yaml", ".yml",
])  # fmt: skip
"""Text, tables and labels, as they lie beside pictures: not worth a word."""
NO_PICTURE_NAMES = frozenset(
    ("authors", "changelog", "checksums", "copying", "license", "makefile", "md5sums", "readme")
)
CONVERT = {
    suffix: f"convert it, for example by `magick mogrify -format jpg *{suffix}`"
    for suffix in (".heic", ".heif", ".hif")
}
"""The way out for formats that cameras write and Pillow does not read."""


@dataclass(frozen=True)
class Listing:
    """The files wanted below a folder, and what else there was."""

    files: tuple[Path, ...]
    """Relative, in natural order."""
    others: Mapping[str, int]
    """Suffix in lower case -> files with it that are not wanted."""
    repeated: int = 0
    """Links, symbolic or hard, to what counts already."""
    broken: int = 0
    """Links that lead nowhere, and wanted names of what is no file."""
    closed: int = 0
    """Folders that may not be opened."""

    def left_out(self) -> tuple[str, ...]:
        """What a user should know is not read, in a few words each; files that are clearly no pictures are not said."""
        counts = sorted(self.others.items(), key=lambda item: (-item[1], item[0]))
        formats = [f"{n} {s or 'without a suffix'}" + (f" ({CONVERT[s]})" if s in CONVERT else "") for s, n in counts]
        links = (
            (self.repeated, "to what counts already"),
            (self.broken, "to nothing"),
        )
        lines = [f"{n} link{'s' * (n > 1)} {where}" for n, where in links if n]
        shut = [f"{self.closed} folder{'s' * (self.closed > 1)} that may not be opened"] if self.closed else []
        return (*formats, *lines, *shut)


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which img2 comes before img10."""
    parts = re.split(r"(\d+)", path.as_posix().lower())
    keys = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]
    return [*keys, (2, 0, path.as_posix())]  # the spelling itself last, so that the order is total


def _first(path: Path) -> tuple[bool, list[tuple[int, int, str]]]:
    """Sort key of links to one file, of which the first gives its place: in training, whose classes are the classes."""
    return "train" not in path.as_posix().lower(), natural(path)


@dataclass
class _Walk:
    """Candidates found so far. A folder is entered once, by its real path; links wait until real folders are done."""

    root: Path
    wanted: Collection[str]
    candidates: list[tuple[bool, Path, str]] = field(default_factory=list)
    """(reached by a link, relative path, what it really is)."""
    links: list[Path] = field(default_factory=list)
    entered: set[str] = field(default_factory=set)
    others: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    broken: int = 0
    closed: int = 0

    def enter(self, relative: Path, *, linked: bool) -> None:
        """A folder and all real folders below it."""
        folder = os.path.realpath(self.root / relative)
        if folder in self.entered:
            self.repeated += linked
            return
        self.entered.add(folder)
        try:
            with os.scandir(folder) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError:
            self.closed += 1
            return
        for entry in visible:
            place = relative / entry.name
            if entry.is_symlink():
                self.links.append(place)
            elif entry.is_dir():
                self.enter(place, linked=linked)
            else:
                self._file(place, os.path.join(folder, entry.name), linked=linked)

    def follow(self, relative: Path) -> None:
        """A symbolic link, unless it leads to nothing or up to a folder that it lies in itself."""
        target = os.path.realpath(self.root / relative)
        if os.path.isdir(target):
            inside = (os.path.realpath(self.root), os.path.realpath((self.root / relative).parent))
            if any(Path(folder).is_relative_to(target) for folder in inside):
                self.repeated += 1
            else:
                self.enter(relative, linked=True)
        else:
            self._file(relative, target, linked=True)

    def _file(self, relative: Path, real: str, *, linked: bool) -> None:
        suffix = relative.suffix.lower()
        try:
            status = os.stat(real)
        except OSError:
            self.broken += 1
            return
        if suffix not in self.wanted:
            known = suffix in NO_PICTURES or relative.stem.lower() in NO_PICTURE_NAMES
            self.others[suffix] += not known
        elif not stat.S_ISREG(status.st_mode):
            self.broken += 1
        else:
            hard = status.st_nlink > 1 and status.st_ino  # the number of a file tells hard links apart from copies
            self.candidates.append((linked, relative, f"{status.st_dev}/{status.st_ino}" if hard else real))


def list_files(root: Path, extensions: Collection[str]) -> Listing:
    """Files below `root` with one of the extensions, links followed, hidden files not.

    Each real file counts once: where it really lies, else under the first link to it (in a folder for training, then in
    natural order). Links up to a folder that holds them are loops and are not followed; links to folders elsewhere are.
    """
    walk = _Walk(root, extensions)
    walk.enter(Path(), linked=False)
    while walk.links:  # what a link leads to may hold further links
        links, walk.links = sorted(walk.links, key=_first), []
        for link in links:
            walk.follow(link)
    files: dict[str, Path] = {}
    for _, relative, real in sorted(walk.candidates, key=lambda candidate: (candidate[0], _first(candidate[1]))):
        files.setdefault(real, relative)
    repeated = walk.repeated + len(walk.candidates) - len(files)
    ordered = tuple(sorted(files.values(), key=natural))
    return Listing(ordered, dict(+walk.others), repeated, walk.broken, walk.closed)
