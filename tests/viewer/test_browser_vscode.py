"""The browser on a page that imitates VS Code's outputs: VS Code itself cannot be driven here.

What is imitated: a sandboxed frame, `--vscode-*` colours and the class of <body> by theme, the variables of a light
JupyterLab that its widget renderer brings along in every theme, its white ground under every widget, and a picture and
a widget as two outputs of a cell. Claims: every word is read on its ground in each theme, whatever the system prefers;
the maps are redrawn when the theme changes; the picture hides while the widget lives; plain keys stay in the figure.
"""

import html
import json
import re

import pytest

from lcmae_core.viewer.browser import AttentionBrowser
from lcmae_core.viewer.browser.export import MODULE, STYLE
from tests.viewer.browser_pages import BARE, pixels, state_of

pytestmark = pytest.mark.slow
THEMES = {  # ground, ink, words of less weight, error, focus: Dark Modern, Light Modern and the two of high contrast
    "vscode-dark": ("#1f1f1f", "#cccccc", "#9d9d9d", "#f85149", "#0078d4"),
    "vscode-light": ("#ffffff", "#3b3b3b", "#3b3b3b", "#c72e0f", "#005fb8"),
    "vscode-high-contrast": ("#000000", "#ffffff", "#ffffff", "#f48771", "#f38518"),
    "vscode-high-contrast vscode-high-contrast-light": ("#ffffff", "#292929", "#292929", "#b5200d", "#006bbd"),
}
NAMES = ("editor-background", "editor-foreground", "descriptionForeground", "errorForeground", "focusBorder")
ALWAYS = """:root { --jp-ui-font-color1: rgba(0,0,0,.8); --jp-ui-font-color2: rgba(0,0,0,.5); --jp-layout-color1: white;
  --jp-layout-color2: #eee; --jp-border-color1: #9e9e9e; --jp-brand-color1: #2196f3; --jp-error-color1: #f44336; }
body { background: var(--vscode-editor-background); color: var(--vscode-editor-foreground); }
.cell-output-ipywidget-background { background: white !important; }"""
OUTPUTS = """<div class="cell_container"><div class="output_container"><div class="output">
<img src="data:image/png;base64,%s"></div></div>
<div class="output_container"><div class="output"><div class="cell-output-ipywidget-background">
</div></div></div></div>"""
CONTRASTS = """() => {
  const rgba = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1]; };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { if (!e) return [255, 255, 255]; const c = rgba(getComputedStyle(e).backgroundColor);
    return c[3] === 1 ? c.slice(0, 3) : over(c, ground(e.parentElement)); };
  const spoken = [...document.querySelectorAll('.lcmae-browser *')].filter((e) => e.checkVisibility() && !e.disabled
    && (e.matches('input:not([type=checkbox])') || [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())));
  return spoken.map((e) => { const under = ground(e), ink = over(rgba(getComputedStyle(e).color), under);
    const [high, low] = [light(ink), light(under)].sort((a, b) => b - a);
    return [(high + 0.05) / (low + 0.05), e.className || e.tagName]; });
}"""


def _variables(theme: str) -> str:
    return "; ".join(f"--vscode-{name}: {colour}" for name, colour in zip(NAMES, THEMES[theme]))


def _frame(browser: AttentionBrowser, theme: str) -> str:
    """The frame that holds the outputs."""
    still = browser.figure()._repr_mimebundle_()[0]["image/png"]
    page = BARE % (json.dumps([state_of(browser)]).replace("<", "\\u003c"), json.dumps(MODULE).replace("</", "<\\/"))
    page = re.sub(
        "<body[^>]*>", lambda _: f'<body class="{theme}"><style>{ALWAYS}{STYLE}</style>{OUTPUTS % still}', page, count=1
    )
    page = page.replace(
        "document.body.append(el)", "document.querySelector('.cell-output-ipywidget-background').append(el)"
    )
    return page.replace("<!doctype html>", f'<!doctype html><html style="{_variables(theme)}">')


@pytest.fixture
def vscode(chromium, make):
    """The browser in the frame, by theme and by what the system prefers; with the page."""
    contexts = []

    def go(theme: str, scheme: str):
        context = chromium.new_context(viewport={"width": 1100, "height": 1000}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        inner = html.escape(_frame(make(query=20), theme), quote=True)
        page.set_content(
            '<body style="margin:0"><iframe sandbox="allow-scripts allow-same-origin allow-downloads" '
            f'style="border:0;width:100%;height:1000px" srcdoc="{inner}"></iframe>'
        )
        frame = page.frames[1]
        frame.wait_for_function("window.ready")
        return page, frame

    yield go
    for context in contexts:
        assert not [error for page in context.pages for error in page.errors]
        context.close()


def _turn(frame, theme: str) -> None:
    """What VS Code does when its theme is changed."""
    frame.evaluate(
        "([style, theme]) => { document.documentElement.style = style; document.body.className = theme; }",
        [_variables(theme), theme],
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_is_read_on_its_ground(vscode, scheme):
    _, frame = vscode("vscode-light", scheme)
    frame.evaluate("document.querySelector('.lcmae-kernel-message').textContent = 'no such layer'")
    pale, wrong = {}, {}
    for theme in THEMES:
        _turn(frame, theme)
        found = frame.evaluate(CONTRASTS)
        assert len(found) > 20
        pale[theme] = [(name, round(ratio, 2)) for ratio, name in found if ratio < 4.5]
        menus = frame.evaluate("getComputedStyle(document.querySelector('.lcmae-browser')).colorScheme")
        wrong[theme] = menus != ("light" if theme.endswith("light") else "dark")
    assert not any(pale.values()), pale
    assert not any(wrong.values()), "menus and boxes in the theme's light"


def test_a_change_of_theme_is_drawn_and_one_figure_is_seen(vscode):
    _, frame = vscode("vscode-light", "light")
    assert not frame.locator("img").is_visible(), "one figure, not two, while the widget lives"
    light = pixels(frame)
    _turn(frame, "vscode-dark")
    frame.wait_for_timeout(200)
    dark = pixels(frame)
    assert light.shape == dark.shape
    written = (light[..., 3] > 200) & (light[..., :3] == 0x3B).all(-1)
    assert written.sum() > 100, "words in the ink of the light theme"
    assert (dark[written][:, :3] > 0x90).all(), "the same words in the ink of the dark one"
    frame.evaluate("window.models[0].stop()")
    assert frame.locator("img").is_visible(), "the picture is back when the widget is gone"


def test_plain_keys_do_not_reach_the_notebook(vscode):
    page, frame = vscode("vscode-dark", "dark")
    frame.evaluate("window.heard = []; window.addEventListener('keydown', (event) => window.heard.push(event.key))")
    frame.locator(".lcmae-canvas").focus()
    for key in ("ArrowDown", "l", "b", "Control+s"):
        page.keyboard.press(key)
    assert frame.evaluate("window.models[0].get('query')") == 28
    assert frame.evaluate("window.heard") == ["Control", "s"], "what the notebook hears"
    assert not frame.locator(".lcmae-canvas").evaluate("c => c.hasAttribute('data-lm-suppress-shortcuts')")
