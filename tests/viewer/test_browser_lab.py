"""The browser in a real JupyterLab and, where that is installed, in Jupyter Notebook 7, driven in Chromium: a notebook
with two browsers on a small MAE.

Claims: a click changes the maps of one browser only and the kernel hears the patch; arrow keys and L reach the browser
and not the notebook; each control that asks the kernel changes what it says; painting a patch changes mask and maps; a
picture of one's own is opened by the kernel; it follows the dark theme; the picture hides while the widget
lives; after a restart of the kernel a control says that it is gone; saved, reloaded and exported the picture is what is
seen. One test, because starting the server takes most of its time.
"""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from lcmae_core.config import profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.viewer.browser import AttentionBrowser

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SETUP = """
import torch
from lcmae_core.config import profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.viewer.browser import AttentionBrowser
model = build_model(replace(profile("smoke"), depth=3, decoder_depth=2))
images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.5
"""
BROWSER = "b{0} = AttentionBrowser(model, images, query={0}); b{0}.add_class('browser-{0}'); b{0}"
HEARD = """
import ipywidgets
echo = ipywidgets.Label("nothing"); echo.add_class("heard")
def hear(change): echo.value = f"heard {b0.query} {b1.query} {b0.scene.words['part']}"
for b in (b0, b1): b.observe(hear)
echo
"""


PAGES = {"jupyterlab": "lab/tree", "notebook": "notebooks"}
"""Where an application, by its module, opens a file."""


@pytest.fixture(scope="module", params=PAGES)
def application(request: pytest.FixtureRequest) -> str:
    """The module that serves the page; Notebook 7 is tried where it is installed, and nothing depends on it."""
    if request.param == "notebook":
        pytest.importorskip("notebook", "7", reason="Jupyter Notebook 7 is not installed: pip install notebook")
    return request.param


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory, application: str) -> Path:
    """Two browsers and a label that says what the kernel hears."""
    folder = tmp_path_factory.mktemp(application)
    cells = [nbformat.v4.new_code_cell(c) for c in (SETUP, BROWSER.format(0), BROWSER.format(1), HEARD)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "two.ipynb")
    return folder / "two.ipynb"


@pytest.fixture(scope="module")
def lab(chromium: object, notebook: Path, application: str) -> Iterator[str]:
    """Address of the notebook in a server of our own on loopback, without news and with every cell in the page."""
    home = notebook.parent / "jupyter"
    for plugin, name, values in (
        ("apputils-extension", "notification", {"fetchNews": "false", "checkForUpdates": False}),
        ("notebook-extension", "tracker", {"windowingMode": "none"}),
    ):
        path = home / "settings" / "@jupyterlab" / plugin / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    names = ("CONFIG_DIR", "RUNTIME_DIR", "DATA_DIR")
    own = {f"JUPYTER_{name}": str(home / name.lower()) for name in names} | {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LCMAE_")} | own
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", application, "--allow-root", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
               "--port-retries=0", "--IdentityProvider.token=t", f"--ServerApp.root_dir={notebook.parent}",
               "--expose-app-in-browser"]  # fmt: skip
    with (notebook.parent / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(server, port, notebook.parent / "lab.log")
            yield f"http://127.0.0.1:{port}/{PAGES[application]}/{notebook.name}?token=t&reset"
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # the group that we started, kernels included
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(15)


def _wait_for(server: subprocess.Popen, port: int, log: Path) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token=t", timeout=2).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert server.poll() is None, log.read_text()[-3000:]
            time.sleep(0.25)
    raise AssertionError(log.read_text()[-3000:])


class Page:
    """The notebook in Chromium, all cells run."""

    def __init__(self, chromium, url: str):
        self.page = chromium.new_context(viewport={"width": 1500, "height": 1600}).new_page()
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error.stack)))
        self.page.goto(url)
        self.page.wait_for_function(
            "() => window.jupyterapp && window.jupyterapp.shell.currentWidget?.sessionContext", timeout=60_000
        )
        self.page.evaluate(
            """async () => { await jupyterapp.restored; const w = jupyterapp.shell.currentWidget;
               await w.context.ready; await w.sessionContext.ready;
               const wide = 'application:toggle-left-area'; // Notebook 7 has no such area
               if (jupyterapp.commands.hasCommand(wide)) await jupyterapp.commands.execute(wide);
               await jupyterapp.commands.execute('notebook:run-all-cells'); }"""
        )
        for which in (0, 1):
            self.page.wait_for_selector(f".browser-{which} .lcmae-canvas", timeout=90_000)

    def __call__(self, which: int, selector: str):
        return self.page.locator(f".browser-{which} {selector}")

    def words(self, which: int = 0) -> str:
        return self(which, ".lcmae-words").inner_text()

    def maps(self, which: int) -> str:
        return self(which, ".lcmae-canvas").evaluate("c => c.toDataURL()")

    def settled(self, locator) -> dict:
        """The place of an element once it has stopped moving."""
        locator.scroll_into_view_if_needed()
        last = None
        for _ in range(40):
            box = locator.bounding_box()
            if box == last:
                return box
            last = box
            self.page.wait_for_timeout(100)
        raise AssertionError("the element never came to rest")

    def click_patch(self, which: int, row: float, col: float) -> None:
        """Click a patch of the original picture, 8 x 8 patches, at the left of the canvas."""
        width = self.settled(self(which, ".lcmae-canvas"))["width"]
        side = int(min(210, (width * 0.43 - 20) / 3)) if width >= 980 else int(min(240, (width - 20) / 3))
        self(which, ".lcmae-canvas").click(position={"x": (col + 0.5) * side / 8, "y": 18 + (row + 0.5) * side / 8})

    def hears(self, what: str) -> None:
        self.page.wait_for_function(
            "what => document.querySelector('.heard').innerText.includes(what)", arg=what, timeout=10_000
        )

    def says(self, what: str, which: int = 0, selector: str = ".lcmae-words") -> None:
        self.page.wait_for_function(
            "([at, what]) => document.querySelector(at)?.innerText.includes(what)",
            arg=[f".browser-{which} {selector}", what],
            timeout=10_000,
        )

    def kernel(self, name: str, kind: str = "input"):
        return self(0, f".lcmae-kernel-{name}{' ' + kind if kind else ''}")


