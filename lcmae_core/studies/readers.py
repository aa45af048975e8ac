"""For readers of the papers: claim by claim what is said, what was found at each profile, and what would change it.

From records alone. `export` writes it as one HTML page, as a table (CSV) and as a note for citing (BibTeX).
"""

import base64
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

import numpy as np

from lcmae_core.config import LcmaeError, nearest
from lcmae_core.config.names import MARKS
from lcmae_core.store.files import write_atomic
from lcmae_core.store.machine import writable_folder
from lcmae_core.studies.claims import CLAIMS, UNJUDGED, Claim
from lcmae_core.studies.judge import Outcome, described, needed
from lcmae_core.studies.scoreboard import Verdict
from lcmae_core.viewer.figures import Picture
from lcmae_core.viewer.figures.claims import ClaimTest, Measurement, claim_tests
from lcmae_core.viewer.tables import Table

Judged = Mapping[str, Sequence[Verdict]]
"""Profile -> the verdicts of all claims there."""
HEADER = ("claim", "statement", "where", "published", "profile", "verdict", "test", "low", "high", "value",
          "interval low", "interval high", "df", "seeds", "images", "holds")  # fmt: skip
BIBTEX = """@article{lcmae2023,
  title = {Understanding Masked Autoencoders From a Local Contrastive Perspective},
  eprint = {2310.01994}, archivePrefix = {arXiv}, year = {2023},
  note = {the claims C1 to C15 and C20 to C26}
}
@article{hlv2023,
  title = {Understanding Masked Autoencoders via Hierarchical Latent Variable Models},
  eprint = {2306.04898}, archivePrefix = {arXiv}, year = {2023},
  note = {the claims C16 to C19}
}
@software{lcmae_core,
  title = {lcmae\\_core: masked autoencoders, seen and tested},
  author = {{The lcmae\\_core developers}},
  note = {independent implementation; verdicts of claims.csv}
}
"""


def of_claim(name: str, judged: Judged) -> dict[str, Verdict]:
    """Profile -> what became of one claim there.

    Raises:
        LcmaeError: there is no such claim.
    """
    names = [claim.name for claim in CLAIMS]
    if name not in names:
        raise LcmaeError(f"unknown claim {name!r}: {nearest(name, names)}")
    return {profile: next(v for v in verdicts if v.claim.name == name) for profile, verdicts in judged.items()}


def claim_by_claim(judged: Judged) -> Iterator[Table | Picture]:
    """For every claim a table in words and, where something was measured, its tests as a picture."""
    for claim in CLAIMS:
        verdicts = of_claim(claim.name, judged)
        yield in_words(claim, verdicts)
        if picture := in_a_picture(verdicts):
            yield picture


def in_words(claim: Claim, verdicts: Mapping[str, Verdict]) -> Table:
    """What is said, what was found, and what would change it."""
    lines = [["said", f"{claim.statement} ({claim.where})"], ["reported", claim.published]]
    for profile, verdict in verdicts.items():
        lines.append([f"found at {profile}", f"{verdict.verdict.upper()}: {verdict.why}"])
        if verdict.outcomes:
            lines.append(["what would change it", what_would_change(verdict, profile)])
    return Table((claim.name, ""), lines)


def what_would_change(verdict: Verdict, profile: str) -> str:
    """Of an open claim, how many seeds or images more; of a decided one, its nearest test."""
    undecided = [more for o in verdict.outcomes if o.holds is None and (more := _more(o))]
    if "not yet run" in verdict.why:
        undecided.append(f"the runs that are missing (lcmae study --profile {profile})")
    if undecided:
        return "; ".join(dict.fromkeys(undecided))
    decided = [o for o in verdict.outcomes if o.holds is not None]
    if not decided:
        return "a measurement that its tests allow: see why it is open"
    closest = min(decided, key=_room)
    side = "leaves its range" if closest.holds else "enters its range"
    return f"other seeds or images with which this interval {side}: {described(closest)}"


def _more(o: Outcome) -> str:
    if o.estimate.seeds < 2:
        return "more than one seed"
    more = needed(o)
    ways = [f"{count} {what}" for count, what in ((more.seeds, "seeds"), (more.images, "images")) if count is not None]
    if ways:
        return f"about {' or '.join(ways)} for “{o.test.text}”"
    return "" if o.why else f"more seeds and more images, neither alone would do, for “{o.test.text}”"


def _room(o: Outcome) -> float:
    """How far the value is from the nearest end of the range, in half-lengths of its interval."""
    e = o.estimate
    half = (e.high - e.low) / 2
    away = min(abs(e.value - bound) for bound in (o.test.low, o.test.high))
    return away / half if half and np.isfinite(half) else np.inf


