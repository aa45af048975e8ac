"""Claims: pictures are decoded once for a source and size, whatever process or loader asks; what is kept gives the same
batches to the last bit; a damaged, stale, full, unwritable or crowded cache costs a line and the time, never the work.
"""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from made_pictures import png, write_folder

from lcmae_core.config import Data, Settings, replace
from lcmae_core.data import cache as C
from lcmae_core.data import loader as L
from lcmae_core.data.sources import open_source
from lcmae_core.data.splits import Reader
from lcmae_core.store.progress import say_once


@pytest.fixture
def data(tmp_path):
    write_folder(tmp_path / "pets", [f"{c}/{i}.png" for c in "ab" for i in range(6)])
    return Data(source=f"folder:{tmp_path / 'pets'}", image_size=(16, 16), validation_fraction=0.4)


@pytest.fixture
def decoded(monkeypatch):
    """Numbers of the pictures decoded so far."""
    found, plain = [], Reader.__call__
    monkeypatch.setattr(Reader, "__call__", lambda self, i: (found.append(i), plain(self, i))[1])
    say_once.cache_clear()
    return found


def loader_of(data, cache, split="train", rows=None, **more):
    pictures = getattr(open_source(data), split)
    pictures = pictures if rows is None else pictures.subset(rows)
    how = {"seed": 0, "batch_size": 4, "device": "cpu", "workers": 0} | more
    return L.Loader(pictures, data, cache=cache, **how)


def images(loader):
    return torch.cat([batch.images for batch in [*loader.batches(0, 3), *loader.evaluation()]])


def test_decoded_once_for_a_source_and_size(data, tmp_path, decoded):
    cache = C.Cache(tmp_path / "out" / "cache", 1e9)
    plain = images(loader_of(data, None))
    decoded.clear()
    first = loader_of(data, cache)
    size = first.size
    assert len(decoded) == size
    for again in (loader_of(data, cache), loader_of(data.model_copy(update={"flip": False}), cache, seed=1)):
        assert again.held
    assert torch.equal(images(first), plain)
    assert torch.equal(images(loader_of(data, cache)), plain)
    part = images(loader_of(data, cache, rows=[3, 1]))
    assert len(decoded) == size
    assert torch.equal(part, images(loader_of(data, None, rows=[3, 1])))
    decoded.clear()
    loader_of(data, cache, "validation")
    loader_of(data.model_copy(update={"channels": 1}), cache)
    loader_of(data.model_copy(update={"image_size": (32, 32)}), cache)
    assert len(decoded) == len(open_source(data).validation) + 2 * size  # other pictures: not those
    assert C.taken(cache.folder)[0] == 4


def test_a_part_is_kept_by_itself_and_only_it_is_read(data, tmp_path, decoded):
    cache = C.Cache(tmp_path / "cache", 1e9)
    first = images(loader_of(data, cache, rows=[3, 1]))
    assert len(decoded) == 2
    assert torch.equal(images(loader_of(data, cache, rows=[3, 1])), first)
    assert len(decoded) == 2
    assert not torch.equal(images(loader_of(data, cache, rows=[1, 3])), first)


def test_other_pictures_under_the_same_names_are_not_taken_for_these(data, tmp_path):
    cache = C.Cache(tmp_path / "cache", 1e9)
    before = images(loader_of(data, cache))
    for number in range(6):
        (tmp_path / "pets" / "a" / f"{number}.png").write_bytes(png(50 + number, width=64))
    assert not torch.equal(images(loader_of(data, cache)), before)


@pytest.mark.parametrize("fault", ["bit", "cut", "manifest", "gone", "text", "version"])
def test_a_damaged_one_is_made_anew(data, tmp_path, fault, capsys, decoded):
    cache = C.Cache(tmp_path / "cache", 1e9)
    plain = images(loader_of(data, cache))
    (pixels,), (manifest,) = cache.folder.glob("*.npy"), cache.folder.glob("*.json")
    whole, said = pixels.read_bytes(), json.loads(manifest.read_text())
    if fault == "bit":
        pixels.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    elif fault == "cut":
        pixels.write_bytes(whole[:-50])
    elif fault == "gone":
        pixels.unlink()
    elif fault == "version":
        manifest.write_text(json.dumps(said | {"about": said["about"] | {"version": 0}}))
    else:
        said["sizes"][0][0] -= 1
        manifest.write_text(json.dumps(said) if fault == "manifest" else "{")
    decoded.clear()
    assert torch.equal(images(loader_of(data, cache)), plain)
    assert len(decoded) == open_source(data).train.size
    assert capsys.readouterr().err.count("is damaged, and is made anew") == 1
    assert pixels.read_bytes() == whole
    decoded.clear()
    assert torch.equal(images(loader_of(data, cache)), plain)
    assert not decoded


