"""A class or picture called like a piece of HTML goes through a whole notebook, its report and its browser export as
text: no page gets an element, an attribute or a script of it."""

from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from lcmae_core import cli
from lcmae_core.execute.discover import PACKAGE
from tests.execute.toys import code

IMG = "<img src=x onerror=alert(1)>"
SCRIPT = "</script><script>alert(2)<!--"
EXPORT = """for start, file in (({img!r}, "img.html"), ({script!r}, "script.html")):
    browser.show(image=next(i for i, name in enumerate(called) if name.startswith(start)))
    browser.save_html({folder!r} + "/" + file)"""


class Elements(HTMLParser):
    """Names of elements, of attributes, what scripts say, and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.sources: set[str] = set()
        self.text = ""
        self.scripts = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.sources |= {value or "" for name, value in attrs if name == "src"}

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts += data
        self.text += data


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Two classes: one is called like an element; of the other, folder and picture together end a script."""
    rng = np.random.default_rng(0)
    for name in [f"{IMG}/{i}.png" for i in range(8)] + [f"{SCRIPT}{i}.png" for i in range(8)]:
        path = tmp_path / "s" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (72, 72, 3), dtype=np.uint8)).save(path)
    return tmp_path / "s"


def refuse_any_of_it(page: str, *shown: str) -> None:
    found = Elements(page)
    assert not {name for name in found.attributes if name.startswith("on")}, found.attributes
    assert "x" not in found.sources
    for words in shown:
        assert words in found.text
    assert f"<script>{SCRIPT[17:]}" not in page
    assert IMG not in page


@pytest.mark.fault
def test_a_notebook_its_report_and_its_export_show_names_as_text(hostile, tmp_path):
    notebook = nbformat.read(PACKAGE.parent / "notebooks" / "05_attention_browser.ipynb", 4)
    notebook.cells.append(code(EXPORT.format(img=IMG, script=SCRIPT, folder=str(tmp_path))))
    (tmp_path / "n").mkdir()
    nbformat.write(notebook, tmp_path / "n" / "05_attention_browser.ipynb")
    words = ["--notebooks", str(tmp_path / "n"), "--data", f"folder:{hostile}", "--out", str(tmp_path / "o")]
    assert cli.main(["run", "05", "--profile", "smoke", *words]) == 0
    refuse_any_of_it((tmp_path / "o" / "report.html").read_text(), "alert(1)", "alert(2)")
    refuse_any_of_it((tmp_path / "img.html").read_text(), "alert(1)")
    refuse_any_of_it((tmp_path / "script.html").read_text(), "alert(2)")
    executed = nbformat.read(tmp_path / "o" / "05_attention_browser.ipynb", 4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    for page in (output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})):
        assert IMG not in page
