"""Labels of any kind, numbers or names, as numbers of classes that are the same in both splits.

Letters (CONTRIBUTING.md): M images.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, NamedTuple, NoReturn

import numpy as np

from ..config import LcmaeError, nearest

COLUMNS = ("label", "cls", "labels", "fine_label", "coarse_label", "target")
"""Columns that are taken for labels: the first of them that is there."""
Plain = int | str | None


class Labels(NamedTuple):
    """Numbers of classes from 0 on, (M,) int64 with -1 where a picture has none; None where no picture has one."""

    train: np.ndarray | None
    validation: np.ndarray | None
    classes: tuple[str, ...] | None


def number_labels(
    where: str, train: Sequence[Any] | None, validation: Sequence[Any] | None, names: Iterable[str] | None = None
) -> Labels:
    """Number the classes of a source (`where`, for messages) by `names`, else by what occurs in train, in its order.

    Names count in one Unicode form. Whole numbers may be of any type; null, nan, "" and negative ones say: no label.

    Raises:
        LcmaeError: fractions or lists, names in one split and numbers in the other, a class that train lacks.
    """
    known = None if names is None else tuple(_text(name) for name in names)
    plain = {"train": _plain(where, "train", train), "validation": _plain(where, "validation", validation)}
    if plain["train"] is None:
        return Labels(None, None, None)
    number: dict[Plain, int]
    if known is None:
        _same_kind(where, plain)
        distinct = {value for value in plain["train"] if value is not None}
        order = sorted(distinct, key=natural)
        number = {value: i for i, value in enumerate(order)}
        classes = tuple(str(value) for value in order)
    else:
        number, classes = {i: i for i in range(len(known))} | {name: i for i, name in enumerate(known)}, known
    numbered = {split: _numbered(where, split, values, number, classes) for split, values in plain.items()}
    return Labels(numbered["train"], numbered["validation"], classes)


def natural(value: Any) -> list[tuple[int, int, str]]:
    """Sort key under which 2 comes before 10, in names too."""
    parts = re.split(r"(\d+)", str(value).lower())
    return [*((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p), (2, 0, str(value))]


def numbers_or_names(texts: Sequence[str | None]) -> list[Plain]:
    """Texts as numbers where every one of them is a whole number, else as they are."""
    given = {text for text in texts if text}
    whole = all(re.fullmatch(r"[+-]?\d+", text) for text in given)
    known: dict[str | None, Plain] = {text: int(text) if whole else text for text in given}
    return [known.get(text) for text in texts]


def _text(value: str | bytes) -> str:
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    return unicodedata.normalize("NFC", text.strip())


def _plain(where: str, split: str, values: Sequence[Any] | None) -> list[Plain] | None:
    """Each label as a whole number, a name or None; None where there is no label at all."""
    if values is None:
        return None
    try:
        known = {value: _plain_one(where, split, value) for value in set(values)}
    except TypeError:  # lists and the like cannot be in a set
        _refuse(where, split, next(value for value in values if value.__hash__ is None))
    plain = [known[value] for value in values]
    return plain if any(value is not None for value in known.values()) else None


def _plain_one(where: str, split: str, value: Any) -> Plain:
    if value is None or value != value or value in ("", b""):  # nan differs from itself
        return None
    if isinstance(value, str | bytes):
        return _text(value) or None
    if not hasattr(value, "__int__") or value in (inf, -inf) or value != int(value):
        _refuse(where, split, value)
    return int(value) if value >= 0 else None


def _refuse(where: str, split: str, value: Any) -> NoReturn:
    raise LcmaeError(
        f"source {where!r}: got the label {value!r} in {split}, expected a whole number or a class name a picture"
    )


def _same_kind(where: str, plain: dict[str, list[Plain] | None]) -> None:
    words = {int: "numbers", str: "names"}
    kinds = {split: sorted({words[type(v)] for v in values or () if v is not None}) for split, values in plain.items()}
    every = {kind for of_split in kinds.values() for kind in of_split}
    if len(every) > 1:
        mixture = ", ".join(f"{' and '.join(of_split)} in {split}" for split, of_split in kinds.items() if of_split)
        raise LcmaeError(f"source {where!r}: got labels that are {mixture}, expected the same kind everywhere")


def _numbered(
    where: str, split: str, values: list[Plain] | None, number: dict[Plain, int], classes: tuple[str, ...]
) -> np.ndarray | None:
    if values is None:
        return None
    unknown = sorted({str(value) for value in values if value is not None and value not in number})
    if unknown:
        lacking = "is not in train" if split == "validation" else "has no name"
        raise LcmaeError(f"source {where!r}: class {unknown[0]!r} of {split} {lacking}: {nearest(unknown[0], classes)}")
    return np.array([-1 if value is None else number[value] for value in values], dtype=np.int64)