def in_a_picture(verdicts: Mapping[str, Verdict]) -> Picture | None:
    """The tests of a claim with the intervals of every profile; None where nothing was measured."""
    tests = dict.fromkeys(o.test for verdict in verdicts.values() for o in verdict.outcomes)
    if not tests:
        return None
    shown = []
    for test in tests:
        of = {p: next((o.estimate for o in v.outcomes if o.test == test), None) for p, v in verdicts.items()}
        intervals = {p: Measurement(e.value, e.low, e.high) for p, e in of.items() if e is not None}
        shown.append(ClaimTest(test.text, test.low, test.high, intervals))
    return claim_tests(shown)


def as_csv(judged: Judged) -> str:
    """A line for every test of every claim at every profile under `HEADER`; claims without numbers have one line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for profile, verdicts in judged.items():
        for verdict in verdicts:
            claim = verdict.claim
            cells = [claim.name, claim.statement, claim.where, claim.published, profile, verdict.verdict]
            for o in verdict.outcomes:
                e, holds = o.estimate, {True: "yes", False: "no", None: "open"}[o.holds]
                ends = [o.test.low, o.test.high, e.value, e.low, e.high, e.df]
                writer.writerow([*cells, o.test.text, *(f"{x:.6g}" for x in ends), e.seeds, e.images, holds])
            if not verdict.outcomes:
                writer.writerow([*cells, *[""] * (len(HEADER) - len(cells))])
    return text.getvalue()


def as_html(judged: Judged) -> str:
    """One page that loads nothing."""
    sections = "".join(_section(claim, of_claim(claim.name, judged)) for claim in CLAIMS)
    lines = "".join(f"<tr><td>{escape(s)}</td><td>{escape(why)}</td></tr>" for s, why in UNJUDGED.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Claim by claim</title><style>{STYLE}</style>'
        f"<h1>Masked autoencoders, claim by claim</h1><p>Profiles: {', '.join(judged)}. Green: the range that a claim "
        "asks for. Bars: 95 % intervals over training seeds and held-out images. A small model on small data says "
        "nothing sure about a large one. What is not yet run, <code>lcmae study</code> runs.</p>"
        f"<p>{escape(MARKS)}</p>"
        f"{_index(judged)}{sections}<h2>What no rule judges</h2>"
        f"<table><tr><th>said</th><th>why it is not judged</th></tr>{lines}</table><h2>For citing</h2>"
        f"<pre>{escape(BIBTEX)}</pre></html>\n"
    )


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h2{margin-top:2.5rem;font-size:1.15rem}table{border-collapse:collapse;width:100%}"
    "td,th{padding:.3rem .6rem;border-top:1px solid #ddd;text-align:left;vertical-align:top}td:first-child{width:9rem}"
    ".index td:first-child{width:3rem}.index td:nth-child(n+3){white-space:nowrap}"
    "caption{color:#555}img{max-width:100%;height:auto;margin-top:.6rem}pre{overflow-x:auto;background:#f6f6f6;"
    "padding:.8rem}.unjudged{font-weight:700;color:#8a5a00}@media print{h2{break-after:avoid}img{break-inside:avoid}}"
)


def _index(judged: Judged) -> str:
    """Every claim with its verdicts, as links."""
    head = "".join(f"<th>{escape(profile)}</th>" for profile in judged)
    lines = "".join(
        f'<tr><td><a href="#{claim.name}">{claim.name}</a></td><td>{escape(claim.statement)}</td>'
        + "".join(f"<td>{escape(v.verdict)}</td>" for v in of_claim(claim.name, judged).values())
        + "</tr>"
        for claim in CLAIMS
    )
    return f"<table class=index><tr><th>claim</th><th>what is said</th>{head}</tr>{lines}</table>"


def _section(claim: Claim, verdicts: Mapping[str, Verdict]) -> str:
    picture = in_a_picture(verdicts)
    shown = ""
    if picture is not None:
        data = base64.b64encode(picture._repr_png_()).decode()
        shown = f'<img alt="the tests of {claim.name}" src="data:image/png;base64,{data}">'
    else:
        shown = '<p class="unjudged">UNJUDGED: no record of these profiles has its numbers.</p>'
    rows = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in in_words(claim, verdicts).rows)
    return f'<h2 id="{claim.name}">{claim.name}</h2><table>{rows}</table>{shown}'


def export(out: Path, judged: Judged) -> tuple[Path, ...]:
    """Write claims.html, claims.csv and claims.bib below a folder and return their paths.

    Raises:
        LcmaeError: the folder cannot be written.
    """
    writable_folder(out)  # before twenty pictures are drawn
    texts = {"claims.html": as_html(judged), "claims.csv": as_csv(judged), "claims.bib": BIBTEX}
    for name, text in texts.items():
        write_atomic(out / name, partial(Path.write_text, data=text, encoding="utf-8"))
    return tuple(out / name for name in texts)
