"""Weights of others: where their files may lie on this machine, and a hub that is asked once, with a deadline.

Nothing here loads torch, so that a hub that does not answer is said before anything heavy is.
"""

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from lcmae_core.config import LcmaeError
from lcmae_core.config.resolve import project_root

DEADLINE = 3.0
"""Seconds within which the hub must answer the first question."""
HUB = "https://huggingface.co"
T = TypeVar("T")
Needed = Sequence[tuple[str, ...]]
"""The files of a model; of each the names that it may have, the usual one first."""
TIMM_FILES: Needed = (("model.safetensors",),)
HF_FILES: Needed = (("config.json",), ("model.safetensors", "pytorch_model.bin"))
"""What models of timm and of Hugging Face are made of."""
PINNED = {"timm/deit_base_patch16_224.fb_in1k": "b78cc5532a69df6bcad9c3a8d76653fd20b31ac6"}
"""The commit of a repository where no revision is asked for (@main is the newest). Those of the other models that the
figures compare could not be verified: of them the newest is taken, and said."""


class Fetched(NamedTuple):
    """The files of a model on this machine, in the order of what was needed; the hub's commit, None for files that
    somebody put here."""

    files: tuple[Path, ...]
    commit: str | None


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a repository, owner/name, with or without @revision."""
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+(@[\w.-]+)?", name) is not None


def checkpoints() -> Path:
    """The folder for checkpoints of others: data/checkpoints of the project."""
    return project_root() / "data" / "checkpoints"


def place_of(repo: str) -> Path:
    """Where the files of a hub repository are looked for before the hub is asked."""
    return checkpoints() / repo.replace("/", "--")


def fetch(repo: str, needed: Needed, revision: str | None = None) -> Fetched:
    """The files of a repository: those put into `place_of(repo)`, else the hub's at a revision (by default the one that
    is `PINNED`, else the newest, whose commit is said), else those in the hub's cache.

    huggingface_hub repeats an unanswered request for minutes. Here the first question, what commit the revision means,
    is put once and given up after `DEADLINE`.

    Raises:
        LcmaeError: no answer and nothing here, which says the files to get and where to put them; a repository,
            revision or file that the hub does not have.
    """
    if revision is None and (here := _placed(repo, needed)) is not None:
        return Fetched(here, None)
    revision = revision or PINNED.get(repo)
    from huggingface_hub import errors

    missing = (errors.EntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
    try:
        commit = _within(DEADLINE, lambda: _commit(repo, needed[0][0], revision))
        return Fetched(tuple(_file(repo, names, commit) for names in needed), commit)
    except Exception as error:  # refused, no name, no route, timeout, proxy: each client has its own classes
        if isinstance(error, missing) and not isinstance(error, errors.LocalEntryNotFoundError):  # the hub did answer
            raise LcmaeError(
                f"hub: got no {needed[0][0]} of {repo!r} at revision {revision or 'main'!r} ({type(error).__name__}), "
                "expected a revision that the hub has"
            ) from None
        return _cached(repo, needed, revision, error)


def _placed(repo: str, needed: Needed) -> tuple[Path, ...] | None:
    folder = place_of(repo)
    paths = [next((folder / name for name in names if (folder / name).is_file()), None) for names in needed]
    return None if None in paths else tuple(path for path in paths if path is not None)


def _file(repo: str, names: tuple[str, ...], commit: str) -> Path:
    from huggingface_hub import errors, hf_hub_download

    for name in names[:-1]:
        try:
            return Path(hf_hub_download(repo, name, revision=commit))
        except errors.LocalEntryNotFoundError:
            raise
        except errors.EntryNotFoundError:
            continue
    return Path(hf_hub_download(repo, names[-1], revision=commit))


def _cached(repo: str, needed: Needed, revision: str | None, cause: Exception) -> Fetched:
    from huggingface_hub import try_to_load_from_cache

    paths = []
    for names in needed:
        kept = (try_to_load_from_cache(repo, name, revision=revision) for name in names)
        path = next((Path(each) for each in kept if isinstance(each, str)), None)
        if path is None:
            raise LcmaeError(
                f"hub: got no answer for {repo!r} ({type(cause).__name__}), expected a hub that answers, or the files "
                f"here: {where_to_put(repo, needed, revision)}"
            ) from None
        paths.append(path)
    return Fetched(tuple(paths), paths[0].parent.name)  # <cache>/models--.../snapshots/<commit>/model.safetensors


def where_to_put(repo: str, needed: Needed, revision: str | None = None) -> str:
    """The addresses of the files of a repository, and the folder in which they are looked for."""
    addresses = [f"{HUB}/{repo}/resolve/{revision or 'main'}/{names[0]}" for names in needed]
    return f"get {' and '.join(addresses)} and put {'them' if len(addresses) > 1 else 'it'} into {place_of(repo)}"


def _commit(repo: str, name: str, revision: str | None) -> str:
    """The commit that a revision means on the hub now."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    commit = get_hf_file_metadata(hf_hub_url(repo, name, revision=revision), timeout=DEADLINE).commit_hash
    if commit is None:
        raise ConnectionError("the hub named no commit")
    return commit


def _within(seconds: float, question: Callable[[], T]) -> T:
    """The answer, or TimeoutError: looking up a name can hang longer than a client's own timeout."""
    answer: list[T] = []
    failure: list[Exception] = []

    def ask() -> None:
        try:
            answer.append(question())
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not answer:
        raise TimeoutError(f"no answer within {seconds} s")
    return answer[0]
