"""Claims: a word means one kind of model, and its name says what part it plays; what is not here is one line that says
which file to get and where to put it, within five seconds of a hub that accepts and is silent, and without loading
torch; files that were put there are taken without asking the hub."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import huggingface_hub.constants
import pytest

from lcmae_core.models import hub, named
from lcmae_core.models.named import at_hand, role_of
from tests.errors import line_of


@pytest.fixture
def put(monkeypatch, tmp_path):
    """The folder for checkpoints of others."""
    folder = tmp_path / "put"
    folder.mkdir()
    monkeypatch.setattr(hub, "checkpoints", lambda: folder)
    monkeypatch.setattr(named, "checkpoints", lambda: folder)
    return folder


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("mae_visualize_vit_base", "MAE"), ("vit_base_patch16_224.mae", "MAE"), ("vit-mae-base", "MAE"),
        ("dino_deitsmall16_pretrain", "DINO"), ("vit_base_patch16_224.dino", "DINO"),
        ("deit_base_patch16_224.fb_in1k", "supervised"), ("deit3_base", "supervised"),
        ("vit_base_patch14_dinov2", "other"),
        ("vit_base_patch16_224.augreg_in21k", None), ("mydinosaur", None),
    ],
)  # fmt: skip
def test_a_name_says_the_part(name, role):
    assert role_of(name) == role


def test_words_mean_models(tmp_path, put):
    file, folder, run = tmp_path / "my.pth", tmp_path / "hf--vit-mae", tmp_path / "dino-s0-1"
    file.touch()
    for place, inside in ((folder, "config.json"), (run, "settings.json")):
        place.mkdir()
        (place / inside).touch()
    (put / "deit_tiny_patch16_224-a1311bcf.pth").touch()
    found = {
        word: named.named(word)
        for word in ("demo", str(file), str(folder), str(run), "facebook/vit-mae-base@abc", "vit_base_patch16_224.dino",
                     f"DeiT={file}", "deit_tiny_patch16_224-a1311bcf.pth")
    }  # fmt: skip
    kinds = ["demo", "file", "folder", "run", "hub", "timm", "file", "file"]
    assert [one.kind for one in found.values()] == kinds
    assert [one.role for one in found.values()] == ["MAE", None, "MAE", "DINO", "MAE", "DINO", "supervised",
                                                    "supervised"]  # fmt: skip
    assert [one.name for one in found.values()][2:6] == ["vit-mae", "dino-s0-1", "vit-mae-base",
                                                         "vit_base_patch16_224.dino"]  # fmt: skip
    assert found["facebook/vit-mae-base@abc"].repo == ("facebook/vit-mae-base", "abc")
    assert found["vit_base_patch16_224.dino"].repo == ("timm/vit_base_patch16_224.dino", None)
    assert found["deit_tiny_patch16_224-a1311bcf.pth"].path == put / "deit_tiny_patch16_224-a1311bcf.pth"


def test_what_is_not_here_says_what_to_get_and_where_to_put_it(put, tmp_path):
    line = line_of(named.named, "mae_visualize_vit_base.pth")
    address = "https://dl.fbaipublicfiles.com/mae/visualize/mae_visualize_vit_base.pth"
    assert line.endswith(f"which is not there: get {address} and put it at {put / 'mae_visualize_vit_base.pth'}")
    assert "did you mean 'mae_visualize_vit_base.pth'?" in line_of(named.named, "mae_visualise_vit_base.pth")
    (put / "mine.pth").touch()
    assert "did you mean 'mine.pth'?" in line_of(named.named, "min.pth")
    assert "did you mean 'DINO'?" in line_of(named.named, "DNIO=demo")
    assert "expected 'demo', a checkpoint or folder" in line_of(named.named, str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    assert "expected settings.json (a run) or config.json" in line_of(named.named, str(tmp_path / "empty"))


def test_files_put_there_are_taken_without_the_hub(put, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: pytest.fail("the hub was asked"))
    for repo, names in (("timm--vit_base_patch16_224.dino", ["model.safetensors"]),
                        ("facebook--vit-mae-base", ["config.json", "pytorch_model.bin"])):  # fmt: skip
        (put / repo).mkdir()
        for name in names:
            (put / repo / name).touch()
    dino = at_hand(named.named("vit_base_patch16_224.dino"))
    assert (dino.path, dino.commit) == (put / "timm--vit_base_patch16_224.dino" / "model.safetensors", None)
    assert at_hand(named.named("facebook/vit-mae-base")).path == put / "facebook--vit-mae-base"


class Silent(NamedTuple):
    """A server's address, and the connections that it accepted and never answered."""

    address: str
    asked: list[socket.socket]


@pytest.fixture
def silent():
    """A server that accepts and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        kept: list[socket.socket] = []
        done = threading.Event()

        def accept():
            server.settimeout(0.1)
            while not done.is_set():
                with suppress(TimeoutError):
                    kept.append(server.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        yield Silent(f"http://127.0.0.1:{server.getsockname()[1]}", kept)
        done.set()
        thread.join()
        for connection in kept:
            connection.close()


def test_a_hub_that_accepts_and_is_silent_is_left_within_the_deadline(put, silent, monkeypatch, tmp_path):
    template = huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE
    elsewhere = template.replace(huggingface_hub.constants.ENDPOINT, silent.address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", elsewhere)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    began = time.monotonic()
    line = line_of(at_hand, named.named("facebook/vit-mae-base"))
    assert time.monotonic() - began < 5
    assert silent.asked, "the hub was not asked"
    assert line.startswith("hub: got no answer for 'facebook/vit-mae-base' (")
    address = "https://huggingface.co/facebook/vit-mae-base/resolve/main"
    assert line.endswith(
        f"), expected a hub that answers, or the files here: get {address}/config.json and {address}/model.safetensors "
        f"and put them into {put / 'facebook--vit-mae-base'}"
    )


@pytest.mark.parametrize("word", ["facebook/vit-mae-base", "vit_base_patch16_224.dino"])
def test_the_command_says_it_before_torch_is_loaded(silent, word, tmp_path):
    script = (
        "import sys\nfrom lcmae_core.cli import main\n"
        f"try: main(['published', {word!r}, '--out', {str(tmp_path / 'o')!r}])\n"
        "finally: print('loaded:', *({'torch', 'timm'} & set(sys.modules)))"
    )
    environment = {"HF_ENDPOINT": silent.address, "HF_HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert silent.asked, "the hub was not asked"
    assert done.returncode == 2, done.stderr
    assert done.stdout == "loaded:\n"
    assert done.stderr.count("\n") == 1
    assert "data/checkpoints/" in done.stderr
    assert not (tmp_path / "o").exists()
