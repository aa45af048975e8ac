"""The maps that the attention browser shows.

Claims: bytes and scales give back every weight to 1/510 of its row's range, near-uniform rows and rows that give most
to CLS included; what is shown are the maps of attention_maps for exactly this image, mask, part, layers and heads; any
prefix, any grid; too many maps are refused before they are computed.
"""

import numpy as np
import pytest
import timm
import torch

from lcmae_core.analysis.attention import attention_maps
from lcmae_core.config import LcmaeError
from lcmae_core.models.masking import mask_from_hidden
from lcmae_core.viewer.browser import AttentionBrowser
from lcmae_core.viewer.browser.blocks import weights_of
from lcmae_core.viewer.browser.export import colours, payload
from lcmae_core.viewer.browser.maps import encode_rows, restore_rows
from lcmae_core.viewer.browser.scene import Scene


def restored(scene: Scene) -> np.ndarray:
    """(L, H, T, K) from the bytes that go to the page, by a slow loop over what is packed."""
    layers, heads, tokens, keys = len(scene.layers), len(scene.heads), scene.tokens, len(scene.keys)
    raw, rows = payload(scene)["maps"], layers * heads * tokens
    floats = np.frombuffer(raw, "<f4", rows * (2 + len(scene.prefix)))
    levels = np.frombuffer(raw, np.uint8, offset=floats.nbytes)
    out = np.empty((layers, heads, tokens, keys))
    for row in range(rows):
        for k in range(keys):
            out.reshape(rows, keys)[row, k] = float(floats[row]) + float(floats[rows + row]) * levels[row * keys + k]
    return out


def expected(browser: AttentionBrowser, model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
    """The maps that should be shown, asked for without the browser."""
    choice, scene = browser.choice, browser.scene
    used = choice.part == "decoder" or choice.masked
    mask = mask_from_hidden(torch.from_numpy(scene.hidden)[None]) if used else None
    model.eval()
    image = images[choice.image : choice.image + 1]
    found = attention_maps(model, image, part=choice.part, layers=scene.layers, heads=scene.heads, mask=mask)
    return found[0].detach().numpy()


def test_rows_come_back_to_a_510th_of_their_range(generator):
    sharp = torch.randn(3, 2, 9, 9, generator=generator).mul(4).softmax(-1)
    rows = encode_rows(sharp, prefix=1)
    patches = sharp.numpy()[..., 1:]
    span = patches.max(-1) - patches.min(-1)
    for query in range(9):
        error = np.abs(restore_rows(rows, query) - patches[:, :, query]).max(-1)
        assert (error <= span[:, :, query] / 510 + 1e-7).all()
    assert np.array_equal(rows.prefix, sharp.numpy()[..., :1])


def test_near_uniform_rows_keep_their_pattern(generator):
    ripple = 1 + 0.01 * torch.randn(1, 1, 197, 197, generator=generator)
    maps = ripple / ripple.sum(-1, keepdim=True)
    maps[..., 0, 0] = 0.9  # CLS takes most of one row: its patches must not vanish
    maps[..., 0, 1:] *= 0.1 / maps[..., 0, 1:].sum(-1, keepdim=True)
    rows = encode_rows(maps, prefix=1)
    for query in (0, 100):
        truth = maps[0, 0, query, 1:].numpy()
        assert len(np.unique(rows.levels[0, 0, query])) > 100
        assert np.corrcoef(restore_rows(rows, query)[0, 0], truth)[0, 1] > 0.9999
    one_scale = np.rint(maps[0, 0, :, 1:].numpy() / maps[0, 0].max().item() * 255)
    assert len(np.unique(one_scale[100])) < 3, "with one scale for all, this row would be one step"


def test_an_equal_row_is_exact():
    rows = encode_rows(torch.full((1, 1, 5, 5), 0.2), prefix=1)
    assert (restore_rows(rows, 2) == np.float32(0.2)).all()


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"part": "encoder", "layers": [2, 0], "heads": [3, 1]},
        {"part": "encoder", "masked": True, "image": 1},
        {"part": "decoder", "layers": [1], "ratio": 0.5, "seed": 3},
    ],
)
def test_what_is_sent_are_the_maps(make, mae, photos, chosen):
    browser = make(**chosen)
    truth = expected(browser, mae, photos)[..., 1:]
    error = np.abs(restored(browser.scene) - truth)
    assert (error <= truth.max(-1, keepdims=True) / 510 + 1e-7).all()


