"""The Python side of the attention browser.

Claims: the pictures are the image, the mask and the honest reconstruction; a masked encoder has no hidden query; what
the kernel does, the traits and the controls say; the picture is in the same output; errors are one line.
"""

import base64
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lcmae_core.analysis.reconstruction import as_pictures, reconstruct
from lcmae_core.config import LcmaeError
from lcmae_core.data import denormalize
from lcmae_core.models.mae import MAE
from lcmae_core.models.masking import mask_from_hidden
from lcmae_core.viewer.browser import AttentionBrowser
from lcmae_core.viewer.browser.controls import read_list
from lcmae_core.viewer.browser.display import WIDGET
from lcmae_core.viewer.browser.listening import Listener
from lcmae_core.viewer.browser.scene import counted_from_one
from lcmae_core.viewer.browser.words import describe, number


def test_pictures_are_the_image_the_mask_and_the_honest_reconstruction(make, mae, photos):
    for statistics, name in (("visible", "norm-pix"), ("true", "norm-pix oracle"), ("pixel", "pixel")):
        browser = make(statistics=statistics)
        original, masked, made = browser.scene.pictures
        truth = denormalize(photos[:1]).clamp(0, 1)[0].permute(1, 2, 0).numpy()
        assert np.abs(original.pixels / 255 - truth).max() < 0.003
        covered = browser.scene.hidden.reshape(8, 8).repeat(8, 0).repeat(8, 1)
        assert (masked.pixels[covered] == 128).all()
        assert (masked.pixels[~covered] == original.pixels[~covered]).all()
        mask = mask_from_hidden(torch.from_numpy(browser.scene.hidden)[None])
        guess = reconstruct(mae, photos[:1], mask, norm_pix=statistics != "pixel")[name]
        assert np.abs(made.pixels / 255 - as_pictures(guess.pixels, 8, (8, 8))[0].clip(0, 1)).max() < 0.003
        assert made.title == f"reconstructed, {guess.psnr[0]:.1f} dB"
    assert "TRUE" in " ".join(make(statistics="true").scene.pictures[2].notes)


def test_a_masked_encoder_has_no_hidden_query(make):
    browser = make(part="encoder", masked=True)
    hidden = int(np.flatnonzero(browser.scene.hidden)[0])
    assert not browser.scene.hidden[browser.query]
    before = browser.query
    with pytest.raises(LcmaeError, match="hidden from the masked encoder"):
        browser.query = hidden
    assert browser.query == before
    browser.show(part="decoder")
    browser.query = hidden
    browser.show(part="encoder")
    assert not browser.scene.hidden[browser.query], "a query that can no longer be one moves"


def test_a_change_of_choice_keeps_what_it_can(make):
    browser = make(query=5, layers=[1])
    first = browser.scene
    browser.show(image=1)
    assert (browser.query, browser.scene.layers, browser.choice.image) == (5, (1,), 1)
    assert np.array_equal(browser.scene.hidden, first.hidden), "one seed, one mask"
    browser.show(seed=4)
    assert not np.array_equal(browser.scene.hidden, first.hidden)
    browser.show(part="encoder")
    assert browser.scene.layers == (0, 1, 2)
    with pytest.raises(LcmaeError):
        browser.show(layers=(7,))
    assert browser.choice.layers is None


def test_painting_hides_and_shows(make):
    browser = make()
    before = browser.scene
    patch = int(np.flatnonzero(~before.hidden)[0])
    Listener(browser)(None, {"kind": "paint", "patch": patch}, [])
    assert np.flatnonzero(before.hidden != browser.scene.hidden).tolist() == [patch]
    assert not np.array_equal(before.rows.levels, browser.scene.rows.levels)
    assert "painted by hand" in browser.scene.words["part"]
    browser.show(seed=1)
    assert browser.choice.hidden is None


def ask(browser: AttentionBrowser, **changes) -> str:
    """What a control of the page asks, and the error that it is answered with."""
    answers = []
    browser._canvas.send = answers.append
    Listener(browser)(None, {"kind": "choose", "id": 7, "changes": changes}, [])
    (answer,) = answers
    assert (answer["kind"], answer["id"]) == ("answer", 7)
    return answer["error"]


