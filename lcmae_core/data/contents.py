"""The pictures of a folder or of a tar (of pictures, or of one tar a class, as ImageNet comes), encoded as they are."""

import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..config import LcmaeError
from ..config.names import plain
from .fingerprint import fingerprint
from .listing import NO_PICTURE_NAMES, NO_PICTURES, Listing, list_files, natural
from .paths import EXTENSIONS, path_identity, resolve
from .tars import opened, refuse_what_leads_out, walk

NESTED = ".tar"


class Contents(NamedTuple):
    """What a folder or an archive holds."""

    files: tuple[Path, ...]
    """Relative paths of the pictures, in natural order; an inner archive is a folder."""
    fetch: Callable[[int], bytes]
    """Number -> the encoded picture."""
    identity: str
    left_out: tuple[str, ...]
    """What else there is, each in a few words."""


def contents_of(source: str, *, follow_links: bool = False) -> Contents:
    """The pictures at a path, with or without `folder:` before it.

    Raises:
        LcmaeError: nothing is there, no picture is in it, a link leads out of it, an archive is not whole and plain.
    """
    path = resolve(source.removeprefix("folder:"), "folder")
    contents = _of_folder(path, follow_links) if path.is_dir() else _of_archive(path)
    if not contents.files:
        passed = f" (left out: {', '.join(contents.left_out)})" if contents.left_out else ""
        raise LcmaeError(f"{path.name}: no image in it, expected class/name.jpg, or a tar of them{passed}")
    return contents


def _of_folder(root: Path, follow_links: bool) -> Contents:
    listing = list_files(root, EXTENSIONS)
    if not follow_links:
        outside = [f for f in listing.files if not (root / f).resolve().is_relative_to(root)]
        if outside:
            target = (root / outside[0]).resolve()
            raise LcmaeError(
                f"{root.name}: got {len(outside)} links out of it, the first {plain(str(outside[0]))!r} to "
                f"{plain(str(target))!r}, expected files of its own (or --follow-links)"
            )
    return Contents(
        listing.files,
        lambda i: (root / listing.files[i]).read_bytes(),
        path_identity("folder", root, listing.files),
        listing.left_out(),
    )


class _Member(NamedTuple):
    path: Path
    start: int
    size: int


@dataclass
class _Archive:
    """Members of an archive that are pictures, and where their bytes lie in it."""

    file: Path
    members: list[_Member]
    others: Counter[str]

    def read(self, i: int) -> bytes:
        """The bytes of picture i; threads may read at once."""
        handle = os.open(self.file, os.O_RDONLY)
        try:
            return os.pread(handle, self.members[i].size, self.members[i].start)
        finally:
            os.close(handle)


def _of_archive(file: Path) -> Contents:
    archive = _Archive(file, [], Counter())
    with opened(file.name, name=file) as tar:
        archive.members.extend(_pictures(tar, file.name, PurePosixPath(), 0, archive.others))
    archive.members.sort(key=lambda member: natural(member.path))
    _refuse_repeated(archive)
    return Contents(
        tuple(member.path for member in archive.members),
        archive.read,
        f"tar-{fingerprint([(file.name, file)])}",
        Listing((), dict(+archive.others)).left_out(),
    )


def _pictures(
    tar: tarfile.TarFile, name: str, folder: PurePosixPath, offset: int, others: Counter[str]
) -> Iterator[_Member]:
    """Pictures of an archive that begins at byte `offset` of the outermost one, and lies in `folder` of it."""
    for member in walk(tar, name):
        tar.members.clear()  # type: ignore[attr-defined]  # or it keeps a kilobyte of each
        refuse_what_leads_out(member, name)
        path = PurePosixPath(member.name)
        suffix = path.suffix.lower()
        if member.isdir() or path.name.startswith("."):
            continue
        if suffix == NESTED and not offset:
            title = f"{name}: {plain(member.name)}"
            with opened(title, fileobj=tar.extractfile(member)) as inner:
                yield from _pictures(inner, title, folder / path.with_suffix(""), member.offset_data, others)
        elif suffix in EXTENSIONS:
            yield _Member(Path(folder / path), offset + member.offset_data, member.size)
        else:
            others[suffix] += not (suffix in NO_PICTURES or path.stem.lower() in NO_PICTURE_NAMES)


def _refuse_repeated(archive: _Archive) -> None:
    for one, other in zip(archive.members, archive.members[1:]):
        if one.path == other.path:
            raise LcmaeError(
                f"{archive.file.name}: got {plain(str(one.path))!r} twice, expected members with names of their own"
            )
