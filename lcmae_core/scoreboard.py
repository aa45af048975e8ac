"""Every claim with its verdict, from the records of a profile."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from lcmae_core.claims import CLAIMS, Claim
from lcmae_core.config import LcmaeError, Settings
from lcmae_core.jobs import HERE, rows
from lcmae_core.judge import Cell, Outcome, Test, run_test, verdict
from lcmae_core.store.records import Record


class Verdict(NamedTuple):
    """What became of a claim: the verdict, why, and its tests with our numbers (none where something is missing)."""

    claim: Claim
    verdict: str
    why: str
    outcomes: tuple[Outcome, ...] = ()


def score(base: Settings, profile: str, seeds: Sequence[int] = (0, 1, 2), *, do: bool | None = None) -> list[Verdict]:
    """Every claim judged by the records of a profile. At smoke and quick those missing are made first (one seed); at
    quick only signs are judged, at smoke nothing.

    Raises:
        LcmaeError: data or settings are not usable.
    """
    small = profile in HERE

    @cache
    def records(study: str, measure: str) -> Mapping[str, list[Record]]:
        return rows(study, base, profile, seeds[:1] if small else seeds, (measure,), do=do)

    return [judged(claim, records, profile) for claim in CLAIMS]


Records = Callable[[str, str], Mapping[str, list[Record]]]


def judged(claim: Claim, records: Records, profile: str) -> Verdict:
    """A claim by what `records(study, measure)` gives: at quick by signs alone, at smoke not at all.

    Raises:
        LcmaeError: the seeds of a row have records of different data.
    """
    small = profile in HERE
    if small and claim.needs_labels:
        return Verdict(claim, "not judged", "a profile this small judges signs and shapes, never accuracies")
    try:
        outcomes = tuple(run_test(test, _values(test, records)) for test in claim.tests)
    except _MissingError as missing:
        return Verdict(claim, "not yet run" if not missing.left_out else "not judged", str(missing))
    if profile == "smoke":
        return Verdict(claim, "not judged", "smoke trains a handful of steps", outcomes)
    fewest = min(o.estimate.seeds for o in outcomes)
    if not small and fewest < 2:
        return Verdict(claim, "unresolved", "one seed: the interval covers images alone", outcomes)
    said = verdict(outcomes, signs_only=small)
    return Verdict(claim, said, _why(outcomes, small), outcomes)


def _why(outcomes: Sequence[Outcome], small: bool) -> str:
    if small:
        right = sum(o.on_side for o in outcomes)
        return f"{right} of {len(outcomes)} on the side that the claim says; too few seeds, too small for more"
    count = [sum(o.holds is what for o in outcomes) for what in (True, False, None)]
    return ", ".join(f"{n} {word}" for n, word in zip(count, ("hold", "fail", "open")) if n)


class _MissingError(LcmaeError):
    def __init__(self, message: str, *, left_out: bool = False):
        super().__init__(message)
        self.left_out = left_out


def _values(test: Test, records: Records) -> list[np.ndarray]:
    """(S, M, ...) of each cell, over the seeds that all of them have."""
    cells = {cell: records(cell.study, cell.measure).get(cell.row, []) for cell in test.cells}
    seeds = set.intersection(*({_seed(record) for record in found} for found in cells.values()))
    if not seeds:
        empty = next((cell for cell, found in cells.items() if not found), test.cells[0])
        raise _MissingError(f"missing: {empty.measure} of {empty.row} ({empty.study})")
    out = []
    for cell, found in cells.items():
        arrays = [_of(record, cell) for record in found if _seed(record) in seeds]
        if len(shapes := {array.shape for array in arrays}) > 1:
            got = " and ".join(map(str, sorted(shapes)))
            raise LcmaeError(f"records: got {got} for {cell.measure} of {cell.row}, expected the same for every seed")
        out.append(np.stack(arrays))
    return out


def _of(record: Record, cell: Cell) -> np.ndarray:
    values = record.measures[cell.measure]["values"]
    if "left_out" in values:
        raise _MissingError(values["left_out"], left_out=True)
    if cell.key not in values:  # measured before this was kept
        raise _MissingError(f"missing: {cell.key} in {cell.measure} of {cell.row} ({cell.study})")
    return np.atleast_1d(record.array(cell.measure, cell.key)).astype(np.float64)


def _seed(record: Record) -> int:
    return record.content["settings"].get("seed", 0)
