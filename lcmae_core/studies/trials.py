"""A trial: one row of a study with one seed. It trains what is not trained, then takes the measures that are missing.

Notebooks ask for `rows`, the command line shares the trials out; both read and write the same records.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

from lcmae_core.config import LcmaeError, NoLabelsError, Settings, digest, nearest, replace
from lcmae_core.config.names import former_keywords
from lcmae_core.config.places import plain_name
from lcmae_core.config.profiles import IN_NOTEBOOK, profile_of
from lcmae_core.data.corruptions import why_not
from lcmae_core.data.sources import forget_identities, known_identity, source_identity
from lcmae_core.store.files import DiskFullError
from lcmae_core.store.machine import REPOSITORY, absolute_folder
from lcmae_core.store.records import Record, Values, open_record, recorded_fingerprint
from lcmae_core.store.runs import run_label
from lcmae_core.store.stopping import Stopped, StopRequest
from lcmae_core.studies.latents import recipe as plan_of
from lcmae_core.studies.registry import STUDIES, UNTRAINED_ONLY, Case, leaves
from lcmae_core.training.presets import rates_of, recipe_of

NO_LABELS: Values = {"left_out": "the source has no labels"}
"""What is noted of a measure that needs labels, where a source has none."""


OPTIONAL: dict[str, Callable[[], str | None]] = {"corruptions": why_not}
"""Measures that need a package which not every machine has, with what says why it cannot be used."""


class UnmeasuredError(LcmaeError):
    """Measures of a run that failed, by name; the run was trained, and its other measures are kept."""

    def __init__(self, errors: dict[str, Exception]) -> None:
        self.errors = errors
        super().__init__("; ".join(f"measure {name!r}: {error}" for name, error in errors.items()))


class Trial(NamedTuple):
    """One row of one study with one seed."""

    study: str
    row: str
    case: Case
    measures: tuple[str, ...]
    profile: str

    @property
    def record(self) -> Record:
        """Where it is kept: the name has a digest of the settings and of the pictures themselves, not of where they lie
        or what their folder is called. Where the pictures are not at hand, that of the records which name such a
        source."""
        settings = self.case.settings
        label, source = run_label(settings) if self.case.trained else self.case.label, settings.data.source
        out = absolute_folder(settings.runtime.out)
        held = known_identity(source) or recorded_fingerprint(out, source) or plain_name(source, REPOSITORY)
        return open_record(out, f"{label}-s{settings.seed}-{digest(settings, held)}", held)

    @property
    def missing(self) -> tuple[str, ...]:
        """Measures that were not taken yet, or with another recipe than the profile has now."""
        taken = self.record.measures
        return tuple(m for m in self.measures if m not in taken or taken[m].get("recipe") != self.recipe(m))

    def recipe(self, measure: str) -> Values | None:
        """What the measure depends on beside the settings, such as what it trains a classifier with; kept in the
        record."""
        if measure == "recovery":
            return plan_of(self.profile).asked
        recipe = recipe_of(measure, self.profile, trained=self.case.trained)
        if recipe is None:
            return None
        rates = rates_of(measure, self.profile)
        return recipe.model_dump(mode="json") | ({"rates": [*rates]} if rates else {})

    @property
    def done(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing

    @property
    def readable(self) -> bool:
        """Whether nothing is missing but what the machine that made the record may not have been able to measure."""
        return OPTIONAL.keys() >= set(self.missing)

    def do(self, *, wait: bool = False, stop: StopRequest | None = None) -> bool:
        """Train and measure what is missing; False if another process is at it (with `wait` it is waited for).

        Raises:
            LcmaeError: data or settings are not usable.
            Stopped: a signal (or `stop`, which is looked at between measures) asked for a stop; what was finished is
                kept, and training goes on from a checkpoint.
        """
        try:
            return self.attempt(wait=wait, stop=stop) is not False
        except UnmeasuredError as several:
            raise next(iter(several.errors.values())) from None

    def attempt(self, *, wait: bool = False, stop: StopRequest | None = None) -> bool | None:
        """As `do`, and says who did it: True this call, None somebody before it, False somebody who is at it.

        Raises:
            UnmeasuredError: measures failed; the others were taken.
        """
        if self.done:
            return None
        with self.record.claimed(wait=wait) as mine:
            if not mine:
                return False
            if self.done:  # by another process, while this one waited
                return None
            self._do(stop)
        return True

    def _do(self, stop: StopRequest | None) -> None:
        from lcmae_core.studies.measures import MEASURES
        from lcmae_core.studies.specimen import Specimen
        from lcmae_core.training.loop import pretrain

        settings, left_out = self.case.settings, None
        self._check_data()
        try:
            run = pretrain(settings) if self.case.trained else None
        except NoLabelsError:
            left_out, run = NO_LABELS, None  # a supervised reference
        self.record.begin(run, settings)  # before anything is measured: a stop between measures keeps those taken
        specimen = Specimen(settings, self.profile, run)  # one, so that its measures read the images once
        errors: dict[str, Exception] = {}
        for name in self.missing:
            if stop is not None and stop.is_set():
                raise Stopped(f"stopped before its measure {name!r}", stop)
            try:
                self._note(name, partial(MEASURES[name], specimen) if left_out is None else lambda: left_out)
            except (DiskFullError, OSError):  # what keeps one measure from being kept keeps all
                raise
            except Exception as error:
                errors[name] = error
        if errors:
            raise UnmeasuredError(errors)

    def _check_data(self) -> None:
        source = self.case.settings.data.source
        # the identity is worked out once a process: pictures changed since would be filed under their old name
        if (known := known_identity(source)) and known != source_identity(source):
            raise LcmaeError(f"data: {source!r} changed since this began, expected the same pictures: start it again")

    def _note(self, name: str, measure: Callable[[], Values]) -> None:
        from lcmae_core.store.machine import pick_device, provenance
        from lcmae_core.studies.measures import LABELLED

        began = time.perf_counter()
        try:
            values = measure()
        except NoLabelsError:
            if name not in LABELLED:  # it should have needed none: a fault, which no record may hide
                raise
            values = NO_LABELS
        where = provenance(pick_device(self.case.settings.runtime.device))
        where |= {"recipe": recipe} if (recipe := self.recipe(name)) else {}
        self.record.note(name, values, time.perf_counter() - began, where)


def unusable(measure: str) -> str | None:
    """Why a measure cannot be taken on this machine; None where it can. A trial is done here without it, and another
    machine with the same output folder finds it missing."""
    return OPTIONAL[measure]() if measure in OPTIONAL else None


def trials(
    names: Iterable[str],
    base: Settings,
    profile: str,
    seeds: Sequence[int] = (0,),
    measures: Sequence[str] | None = None,
    *,
    complete: bool = False,
) -> list[Trial]:
    """The trials of some studies, one study after the other: claims are judged as early as can be. `measures` takes a
    part; `complete` adds what a run leaves for every study, where the profile has it measured at once.

    Raises:
        LcmaeError: there is no such study.
    """
    every, at_once = [], profile_of(profile).measured_at_once
    for name in names:
        if name not in STUDIES:
            raise LcmaeError(f"unknown study {name!r}: {nearest(name, STUDIES)}")
        study = STUDIES[name]
        chosen = tuple(m for m in study.measures if (measures is None or m in measures) and not unusable(m))
        for seed in seeds[: study.most]:
            cases = study.rows(replace(base, seed=seed), profile)
            for row, case in cases.items():
                more = leaves(case.settings) if complete and at_once and case.trained else ()
                every.append(Trial(name, row, case, _measured(case, (*chosen, *more)), profile))
    return every


jobs = trials
"""Its former name, which older notebooks import."""


def _measured(case: Case, measures: Iterable[str]) -> tuple[str, ...]:
    """Each measure once, without those that a trained encoder has no need of."""
    return tuple(m for m in dict.fromkeys(measures) if not (case.trained and m in UNTRAINED_ONLY))


@former_keywords({"do": "make"})
def rows(
    name: str,
    base: Settings,
    profile: str,
    seeds: Sequence[int] = (0,),
    measures: Sequence[str] | None = None,
    *,
    make: bool | None = None,
) -> dict[str, list[Record]]:
    """The finished records of a study by row, one a seed. At smoke and quick (or with `make`) they are made first,
    unless `base.runtime.train` says otherwise: true, they are; false, they are not.

    Raises:
        LcmaeError: there is no such study, data or settings are not usable.
    """
    by_row: dict[str, list[Record]] = {}
    making = _making(base, profile, make)
    if making:
        forget_identities()  # a notebook stays open while pictures come and go
    for trial in trials([name], base, profile, seeds, measures):
        if making:
            trial.do(wait=True)
        # a row without a record stays, empty, so that a table shows what is missing
        by_row.setdefault(trial.row, []).extend([trial.record] if trial.readable else [])
    return by_row


def _making(base: Settings, profile: str, make: bool | None) -> bool:
    """Whether missing records are made: as asked, as the settings say, else as the profile has it."""
    if make is False or base.runtime.train is False:
        return False
    return bool(make or base.runtime.train or profile in IN_NOTEBOOK)
