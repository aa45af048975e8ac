"""The browser's page side, in a bare Chromium page with a model that only remembers: no Jupyter, no kernel.

Claims: a click in a picture or a map, the arrow keys and the pointer move the query, without wrapping round; the pixels
are the colours of the weights; the line in words equals Python's; every control changes what it says; lock compares,
Esc unlocks; hidden places of a masked encoder cannot be a query; painting asks the kernel; two browsers on one page do
not meet; exported files work from disk with the network off; a click is drawn in 10 ms or less at 8 x 16 x 196.
"""

import os
import statistics

import numpy as np
import pytest
import torch
from PIL import Image

from lcmae_core.config import profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.viewer.browser import AttentionBrowser
from lcmae_core.viewer.browser.blocks import weights_of
from lcmae_core.viewer.browser.export import MODULE, colours, payload
from lcmae_core.viewer.browser.words import describe
from tests.viewer.browser_pages import click_patch, get, picture_side, pixels, state_of, words

pytestmark = pytest.mark.slow


def test_clicks_and_keys_move_the_query_without_wrapping(make, show):
    browser = make(query=0)
    page = show(browser)
    before = pixels(page)
    click_patch(page, browser, 2, 5)
    assert get(page, "query") == 21
    assert not np.array_equal(before[:, 700:], pixels(page)[:, 700:]), "the maps changed"
    click_patch(page, browser, 0, 7, picture=2)
    assert get(page, "query") == 7
    canvas = page.locator(".lcmae-canvas")
    click_patch(page, browser, 7, 0, picture=1)
    for key in ("ArrowLeft", "ArrowDown"):
        canvas.press(key)
        assert get(page, "query") == 56
    click_patch(page, browser, 0, 7)
    for key, query in (("ArrowRight", 7), ("ArrowUp", 7), ("ArrowDown", 15), ("ArrowLeft", 14)):
        canvas.press(key)
        assert get(page, "query") == query
    page.wait_for_function("window.models[0].saves > 0")
    assert page.evaluate("document.activeElement.className").startswith("lcmae-canvas")
    assert "row 2, column 7" in page.locator(".lcmae-live").inner_text()
    assert "row 2, column 7" in canvas.get_attribute("aria-label")


INSIDE = """async ([source, scene, queries, modes]) => {
  const m = await import(URL.createObjectURL(new Blob(
    [source + "\\nexport { layoutOf, readScene, weightsOf };"], { type: "text/javascript" })));
  const s = m.readScene(scene), p = m.layoutOf(s, 1384, "each", 1);
  const found = queries.flatMap((query) => modes.map((mode) => m.weightsOf(s, query, mode)));
  return { w: p.w, h: p.h, at: Array.from({ length: p.cells }, (_, i) => p.blocks[0].at(i)),
    found: found.map((w) => [[...w.values], [...w.prefix], [...w.top]]) };
}"""