def test_the_controls_and_the_page_follow(make):
    browser = make()
    canvas = browser._canvas
    sent = canvas.scene
    assert ask(browser, layers="2") == ""
    assert browser.scene.layers == (1,)
    assert canvas.scene is not sent
    assert canvas.panel["layers"] == "2"
    ask(browser, part="encoder")
    assert (canvas.panel["layers"], browser.choice.part, canvas.panel["mask"]) == ("all", "encoder", False)
    ask(browser, seed=1)
    assert (canvas.panel["seed"], browser.choice.seed) == (1, 1)
    assert ask(browser, heads="9") == "heads: got '9', expected heads from 1 to 4"
    assert browser.choice.heads is None
    assert ask(browser, heads="1-2") == ""
    assert browser.scene.heads == (0, 1)
    assert ask(browser, hads="1").startswith("control: got 'hads', did you mean 'heads'?")
    assert ask(browser, ratio="much") == "ratio: got 'much', expected a number"
    assert ask(browser, ratio=0.5) == ""
    canvas.query = 7
    assert browser.query == 7
    browser.head_mode = "max"
    assert canvas.head_mode == "max"


def test_a_painted_mask_shows_its_own_ratio(make):
    browser = make()
    assert browser._canvas.panel["ratio"] == 0.75
    visible = int(np.flatnonzero(~browser.scene.hidden)[0])
    browser.toggle(visible)
    assert browser._canvas.panel["ratio"] == 0.77
    assert browser._canvas.panel["painted"]
    assert "painted by hand, ratio 0.77" in browser.scene.words["part"]


def test_the_strip_has_names_and_small_pictures(make, tall):
    strip = make(names=["cat.png", "dog.png"])._canvas.strip
    assert strip["names"] == ["cat.png", "dog.png"]
    assert len(strip["thumbs"]) == 2 * 48 * 48 * 3
    wide = torch.zeros(1, 3, 32, 64)
    wide[:, :, :, 16:48] = 2.0
    small = AttentionBrowser(tall, wide)._canvas.strip["thumbs"]
    assert len(set(small)) <= 3, "the middle of a wide picture, which is all white"


def test_hidden_is_a_word_only_where_there_is_a_mask(make):
    browser = make(part="encoder", query=3)
    assert browser.scene.hidden is None
    assert [p.title for p in browser.scene.pictures] == ["original"]
    assert "hidden" not in describe(browser.scene, browser.shown, 1.0)
    assert "hidden" in describe(make().scene, browser.shown, 1.0)


def test_lists_count_from_one():
    assert read_list("layers", "1-3, 8", 8) == (0, 1, 2, 7)
    assert read_list("layers", " all ", 8) is read_list("layers", "", 8) is None
    assert counted_from_one("layer", (0, 1, 2, 7)) == "layers 1–3, 8"
    for wrong in ("0", "a", "1-", "1,,2"):
        with pytest.raises(LcmaeError, match="expected 'all' or a list that counts from 1"):
            read_list("layers", wrong, 8)
    for wrong in ("9", "7-9", "3-1"):
        with pytest.raises(LcmaeError, match="expected layers from 1 to 8"):
            read_list("layers", wrong, 8)


def test_numbers_have_two_digits():
    assert [number(v) for v in (1 / 197, 0.52, 1, 12.3, 0, 1e-5, 0.001)] == [
        "0.0051", "0.52", "1.0", "12", "0", "0.000010", "0.0010",
    ]  # fmt: skip


def test_the_output_holds_the_widget_and_a_picture(make):
    browser = make(query=3)
    bundle = browser._repr_mimebundle_()
    assert bundle[WIDGET]["model_id"] == browser.model_id
    first = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert first.width > 900
    browser.query = 40
    other = Image.open(io.BytesIO(base64.b64decode(browser._repr_mimebundle_()["image/png"])))
    assert first.size != other.size or np.any(np.asarray(first) != np.asarray(other)), "of the current state"


