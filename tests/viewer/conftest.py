"""Small browsers for the tests, and Chromium to look at them; without Chromium or Playwright such tests are skipped."""

import json
import os
import shutil
from collections.abc import Callable, Iterator

import pytest
import timm
import torch

from lcmae_core.config import profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.mae import MAE
from lcmae_core.viewer.browser import AttentionBrowser
from lcmae_core.viewer.browser.export import MODULE
from tests.viewer.browser_pages import BARE, state_of

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """A headless Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium: install the package chromium, or say in CHROMIUM where it is")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def mae() -> MAE:
    """An MAE of 3 encoder and 2 decoder layers of 4 heads on 8 x 8 patches."""
    return build_model(replace(profile("smoke"), depth=3, decoder_depth=2))


@pytest.fixture(scope="session")
def photos() -> torch.Tensor:
    """Two normalised pictures of 64 x 64 pixels."""
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 0.5


@pytest.fixture(scope="session")
def tall() -> MAE:
    """An MAE on 4 rows and 8 columns of patches."""
    return build_model(replace(profile("smoke"), image_size=(32, 64), depth=1, decoder_depth=1))


@pytest.fixture(scope="session")
def vit() -> Callable[[str], torch.nn.Module]:
    """A timm ViT of 2 layers and 2 heads on 4 x 4 patches, by its prefix: "none", "cls", "distilled" or "registers"."""

    def make(prefix: str) -> torch.nn.Module:
        torch.manual_seed(0)
        kind = timm.models.deit.VisionTransformerDistilled if prefix == "distilled" else timm.models.VisionTransformer
        extra = {
            "distilled": {},
            "none": {"class_token": False, "global_pool": "avg"},
            "cls": {},
            "registers": {"reg_tokens": 4},
        }
        return kind(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0, **extra[prefix])

    return make


@pytest.fixture
def make(mae: MAE, photos: torch.Tensor) -> Callable[..., AttentionBrowser]:
    """A browser on the small MAE."""
    return lambda **chosen: AttentionBrowser(mae, photos, **chosen)


@pytest.fixture
def show(chromium):
    """Open browsers on one page of a given width; the page keeps its errors."""
    contexts = []

    def go(*browsers: AttentionBrowser, width: int = 1400, scheme: str = "light"):
        context = chromium.new_context(
            viewport={"width": width, "height": 1000}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.set_content(
            BARE % (json.dumps([state_of(b) for b in browsers]).replace("<", "\\u003c"), json.dumps(MODULE))
        )
        page.wait_for_function("window.ready")
        return page

    yield go
    for context in contexts:
        assert not [error for page in context.pages for error in getattr(page, "errors", [])]
        context.close()