@pytest.mark.parametrize("scale", ["shared", "per map"])
def test_the_pixels_are_the_colours_of_the_weights(make, show, scale):
    browser = make(query=27, view="heat", scale=scale, part="decoder", layers=[1], heads=[0, 2])
    page = show(browser)
    canvas, weights = pixels(page), weights_of(browser.scene, 27, "each")
    table = np.frombuffer(colours(), np.uint8).reshape(256, 3)
    tops = weights.values.max() if scale == "shared" else weights.values.max(axis=-1, keepdims=True)
    level = np.rint(weights.values / tops * 255).astype(int)
    plan = page.evaluate(INSIDE, [MODULE, state_of(browser)["scene"], [], []])
    for head in range(2):
        left, upper = plan["at"][head]["x"], plan["at"][head]["y"]
        for patch in set(range(64)) - {18, 19, 20, 26, 27, 28, 34, 35, 36}:  # the outline of the query lies there
            x, y = left + (patch % 8 + 0.5) * plan["w"] / 8, upper + (patch // 8 + 0.5) * plan["h"] / 8
            near = table[max(0, level[0, head, patch] - 1) : level[0, head, patch] + 2].astype(int)
            assert (np.abs(canvas[int(y), int(x), :3].astype(int) - near).max(axis=1) <= 1).any()
        bar = canvas[int(upper) - 3, int(left) : int(left) + plan["w"], :3].astype(int)
        orange = np.abs(bar - [230, 159, 0]).max(axis=1) < 4
        assert abs(orange.sum() - weights.prefix[0, head] * plan["w"]) <= 1.5, "the bar is the weight on CLS"


@pytest.mark.parametrize("kind", ["mae", "registers", "none", "masked"])
def test_the_page_restores_pythons_weights(make, vit, photos, show, kind):
    if kind in ("mae", "masked"):
        browser = make(part="encoder" if kind == "masked" else "decoder", masked=kind == "masked")
    else:
        browser = AttentionBrowser(vit(kind), photos[:, :, :32, :32])
    queries = [*range(-len(browser.scene.prefix), 0), *browser.scene.keys[[0, 3, -1]].tolist()]
    modes = ["each", "mean", "max", "rollout"]
    page = show(browser)
    found = page.evaluate(INSIDE, [MODULE, state_of(browser)["scene"], queries, modes])["found"]
    for (query, mode), (values, prefix, top) in zip(((q, m) for q in queries for m in modes), found):
        weights = weights_of(browser.scene, query, mode)
        assert np.allclose(values, weights.values.ravel(), atol=1e-6)
        assert np.allclose(prefix, weights.prefix.ravel(), atol=1e-6)
        assert np.allclose(top, weights.values.max(axis=-1).ravel(), atol=1e-6)


@pytest.mark.parametrize("chosen", [
    {}, {"view": "heat", "scale": "per map"}, {"head_mode": "mean", "query": "CLS"},
    {"head_mode": "max", "layers": [0]},
    {"head_mode": "rollout", "layers": [1]}, {"part": "encoder", "masked": True}, {"part": "encoder"},
])  # fmt: skip
def test_the_words_are_pythons(make, show, chosen):
    browser = make(**chosen)
    browser.locked = browser.query if chosen.get("view") else None
    page = show(browser)
    top = float(weights_of(browser.scene, browser.query, browser.head_mode).values.max())
    assert words(page) == describe(browser.scene, browser.shown, top)


def test_every_control_changes_what_it_says(make, show):
    page = show(make(query=20))
    for name, value, said in (
        ("view", "heat", "as heat maps"),
        ("scale", "per map", "a scale for each map"),
        ("head_mode", "mean", "mean over heads 1–4"),
        ("head_mode", "max", "max over heads 1–4"),
        ("head_mode", "rollout", "attention rollout from the first layer on"),
        ("query", "-1", "Query: CLS."),
    ):
        before, line = pixels(page), words(page)
        page.locator(f".lcmae-{name}").select_option(value)
        after = pixels(page)
        assert str(get(page, name)) == value
        assert said in words(page)
        assert said not in line
        assert before.shape != after.shape or not np.array_equal(before, after)
    page.locator(".lcmae-query").select_option("patch")
    assert get(page, "query") == 20, "back to the patch that was shown"


def test_no_two_controls_have_one_name(make, show):
    page = show(make())
    names = page.evaluate(
        """() => [...document.querySelectorAll('.lcmae-bar :is(select, input, button)')].map((c) =>
             (c.ariaLabel || (c.type === 'checkbox' ? c.closest('label').textContent :
               c.closest('label')?.firstChild.textContent ?? c.textContent)).trim().toLowerCase())"""
    )
    assert len(names) > 14
    assert sorted(set(names)) == sorted(names)
    assert names.count("heads") == 1, "which heads; how they are put together is 'maps'"
    assert "maps" in names


def test_following_the_pointer_and_reading_a_weight(make, show):
    browser = make(query=0, layers=[0], heads=[2])
    page = show(browser)
    box, side = page.locator(".lcmae-canvas").bounding_box(), picture_side(browser)
    at = (box["x"] + 3.5 * side / 8, box["y"] + 18 + 2.5 * side / 8)
    page.mouse.move(*at)
    assert get(page, "query") == 0
    page.locator(".lcmae-hover").check()
    page.mouse.move(at[0] + 2, at[1])
    assert get(page, "query") == 19
    page.locator(".lcmae-hover").uncheck()
    page.mouse.move(box["x"] + 3 * side + 20 + 26 + 40, box["y"] + 90)
    told = page.locator(".lcmae-told").inner_text()
    assert told.startswith("layer 1, head 3: weight on row ")
    weight = weights_of(browser.scene, 19, "each").values[0, 0]
    row, col = (int(part.split()[-1]) - 1 for part in told.partition("weight on ")[2].partition(" (")[0].split(","))
    assert float(told.partition(" = ")[2].split(",")[0]) == pytest.approx(weight[row * 8 + col], rel=0.06)


def test_lock_compares_and_escape_unlocks(make, show):
    browser = make(query=9, view="heat")
    page = show(browser)
    canvas = page.locator(".lcmae-canvas")
    single = pixels(page)
    canvas.press("l")
    assert get(page, "locked") == 9
    canvas.press("ArrowDown")
    assert (get(page, "query"), get(page, "locked")) == (17, 9)
    assert "compared with the locked row 2, column 2" in words(page)
    assert page.locator(".lcmae-lock").get_attribute("aria-pressed") == "true"
    compared = pixels(page)
    assert compared.shape != single.shape or not np.array_equal(compared, single)
    canvas.press("Escape")
    assert get(page, "locked") is None
    page.locator(".lcmae-lock").click()
    assert get(page, "locked") == 17
    page.locator(".lcmae-lock").click()
    assert get(page, "locked") is None


def test_a_masked_encoder_refuses_hidden_places(make, show):
    browser = make(part="encoder", masked=True)
    page = show(browser)
    hidden = browser.scene.hidden
    patch = int(np.flatnonzero(hidden)[3])
    query = get(page, "query")
    click_patch(page, browser, *divmod(patch, 8))
    assert get(page, "query") == query
    assert "never sees this patch" in page.locator(".lcmae-told").inner_text()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown", "ArrowDown"):
        page.locator(".lcmae-canvas").press(key)
        assert not hidden[get(page, "query")]
    assert get(page, "query") != query, "hidden places are stepped over"


def test_painting_asks_the_kernel(make, show):
    browser = make(query=0)
    page = show(browser)
    page.evaluate("window.models[0].set('paint', true)")
    click_patch(page, browser, 1, 1, picture=1)
    assert get(page, "query") == 0
    page.locator(".lcmae-canvas").press("ArrowRight")
    page.locator(".lcmae-canvas").press(" ")
    sent = page.evaluate("window.models[0].sent.map(({ kind, patch }) => [kind, patch])")
    assert sent == [["paint", 9], ["paint", 10]]


def test_two_browsers_do_not_meet(make, tall, show):
    one = make(query=0)
    other = AttentionBrowser(tall, torch.zeros(1, 3, 32, 64), query=0)
    page = show(one, other)
    still = pixels(page, 1)
    click_patch(page, one, 4, 4)
    page.locator(".lcmae-canvas").nth(0).press("l")
    page.locator(".lcmae-view").nth(0).select_option("heat")
    assert get(page, "query", 0) == 36
    assert (get(page, "query", 1), get(page, "locked", 1), get(page, "view", 1)) == (0, None, "overlay")
    assert np.array_equal(still, pixels(page, 1))
    click_patch(page, other, 3, 7, which=1)
    assert (get(page, "query", 0), get(page, "query", 1)) == (36, 31)
    assert page.locator("[id]").count() == 0
    page.evaluate("window.models[0].stop()")
    assert page.locator(".lcmae-canvas").count() == 1


def test_a_new_scene_is_drawn(make, show):
    browser = make(query=3)
    page = show(browser)
    before = pixels(page)
    browser.show(image=1)
    page.evaluate("(scene) => window.models[0].set('scene', scene)", state_of(browser)["scene"])
    assert "image 2" in words(page)
    assert not np.array_equal(before, pixels(page))


@pytest.mark.parametrize("width", [340, 700, 1000, 1400])
@pytest.mark.parametrize("mode", ["each", "mean"])
def test_nothing_is_cut_off(make, show, width, mode):
    browser = make(head_mode=mode)
    browser.locked = 2
    page = show(browser, width=width)
    box = page.locator(".lcmae-canvas").bounding_box()
    assert box["width"] <= width
    drawn = pixels(page)
    touched = np.flatnonzero(drawn[:, -1, 3])
    assert not len(touched), "nothing touches the right edge"
    assert (drawn[-1, :, 3] == 0).all(), "nothing touches the lower edge"


def test_exported_files_work_from_disk_without_a_network(make, chromium, tmp_path):
    browser = make(query=12)
    context = chromium.new_context(offline=True, viewport={"width": 1400, "height": 900}, accept_downloads=True)
    asked = []
    context.route(
        lambda url: not url.startswith(("file:", "blob:", "data:")),
        lambda route: (asked.append(route.request.url), route.abort()),
    )
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(browser.save_html(tmp_path / "python.html").as_uri())
    canvas = page.locator(".lcmae-canvas")
    canvas.press("ArrowRight")
    canvas.press("l")
    assert "row 2, column 6" in words(page)
    page.locator(".lcmae-view").select_option("heat")
    with page.expect_download() as download:
        page.locator(".lcmae-html").click()
    download.value.save_as(tmp_path / "page.html")
    with page.expect_download() as download:
        page.locator(".lcmae-png").click()
    download.value.save_as(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.getpixel((2, 2)) == (255, 255, 255, 255)
        assert picture.width > 2000
    first = pixels(page)
    page.goto((tmp_path / "page.html").as_uri())
    assert "row 2, column 6" in words(page), "a page saves its own state"
    assert "as heat maps" in words(page)
    assert np.array_equal(first, pixels(page)), "and draws the same"
    assert not asked
    assert not errors
    context.close()


def test_a_click_is_drawn_within_10_ms_or_30_on_a_busy_machine(show):
    settings = replace(profile("smoke"), image_size=(112, 112), width=32, depth=1, heads=1,
                       decoder_width=64, decoder_depth=8, decoder_heads=16)  # fmt: skip
    browser = AttentionBrowser(build_model(settings), torch.zeros(1, 3, 112, 112), query=0)
    assert payload(browser.scene)["grid"] == [14, 14]
    assert browser.scene.rows.levels.shape == (8, 16, 197, 196)
    page = show(browser)
    took = page.evaluate(
        """async ([side]) => { const c = document.querySelector('.lcmae-canvas'), box = c.getBoundingClientRect();
             const took = [];
             const pen = c.getContext('2d'), maps = () => pen.getImageData(660, 40, 700, 460).data.join();
             for (let i = 0; i < 20; i++) {
               const q = (37 * i + 11) % 196, x = ((q % 14) + 0.5) * side / 14;
               const y = (Math.floor(q / 14) + 0.5) * side / 14;
               const before = maps(), click = new PointerEvent('pointerdown',
                 { clientX: box.x + x, clientY: box.y + 18 + y, bubbles: true });
               const began = performance.now();
               c.dispatchEvent(click);
               pen.getImageData(700, 60, 1, 1);  // reading a pixel back makes the canvas finish what was drawn
               const ms = performance.now() - began;
               took.push([ms, window.models[0].get('query') === q, before !== maps()]);
               await new Promise((go) => requestAnimationFrame(go));
             }
             return took; }""",
        [picture_side(browser)],
    )
    median = statistics.median(ms for ms, *_ in took)
    print(f"click to pixels: median {median:.1f} ms, most {max(ms for ms, *_ in took):.1f} ms")
    assert all(right and changed for _, right, changed in took)
    assert median <= (10 if os.getloadavg()[0] < 1 else 30)  # other tests keep the cores busy
