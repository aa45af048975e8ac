"""The browser on models and images as others have them.

Claims: models in half precision show the maps of the same weights in float32, with images of any type; images of other
channels than grey or colour are drawn by their first channels and the picture says so; the grid is that of the images,
filled-up patches included; what is no attention is one line, not a picture.
"""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from lcmae_core.analysis.attention import attention_maps
from lcmae_core.config import LcmaeError, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.mae import MAE, initialize
from lcmae_core.models.pretrained import expected_images
from lcmae_core.viewer.browser import AttentionBrowser
from lcmae_core.viewer.browser.blocks import weights_of
from tests.analysis.test_foreign_models import Lookalike
from tests.models.reference import SMALL, stirred

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)) * 0.5


def test_half_precision_and_images_of_any_type(vit):
    images = draw(2, 3, 32, 32)
    whole = AttentionBrowser(vit("cls"), images).scene
    for kind in (torch.bfloat16, torch.float16):
        for given in (images, images.to(kind)):
            scene = AttentionBrowser(vit("cls").to(kind), given).scene
            for query in (-1, 5):
                gap = weights_of(scene, query, "each").values - weights_of(whole, query, "each").values
                assert np.abs(gap).max() < 0.01
            assert np.abs(scene.pictures[0].pixels.astype(int) - whole.pictures[0].pixels).max() <= 2
    mae = build_model(SMALL).half()
    for statistics in ("visible", "pixel"):
        browser = AttentionBrowser(mae, images, statistics=statistics)
        assert [p.title[:8] for p in browser.scene.pictures] == ["original", "masked", "reconstr"]
        browser.figure()._repr_png_()


def test_channels_that_are_no_colours(tmp_path):
    for channels, words in (
        (1, ""), (2, "channel 1 of 2"), (3, ""), (4, "channels 1–3 of 4"), (6, "channels 1–3 of 6"),
    ):  # fmt: skip
        empty = MAE(replace(SMALL, depth=1, decoder_depth=1).model, (32, 32), channels)
        mae = stirred(initialize(empty, torch.Generator().manual_seed(0)))
        images = draw(1, channels, 32, 32)
        browser = AttentionBrowser(mae, images)
        original, masked, *made = browser.scene.pictures
        assert original.pixels.shape == masked.pixels.shape == (32, 32, 3)
        assert original.notes[0] == words
        assert len(made) == (channels in (1, 3)), "of other channels no pixel value is known to rebuild"
        if channels > 3:
            plane = images[0, 2].numpy()
            shown = original.pixels[..., 2] / 255
            assert np.abs(shown - (plane - plane.min()) / (plane.max() - plane.min())).max() < 0.003
        assert browser.save_html(tmp_path / "a.html").stat().st_size > 1000
        browser.figure()._repr_png_()
        with pytest.raises(LcmaeError, match=rf"^images: got shape .*, expected \(B, {channels}, 32, 32\)$"):
            AttentionBrowser(mae, draw(1, channels + 1, 32, 32))
        timms = VisionTransformer(**TINY, in_chans=channels)
        assert AttentionBrowser(timms, images).scene.pictures[0].notes[0] == words


def test_the_grid_is_that_of_the_images():
    for changes, size, grid in (
        ({}, (16, 64), (2, 8)),
        ({"patch_size": 14, "img_size": 28, "reg_tokens": 2}, (42, 14), (3, 1)),
        ({"dynamic_img_pad": True}, (30, 19), (4, 3)),
    ):
        torch.manual_seed(0)
        model = VisionTransformer(**TINY | changes, dynamic_img_size=True).eval()
        model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        images = draw(1, 3, *size)
        scene = AttentionBrowser(model, images, masked=True, ratio=0.4).scene
        assert scene.grid == grid
        patch = changes.get("patch_size", 8)
        assert scene.pictures[1].pixels.shape == (grid[0] * patch, grid[1] * patch, 3), (
            "patches lie where they are drawn"
        )
        scene = AttentionBrowser(model, images).scene
        truth = attention_maps(model, expected_images(model, images))[0]
        query, prefix = grid[0] * grid[1] - 1, model.num_prefix_tokens
        assert (
            np.abs(weights_of(scene, query, "each").values - truth[:, :, prefix + query, prefix:].numpy()).max() < 1e-3
        )
    with pytest.raises(LcmaeError, match=r"expected \(B, 3, h, w\), h a multiple of 8 and w of 8$"):
        AttentionBrowser(VisionTransformer(**TINY, dynamic_img_size=True), draw(1, 3, 30, 32))


def test_what_is_no_plain_attention_is_never_drawn():
    model = VisionTransformer(**TINY, attn_layer=Lookalike)
    model.blocks[1].attn.twist = "gate"
    with pytest.raises(LcmaeError, match=r"^layer 1: got Lookalike, whose output is not softmax"):
        AttentionBrowser(model, draw(1, 3, 32, 32))
    model.blocks[1].attn = torch.nn.Identity()
    with pytest.raises(LcmaeError, match=r"^layer 1: got Identity, expected timm's Attention with one qkv layer$"):
        AttentionBrowser(model, draw(1, 3, 32, 32))
