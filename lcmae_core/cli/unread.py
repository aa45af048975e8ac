"""Settings given by `-p` to a study or an evaluation that no run of it reads are refused; those that only some of its
runs read are named."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lcmae_core.cli.ranks import say_alone
from lcmae_core.config import LEAVES, Data, LcmaeError, Runtime, Settings, unused
from lcmae_core.config.unread import unread, value_of, why_unread

if TYPE_CHECKING:
    from lcmae_core.studies import Case  # which loads torch


def say_unread(names: Sequence[str], base: Settings, profile: str, given: Mapping[str, Any]) -> None:
    """A line on stderr for each setting that some of the chosen studies' runs do not read, or set themselves.

    One command line may go through all studies in turn: what another study reads is named, not refused.

    Raises:
        LcmaeError: no run of any study reads it, or all chosen ones set it themselves.
    """
    say_alone(given)
    from lcmae_core.studies import STUDIES

    every = [(name, row, case) for name in STUDIES for row, case in STUDIES[name].rows(base, profile).items()]
    chosen = [entry for entry in every if not names or "all" in names or entry[0] in names]
    for name, value in given.items():
        wanted = value_of(base, name)
        left = [(s, r) for s, r, c in chosen if not _reads(c, name) or value_of(c.settings, name) != wanted]
        if len(left) == len(chosen) and not _another(name, [c for *_, c in chosen], [c for *_, c in every]):
            raise _refused(name, value, base, [case for *_, case in chosen])
        if left:
            rest = "; passed to the others" if len(left) < len(chosen) else ""
            line = f"{name}: not read, or set by itself, in {_in_words(left, chosen)}{rest}"
            print(line, file=sys.stderr, flush=True)


def _another(name: str, chosen: Sequence["Case"], every: Sequence["Case"]) -> bool:
    """Whether it is a setting for other studies than the chosen ones."""
    return not any(_reads(case, name) for case in chosen) and any(_reads(case, name) for case in every)


def _in_words(left: Sequence[tuple[str, str]], rows: Sequence[tuple[str, str, "Case"]]) -> str:
    """The studies, with their rows in brackets where it is not all of them."""
    words = []
    for study in dict.fromkeys(name for name, _ in left):
        mine = [row for name, row in left if name == study]
        whole = len(mine) == sum(name == study for name, *_ in rows)
        words.append(study if whole else f"{study} ({', '.join(mine)})")
    return ", ".join(words)


def _refused(name: str, value: Any, base: Settings, cases: Sequence["Case"]) -> LcmaeError:
    readers = [case for case in cases if _reads(case, name)]
    if readers:
        own = sorted({str(value_of(case.settings, name)) for case in readers})
        return LcmaeError(f"{name}: got {value!r}, which these studies set themselves, expected {', '.join(own)}")
    why = f"no run of these studies reads: {why_unread(base, name)}"
    return unread(name, value, why, LEAVES.keys() - unused(base))


def _reads(case: "Case", name: str) -> bool:
    return name not in unused(case.settings)


_CROPS = {"crop_scale", "crop_ratio", "flip"}
_ENCODER = {"patch_size", "width", "depth", "heads", "mlp_ratio", "decoder_heads"}
_TRAINING = {"compile", "log_every", "checkpoint_every", "tensorboard"}


def refuse_unread_by(way: str, recipe: set[str], given: Mapping[str, Any]) -> None:
    """Nothing, where an evaluation reads all that was given: its recipe, the data, the encoder, and how it is run.

    Raises:
        LcmaeError: it does not read one of them.
    """
    runtime = Runtime.model_fields.keys() - {"snapshots", "fsdp"} - (set() if recipe else _TRAINING)
    known = recipe | _ENCODER | runtime | (Data.model_fields.keys() - _CROPS)
    for name, value in given.items():
        if name in LEAVES and name not in known:
            raise unread(name, value, f"evaluate --by {way} does not read", known)
