"""Claims: a ViT of timm comes by name with a record of revision and bytes, from the hub (here a stand-in for its two
calls) or from a file; the hub is asked once, within a deadline, and the cache answers where it does not; what is wrong
is one line; images are re-normalised to the model's own statistics."""

import hashlib
import socket
import time

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import errors
from safetensors.torch import save_file

from lcmae_core.config import LcmaeError
from lcmae_core.data import denormalize, normalize
from lcmae_core.models import hub as hub_module
from lcmae_core.models import pretrained
from lcmae_core.models.pretrained import REFERENCES, images_for, load_vit
from tests.errors import line_of

NAME, COMMIT = "test_vit.r160_in1k", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def file(tmp_path):
    """A snapshot as the hub's cache keeps it, with weights of the smallest ViT of timm."""
    torch.manual_seed(0)
    path = tmp_path / "models--timm--x" / "snapshots" / COMMIT / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(timm.create_model("test_vit").state_dict(), path)
    return path


@pytest.fixture
def hub(monkeypatch, file):
    """The hub, answering from `file`; the list is what it was asked."""
    asked = []

    def metadata(url, **_):
        asked.append(url)
        return type("Metadata", (), {"commit_hash": COMMIT})()

    def download(repo, name, revision=None, **_):
        asked.append((repo, name, revision))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def same_weights(model, file):
    expected = timm.create_model("test_vit", checkpoint_path=str(file)).state_dict()
    return all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_by_name_with_the_revision_that_was_resolved(hub, file):
    found = load_vit(NAME)
    assert same_weights(found.model, file)
    assert not found.model.training
    assert found.weights.name == NAME
    assert found.weights.origin == "timm/test_vit.r160_in1k"
    assert found.weights.revision == COMMIT
    assert found.weights.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert str(found.weights).startswith(f"{NAME} (timm/test_vit.r160_in1k @ {COMMIT[:12]}, sha256 ")
    assert "/main/" in hub[0]
    assert hub[1] == ("timm/test_vit.r160_in1k", "model.safetensors", COMMIT)


def test_a_pinned_revision_is_what_the_hub_is_asked_for(hub):
    load_vit(f"{NAME}@abc123")
    load_vit(NAME, revision="abc123")
    assert all("/abc123/" in url for url in (hub[0], hub[2]))
    assert "expected one revision" in line_of(load_vit, f"{NAME}@abc", revision="def")
    assert "expected one revision" in line_of(load_vit, f"{NAME}@")


def test_a_name_without_tag_means_timms_default(hub):
    assert load_vit("test_vit").weights.origin == "timm/test_vit.r160_in1k"


def test_from_a_file(file, tmp_path):
    found = load_vit("test_vit", checkpoint=file)
    assert same_weights(found.model, file)
    assert found.weights.revision is None
    assert found.weights.origin == "model.safetensors"
    assert "is no file" in line_of(load_vit, "test_vit", checkpoint=tmp_path / "none.pth")
    save_file({"wrong": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    assert "expected weights of test_vit" in line_of(load_vit, "test_vit", checkpoint=tmp_path / "wrong.safetensors")
    assert "expected only one of them" in line_of(load_vit, "test_vit", checkpoint=file, revision="abc")


@pytest.mark.parametrize(
    "failure", [ConnectionError("refused"), errors.LocalEntryNotFoundError("offline"), TimeoutError(), OSError("proxy")]
)
def test_without_a_hub_the_cache_answers_or_one_line_says_so(monkeypatch, file, failure):
    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    assert f"hub: got no answer for 'timm/{NAME}' ({type(failure).__name__})" in line_of(load_vit, NAME)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(file))
    assert load_vit(NAME).weights.revision == COMMIT


def test_a_hub_that_hangs_is_left_within_the_deadline(monkeypatch):
    monkeypatch.setattr(hub_module, "DEADLINE", 0.3)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: time.sleep(30))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    began = time.monotonic()
    assert "(TimeoutError)" in line_of(load_vit, NAME)
    assert time.monotonic() - began < 5


def test_a_dead_address_fails_fast_for_real(monkeypatch, tmp_path):
    """The real client against a port that nobody listens on: no minutes of retries."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    began = time.monotonic()
    assert "hub: got no answer" in line_of(load_vit, NAME)
    assert time.monotonic() - began < 6


def test_a_revision_that_the_hub_does_not_have(monkeypatch):
    class Unknown(errors.RevisionNotFoundError):
        def __init__(self):
            Exception.__init__(self, "404")

    def fail(*_, **__):
        raise Unknown

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    assert "at revision 'abc' (Unknown), expected a revision that the hub has" in line_of(load_vit, f"{NAME}@abc")


def test_a_pinned_commit_is_asked_for_unless_another_is_or_a_file_was_put_here(monkeypatch, tmp_path):
    asked = []

    def ask(url, **_):
        asked.append(url)
        raise ConnectionError("refused")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(hub_module, "checkpoints", lambda: tmp_path)
    (repo, commit), *_ = hub_module.PINNED.items()
    for name, revision in ((repo, commit), (f"{repo}@main", "main"), (f"timm/{NAME}", "main")):
        owner, _, at = name.partition("@")
        assert f"/resolve/{revision}/" in line_of(hub_module.fetch, owner, hub_module.TIMM_FILES, at or None)
        assert f"/resolve/{revision}/" in asked[-1]
    put = tmp_path / repo.replace("/", "--") / "model.safetensors"
    put.parent.mkdir()
    put.touch()
    assert hub_module.fetch(repo, hub_module.TIMM_FILES) == ((put,), None)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("vit_base_patch16_224.dinoo", "which timm does not know: did you mean 'vit_base_patch16_224.dino'?"),
        ("vit_bass_patch16_224", "which timm does not know: did you mean 'vit_base_patch16_224'?"),
        ("test_resnet.r160_in1k", "a ResNet, expected a VisionTransformer of timm"),
    ],
)
def test_names_that_are_no_vit(name, line):
    assert line in line_of(load_vit, name)


def test_the_references_are_vits_that_timm_has_weights_for():
    assert {reference.name for reference in REFERENCES.values()} <= set(timm.list_models(pretrained=True))
    for reference in REFERENCES.values():
        pretrained.check_name(reference.name, pretrained=True)
        assert pretrained.repository_of(reference.name) == f"timm/{reference.name}"
        assert reference.revision is None or len(reference.revision) == 40


def test_images_become_what_the_model_was_trained_on(file, generator):
    model = load_vit("test_vit", checkpoint=file).model
    pixels = torch.rand(2, 3, 160, 160, generator=generator)
    images = normalize(pixels * 255)
    assert torch.allclose(images_for(model, images), (pixels - 0.5) / 0.5, atol=1e-5)
    model.pretrained_cfg = model.pretrained_cfg | {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert torch.allclose(images_for(model, images), images, atol=1e-5)
    assert torch.allclose(denormalize(images), pixels, atol=1e-5)
    with pytest.raises(LcmaeError, match=r"\(2, 3, 65, 64\), expected \(B, 3, h, w\), h a multiple of 16 and w of 16"):
        images_for(model, images[..., :65, :64])
