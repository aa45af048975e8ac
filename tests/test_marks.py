"""The marks that stand for a paper or for a choice of ours are explained wherever they are printed.

Claims: what a command, a page or a notebook shows has the legend wherever it has a mark; the legend names every mark.
"""

import html
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lcmae_core import cli
from lcmae_core.config.names import MARKS
from lcmae_core.execute.discover import cell_source
from lcmae_core.studies.readers import as_html
from lcmae_core.studies.redraw import recorded
from lcmae_core.studies.scoreboard import score
from lcmae_core.viewer.report import build_report
from tests.execute.toys import make_notebook, prose
from tests.loops import over

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"\[open\]|\bv[12]\b|\bHLV\b")


def unexplained(text: str) -> list[str]:
    """The marks of a text that does not say what they mean."""
    flat = " ".join(html.unescape(text).split())
    return [] if MARKS in flat else sorted({*MARK.findall(flat)})


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints."""
    with suppress(SystemExit):  # after --help
        cli.main([*words])
    return capsys.readouterr().out


def shown_by(notebook: Path) -> str:
    """What a reader of a notebook sees without its pictures: prose, and outputs in words."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join(text for cell in cells for text in texts_of(cell))


def texts_of(cell: dict) -> Iterator[str]:
    """The prose of a cell, or the words of its outputs."""
    if cell["cell_type"] == "markdown":
        yield cell_source(cell)
    for output in cell.get("outputs", ()):
        yield "".join(output.get("text", ""))
        yield from ("".join(text) for kind, text in output.get("data", {}).items() if kind.startswith("text/"))


def test_the_legend_names_every_mark():
    assert {*MARK.findall(MARKS)} == {"[open]", "v1", "v2", "HLV"}
    assert unexplained("as in v2 [open]") == ["[open]", "v2"]
    assert unexplained("a v2 sidecar") == ["v2"]
    assert not unexplained(f"as in v2. {MARKS}")


@over("words", [("train", "--list"), ("study", "status")])
def test_commands_explain_what_they_print(words, capsys, tmp_path):
    said = printed(capsys, *words, "--profile", "smoke", "--out", str(tmp_path))
    assert MARK.search(said.replace(MARKS, "")), "nothing to explain"
    assert not unexplained(said)


def test_help_explains_its_marks_in_place(capsys):
    helps = {name: " ".join(printed(capsys, name, "--help").split()) for name in cli.COMMANDS}
    assert "v2 (of arXiv 2310.01994v2)" in helps["evaluate"]
    helps["evaluate"] = helps["evaluate"].replace("v2 (of arXiv 2310.01994v2)", "")
    assert not [name for name, said in helps.items() if unexplained(said)]


def test_pages_explain_their_marks_at_the_top(tmp_path):
    claims = as_html({"smoke": score(recorded(tmp_path, "smoke"), "smoke", make=False)})
    make_notebook(tmp_path, "01_toy", prose("as in v2 [open], unlike HLV"))
    report = build_report(tmp_path).read_text(encoding="utf-8")
    for page, first in ((claims, "<table"), (report, '<section class="notebook"')):
        assert MARK.search(page.replace(MARKS, ""))
        assert not unexplained(page.partition(first)[0] + " v2")


@over("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "notebooks").glob("*.ipynb"))])
def test_texts_explain_their_marks(page):
    text = shown_by(page) if page.suffix == ".ipynb" else page.read_text(encoding="utf-8")
    assert MARK.search(text.replace(MARKS, ""))
    assert not unexplained(text)
