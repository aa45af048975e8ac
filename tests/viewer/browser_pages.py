"""Browsers on a bare Chromium page, and what is read from it: shared by the tests of the page side."""

import base64
import json

import numpy as np

from lcmae_core.viewer.browser import AttentionBrowser
from lcmae_core.viewer.browser.export import html_page

BARE = """<!doctype html><meta charset="utf-8"><body style="margin:8px;background:white"><script type="module">
const states = %s;
const module = await import(URL.createObjectURL(new Blob([%s], { type: "text/javascript" })));
window.models = states.map((state) => {
  const on = {}, model = { sent: [], saves: 0, get: (name) => state[name], save_changes() { this.saves++; },
    set(name, value) { if (state[name] === value) return; state[name] = value;
      (on[`change:${name}`] ?? []).forEach((f) => f()); },
    send: (message) => model.sent.push(message),
    tell: (name, ...said) => (on[name] ?? []).forEach((f) => f(...said)),
    off() {}, on: (name, run) => (on[name] ??= []).push(run) };
  const el = document.createElement("section"); document.body.append(el);
  model.stop = module.default.render({ model, el });
  return model;
});
window.ready = true;
</script>"""


def state_of(browser: AttentionBrowser) -> dict:
    """What the page gets, with bytes as base64: the state of an exported file."""
    page = html_page(browser._scenes, browser.shown, browser.hover, browser.subject, browser.against)
    state = json.loads(page.partition('class="lcmae-state">')[2].partition("</script>")[0])
    strip = browser._canvas.strip
    return state | {
        "panel": browser._canvas.panel,
        "strip": strip | {"thumbs": base64.b64encode(strip["thumbs"]).decode()},
    }


def get(page, name: str, which: int = 0):
    """A value of the page's model."""
    return page.evaluate("([which, name]) => window.models[which].get(name)", [which, name])


def pixels(page, which: int = 0) -> np.ndarray:
    """The canvas as (h, w, 4)."""
    found = page.evaluate(
        """(which) => { const c = document.querySelectorAll('.lcmae-canvas')[which], d = c.getContext('2d')
             .getImageData(0, 0, c.width, c.height); let s = '';
             for (let i = 0; i < d.data.length; i += 32768) s += String.fromCharCode(...d.data.subarray(i, i + 32768));
             return [c.height, c.width, btoa(s)]; }""",
        which,
    )
    return np.frombuffer(base64.b64decode(found[2]), np.uint8).reshape(found[0], found[1], 4)


def words(page, which: int = 0) -> str:
    """The line under the figure."""
    return page.locator(".lcmae-words").nth(which).inner_text()


def picture_side(browser: AttentionBrowser, width: int = 1384) -> int:
    """Side in pixels of a picture in a wide page (see layoutOf)."""
    count = len(browser.scene.pictures)
    most = 300 if count == 1 else min(210, (width * 0.43 - 20) / 3)
    return int(min(most, (width - 10 * (count - 1)) / count))


def click_patch(
    page, browser: AttentionBrowser, row: int, col: int, which: int = 0, picture: int = 0, side: int = 0
) -> None:
    """Click the middle of a patch in one of the pictures."""
    canvas = page.locator(".lcmae-canvas").nth(which)
    side, (rows, cols) = side or picture_side(browser), browser.scene.grid
    tall = browser.scene.pictures[0].pixels.shape[0] / browser.scene.pictures[0].pixels.shape[1]
    place = {"x": picture * (side + 10) + (col + 0.5) * side / cols, "y": 18 + (row + 0.5) * side * tall / rows}
    canvas.click(position=place)