def test_a_folder_that_cannot_be_used_costs_one_line(data, tmp_path, capsys, decoded, monkeypatch):
    plain = images(loader_of(data, None))
    (tmp_path / "file").touch()
    for _ in range(2):
        assert torch.equal(images(loader_of(data, C.Cache(tmp_path / "file" / "cache", 1e9))), plain)
    (line,) = capsys.readouterr().err.splitlines()
    assert "is left out, pictures are decoded again" in line

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    for _ in range(2):
        assert torch.equal(images(loader_of(data, C.Cache(tmp_path / "cache", 1e9))), plain)
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"pictures are decoded again: no room on the disk for [\d,]+ bytes$", line)
    assert not [entry for entry in (tmp_path / "cache").iterdir() if entry.suffix != ".lock"]


def test_the_limit_is_kept_by_dropping_what_was_used_longest_ago(data, tmp_path, capsys):
    wide = C.Cache(tmp_path / "cache", 1e9)
    settings = [data.model_copy(update={"image_size": (side, side)}) for side in (8, 16, 32)]
    for number, each in enumerate(settings[:2]):
        loader_of(each, wide)
        for file in wide.folder.glob("*.json"):
            if file.stat().st_mtime > 1000:
                os.utime(file, (number, number))
    oldest = min(wide.folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    size = loader_of(settings[2], None)._canvas.pixels.numel()
    loader_of(settings[2], wide._replace(limit=C.taken(wide.folder)[1] + size - 1.0))
    assert not oldest.exists()
    assert not oldest.with_suffix(".npy").exists()
    assert C.taken(wide.folder)[0] == 2
    assert loader_of(data, C.Cache(tmp_path / "other", 100.0)).held
    assert C.taken(tmp_path / "other")[0] == 0
    assert "do not fit into" in capsys.readouterr().err
    assert C.cache_of(replace(Settings(), cache_gb=0.0).runtime) is None
    assert C.cache_of(replace(Settings(), out=str(tmp_path)).runtime) == (tmp_path / "cache", 10e9)


def test_what_a_killed_process_began_makes_no_others_go(data, tmp_path):
    cache = C.Cache(tmp_path / "cache", 1e9)
    loader_of(data, cache)
    (other,) = cache.folder.glob("*.npy")
    entry = C.Entry(cache, {"version": 0})
    begun = cache.folder / f".{entry.file.name}-abc.npy"
    begun.write_bytes(bytes(2_000_000))
    assert C.Entry(C.Cache(cache.folder, other.stat().st_size + 1e6), {"version": 0}).make_room(10_000)
    assert not begun.exists()
    assert other.exists()


def test_hold_gb_counts_for_kept_pictures_too(data, tmp_path):
    cache = C.Cache(tmp_path / "cache", 1e9)
    held = loader_of(data, cache)
    streamed = loader_of(data, cache, device_cache_gb=1e-9)
    assert held.held
    assert not streamed.held
    assert torch.equal(images(held), images(streamed))


CHILD = """
import sys, time
from lcmae_core.config import Data
from lcmae_core.data import cache as C, loader as L
from lcmae_core.data.sources import open_source
from lcmae_core.data.splits import Reader
plain, count = Reader.__call__, []
def slow(self, i):
    count.append(i); time.sleep(0.3); return plain(self, i)
Reader.__call__ = slow
data = Data(source=sys.argv[1], image_size=(16, 16), validation_fraction=0.4)
print("ready", flush=True)
sys.stdin.readline()
cache = C.Cache(C.Path(sys.argv[2]), 1e9)
loader = L.Loader(open_source(data).train, data, seed=0, batch_size=4, device="cpu", cache=cache)
print(len(count), float(loader.batch(0).images.double().sum()))
"""


def test_of_two_processes_one_decodes(data, tmp_path):
    words = [sys.executable, "-c", CHILD, data.source, str(tmp_path / "cache")]
    both = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for child in both:
        assert child.stdout.readline() == "ready\n"
    for child in both:
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate()[0].split() for child in both]
    assert sorted(int(count) for count, _ in said) == [0, open_source(data).train.size]
    assert said[0][1] == said[1][1]
