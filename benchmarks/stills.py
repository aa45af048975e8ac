"""Draws the README's stills: the end of `make run`, the top of its report, and the attention browser.

    make run | tee run.txt
    python -m benchmarks.stills --run run.txt

Chromium shows the three pages. The browser is the demonstration model's with the embedded photographs; its controls
are those of a live kernel.
"""

import argparse
import base64
import html
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "outputs/reference"
WIDTH, WIDE, TALL, MOST_KB = 1000, 1240, 620, 250
"""Pixels across (about what GitHub gives a README; the browser has its maps beside its pictures in 1200), height of the
report's top, and the largest file."""
ENLARGED = 1
"""The map that is shown large: layer 1, head 2."""
LINES = 32
"""Last lines of the terminal that are shown."""
TERMINAL = """<!doctype html><meta charset="utf-8"><style>body { margin: 0; background: #1b1f24; }
pre { margin: 0; padding: 14px 18px; font: 14px/1.4 "DejaVu Sans Mono", monospace; color: #e6edf3; width: fit-content; }
b { color: #7ee787; font-weight: normal; }</style><pre>%s</pre>"""


def main() -> None:
    """Draw what there is something to draw of."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, help="what `make run` wrote")
    parser.add_argument("--report", type=Path, default=ROOT / "outputs/quick/report.html", help="its report")
    options = parser.parse_args()
    with chromium() as show, tempfile.TemporaryDirectory() as folder:
        if options.run:
            page = Path(folder, "terminal.html")
            page.write_text(TERMINAL % ended(options.run.read_text(encoding="utf-8", errors="replace")))
            keep(show(page, "pre"), "run.png")
        if options.report.exists():
            keep(show(options.report, None), "report.png")
        keep(show(browser_page(Path(folder)), "main"), "browser.png")


def ended(said: str) -> str:
    """The last lines of a terminal's text as HTML, without colours and bars that were drawn over."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.replace("\r\n", "\n"))
    lines = [line.rpartition("\r")[2].rstrip() for line in plain.splitlines()]
    lines = [line for line in lines if line and not line.startswith("Script ") and "━" not in line][-LINES:]
    return "\n".join(["<b>$ make run</b>", "...", *map(html.escape, lines)])


def browser_page(folder: Path) -> Path:
    """The browser of notebook 05: a hidden patch of the cat, one map enlarged, with the controls of a live kernel."""
    from lcmae_core.config import profile
    from lcmae_core.data.photos import NAMES, whole_photographs
    from lcmae_core.studies.zoo import open_model
    from lcmae_core.viewer.browser import AttentionBrowser

    subject = open_model("demo", profile("quick"), "quick")
    photos = whole_photographs(subject.settings.data.image_size)
    look = {"image": NAMES.index("cat"), "layers": [0, 1, 4], "query": (6, 6)}
    browser = AttentionBrowser(subject.model, photos, names=NAMES, title=subject.origin, **look)
    saved = browser.save_html(folder / "browser.html").read_text(encoding="utf-8")
    mark = 'class="lcmae-state">'
    before, after = saved.split(mark, 1)
    state, after = after.split("</script>", 1)
    canvas: Any = browser.children[0]
    strip = canvas.strip | {"thumbs": base64.b64encode(canvas.strip["thumbs"]).decode("ascii")}
    told = json.loads(state) | {"panel": canvas.panel, "strip": strip, "large": ENLARGED}
    page = folder / "controls.html"
    page.write_text(
        f"{before}{mark}{json.dumps(told).replace('<', chr(92) + 'u003c')}</script>{after}", encoding="utf-8"
    )
    return page


@contextmanager
def chromium() -> Iterator[Callable[[Path, str | None], bytes]]:
    """Shows a page: an element of it, or its top, as the bytes of a PNG."""
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])

        def show(page: Path, element: str | None) -> bytes:
            size = {"width": WIDE if element == "main" else WIDTH, "height": TALL}
            opened = browser.new_page(viewport=size, color_scheme="light")
            opened.goto(page.resolve().as_uri())
            opened.add_style_tag(content="main { padding: 12px; }")  # else the browser touches the picture's edge
            opened.wait_for_timeout(500)
            return opened.locator(element).screenshot() if element else opened.screenshot()

        yield show
        browser.close()


def keep(png: bytes, name: str) -> None:
    """Write a still: as it is where that is small, else in 256 colours, spread evenly over photographs and text."""
    image, packed = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    image.save(packed, "PNG", optimize=True)
    if packed.tell() > MOST_KB * 1000:
        packed = io.BytesIO()
        image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            packed, "PNG", optimize=True
        )
    if packed.tell() > MOST_KB * 1000:
        sys.exit(f"{name}: {packed.tell() // 1000} kB, expected at most {MOST_KB}")
    (PICTURES / name).write_bytes(packed.getvalue())
    print(f"{name}: {image.width} x {image.height}, {packed.tell() // 1000} kB")


if __name__ == "__main__":
    main()