def test_in_jupyter(chromium, lab, notebook):
    page = Page(chromium, lab)
    _clicks_and_keys(page)
    _controls(page)
    _painting(page)
    _own_picture(page, notebook.parent)
    _theme(page)
    own = "/static/notebook/"  # Notebook 7.6 has an error of its own while it starts
    assert not [error for error in page.errors if own not in error or "blob:" in error]
    _restarted(page)
    _reloaded(page, lab)
    _exported(chromium, notebook)
    page.page.context.close()


def _clicks_and_keys(page: Page) -> None:
    first, second = page.maps(0), page.maps(1)
    page.click_patch(0, 2, 5)
    page.hears("heard 21 1 ")
    assert page.maps(0) != first
    assert page.maps(1) == second, "the other browser does not move"
    cell = "() => { const n = jupyterapp.shell.currentWidget.content; return [n.activeCellIndex, n.widgets.length]; }"
    active = page.page.evaluate(cell)
    canvas = page(0, ".lcmae-canvas")
    for key in ("ArrowDown", "l", "ArrowRight"):
        page.page.keyboard.press(key)
    page.hears("heard 30 1 ")
    assert "compared with the locked row 4, column 6" in page.words()
    page.page.keyboard.press("Escape")
    page.page.wait_for_function(
        "() => !document.querySelector('.browser-0 .lcmae-words').innerText.includes('compared')"
    )
    page.page.keyboard.press("b")  # in JupyterLab: a new cell below
    assert page.page.evaluate(cell) == active, "the notebook did not take the keys"
    assert canvas.evaluate("c => c === document.activeElement")
    assert page.maps(1) == second


def _controls(page: Page) -> None:
    """Each control of the kernel changes the words and the figure, in its own browser."""
    other = page.words(1)

    def changes(said: str, use) -> None:
        before = page.maps(0)
        assert said not in page.words()
        use()
        page.says(said)
        page.page.wait_for_function(
            "before => document.querySelector('.browser-0 .lcmae-canvas').toDataURL() !== before",
            arg=before,
            timeout=10_000,
        )

    def write(name: str, value: str) -> None:
        page.kernel(name).fill(value)
        page.kernel(name).press("Enter")

    changes("image 2", lambda: page.kernel("image", ".lcmae-thumb >> nth=1").click())
    changes("Layer 2,", lambda: write("layers", "2"))
    changes("heads 1, 3", lambda: write("heads", "1, 3"))
    changes("32 of 64 patches hidden", lambda: write("ratio", "0.5"))
    changes("seed 7", lambda: write("seed", "7"))
    changes("seed 8", lambda: page.kernel("redraw", "").click())
    write("heads", "9")
    page.says("expected heads from 1 to 4", selector=".lcmae-kernel-message")
    changes("encoder without a mask", lambda: page.kernel("part", "select").select_option("encoder"))
    changes("encoder on 32 visible", lambda: page.kernel("masked").check())
    changes("decoder under a mask", lambda: page.kernel("part", "select").select_option("decoder"))
    page.hears("decoder under a mask")
    assert page.words(1) == other


