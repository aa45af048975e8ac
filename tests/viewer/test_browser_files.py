"""Pictures of one's own in the browser: dropped, or chosen by keyboard.

Claims: they are cut and normalised as a source gives held-out images; a file that is no picture, is broken, or has too
many pixels or bytes is one line, and nothing else changes; names are text, never markup, on the page and in saved
files; every model gets the picture, and the strip shows it; pieces of two files do not mix; a page without a kernel
says so and is not left.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.data import UnreadableImage
from lcmae_core.models.build import build_model
from lcmae_core.training.held_out import named_examples
from lcmae_core.viewer.browser import AttentionBrowser
from lcmae_core.viewer.browser.controls import MOST_MB
from lcmae_core.viewer.browser.listening import Listener
from lcmae_core.viewer.browser.opened import file_name, opened
from tests.viewer.browser_pages import state_of, words

EVIL = "<img src=x onerror=alert(1)>&\"'.png"


def picture(width=90, height=70, kind="png", seed=0) -> bytes:
    """A file with a smooth picture."""
    rows, cols = np.mgrid[:height, :width]
    waves = [np.sin(cols / 9 + seed), np.cos(rows / 7), np.sin((rows + cols) / 11)]
    pixels = np.stack([127 + 120 * wave for wave in waves], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def tell(browser, content: bytes, name: str, size: int = 1 << 20) -> list[str]:
    """The errors with which the kernel answers the pieces of a file."""
    answers, listener = [], Listener(browser)
    browser._canvas.send = answers.append
    pieces = [content[at : at + size] for at in range(0, len(content), size)] or [b""]
    for part, piece in enumerate(pieces):
        message = {"kind": "file", "id": part, "key": "a", "name": name, "part": part, "parts": len(pieces)}
        listener(None, message, [memoryview(piece)])
    return [answer["error"] for answer in answers]


def test_it_is_what_a_source_gives(tmp_path):
    """The same file in a folder of held-out images and given to the browser: equal to the last bit."""
    for name, kind in (("a.jpg", "jpeg"), ("b.jpg", "jpeg"), ("c.png", "png"), ("d.png", "png")):
        (tmp_path / name).write_bytes(picture(260, 200, kind, seed=len(name)))
    settings = replace(profile("smoke"), source=f"folder:{tmp_path}", validation_fraction=0.8)
    named = named_examples(settings, 3)
    size = tuple(named.batch.images.shape[2:])
    for image, name in zip(named.batch.images, named.names, strict=True):
        own = opened(tmp_path / name, name, 3, size)[0]
        assert torch.equal(own, image.cpu())


def test_every_model_gets_it_and_the_strip_shows_it(mae, photos):
    twin = build_model(replace(profile("smoke"), depth=3, decoder_depth=2, seed=5))
    browser = AttentionBrowser(mae, photos, others={"two": twin}, against=1, names=["one", "two"])
    before, query = browser.scene, browser.query
    assert tell(browser, picture(), "holiday/my cat.png", size=1000)[-1] == ""
    assert browser.choice.image == 2
    assert browser.query == query
    assert browser.scene.words["image"] == browser.beside.words["image"] == "my cat.png"
    strip = browser._canvas.strip
    assert strip["names"] == ["one", "two", "my cat.png"]
    assert len(strip["thumbs"]) == 3 * 48 * 48 * 3
    alone = AttentionBrowser(mae, opened(picture(), "", 3, (64, 64))).scene
    assert np.array_equal(browser.scene.pictures[0].pixels, alone.pictures[0].pixels)
    assert np.array_equal(browser.scene.hidden, before.hidden)
    assert len(photos) == 2, "the images that were given are left as they were"
    browser.show(image=0)
    assert np.array_equal(browser.scene.rows.levels, before.rows.levels)
    browser.overview = "similarity"
    assert "over the pairs of 3 images" in browser.scene.words["similarity"]


BIG = Image.new("1", (9000, 8000))


def bad(kind: str) -> bytes:
    """A file that cannot be shown."""
    if kind == "pixels":
        file = io.BytesIO()
        BIG.save(file, "png")
        return file.getvalue()
    return {"empty": b"", "text": b"<svg onload=alert(1)>", "short": picture()[:400], "noise": bytes(range(200))}[kind]


@pytest.mark.parametrize(("kind", "line"), [
    ("empty", "the file is empty"), ("text", "the content is text"), ("short", "cannot read x.png: "),
    ("noise", "the content is no known image format"),
    ("pixels", "it has 9000x8000 px, 72 megapixels, expected at most 50"),
])  # fmt: skip
def test_what_is_no_picture_is_one_line_and_nothing_is_lost(make, kind, line):
    browser = make(query=9, layers=[1])
    before, choice, strip = browser.scene, browser.choice, browser._canvas.strip
    (error,) = set(tell(browser, bad(kind), "x.png")) - {""}
    assert error.startswith("cannot read x.png: ")
    assert line in error
    assert "\n" not in error
    assert browser.scene is before
    assert browser.choice == choice
    assert browser._canvas.strip is strip
    assert tell(browser, picture(), "y.png") == [""], "the next one is heard"


def test_too_many_bytes_and_pieces_of_two_files(make):
    browser = make()
    megabyte = bytes(1 << 20)
    answers, listener = [], Listener(browser)
    browser._canvas.send = answers.append
    for part in range(MOST_MB + 1):
        listener(None, {"kind": "file", "key": "a", "name": "x", "part": part, "parts": 999}, [megabyte])
    listener(None, {"kind": "file", "key": "b", "name": "y", "part": 0, "parts": 2}, [b"1"])
    listener(None, {"kind": "file", "key": "c", "name": "z", "part": 0, "parts": 2}, [b"2"])
    listener(None, {"kind": "file", "key": "b", "name": "y", "part": 1, "parts": 2}, [b"3"])
    errors = [answer["error"] for answer in answers if answer["error"]]
    assert errors[0] == f"x: got a file of 65 MB or more, expected at most {MOST_MB}"
    assert errors[-1] == "y: another file came in between, choose it again"
    assert browser.choice.image == 0


def test_names_are_plain_text():
    assert file_name("C:\\photos\\cat.png") == "cat.png"
    assert file_name("a\nb\t\u202egnp.exe") == "a b gnp.exe"
    assert file_name("///") == file_name("\x00") == "picture"
    long = file_name("x" * 500 + ".png")
    assert len(long) <= 80
    assert long.endswith(".png")


def test_images_of_no_colours_are_named(vit):
    with pytest.raises(
        LcmaeError, match=r"^a\.png: got a picture for images of 4 channels, expected images of 1 or 3$"
    ):
        opened(picture(), "a.png", 4, (32, 32))
    assert opened(picture(), "a.png", 1, (32, 48)).shape == (1, 1, 32, 48)


def test_a_path_and_bytes_in_python(make, tmp_path):
    (tmp_path / "dog.jpg").write_bytes(picture(kind="jpeg"))
    browser = make()
    browser.add(tmp_path / "dog.jpg")
    browser.add(picture(), "cat")
    assert browser._canvas.strip["names"][2:] == ["dog.jpg", "cat"]
    with pytest.raises(UnreadableImage, match="there is no such file"):
        browser.add(tmp_path / "none.png")


DROP = """([at, name, size]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(size)], name));
  const node = document.querySelector(at), left = {};
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const event = new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
    node.dispatchEvent(event);
    left[kind] = [event.defaultPrevented, node.closest(".lcmae-browser").classList.contains("lcmae-dropping")];
  }
  return left;
}"""


def answer(page, error=""):
    """Answer what the page asked last."""
    page.evaluate(
        """(error) => { const m = window.models[0], { id } = m.sent.at(-1);
             m.tell('msg:custom', { kind: 'answer', id, error }); }""",
        error,
    )


@pytest.mark.slow
def test_a_dropped_file_goes_to_the_kernel_in_pieces(make, show):
    browser = make()
    page = show(browser)
    page.evaluate(
        "() => { const m = window.models[0]; m.send = (a, _, b) => m.sent.push({ ...a, bytes: b[0].byteLength }); }"
    )
    seen = page.evaluate(DROP, [".lcmae-canvas", EVIL, 5_000_000])
    assert seen == {"dragenter": [True, True], "dragover": [True, True], "drop": [True, False]}
    message = page.locator(".lcmae-kernel-message")
    for part in range(3):
        page.wait_for_function("n => window.models[0].sent.length === n", arg=part + 1)
        assert message.inner_text() == f"Opening {EVIL} ..."
        answer(page)
    sent = page.evaluate("window.models[0].sent")
    assert [(m["kind"], m["part"], m["parts"], m["bytes"]) for m in sent] == [
        ("file", 0, 3, 2 << 20), ("file", 1, 3, 2 << 20), ("file", 2, 3, 5_000_000 - (4 << 20)),
    ]  # fmt: skip
    assert sent[0]["name"] == EVIL
    page.wait_for_function("document.querySelector('.lcmae-kernel-message').textContent === ''")
    page.evaluate(DROP, [".lcmae-canvas", "big.png", 65_000_001])
    assert message.inner_text() == "big.png: got a file of 66 MB, expected at most 64"
    assert page.evaluate("window.models[0].sent.length") == 3
    page.evaluate(DROP, [".lcmae-canvas", EVIL, 10])
    page.wait_for_function("window.models[0].sent.length === 4")
    answer(page, f"cannot read {EVIL}: the content is no known image format")
    page.wait_for_function("document.querySelector('.lcmae-kernel-message').textContent.startsWith('cannot')")
    assert message.locator("*").count() == 0, "text, not markup"


@pytest.mark.slow
def test_a_file_is_chosen_by_keyboard_and_its_name_is_text(make, show, tmp_path):
    browser = make()
    page = show(browser)
    button = page.get_by_role("button", name="Add a picture ...")
    page.locator(".lcmae-search").focus()
    page.keyboard.press("Tab")
    assert button.evaluate("b => b === document.activeElement")
    page.evaluate(
        """() => document.querySelector('.lcmae-file').addEventListener('click', (event) => {
             window.asked = (window.asked ?? 0) + 1; event.preventDefault(); })"""
    )
    for key in ("Enter", " "):
        page.keyboard.press(key)
    assert page.evaluate("window.asked") == 2, "each opens the dialog"
    (tmp_path / "own.png").write_bytes(picture())
    page.locator(".lcmae-file").set_input_files(tmp_path / "own.png")
    page.wait_for_function("window.models[0].sent.length === 1")
    assert page.evaluate("window.models[0].sent[0].name") == "own.png"
    browser.add(picture(), EVIL)
    state = state_of(browser)
    for name in ("strip", "scene", "panel"):
        page.evaluate("([name, value]) => window.models[0].set(name, value)", [name, state[name]])
    thumb = page.locator(".lcmae-thumb").nth(2)
    assert thumb.inner_text() == EVIL
    assert thumb.get_attribute("aria-label") == f"Image {EVIL}"
    assert thumb.get_attribute("aria-pressed") == "true"
    assert f", {EVIL}: " in words(page)
    assert page.locator("img").count() == 0
    page.locator(".lcmae-search").fill("onerror")
    assert [b.is_visible() for b in page.locator(".lcmae-thumb").all()] == [False, False, True]


@pytest.mark.slow
def test_one_image_has_the_button_alone(mae, photos, show):
    page = show(AttentionBrowser(mae, photos[:1]))
    assert page.get_by_role("button", name="Add a picture ...").is_visible()
    assert page.locator(".lcmae-search").is_hidden()


@pytest.mark.slow
def test_a_saved_file_says_that_it_needs_a_kernel_and_is_not_left(make, chromium, tmp_path):
    browser = make()
    browser.add(picture(), EVIL)
    file = browser.save_html(tmp_path / "a.html")
    context = chromium.new_context(offline=True)
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: (errors.append("a dialog"), dialog.dismiss()))
    page.goto(file.as_uri())
    assert page.locator(".lcmae-add").count() == 0
    seen = page.evaluate(DROP, [".lcmae-canvas", "a.png", 10])
    assert seen["drop"] == [True, False]
    assert page.locator(".lcmae-kernel-message").inner_text().startswith("A picture of your own needs a running kernel")
    assert EVIL in words(page)
    assert page.locator("img").count() == 0
    assert not errors
    context.close()
