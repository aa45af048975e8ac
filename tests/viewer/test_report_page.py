"""The report in Chromium, wide, narrow and printed.

Claims: every link of the contents lands on its heading, also when no picture has been drawn yet; pictures say the size
that they take, stand at twice the pixels, and panels of one row wrap; letters in figures are at least 9 px high on a
page of 1400 px; nothing sticks out at 420 px; a click enlarges a picture, Escape closes it; in print nothing is folded
away that was not folded code; equations bring in nothing but equations.
"""

import base64
import io
import json
from pathlib import Path
from uuid import uuid4

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

from lcmae_core.execute.discover import NotebookFile
from lcmae_core.viewer.figures import Picture, curves, heat_maps, image_rows
from lcmae_core.viewer.figures.paper import cuts, laid_out, shown_size
from lcmae_core.viewer.report import build_report
from lcmae_core.viewer.report.highlights import HIGHLIGHTS
from lcmae_core.viewer.report.markup import equation, markdown
from lcmae_core.viewer.report.page import Score, Scoreboard
from lcmae_core.viewer.report.pictures import figure_of
from lcmae_core.viewer.report.results import CHOSEN, chosen_rows
from tests.execute.toys import code, make_notebook, prose

ROOT = Path(__file__).parents[2]
LINE_OF = {"a curve with a long name": ([1.0, 2, 3], [1.0, 2, 3]), "two": ([1.0, 2, 3], [3.0, 1, 2])}


def rows_of_panels() -> Picture:
    """Five panels of curves and a legend: 1800 px wide."""
    return curves({f"panel {i}": LINE_OF for i in range(5)}, "step", "loss")


def grid_of_pictures() -> Picture:
    """Two labelled rows of pictures."""
    return image_rows({"seen": np.zeros((6, 8, 8, 3)), "made": np.ones((6, 8, 8, 3)) / 2})


def cuts_of(figure: Picture) -> list[float]:
    """Where a figure may be cut, once it is laid out."""
    return cuts(figure, laid_out(figure))


