"""One self-contained HTML page of an output folder: verdicts, pictures and numbers first, then every notebook."""

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from lcmae_core.config.names import MARKS
from lcmae_core.store.files import write_text
from lcmae_core.store.outputs import read_ledger, read_results
from lcmae_core.viewer.report.highlights import HIGHLIGHTS
from lcmae_core.viewer.report.markup import markdown, safe_html
from lcmae_core.viewer.report.notebooks import ReportBlock, Section, executed, lost_notebooks, section_of
from lcmae_core.viewer.report.pictures import Figure, figure_of
from lcmae_core.viewer.report.results import chosen_rows, facts_of, rows_of

FOLDER = Path(__file__).resolve().parent


class Score(NamedTuple):
    """A claim, what it says, and its verdict at each profile that is shown."""

    name: str
    statement: str
    verdicts: tuple[str, ...]


class Scoreboard(NamedTuple):
    """The profiles (or checkpoints) that have a column, the claims, and what is to be said of a column."""

    profiles: tuple[str, ...]
    scores: tuple[Score, ...]
    notes: Mapping[str, str] = MappingProxyType({})

    def counts(self) -> list[tuple[str, str]]:
        """Of each column, how often each verdict was given, and its note."""
        told = []
        for place, profile in enumerate(self.profiles):
            of = Counter(score.verdicts[place] for score in self.scores)
            note = f"; {self.notes[profile]}" if profile in self.notes else ""
            told.append((profile, ", ".join(f"{count} {word}" for word, count in of.most_common()) + note))
        return told


class ShownPicture(NamedTuple):
    """A chosen picture: where it stands, its heading, what it shows, and the finding in a sentence."""

    notebook: str
    title: str
    figure: Figure
    finding: str


def build_report(out: Path, drawn: Sequence[tuple[str, Any]] = (), board: Scoreboard | None = None) -> Path:
    """Write <out>/report.html from the executed notebooks, results/*.json and ledger.json, and return its path.

    `drawn`: titles with pictures or tables (what has `_repr_png_` or `_repr_html_`), redrawn from the studies' records.
    `board`: the claims with their verdicts, which the page opens with.

    The page loads nothing: styles and pictures are inside, equations are MathML.
    """
    import jinja2
    from markupsafe import Markup

    out = Path(out)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["safe_markup"] = Markup
    results = read_results(out)
    ledger = read_ledger(out)
    sections, lost = [section_of(path, ledger) for path in executed(out)], lost_notebooks(out)
    failed = {s.number for s in sections if s.failure} | {name[:2] for name, _ in lost}
    text = environment.get_template("report.html").render(
        style=Markup((FOLDER / "report.css").read_text()),
        facts=facts_of(results),
        board=board,
        shown=list(_highlights(sections, results)),
        chosen=chosen_rows(results),
        rows=list(rows_of(results, failed)),
        sections=[*([_studies(drawn)] if drawn else []), *sections],
        known={section.number for section in sections},
        lost=lost,
        marks=MARKS,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(out / "report.html", text)
    return out / "report.html"


def _studies(drawn: Sequence[tuple[str, Any]]) -> Section:
    section = Section("studies", "Studies: tables and figures from the records of their runs")
    for title, shown in drawn:
        section.blocks.append(ReportBlock("prose", markdown(f"### {title}")))
        if hasattr(shown, "_repr_png_"):
            data = base64.b64encode(shown._repr_png_()).decode()
            section.blocks.append(ReportBlock("figure", figure_of("image/png", data, title)))
        else:
            section.blocks.append(ReportBlock("table", safe_html(shown._repr_html_())))
    return section


def _highlights(sections: Sequence[Section], results: Sequence[Mapping[str, Any]]) -> Iterator[ShownPicture]:
    """The chosen pictures of the notebooks that have them and the numbers that their sentences need."""
    values = {
        str(r.get("notebook")): {name: e.get("value") for name, e in r.get("values", {}).items()} for r in results
    }
    figures = {(s.number, b.cell): b.content for s in sections if not s.failure for b in s.blocks if b.kind == "figure"}
    for chosen in HIGHLIGHTS:
        figure = figures.get((chosen.notebook, chosen.cell))
        try:
            finding = chosen.finding(values[chosen.notebook]) if figure else ""
        except (KeyError, TypeError, ValueError):
            continue  # another collection's notebook of this number
        if figure and finding:
            yield ShownPicture(chosen.notebook, chosen.title, figure._replace(alt=finding, caption=""), finding)