@pytest.mark.parametrize(("kind", "names"), [
    ("none", ()), ("cls", ("CLS",)), ("distilled", ("CLS", "distillation")),
    ("registers", ("CLS", "register 1", "register 2", "register 3", "register 4")),
])  # fmt: skip
def test_any_prefix(vit, photos, kind, names):
    model, images = vit(kind), photos[:, :, :32, :32]
    browser = AttentionBrowser(model, images)
    truth = expected(browser, model, images)
    assert browser.scene.prefix == names
    assert np.abs(restored(browser.scene) - truth[..., len(names) :]).max() < 1e-3
    assert np.allclose(browser.scene.rows.prefix.sum(-1) + truth[..., len(names) :].sum(-1), 1, atol=1e-5)
    assert [p.title for p in browser.scene.pictures] == ["original"], "nothing can be reconstructed"
    for query in (-1, -len(names)):
        if names:
            browser.query = query
            assert names[-query - 1] in str(browser.figure().texts[0].get_text())
    assert AttentionBrowser(model, images, masked=True).scene.pictures[1].title == "masked"


def test_a_grid_that_is_not_square(tall):
    images = torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    browser = AttentionBrowser(tall, images, query=(3, 6))
    assert browser.scene.grid == (4, 8)
    assert browser.query == 30
    truth = expected(browser, tall, images)[0, 0, 1 + 30, 1:]
    assert np.abs(weights_of(browser.scene, 30, "each").values[0, 0] - truth).max() < 1e-3
    assert browser.scene.pictures[2].pixels.shape == (32, 64, 3)
    browser.figure()._repr_png_()


def test_heads_are_put_together_as_said(make, mae, photos):
    browser = make(query=9)
    truth = expected(browser, mae, photos)[:, :, 10]
    for mode, put in (("mean", np.mean), ("max", np.max)):
        weights = weights_of(browser.scene, 9, mode)
        assert np.abs(weights.values[:, 0] - put(truth[..., 1:], axis=1)).max() < 1e-3
        assert np.abs(weights.prefix[:, 0] - put(truth[..., 0], axis=1)).max() < 1e-6


def test_a_training_model_is_left_in_training_mode_and_shown_without_noise(vit, photos):
    model = vit("cls")
    model.pos_drop.p = 0.9
    model.train()
    one, two = (AttentionBrowser(model, photos[:, :, :32, :32]).scene.rows.levels for _ in range(2))
    assert np.array_equal(one, two)
    assert model.training


def test_colours_are_the_maps_own():
    import matplotlib

    table = np.frombuffer(colours(), np.uint8).reshape(256, 3)
    assert np.abs(table / 255 - matplotlib.colormaps["viridis"].colors).max() <= 0.5 / 255 + 1e-9


def test_the_memory_budget_is_checked_before_anything_is_computed(vit, photos, monkeypatch):
    monkeypatch.setattr("lcmae_core.viewer.browser.subject.attention_maps", None)
    with pytest.raises(LcmaeError) as error:
        AttentionBrowser(vit("cls"), photos[:, :, :32, :32], budget_mb=0.001)
    assert str(error.value) == (
        "maps: got 2 layers x 2 heads x 17^2 tokens = 0.00116 MB, expected at most 0.001 MB: "
        "choose fewer layers or heads, or raise budget_mb"
    )


def test_a_published_model_gets_images_as_it_expects_them(generator):
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=0).eval()
    images = torch.randn(1, 3, 32, 32, generator=generator)
    shown = []
    for mean in ((0.485, 0.456, 0.406), (0.1, 0.9, 0.5)):
        vit.pretrained_cfg = dict(vit.pretrained_cfg, mean=mean, std=(0.229, 0.224, 0.225))
        shown.append(weights_of(AttentionBrowser(vit, images, query=0).scene, 0, "each").values)
    assert not np.allclose(shown[0], shown[1])
