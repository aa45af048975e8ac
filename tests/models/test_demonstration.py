"""The model that comes along: whole, small, better than its untrained twin, and refused in one line where it is not."""

import json
import shutil

import pytest
import torch

from lcmae_core.config import LcmaeError
from lcmae_core.models import demonstration as module
from lcmae_core.models.demonstration import FOLDER, demo_card, demo_folder
from lcmae_core.models.interop import load_mae
from lcmae_core.models.masking import random_mask

LARGEST = 13 * 2**20


def test_it_opens_by_name_in_full_precision_and_predicts(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of that name is said as ./demo
    model = load_mae("demo")
    assert not model.training
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    card = demo_card()
    assert model.image_size == (card["image_size"], card["image_size"])
    assert model.image_size[0] >= 96
    assert sum(value.numel() for value in model.state_dict().values()) == card["parameters"]
    images = torch.randn(2, 3, *model.image_size)
    noise = torch.rand(2, model.num_patches, generator=torch.Generator().manual_seed(0))
    output = model(images, random_mask(2, model.num_patches, 0.75, noise=noise))
    assert output.pred.isfinite().all()
    with pytest.raises(LcmaeError, match=r"expected settings\.json"):
        load_mae("./demo")


def test_it_is_small_and_says_nothing_of_one_machine():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= LARGEST
    settings = json.loads((FOLDER / "settings.json").read_text())
    assert settings["data"]["source"] == "torchvision:Imagenette"
    assert settings["runtime"]["out"] == "outputs"


def test_its_card_holds_it_against_its_rivals():
    measured = demo_card()["measured"]
    probe = measured["linear probe of the mean token, %"]
    assert probe["trained"] > probe["untrained"]
    near = next(v for name, v in measured.items() if name.startswith("decoder: attention within"))
    assert near["trained"] > near["untrained"]
    psnr = next(v for name, v in measured.items() if name.startswith("PSNR"))
    page = (FOLDER / "CARD.md").read_text()
    assert (psnr["trained"] > psnr["mean colour"]) == ("It is better than its untrained twin" in page)
    assert max(measured["largest difference of half from full precision, in deviations of a patch"].values()) < 0.05


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of its folder, in its place."""
    folder = tmp_path / "demo"
    shutil.copytree(FOLDER, folder)
    monkeypatch.setattr(module, "FOLDER", folder)
    return folder


def test_an_altered_byte_is_refused(copy):
    bytes_ = bytearray((copy / "model.safetensors").read_bytes())
    bytes_[-100] ^= 1
    (copy / "model.safetensors").write_bytes(bytes_)
    with pytest.raises(LcmaeError, match=r"weights: got .*model.safetensors.*bytes differ"):
        load_mae("demo")


def test_a_missing_or_broken_file_is_named(copy):
    (copy / "card.json").write_text("{")
    with pytest.raises(LcmaeError, match=r"demo: got .*card.json.*damaged.*install lcmae_core again"):
        demo_card()
    (copy / "manifest.json").unlink()
    with pytest.raises(LcmaeError, match=r"demo: got no manifest.json in .*install lcmae_core again"):
        demo_folder()


def test_a_wrong_name_says_the_right_one():
    with pytest.raises(LcmaeError, match=r"checkpoint: got 'dmeo', which does not exist, expected 'demo'"):
        load_mae("dmeo")