def drawn(figure: Picture) -> nbformat.NotebookNode:
    """A cell with a figure as a kernel sends it."""
    data, metadata = figure._repr_mimebundle_()
    cell = code("figure()")
    cell.outputs = [nbformat.v4.new_output("display_data", data, metadata=metadata)]
    return cell


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of four notebooks with many figures and a scoreboard."""
    out = tmp_path_factory.mktemp("report")
    panels, pictures = drawn(rows_of_panels()), drawn(grid_of_pictures())
    again = lambda cell: nbformat.from_dict(cell | {"id": uuid4().hex[:8]})  # noqa: E731
    for number in ("00", "01", "02", "03"):
        cells = [c for i in range(4) for c in (again(panels), prose(f"Caption {i}."), again(pictures))]
        make_notebook(out, f"{number}_toy", *cells)
    (out / "results").mkdir()
    values = {f"value_{i}": {"value": i / 3, "note": "a long note about this number " * 3} for i in range(60)}
    (out / "results" / "00.json").write_text(json.dumps({"notebook": "00", "profile": "quick", "values": values}))
    board = Scoreboard(("quick", "desk"), (Score("C1", "it holds", ("sign right", "reproduced")),) * 12)
    return build_report(out, board=board)


@pytest.fixture
def show(chromium, report):
    """Open the report at a width."""
    contexts = []

    def go(width: int):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce"))
        page = contexts[-1].new_page()
        page.goto(report.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 420])
def test_every_link_of_the_contents_lands_on_its_heading(show, width):
    page = show(width)
    links = page.locator("nav a")
    assert links.count() == 6
    for index in range(links.count()):
        page.evaluate("scrollTo(0, 0)")
        target = links.nth(index).get_attribute("href")
        links.nth(index).click()
        page.wait_for_timeout(150)
        top = page.evaluate(f"document.querySelector('{target}').getBoundingClientRect().top")
        height = page.evaluate("document.documentElement.scrollHeight - innerHeight - scrollY")
        assert -1 <= top <= 40 or height <= 1, (target, top)


@pytest.mark.slow
def test_nothing_moves_before_the_pictures_are_drawn(show):
    """Places of headings with every picture taken away but its size: what the browser knows at first."""
    page = show(1400)
    places = "() => [...document.querySelectorAll('h2')].map((h) => Math.round(h.getBoundingClientRect().top))"
    before = page.evaluate(places)
    page.evaluate("document.querySelectorAll('figure img').forEach((i) => i.removeAttribute('src'))")
    page.add_style_tag(content="figure img { aspect-ratio: attr(width type(<number>)) / attr(height type(<number>)) }")
    assert np.abs(np.subtract(page.evaluate(places), before)).max() <= 15
    page.evaluate("document.querySelectorAll('figure img').forEach((i) => { i.removeAttribute('height') })")
    assert np.abs(np.subtract(page.evaluate(places), before)).max() > 50, "without the sizes headings would move"


SIZES = """() => [...document.querySelectorAll('figure[data-text]')].flatMap((f) => [...f.querySelectorAll('img')].map(
  (i) => [i.getBoundingClientRect().width / i.getAttribute('width') * f.dataset.text,
    i.naturalWidth / i.getAttribute('width'), i.getBoundingClientRect().right]))"""


@pytest.mark.slow
def test_letters_are_9_px_and_pixels_twice(show):
    found = show(1400).evaluate(SIZES)
    assert len(found) >= 8
    assert min(letters for letters, *_ in found) >= 9
    assert min(pixels for _, pixels, _ in found) > 1.95


@pytest.mark.slow
def test_panels_wrap_and_nothing_sticks_out(show):
    tops = """() => [...document.querySelector('#nb-00 ~ figure').querySelectorAll('img')].map(
      (i) => Math.round((i.offsetTop + i.offsetHeight / 2) / 30))"""
    page = show(1400)
    assert len(set(page.evaluate(tops))) in (2, 3), "panels beside one another, the legend in the middle"
    narrow = show(420)
    assert len(set(narrow.evaluate(tops))) >= 5, "one below the other"
    assert narrow.evaluate("document.documentElement.scrollWidth") == 420
    assert min(letters for letters, *_ in narrow.evaluate(SIZES)) > 7.9


@pytest.mark.slow
def test_a_click_enlarges_and_escape_closes(show):
    page = show(420)
    page.locator("button.enlarge").first.focus()
    page.keyboard.press("Enter")
    large = page.locator("dialog img").first
    assert large.bounding_box()["width"] == pytest.approx(1.6 * float(large.get_attribute("width")) / 1.6, abs=1)
    assert large.bounding_box()["width"] > 1.3 * page.locator("button.enlarge img").first.bounding_box()["width"]
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


@pytest.mark.slow
def test_the_full_table_is_folded_and_prints_are_whole(show):
    page = show(1400)
    assert page.locator("details.all table").is_hidden()
    assert page.locator("table.chosen").is_visible()
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.locator("figure img").first.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_cuts_stand_between_panels_and_nowhere_else():
    assert len(cuts_of(rows_of_panels())) == 5, "five panels and a legend"
    assert cuts_of(grid_of_pictures()) == []
    figure = heat_maps({"a": np.eye(3), "b": np.eye(3)}, "weight", (0, 1))
    png = figure._repr_png_()
    shown = figure_of("image/png", base64.b64encode(png).decode(), "two maps")
    size = figure._repr_mimebundle_()[1]["image/png"]
    assert len(shown.pieces) == 2, "the colour bar stays with the second map"
    assert abs(sum(piece.width for piece in shown.pieces) - size["width"]) <= 1
    assert all(abs(piece.height - size["height"]) <= 1 for piece in shown.pieces), "a rounding"
    curved = figure_of("image/png", base64.b64encode(rows_of_panels()._repr_png_()).decode(), "curves")
    assert curved.pieces[-1].height < 0.6 * curved.pieces[0].height, "a legend leaves no hole where it wraps"


def test_drawings_have_256_colours_and_photographs_all(generator):
    noisy = image_rows({"noise": np.stack([torch.rand(64, 64, 3, generator=generator).numpy()] * 6)})
    for figure, mode in ((rows_of_panels(), "P"), (noisy, "RGBA")):
        png = figure._repr_png_()
        with Image.open(io.BytesIO(png)) as image:
            assert image.mode == mode
            assert float(image.info["text"]) > 9
            assert len(image.info["panels"].split()) == len(cuts_of(figure)) > 0
            assert round(image.info["dpi"][0]) == 192
        shown, size = figure_of("image/png", base64.b64encode(png).decode(), ""), shown_size(png)
        assert abs(sum(piece.width for piece in shown.pieces) - size["width"]) <= len(shown.pieces) / 2


def test_pictures_of_others_keep_their_pixels():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"></svg>'
    assert figure_of("image/svg+xml", svg, "").pieces[0][1:] == (40, 20)
    assert figure_of("image/png", base64.b64encode(b"no picture").decode(), "").pieces[0][1:] == (None, None)


HOSTILE = (
    r"\text{<img src=x onerror=alert(1)>}", r"\href{javascript:alert(1)}{x}",
    r"\text{</math><script>alert(1)</script>}",
    r"\mbox{&lt;img src=x onerror=alert(1)&gt;}", r"\style{background:url(http://a.b)}{x}", r"\class{x}{y}",
    r"\text{</mtext></mrow></math><iframe src=javascript:alert(1)></iframe>}", r"\text{<!--}", r"\text{<math href=x>}",
)  # fmt: skip


@pytest.mark.slow
def test_equations_bring_in_nothing_but_equations(chromium):
    allowed = {"math", "mrow", "mtext", "mi", "mstyle", "code", "p", "div", "span"}
    context = chromium.new_context()
    page = context.new_page()
    page.on("dialog", lambda _: pytest.fail("a script ran"))
    for latex in HOSTILE:
        page.set_content(f"<main>{equation(latex, block=False)}{markdown(f'$${latex}$$ and ${latex}$')}</main>")
        tags = page.evaluate("[...document.querySelectorAll('main *')].map((e) => e.localName)")
        names = page.evaluate("[...document.querySelectorAll('main *')].flatMap((e) => e.getAttributeNames())")
        assert set(tags) <= allowed, (latex, tags)
        assert not {n for n in names if n.startswith("on")} | ({"href", "style", "src", "id"} & set(names)), (
            latex,
            names,
        )
    page.set_content(equation(HOSTILE[0], block=False))
    assert "<img src=x" in page.evaluate("document.body.innerText.replaceAll('\\u00a0', ' ')"), (
        "it stands there as text"
    )
    context.close()


def test_what_is_chosen_is_in_the_notebooks():
    """The names that notebooks record, and the cells of the pictures."""
    sources = {n.name[:2]: n for n in (NotebookFile(p) for p in sorted((ROOT / "notebooks").glob("*.ipynb")))}
    for chosen in HIGHLIGHTS:
        assert chosen.cell in {cell["id"] for cell in sources[chosen.notebook].content["cells"]}, chosen
    assert len(CHOSEN) == 10
    assert {chosen.notebook for chosen in CHOSEN} <= set(sources)


def test_ten_numbers_of_a_whole_run_and_the_first_of_a_part():
    entry = {"value": 0.5, "unit": "px"}
    of = {i: {c.name: entry for c in CHOSEN if int(c.notebook) == i} for i in range(11)}
    every = [{"notebook": f"{i:02d}", "values": {"first": entry} | of[i]} for i in range(11)]
    assert len(chosen_rows(every)) == 10
    assert chosen_rows(every[7:8]) == [("07", "first", "0.5 px", "")]


def test_sentences_are_worked_out_from_the_numbers():
    values = {"s_attn_1": 0.2, "s_attn_2": 0.9, "s_attn_3": 0.1, "s_attn_highest": 2.0, "mean_cosine_c": 0.5,
              "mean_cosine_g": 0.4, "model": "encoder of X", "near_1_layer_1": 0.8, "near_1_all_layers": 0.9,
              "distance_MAE": 30.0, "distance_DINO": 20.0, "distance_MAE_renormalized": 1.0,
              "distance_ratio_0.5": 2.0}  # fmt: skip
    said = {chosen.notebook: chosen.finding(values) for chosen in HIGHLIGHTS}
    assert "most alike in decoder layer 2 (S_attn 0.90) and least in layer 3 (0.10)" in said["04"]
    assert "they have not collapsed" in said["03"]
    assert "0.8 times as much" in said["05"]
    assert "MAE 30.0 px, DINO 20.0 px: DINO is nearest" in said["06"]
    assert all(sentence.count(". ") == 0 for sentence in said.values())
