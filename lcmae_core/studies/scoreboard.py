"""Every claim with its verdict, from the records of a profile.

Letters (CONTRIBUTING.md): S seeds, M images, R rows of a table.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from lcmae_core.analysis.collapse import ALIKE
from lcmae_core.analysis.intervals import Pool, pooled
from lcmae_core.config import LcmaeError, Settings
from lcmae_core.config.names import former_keywords
from lcmae_core.config.profiles import IN_NOTEBOOK, TOO_SHORT
from lcmae_core.store.records import Record
from lcmae_core.studies.claims import CLAIMS, Claim, reads_labels
from lcmae_core.studies.judge import Cell, Outcome, Test, described, needed, run_test, verdict
from lcmae_core.studies.registry import RANDOM
from lcmae_core.studies.tables import judged_seeds
from lcmae_core.studies.trials import trials

POOLED = ("table1", "table2", "table3", "fig_a1")
"""Studies over whose rows the seed part of an accuracy is pooled: Tables 1 to 3 (fig_a1 has the probes of Table 3)."""
Records = Callable[[str, str], Mapping[str, list[Record]]]
"""study, measure -> row -> its records, one a seed."""


class Verdict(NamedTuple):
    """What became of a claim: the verdict, why, its tests with our numbers (none where something is missing), and what
    is shown beside them."""

    claim: Claim
    verdict: str
    why: str
    outcomes: tuple[Outcome, ...] = ()
    controls: tuple[Outcome, ...] = ()


@former_keywords({"do": "make"})
def score(
    base: Settings, profile: str, seeds: Sequence[int] | None = None, *, make: bool | None = None
) -> list[Verdict]:
    """Every claim judged by the records of a profile (by default of its own seeds). At smoke and
    quick those missing are made first (one seed); at quick only signs are judged, at smoke nothing.

    Raises:
        LcmaeError: data or settings are not usable.
    """
    small = profile in IN_NOTEBOOK
    wanted = ((base.seed,) if small else judged_seeds(profile)) if seeds is None else seeds

    @cache
    def records(study: str, measure: str) -> Mapping[str, list[Record]]:
        by_row: dict[str, list[Record]] = {}
        for trial in trials([study], base, profile, wanted[:1] if small else wanted, (measure,)):
            if (small if make is None else make) and not trial.done:
                trial.do(wait=True)
            by_row.setdefault(trial.row, []).extend([trial.record] if trial.measures and trial.readable else [])
        return by_row

    return [judged(claim, records, profile) for claim in CLAIMS]


def judged(claim: Claim, records: Records, profile: str, *, fewest: int = 2) -> Verdict:
    """A claim by what `records(study, measure)` gives: at quick by signs alone and without accuracies, at smoke not at
    all. Tests whose numbers are not there yet are open; those that a source cannot give are left out and named. With
    fewer seeds than `fewest` nothing is decided; a checkpoint, which is one, is judged with 1.

    Raises:
        LcmaeError: the seeds of a row have records of different data.
    """
    small = profile in IN_NOTEBOOK
    tests = [test for test in claim.tests if not (small and reads_labels(test))]
    if not tests:
        return Verdict(claim, "not judged", "a profile this small judges signs and shapes, never accuracies")
    outcomes, absent, left_out = _outcomes(tests, records)
    if not outcomes:
        return Verdict(claim, "not yet run" if absent else "not judged", (absent or left_out)[0])
    controls, without = _controls([c for c in claim.controls if not (small and reads_labels(c))], records)
    if profile in TOO_SHORT:
        return Verdict(claim, "not judged", f"{profile} trains a handful of steps", outcomes, controls)
    waiting = [f"{len(absent)} not yet run ({absent[0]})"] if absent else []
    notes = [*waiting, *left_out[:1], *without]
    if not small and min(o.estimate.seeds for o in outcomes) < fewest:
        alone = "one seed: the interval covers images alone"
        return Verdict(claim, "unresolved", "; ".join([alone, *notes]), outcomes, controls)
    why = "; ".join([_signs(outcomes) if small else _why(outcomes), *notes])
    return Verdict(
        claim, verdict(outcomes, missing=len(absent) + len(left_out), signs_only=small), why, outcomes, controls
    )


def _outcomes(tests: Sequence[Test], records: Records) -> tuple[tuple[Outcome, ...], list[str], list[str]]:
    """Outcomes of the tests whose numbers are there; what is missing; what a source cannot give."""
    outcomes: list[Outcome] = []
    absent: list[str] = []
    left_out: list[str] = []
    for test in tests:
        try:
            outcomes.append(outcome(test, records))
        except _MissingError as missing:
            (left_out if missing.left_out else absent).append(str(missing))
    return tuple(outcomes), absent, left_out


def outcome(test: Test, records: Records) -> Outcome:
    """A test, and first its gates, by the numbers of records."""
    gates = [outcome(gate, records) for gate in test.gates]
    seeds, values = _values(test, records)
    return run_test(test, values, _pool(test, records, seeds), gates)


def _controls(controls: Sequence[Test], records: Records) -> tuple[tuple[Outcome, ...], list[str]]:
    """What is shown beside a claim, and what of it is missing; neither changes the verdict."""
    outcomes, absent, left_out = _outcomes(controls, records)
    missing = [*absent, *left_out]
    return outcomes, [f"{len(missing)} control{'s' * (len(missing) > 1)} missing ({missing[0]})"] if missing else []


def _signs(outcomes: Sequence[Outcome]) -> str:
    right = sum(o.on_side for o in outcomes)
    return f"{right} of {len(outcomes)} on the side that the claim says; too few seeds, too small for more"


def _why(outcomes: Sequence[Outcome]) -> str:
    count = [sum(o.holds is what for o in outcomes) for what in (True, False, None)]
    counts = ", ".join(f"{n} {word}" for n, word in zip(count, ("hold", "fail", "open")) if n)
    return "; ".join([counts, *dict.fromkeys(o.why for o in outcomes if o.why)])


class _MissingError(LcmaeError):
    def __init__(self, message: str, *, left_out: bool = False):
        super().__init__(message)
        self.left_out = left_out


def _values(test: Test, records: Records) -> tuple[list[int], list[np.ndarray]]:
    """The seeds that all cells have, and (S, M, ...) of each cell over them."""
    cells = {cell: records(cell.study, cell.measure).get(cell.row, []) for cell in test.cells}
    seeds = set.intersection(*({_seed(record) for record in of_cell} for of_cell in cells.values()))
    if not seeds:
        empty = next((cell for cell, of_cell in cells.items() if not of_cell), test.cells[0])
        raise _MissingError(f"missing: {empty.measure} of {empty.row} ({empty.study})")
    stacked = {cell: _stacked(cell, of_cell, seeds) for cell, of_cell in cells.items()}
    return sorted(seeds), [stacked[cell] for cell in test.cells]


def _stacked(cell: Cell, of_cell: Sequence[Record], seeds: set[int]) -> np.ndarray:
    arrays = [_of(record, cell) for record in of_cell if _seed(record) in seeds]
    if len(shapes := {array.shape for array in arrays}) > 1:
        got = " and ".join(map(str, sorted(shapes)))
        raise LcmaeError(f"records: got {got} for {cell.measure} of {cell.row}, expected the same for every seed")
    return np.stack(arrays)


def _pool(test: Test, records: Records, seeds: Sequence[int]) -> Pool | None:
    """The seed part of an accuracy in Tables 1 to 3, over the rows of the table that did not collapse and have these
    seeds, and random init where the test looks at it; of other tests, of one seed and of one row none."""
    trained = [c for c in test.cells if c.row != RANDOM]
    first = next(iter(trained), test.cells[0])
    alike = {(c.measure, c.key.startswith("right")) for c in test.cells}
    if {c.study for c in trained} != {first.study} or first.study not in POOLED:
        return None
    if not test.weights or len(seeds) < 2 or alike != {(first.measure, True)}:
        return None
    if any(collapsed(r) for c in test.cells for r in records(c.study, c.measure)[c.row]):
        return None
    rows = dict(records(first.study, first.measure))
    for cell in set(test.cells) - set(trained):
        rows[cell.row] = records(cell.study, cell.measure)[cell.row]
    return row_pool(rows, first.measure, first.key, seeds)


def row_pool(rows: Mapping[str, Sequence[Record]], measure: str, key: str, seeds: Sequence[int]) -> Pool | None:
    """The pool of the rows of a table that have answers of all these seeds and did not collapse; None of fewer than
    two."""
    kept = []
    for of_row in rows.values():
        of = {_seed(r): r for r in of_row if key in r.measures.get(measure, {}).get("values", {})}
        if set(seeds) <= of.keys() and not any(collapsed(of[seed]) for seed in seeds):
            kept.append(np.stack([of[seed].array(measure, key) for seed in seeds]).astype(np.float64))
    kept = [each for each in kept if each.shape == kept[0].shape]
    return pooled(np.stack(kept)) if len(kept) > 1 else None


def collapsed(record: Record) -> bool:
    """Whether v of a run is alike for all images or at every place, where that was measured."""
    values = record.measures.get("collapse", {}).get("values", {})
    means = [np.mean(values[key]) for key in ("mean_cosine", "same_place") if key in values]
    return any(mean > ALIKE for mean in means)


def _of(record: Record, cell: Cell) -> np.ndarray:
    values = record.measures[cell.measure]["values"]
    if "left_out" in values:
        raise _MissingError(values["left_out"], left_out=True)
    if cell.key not in values:  # measured before this was kept
        raise _MissingError(f"missing: {cell.key} in {cell.measure} of {cell.row} ({cell.study})")
    return np.atleast_1d(record.array(cell.measure, cell.key)).astype(np.float64)


def _seed(record: Record) -> int:
    return record.content["settings"].get("seed", 0)


COLUMNS = ("claim", "test", "ours", "95 % interval", "df", "seeds x images", "by its interval")


def lines_of_tests(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """A line for every test and control under `COLUMNS`, with what would decide one that its interval leaves open."""
    lines = []
    for each in verdicts:
        lines += [_line(each.claim.name, o, _standing(o)) for o in each.outcomes]
        lines += [_line(each.claim.name, o, "control") for o in each.controls]
    return lines


def _line(claim: str, o: Outcome, decided: str) -> list[str]:
    e = o.estimate
    free = f"{e.df:.3g}" if np.isfinite(e.df) and e.df else "none"
    count = f"{e.seeds} x {e.images}" + ", seeds pooled" * e.pooled
    value = f"{e.value:.4g}" if np.isfinite(e.value) else "not defined"
    return [claim, o.test.text, value, _ends(e.low, e.high), free, count, decided]


def _ends(low: float, high: float) -> str:
    """An interval; of a single number, which has none, nothing."""
    return f"[{low:.4g}, {high:.4g}]" if np.isfinite([low, high]).any() else ""


def _standing(o: Outcome) -> str:
    if o.holds is not None:
        return "holds" if o.holds else "fails"
    if o.why or o.estimate.seeds < 2:
        return f"open: {o.why}" if o.why else "open"
    more = needed(o)
    ways = [f"{n} {what}" for n, what in ((more.seeds, "seeds"), (more.images, "images")) if n is not None]
    return f"open; about {' or '.join(ways)} would decide" if ways else "open"


def all_described(judged: Verdict) -> str:
    """Every test and control of a claim in words, each with its number."""
    return "; ".join(described(o) for o in (*judged.outcomes, *judged.controls))
