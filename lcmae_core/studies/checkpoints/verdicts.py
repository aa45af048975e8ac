"""What the records of checkpoints say of the claims: one checkpoint in the place of seeds, intervals over images alone.

The rules are those of the studies (`studies.claims`); a checkpoint stands where they name a run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lcmae_core.store.records import Record
from lcmae_core.studies.checkpoints.lane import FOLDER
from lcmae_core.studies.claims import CLAIMS, Claim
from lcmae_core.studies.scoreboard import Verdict, judged

JUDGED = ("C1", "C2", "C7", "C13", "C14", "C20")
"""Claims that a finished checkpoint can be asked about; every other one is about training."""
ROWS = {("fig5", "DINO"): "DINO", ("fig5_supervised", "supervised"): "supervised"}
"""Study and row of a claim -> the part that a checkpoint must play there; in all others it is the MAE."""
COLUMNS = ("claim", "what is said", "verdict", "why")
ALONE = "one checkpoint, intervals over images alone"


class Judged(NamedTuple):
    """An MAE's checkpoint with what became of every claim, and the others that stood beside it."""

    name: str
    verdicts: list[Verdict]
    beside: tuple[str, ...]

    def verdict(self, claim: str) -> str:
        """What became of a claim; "not judged" of one about training."""
        return next((v.verdict for v in self.verdicts if v.claim.name == claim), "not judged")


def recorded(out: Path) -> list[Record]:
    """The records of checkpoints below an output folder, those of whatever images, the oldest first."""
    return sorted((Record(path) for path in (out / FOLDER).glob("*.json")), key=_date)


def judge(records: Iterable[Record]) -> list[Judged]:
    """Every MAE among the records, with the DINO and the supervised ViT that were measured on the same images; of
    several records of one name the newest."""
    every = list(records)
    newest = {_about(record)["name"]: record for record in every if _about(record)["role"] == "MAE"}
    return [_judged(record, every) for record in newest.values()]


def _judged(mae: Record, every: Sequence[Record]) -> Judged:
    beside = {role: next((r for r in reversed(every) if _about(r)["role"] == role and _images(r) == _images(mae)), None)
              for role in ("DINO", "supervised")}  # fmt: skip
    verdicts = [_claim(claim, mae, beside) for claim in CLAIMS if claim.name in JUDGED]
    names = tuple(_about(record)["name"] for record in beside.values() if record is not None)
    return Judged(_about(mae)["name"], verdicts, names)


def _claim(claim: Claim, mae: Record, beside: Mapping[str, Record | None]) -> Verdict:
    absent = [role for role, record in beside.items() if record is None]
    if claim.name == "C7" and absent:
        return Verdict(claim, "not judged", f"needs a DINO and a DeiT on the same images: no {' and no '.join(absent)}")

    def records(study: str, measure: str) -> Mapping[str, list[Record]]:
        rows = {row: beside[role] for (of, row), role in ROWS.items() if of == study}
        present = {row: record for row, record in ({"MAE": mae} | rows).items() if record is not None}
        return {row: [record] for row, record in present.items() if measure in record.measures}

    verdict = judged(claim, records, "published", fewest=1)
    if not verdict.outcomes:
        return verdict
    outcomes = tuple(o._replace(test=replace(o.test, text=_true_here(o.test.text))) for o in verdict.outcomes)
    return verdict._replace(why=_true_here(f"{ALONE}: {verdict.why}"), outcomes=outcomes)


def _true_here(words: str) -> str:
    """Words of a rule, which speaks of our runs, as they are true of checkpoints."""
    ours, seeds = "to our DINO of the same data, size and seed", "1 seed x"
    return words.replace(ours, "to the DINO beside it").replace(seeds, "one checkpoint x")


def _about(record: Record) -> dict[str, Any]:
    about: dict[str, Any] = record.content["checkpoint"]
    return about


def _images(record: Record) -> tuple[Any, ...]:
    """What images a checkpoint was measured on, and how large they were."""
    content = record.content
    data = content["settings"].get("data", {})
    size, channels = data.get("image_size"), data.get("channels")
    return (content["fingerprint"], str(size), channels, str(content["images"]), content["settings"].get("seed", 0))


def _date(record: Record) -> str:
    dates = [str(entry.get("date", "")) for entry in record.measures.values()]
    return max(dates, default="")


class Column(NamedTuple):
    """A column of the scoreboard: the checkpoint's name, the verdict of every claim in their order, and a note on what
    it was measured beside and on."""

    title: str
    verdicts: tuple[str, ...]
    note: str


def columns(out: Path) -> list[Column]:
    """A column for every MAE that was measured below an output folder; none where nothing was."""
    every = recorded(out)
    checkpoints, images = judge(every), {_about(record)["name"]: record.content for record in every}
    return [
        Column(one.name, tuple(one.verdict(claim.name) for claim in CLAIMS), _note(one, images[one.name]))
        for one in checkpoints
    ]


def _note(checkpoint: Judged, content: Mapping[str, Any]) -> str:
    """Which checkpoint, beside which, on which images."""
    counted, source = content["images"], content["settings"]["data"]["source"]
    beside = f" beside {' and '.join(checkpoint.beside)}" if checkpoint.beside else ""
    total = counted["held_out"] + counted["training"]
    return f"checkpoint {checkpoint.name}{beside}, {total} images of {source}: {ALONE}"


def lines_of(checkpoint: Judged) -> list[list[str]]:
    """A line for every claim under `COLUMNS`."""
    return [[v.claim.name, v.claim.statement, v.verdict, v.why] for v in checkpoint.verdicts]
