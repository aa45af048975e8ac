"""What the report opens with: every claim with its verdicts, here and in the records that come along."""

import json
from pathlib import Path

from lcmae_core.studies.claims import CLAIMS
from lcmae_core.studies.redraw import shipped
from lcmae_core.studies.scoreboard import score
from lcmae_core.viewer.report.page import Score, Scoreboard

SHIPPED = ("desk", "lab")


def scoreboard(out: Path, profile: str) -> Scoreboard | None:
    """The verdicts that notebook 10 recorded below `out`, beside those of the shipped records of `desk` and `lab`;
    None before that notebook has run. Nothing is trained or measured."""
    path = out / "results" / "10.json"
    if not path.is_file():
        return None
    recorded = json.loads(path.read_text(encoding="utf-8")).get("values", {})
    columns = {profile: {f"C{int(n[1:])}": str(e["value"]) for n, e in recorded.items() if n[1:].isdigit()}}
    for name in SHIPPED:
        found = {v.claim.name: v.verdict for v in score(shipped(name), name, do=False)}
        if name != profile and set(found.values()) != {"not yet run"}:
            columns[name] = found
    lines = [
        Score(claim.name, claim.statement, tuple(column.get(claim.name, "not yet run") for column in columns.values()))
        for claim in CLAIMS
    ]
    return Scoreboard(tuple(columns), tuple(lines))