def _painting(page: Page) -> None:
    page.kernel("paint", "").click()
    page.page.wait_for_selector(".browser-0 .lcmae-painting")
    before, hidden = page.maps(0), _hidden(page.words())
    page.click_patch(0, 0, 0)
    page.says("painted by hand")
    assert abs(_hidden(page.words()) - hidden) == 1
    assert page.maps(0) != before
    page.kernel("paint", "").click()


def _own_picture(page: Page, folder: Path) -> None:
    """A file of several messages goes to the kernel and comes back as maps; a broken one is a line."""
    other = page.words(1)
    noise = np.random.default_rng(0).integers(0, 256, (1100, 1000, 3), np.uint8)
    Image.fromarray(noise).save(folder / "own <b>picture.png")
    assert (folder / "own <b>picture.png").stat().st_size > 3e6
    (folder / "broken.png").write_bytes(b"nothing")
    page(0, ".lcmae-file").set_input_files(folder / "own <b>picture.png")
    page.says("own <b>picture.png: decoder")
    assert page(0, ".lcmae-thumb").count() == 3
    assert page(1, ".lcmae-thumb").count() == 2
    page(0, ".lcmae-file").set_input_files(folder / "broken.png")
    page.says("cannot read broken.png: the content is no known image format", selector=".lcmae-kernel-message")
    page.kernel("image", ".lcmae-thumb >> nth=0").click()
    page.says("image 1: decoder")
    page.page.wait_for_function("() => !document.querySelector('.browser-0 .lcmae-kernel-message').innerText")
    assert page.words(1) == other


def _hidden(words: str) -> int:
    return int(words.partition("decoder under a mask (")[2].split()[0])


def _theme(page: Page) -> None:
    ink = "() => getComputedStyle(document.querySelector('.browser-0 .lcmae-browser')).color"
    light, drawn = page.page.evaluate(ink), page.maps(0)
    page.page.evaluate("() => jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })")
    page.page.wait_for_function(f"light => ({ink})() !== light", arg=light, timeout=10_000)
    page.page.wait_for_function(
        "drawn => document.querySelector('.browser-0 .lcmae-canvas').toDataURL() !== drawn", arg=drawn, timeout=10_000
    )


STILL = ".jp-RenderedImage img"


def _restarted(page: Page) -> None:
    """The kernel is another one: maps are still drawn on the page, what needs the kernel says so."""
    assert page.page.locator(STILL).count() == 2
    assert not page.page.locator(STILL).first.is_visible(), "one figure, not two, while the widget lives"
    page.page.evaluate(
        """async () => { await jupyterapp.commands.execute('docmanager:save');
           await jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart(); }"""
    )
    page.kernel("redraw", "").click()
    page.page.wait_for_function(
        "() => document.querySelector('.browser-0 .lcmae-kernel-message').innerText.includes('run the cell again')",
        timeout=30_000,
    )
    before = page.maps(0)
    page(0, ".lcmae-canvas").press("ArrowDown")
    assert page.maps(0) != before


def _reloaded(page: Page, url: str) -> None:
    """The notebook as it was saved, opened with a new kernel and nothing run: the picture is there, and drawn."""
    page.page.goto(url)
    page.page.wait_for_selector(STILL, timeout=60_000)
    page.page.wait_for_function(f"() => document.querySelector('{STILL}').naturalWidth > 900")
    shown = page.page.locator(STILL).first
    shown.scroll_into_view_if_needed()
    assert shown.is_visible()
    assert page.page.locator(".lcmae-canvas").count() == 0
    _colourful(shown)


def _exported(chromium, notebook: Path) -> None:
    """nbconvert's HTML of the same file, without any widget."""
    from nbconvert import HTMLExporter

    html = notebook.with_suffix(".html")
    html.write_text(HTMLExporter(embed_images=True).from_filename(str(notebook))[0])
    context = chromium.new_context(offline=True, viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.goto(html.as_uri(), wait_until="commit")
    page.wait_for_selector("img", timeout=30_000)
    assert page.locator("img").count() == 2
    _colourful(page.locator("img").first)
    context.close()


def _colourful(shown) -> None:
    """A screenshot of an element: photographs and maps, not an empty frame."""
    with Image.open(io.BytesIO(shown.screenshot())) as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").quantize(64).getcolors()) > 30


def test_the_notebooks_model_is_the_one_here(photos):
    """The scenario above counts on these facts."""
    model = build_model(replace(profile("smoke"), depth=3, decoder_depth=2))
    browser = AttentionBrowser(model, photos)
    assert browser.scene.grid == (8, 8)
    assert np.count_nonzero(browser.scene.hidden) == 48
