"""The report is one file that loads nothing, in which equations are MathML and nothing of an output is executed."""

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from lcmae_core.viewer.figures import bars
from lcmae_core.viewer.report import build_report
from lcmae_core.viewer.report.markup import equation, markdown, plain, safe_html, terminal_text
from lcmae_core.viewer.report.results import number_text, value_text
from lcmae_core.viewer.tables import Table
from tests.execute.toys import PIXEL, code, make_notebook, prose

TABLE = '<style>x{}</style><table onclick="x()"><tr><th colspan="2">a &lt; b</th></tr></table><script>bad()</script>'


@pytest.fixture
def page(tmp_path: Path) -> str:
    """The report of one good notebook with every kind of output, and one that failed."""
    picture = nbformat.v4.new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"})
    table = nbformat.v4.new_output("execute_result", {"text/html": TABLE, "text/plain": "a"}, execution_count=1)
    stream = nbformat.v4.new_output("stream", name="stdout", text="\x1b[31m<b>red</b>\x1b[0m\n1 %\r2 %\n")
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "IntSlider()"}
    error = nbformat.v4.new_output(
        "error", ename="ValueError", evalue="broken", traceback=["\x1b[31mValueError\x1b[0m"]
    )
    cells = [code("figure()"), prose("The *loss* falls to $x_1$."), code("table()"), code("print()"), code("slider()")]
    cells[0].outputs, cells[2].outputs, cells[3].outputs = [picture], [table], [stream]
    cells[4].outputs = [nbformat.v4.new_output("display_data", widget)]
    text = "## Eq. 5\n\n$$\\frac{1}{|H|}\\sum_i \\lVert v_i \\rVert^2$$\n\n![far](https://a.b/c.png)"
    text += " [far](https://a.b/) <script>bad()</script>"
    make_notebook(tmp_path, "00_good", prose(text), *cells)
    failing = code("raise ValueError('broken')")
    failing.outputs = [error]
    make_notebook(tmp_path, "01_bad.failed", failing)
    (tmp_path / "results").mkdir()
    value = {"value": 0.123456, "unit": "px", "n": 3, "sd": 0.5, "paper": "<0.2", "note": "a & b"}
    for number in ("00", "01"):
        content = {
            "notebook": number,
            "profile": "quick",
            "commit": "abc",
            "device": "CPU",
            "values": {"loss_of": value},
        }
        (tmp_path / "results" / f"{number}.json").write_text(json.dumps(content))
    killed = {"status": "failed", "error": "ended by signal 9"}
    failed = {"status": "failed", "cell": 3, "error": "ValueError: broken", "seconds": 1.0}
    (tmp_path / "ledger.json").write_text(json.dumps({"01_bad": failed, "02_gone": killed}))
    return build_report(tmp_path).read_text()


class Reader(HTMLParser):
    """Collects headings and what tags refer to, and checks that tags are closed in order."""

    VOID = frozenset(("meta", "img", "link", "br", "hr", "input"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.references: list[str] = []
        self.alternatives: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.headings.append(int(tag[1]))
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action", "poster", "data")]
        if tag == "img":
            self.alternatives.append(dict(attrs).get("alt") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_nothing_is_loaded(page: str) -> None:
    references = read(page).references
    assert references
    assert all(r.startswith(("#", "data:")) for r in references)
    assert not re.search(r"(src|href)\s*=\s*[\"']?http", page)
    assert not re.search(r"url\(|@import", page)
    assert page.count("<script") == 1
    assert "bad()" not in re.sub(r"&lt;script&gt;bad\(\)", "", page)


def test_links_within_the_page_lead_somewhere(page: str) -> None:
    targets = [r[1:] for r in read(page).references if r.startswith("#")]
    assert all(f'id="{t}"' in page for t in targets if t != "nb-02")


def test_equations_are_mathml(page: str) -> None:
    assert "<mfrac>" in page
    assert 'alttext="\\frac{1}{|H|}' in page
    assert "$$" not in page


def test_headings_descend_in_order(page: str) -> None:
    headings = read(page).headings
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))


def test_figures_carry_their_caption(page: str) -> None:
    assert read(page).alternatives == ["The loss falls to x_1."] or read(page).alternatives == ["The loss falls to x1."]
    assert page.count("<figcaption>") == 1
    assert page.count("The <em>loss</em> falls") == 1


def test_outputs_are_shown_as_text(page: str) -> None:
    assert '<th colspan="2">a &lt; b</th>' in page
    assert "onclick" not in page
    assert "&lt;b&gt;red&lt;/b&gt;\n2 %<" in page
    assert "IntSlider" not in page
    assert page.count('<details class="code">') == 7


def test_failures_are_marked_and_their_old_numbers_too(page: str) -> None:
    assert "cell 3: ValueError: broken" in page
    assert "02_gone failed.</strong> ended by signal 9" in page
    assert page.count("from an earlier execution; the last one failed.") == 1


def test_results_stand_beside_the_papers(page: str) -> None:
    assert "0.1235 ± 0.5 px (n = 3)</td><td>&lt;0.2</td><td>a &amp; b</td>" in page
    assert "<dt>profile</dt><dd>quick</dd>" in page


def test_an_empty_folder_gives_a_report_that_says_so(tmp_path: Path) -> None:
    page = build_report(tmp_path).read_text()
    assert "No notebook has been executed" in page
    read(page)


def test_values() -> None:
    assert [number_text(v) for v in (0.123456, 3.0, 7, "yes", 1e-7, True)] == [
        "0.1235",
        "3",
        "7",
        "yes",
        "1e-07",
        "True",
    ]
    assert number_text(float("nan")) == "nan"
    assert number_text(float("inf")) == "inf"
    assert value_text({"value": 2}) == "2"


def test_markup() -> None:
    assert "<math" in equation(r"\hat{x}", block=False)
    assert equation(r"\frac{", block=False).startswith("<code>") or "<math" in equation(r"\frac{", block=False)
    assert markdown("# A\n\n## B") == "<h2>A</h2>\n<h3>B</h3>\n"
    assert '<img src="data:image/png;base64,AA" alt="p">' in markdown(
        "![p](attachment:a.png)", {"a.png": {"image/png": "AA"}}
    )
    assert "<table>" in markdown("| a |\n|---|\n| $x$ |\n")
    assert plain("**Bold** [link](http://a) $x$") == "Bold link x"
    assert len(plain("word " * 200)) < 310
    assert terminal_text("a\r\nb 1%\rb 2%\r\n") == "a\nb 2%"
    assert safe_html("<p>1 < 2<iframe>x</iframe></p>") == '<div class="wide"><p>1 &lt; 2</p></div>'


def test_studies_stand_before_the_notebooks(tmp_path: Path) -> None:
    drawn = [("Table 9", Table(["row"], [["x < y"]])), ("Fig. 9", bars({"a": 1.0}, "value"))]
    page = build_report(tmp_path, drawn).read_text()
    assert "<td>x &lt; y</td>" in page
    assert page.index("Table 9") < page.index("Fig. 9") < page.index("data:image/png;base64,", page.index("Fig. 9"))
    assert 'href="#nb-studies"' in page
    assert "nb-studies" not in build_report(tmp_path).read_text()