def test_two_outputs_the_first_of_which_needs_no_kernel(make, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "IPython.display.publish_display_data", lambda data, metadata=None: shown.append((data, metadata))
    )
    browser = make()
    browser._ipython_display_()
    (still, metadata), (live, _) = shown
    assert set(still) == {"image/png", "text/plain"}
    assert WIDGET in live
    assert "image/png" not in live
    picture = Image.open(io.BytesIO(base64.b64decode(still["image/png"])))
    assert abs(picture.width - 2 * metadata["image/png"]["width"]) <= 1


def test_headless_shows_the_picture_and_stores_no_maps(make, monkeypatch):
    monkeypatch.setenv("LCMAE_HEADLESS", "1")
    browser = make()
    assert set(browser._repr_mimebundle_()) == {"text/plain", "image/png"}
    assert browser._canvas.scene == {}
    browser.show(image=1)
    assert browser._canvas.scene == {}


def test_files(make, tmp_path):
    browser = make()
    assert browser.save_png(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    page = browser.save_html(tmp_path / "a.html").read_text()
    assert "__STATE__" in page, "the template travels along, as data"
    assert page.count("<script") == 2
    assert "https://" not in page
    assert "http://" not in page


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"part": "decodr"}, "part: got 'decodr', did you mean 'decoder'?"),
        ({"view": "heatt"}, "view: got 'heatt', did you mean 'heat'?"),
        ({"scale": "share"}, "scale: got 'share', did you mean 'shared'?"),
        ({"head_mode": "men"}, "head_mode: got 'men', did you mean 'mean'?"),
        ({"statistics": "tru"}, "statistics: got 'tru', did you mean 'true'?"),
        ({"layers": [2]}, "layers: got [2], expected layers from 0 to 1"),
        ({"heads": [0, 4]}, "heads: got [0, 4], expected heads from 0 to 3"),
        ({"image": 2}, "image: got 2, expected 0 to 1"),
        ({"query": 64}, "query: got 64, expected a patch from 0 to 63, or -1 to -1 for CLS"),
        ({"query": (8, 0)}, "query: got row 8, column 0, expected rows 0 to 7 and columns 0 to 7"),
        ({"query": "cls"}, "query: got 'cls', expected a patch, (row, column), or a prefix token (CLS)"),
        ({"names": ["one"]}, "names: got 1, expected 2, one for each image"),
        ({"ratio": 1.0}, "mask ratio: got 1.0, expected above 0 and below 1, "
                         "with at least one visible and one hidden of 64 cells"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(make, wrong, line):
    with pytest.raises(LcmaeError) as error:
        make(**wrong)
    assert str(error.value) == line


def test_wrong_models_and_images_are_named(mae, vit, photos):
    with pytest.raises(LcmaeError, match="part: got 'decoder', expected 'encoder': VisionTransformer has no decoder"):
        AttentionBrowser(vit("cls"), photos[:, :, :32, :32], part="decoder")
    with pytest.raises(LcmaeError, match=r"images: got shape \(2, 3, 32, 64\), expected \(B, 3, 64, 64\)"):
        AttentionBrowser(mae, photos[:, :, :32])
    with pytest.raises(LcmaeError, match="model: got Linear, expected an MAE or a timm VisionTransformer"):
        AttentionBrowser(torch.nn.Linear(1, 1), photos)
    assert isinstance(mae, MAE)


def test_traits_refuse_nonsense(make):
    browser = make()
    with pytest.raises(LcmaeError, match="did you mean 'heat'"):
        browser.view = "heaat"
    with pytest.raises(LcmaeError, match="query: got 99"):
        browser.locked = 99
    with pytest.raises(LcmaeError, match="paint: got an encoder without a mask"):
        AttentionBrowser(browser._subject.vit, browser._subject.images).toggle(3)
    with pytest.raises(LcmaeError, match="against: got 1, expected 0 to 0"):
        browser.against = 1


def test_figures_need_no_widgets():
    wanted = "{'ipywidgets', 'anywidget', 'traitlets'} & set(sys.modules)"
    script = f"import sys, lcmae_core.viewer.figures.basic; sys.exit(bool({wanted}))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
