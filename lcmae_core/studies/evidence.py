"""What the records that come with the collection show, for the notebooks: redrawn, never trained.

A profile's studies take days; whoever opens a notebook sees their figures at once, with what is missing said in a line.
"""

from collections.abc import Iterator, Mapping

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.config.profiles import SHIPPED
from lcmae_core.studies.redraw import ABSENT, Rows, drawn_of, shipped, taken
from lcmae_core.studies.registry import STUDIES
from lcmae_core.studies.tables import judged_seeds
from lcmae_core.studies.trials import rows
from lcmae_core.viewer.figures import Picture
from lcmae_core.viewer.tables import Table


def evidence(*studies: str) -> Iterator[Picture | Table]:
    """What the records that come with the collection show of some studies: for each profile a line that says how many
    of its runs are in and which are missing, then tables and figures with bands over seeds and images.

    Raises:
        LcmaeError: there is no such study.
    """
    for study in studies:
        if study not in STUDIES:
            raise LcmaeError(f"unknown study {study!r}: {nearest(study, STUDIES)}")
    for name in SHIPPED:
        base, seeds = shipped(name), judged_seeds(name)
        for study in studies:
            done = rows(study, base, name, seeds, make=False)
            by_measure = {m: taken(study, base, name, m) for m in STUDIES[study].measures}
            if any(by_measure.values()):
                print(_count(study, name, done, by_measure, len(seeds[: STUDIES[study].most])))
                yield from drawn_of(study, by_measure)
            else:
                print(f"{name}, {STUDIES[study].title}: {ABSENT} (lcmae study {study} --profile {name})")


def _count(study: str, name: str, done: Rows, by_measure: Mapping[str, Rows], seeds: int) -> str:
    """How many runs of a study are in, and which rows lack some."""
    runs = {row: len(records) for row, records in done.items()}
    short = [f"{row} ({count} of {seeds})" for row, count in runs.items() if count < seeds]
    line = f"{name}, {STUDIES[study].title}: {sum(runs.values())} of {seeds * len(runs)} runs are measured in full"
    parts = [
        f"{m} {sum(map(len, f.values()))}"
        for m, f in by_measure.items()
        if sum(map(len, f.values())) > sum(runs.values())
    ]
    line += f" (of single measures {', '.join(parts)})" if parts else ""
    return line + (f"; short of seeds: {', '.join(short)}" if short else "")
