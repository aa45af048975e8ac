"""Claims: shards of a server are compared with the manifest.json beside them there, once each has been read whole, and
one that is flipped, cut off or not listed is refused by its name, and fetched again next time; without a manifest one
line says so and nothing else changes; a server that fails is not one without a manifest.
"""

import functools
import http.server
import io
import json
import socket
import threading

import numpy as np
import pytest
from PIL import Image

from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import open_source
from lcmae_core.data.contents import contents_of
from lcmae_core.data.manifest import MANIFEST, digest_of
from lcmae_core.data.prepare import prepare
from lcmae_core.data.shard_plan import ShardRecipe
from lcmae_core.data.sources import opened_once
from lcmae_core.store.progress import say_once

pytestmark = pytest.mark.filterwarnings("ignore")  # of the client's threads


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two shards of three pictures, with their manifest."""
    root = tmp_path_factory.mktemp("pictures")
    for i in range(6):
        (root / f"c{i % 2}").mkdir(exist_ok=True)
        Image.effect_noise((40, 40), 60).convert("RGB").save(root / f"c{i % 2}" / f"{i}.png")
    out = tmp_path_factory.mktemp("shards")
    prepare(contents_of(str(root)), out, ShardRecipe(size=32, shard_images=3))
    return {file.name: file.read_bytes() for file in out.glob("[!.]*")}


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def send_head(self):
        """What GET sends all of, and HEAD the beginning."""
        self.server.asked.append(self.path)
        status, cut = self.server.wrong.get(self.path, (200, None))
        if status == "hangs up":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        if status != 200:
            self.send_error(status)
            return None
        file = super().send_head()
        if file is None or cut is None:
            return file
        with file:
            return io.BytesIO(file.read(cut))  # after the length of the whole


@pytest.fixture
def server(tmp_path, shards, monkeypatch):
    """A server of a folder that holds the shards, and a cache of downloads of its own; `wrong` is what it answers."""
    import datasets

    for name in ("DOWNLOADED_DATASETS_PATH", "HF_DATASETS_CACHE"):
        monkeypatch.setattr(datasets.config, name, tmp_path / "cache")
    datasets.disable_progress_bars()
    there = tmp_path / "there"
    there.mkdir()
    for name, content in shards.items():
        (there / name).write_bytes(content)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=there)) as one:
        one.asked, one.wrong, one.there = [], {}, there
        thread = threading.Thread(target=one.serve_forever)
        thread.start()
        try:
            yield one
        finally:
            one.shutdown()
            thread.join()


def opened(server, names="train-{000000..000001}.tar"):
    opened_once.cache_clear()
    say_once.cache_clear()
    return open_source(Data(source=f"wds:http://127.0.0.1:{server.server_port}/{names}", validation_fraction=1e-9))


def line(server, **how):
    with pytest.raises(LcmaeError) as caught:
        opened(server, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_whole_shards_are_those_of_the_folder_with_its_class_names(server, capsys):
    source = opened(server)
    there = open_source(Data(source=f"wds:{server.there}", validation_fraction=1e-9))
    assert source.classes == there.classes == ("c0", "c1")
    assert source.train.labels.tolist() == there.train.labels.tolist()
    assert np.array_equal(source.train.read(4), there.train.read(4))
    assert "manifest" not in capsys.readouterr().err
    server.asked.clear()
    opened(server)
    assert f"/{MANIFEST}" in server.asked


def test_a_flipped_byte_is_refused_by_the_name_of_its_shard_and_fetched_again(server, shards):
    name = "train-000001.tar"
    for place in (0, 700, len(shards[name]) // 2, len(shards[name]) - 1):
        data = bytearray(shards[name])
        data[place] ^= 4
        (server.there / name).write_bytes(data)
        said = line(server)
        assert f"{name}: got sha256 " in said
        assert said.endswith(f"of {MANIFEST}: damaged, and removed here: the next attempt fetches it again")
        (server.there / name).write_bytes(shards[name])
        assert len(opened(server).train) + len(opened(server).validation) == 6
        for file in (server.there.parent / "cache").glob("*"):  # the next one must be fetched, not found
            file.unlink()
        digest_of.cache_clear()


def test_a_shard_cut_off_on_its_way_or_where_it_lies_is_refused_by_its_name(server, shards):
    name, whole = "train-000000.tar", len(shards["train-000000.tar"])
    (server.there / name).write_bytes(shards[name][: whole // 2])
    assert f"{name}: got {whole // 2:,} bytes, expected {whole:,} bytes: damaged" in line(server)
    (server.there / name).write_bytes(shards[name])
    server.wrong[f"/{name}"] = (200, whole // 2)
    assert f"{name}' could not be loaded" in line(server)
    server.wrong.clear()
    assert opened(server).classes == ("c0", "c1")


def test_shards_that_a_manifest_does_not_list_or_finish_are_refused(server, shards):
    (server.there / "train-000002.tar").write_bytes(shards["train-000001.tar"])
    assert "train-000002.tar is not in 127.0.0.1" in line(server, names="train-{000000..000002}.tar")
    manifest = json.loads(shards[MANIFEST])
    (server.there / MANIFEST).write_text(json.dumps(manifest | {"complete": False}))
    assert "is not finished, expected `lcmae prepare` given once more" in line(server)
    (server.there / MANIFEST).write_bytes(shards[MANIFEST][:50])
    assert f"{MANIFEST}: got 50 bytes that are no JSON" in line(server)
    others = {"files": [{"file": "train-000000.tar", "sha256": "0" * 64}]}
    (server.there / MANIFEST).write_text(json.dumps(others))
    assert "train-000000.tar: got sha256" in line(server), "of anybody's making"


@pytest.mark.parametrize("status", [404, 403, "page"])
def test_without_a_manifest_one_line_says_so_and_shards_are_taken_as_they_come(status, server, capsys):
    if status == "page":
        (server.there / MANIFEST).write_text("<html>no such file</html>")
    else:
        server.wrong[f"/{MANIFEST}"] = (status, None)
    source = opened(server)
    assert len(source.train) + len(source.validation) == 6
    assert source.classes == ("0", "1"), "no names of classes, as without a manifest in a folder"
    err = capsys.readouterr().err
    assert err.count(f"no {MANIFEST} beside the shards, so nothing says whether they arrive as they were made") == 1


@pytest.mark.parametrize("status", [503, "hangs up"])
def test_a_server_that_fails_is_not_one_without_a_manifest(status, server):
    server.wrong[f"/{MANIFEST}"] = (status, None)
    assert "could not be loaded" in line(server)
