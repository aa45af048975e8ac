"""Tar archives read to their end mark: one that is cut off or damaged is never taken for a shorter one."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from ..config import LcmaeError

BLOCK = 512
"""Bytes of a header, and of the zeros that end an archive."""
PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst")

WHOLE = "expected a whole .tar archive"
FAULTS = (tarfile.TarError, OSError, EOFError)


@contextmanager
def opened(title: str, **where: Any) -> Iterator[tarfile.TarFile]:
    """A plain archive, by `name=` or `fileobj=` of `tarfile.open`; messages call it `title`.

    Raises:
        LcmaeError: it is none, or is damaged; in one line.
    """
    try:
        with tarfile.open(mode="r:", errors="surrogateescape", **where) as tar:
            yield tar
    except FAULTS as error:
        unpack = "; unpack it first" if title.lower().endswith(PACKED) else ""
        raise LcmaeError(f"{title}: got {' '.join(str(error).split())}, {WHOLE}{unpack}") from None


def walk(tar: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    """Members of an open archive called `name`.

    `tarfile` ends without a word at a header that is damaged or cut off, so what stands after the last member is looked
    at: only a block of zeros ends an archive.

    Raises:
        LcmaeError: there is something else, or nothing.
    """
    while (member := tar.next()) is not None:
        yield member
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(BLOCK) != bytes(BLOCK):
        raise LcmaeError(f"{name}: got no archive after byte {tar.offset:,} (cut off or damaged), {WHOLE}")


def refuse_what_leads_out(member: tarfile.TarInfo, name: str) -> None:
    """Nothing is ever unpacked by its name, but an archive that tries is not to be trusted with the rest.

    Raises:
        LcmaeError: an absolute path, one with `..`, a link, a device; by its name.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        why = "an absolute path" if path.is_absolute() else "a path with '..'"
    elif member.issym() or member.islnk():
        why = f"a link to {member.linkname!r}"
    elif not (member.isfile() or member.isdir()) or member.issparse():
        why = "a sparse file" if member.issparse() else "no file"
    else:
        return
    raise LcmaeError(f"{name}: got member {member.name!r}, {why}, expected plain files below the archive's root")
