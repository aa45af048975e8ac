"""What the report opens with: every claim with its verdicts, here and in the records that come along."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lcmae_core.config.profiles import SHIPPED
from lcmae_core.store.outputs import read_result
from lcmae_core.studies.checkpoints.numbers import table
from lcmae_core.studies.checkpoints.verdicts import columns as checkpoint_columns
from lcmae_core.studies.checkpoints.verdicts import recorded as recorded_checkpoints
from lcmae_core.studies.claims import CLAIMS
from lcmae_core.studies.redraw import recorded, shipped
from lcmae_core.studies.scoreboard import score
from lcmae_core.viewer.report.page import Score, Scoreboard
from lcmae_core.viewer.tables import Table

NOTHING = "not yet run"


def scoreboard(out: Path, profile: str) -> Scoreboard | None:
    """The verdicts below `out` beside those of the shipped records of `desk` and `lab`: what notebook 10 recorded, else
    what the records of the studies say, and a column for every checkpoint that `lcmae published` measured there; None
    where there is nothing. Nothing is trained or measured."""
    own, measured = _own(out, profile), checkpoint_columns(out)
    if not own and not measured:
        return None
    columns = {profile: own} if own else {}
    columns |= {one.title: dict(zip((claim.name for claim in CLAIMS), one.verdicts)) for one in measured}
    for name in SHIPPED:
        verdicts = {v.claim.name: v.verdict for v in score(shipped(name), name, make=False)}
        if name != profile and set(verdicts.values()) != {NOTHING}:
            columns[name] = verdicts
    lines = [
        Score(claim.name, claim.statement, tuple(column.get(claim.name, NOTHING) for column in columns.values()))
        for claim in CLAIMS
    ]
    return Scoreboard(tuple(columns), tuple(lines), {one.title: one.note for one in measured})


class KeptPicture(NamedTuple):
    """A picture as it was kept."""

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png


def checkpoint_numbers(out: Path) -> Table | None:
    """The numbers of every checkpoint that was measured below `out`; None where none was."""
    records = recorded_checkpoints(out)
    return Table(*table(records), "mean [95 % interval over images]") if records else None


def checkpoint_pictures(out: Path) -> Iterator[tuple[str, KeptPicture]]:
    """What the decoders of measured checkpoints make of hidden patches, with titles."""
    for record in recorded_checkpoints(out):
        picture = record.path.with_suffix(".png")
        if picture.is_file():
            yield (
                f"What {record.content['checkpoint']['name']} makes of hidden patches",
                KeptPicture(picture.read_bytes()),
            )


def _own(out: Path, profile: str) -> dict[str, str]:
    if told := read_result(out / "results" / "10.json"):
        values = told.get("values", {})
        return {f"C{int(name[1:])}": str(entry["value"]) for name, entry in values.items() if name[1:].isdecimal()}
    if any((out / "results" / "runs").glob("*.json")):
        return {v.claim.name: v.verdict for v in score(recorded(out, profile), profile, make=False)}
    return {}
