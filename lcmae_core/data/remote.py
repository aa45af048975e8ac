"""Shards at URLs: fetched whole, once, and compared with the manifest.json that lies beside them there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config import LcmaeError, NoDataError
from ..config.names import printable
from ..store.progress import say_once
from .hub import download, need, reached
from .manifest import MADE_BY, MANIFEST, Known, classes_of, listed_in, refuse_different, refuse_incomplete

NOT_THERE = (401, 403, 404, 410)
"""Answers of servers that say a file is not to be had, as 403 does where a bucket may not be listed."""


def fetch(address: str, urls: Sequence[str]) -> tuple[list[Path], dict[Path, Known]]:
    """Where copies of shards lie, and what a manifest of ours says of each; fetched where they are not there yet.

    A copy that is not as the manifest says is removed, so that the next attempt fetches it again.

    Raises:
        LcmaeError: one cannot be had, is not as its manifest says, or the manifest is not complete.
    """
    title = f"wds:{address}"
    plain = {url: url.partition("?")[0].rpartition("/") for url in urls}  # (folder, "/", name)
    expected: dict[str, dict[str, Any]] = {}
    classes: dict[str, tuple[str, ...] | None] = {}
    for folder in dict.fromkeys(folder for folder, _, _ in plain.values()):
        if (manifest := _manifest(title, folder)) is None:
            continue
        listed, there = listed_in(manifest), [url for url in urls if plain[url][0] == folder]
        refuse_incomplete(title, Path(folder), manifest, listed, [plain[url][2] for url in there], whole=False)
        expected |= {url: listed[plain[url][2]] for url in there if plain[url][2] in listed}
        classes |= dict.fromkeys(there, classes_of(manifest)) if manifest.get("made_by") == MADE_BY else {}
    files = _arrived(title, {url: plain[url][2] for url in urls})
    refuse_different(title, [(plain[url][2], files[url], entry) for url, entry in expected.items()], _forget)
    return [*files.values()], {files[url]: Known(names, None) for url, names in classes.items()}


def _arrived(title: str, names: Mapping[str, str]) -> dict[str, Path]:
    """Where each URL's copy lies."""
    try:
        return dict(zip(names, download(title, [*names]), strict=True))
    except NoDataError:  # one by one: those that arrived are there, and the one that does not is named
        return {url: download(f"{title}: {name}", [url])[0] for url, name in names.items()}


def _manifest(title: str, folder: str) -> dict[str, Any] | None:
    """The manifest of a folder, fetched anew each time; None, and a line that says so, where there is none."""
    content = _content(title, f"{folder}/{MANIFEST}")
    page = content.lstrip().startswith(b"<")  # which says so, as some servers answer for whatever is asked
    try:
        manifest = None if page else json.loads(content)
    except ValueError:
        raise LcmaeError(
            f"source {title!r}: {MANIFEST}: got {len(content):,} bytes that are no JSON, expected it as it was written"
        ) from None
    if isinstance(manifest, dict):
        return manifest
    say_once(
        f"{printable(title)}: no {MANIFEST} beside the shards, so nothing says whether they arrive as they were made"
    )
    return None


def _content(title: str, url: str) -> bytes:
    """Of a file at a URL, fetched anew; JSON's null where there is none."""
    datasets = need("datasets")

    try:
        with reached(title, _is_not_there):
            how = datasets.DownloadConfig(force_download=True, disable_tqdm=True)
            [file] = datasets.DownloadManager(download_config=how).download([url])
            return Path(file).read_bytes()
    except Exception as error:
        if not _is_not_there(error):
            raise
        return b"null"


def _is_not_there(error: BaseException) -> bool:
    """Whether an error says that a file is not there, not that it could not be asked for: fsspec says the first of
    both, and names the second as its cause. Only an answer counts: a server that hangs up has said nothing."""
    chain = list(_causes(error))
    statuses = [status for one in chain if (status := getattr(one, "status", None))]
    if statuses:
        return statuses[0] in NOT_THERE
    return isinstance(error, FileNotFoundError | PermissionError) and error.__cause__ is None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _forget(copy: Path) -> None:
    for file in (copy, copy.with_name(f"{copy.name}.json")):
        with suppress(OSError):
            file.unlink()
