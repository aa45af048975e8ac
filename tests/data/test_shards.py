"""Claims: shards may mix kinds of pictures, name classes, be compressed or remote; names of files are patterns only
where nothing is called so; what is left out or broken is said in one line.
"""

import functools
import gzip
import http.server
import io
import json
import pickle
import shutil
import tarfile
import threading
import unicodedata

import numpy as np
import pytest
from made_pictures import encoded, picture, png, write_folder

from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import open_source, source_identity
from lcmae_core.data.shard_files import split_of

FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "JPG": "JPEG", "JPEG": "JPEG", "PNG": "PNG", "png": "PNG", "webp": "WEBP"}


def write(file, members, mode="w"):
    """A tar of (name, bytes) members; None for the bytes makes a folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = (tarfile.DIRTYPE, 0) if data is None else (tarfile.REGTYPE, len(data))
            tar.addfile(info, io.BytesIO(data or b""))
    return file


def labelled(labels, extension="png", first=0):
    """Members of samples with a picture and a .cls."""
    return [
        (f"{first + i:04d}.{end}", data)
        for i, label in enumerate(labels)
        for end, data in ((extension, encoded(picture(first + i), FORMATS[extension])), ("cls", label))
    ]


def opened(place, **more):
    return open_source(Data(source=f"wds:{place}", **more))


def count(source):
    return len(source.train) + len(source.validation)


def line(place):
    with pytest.raises(LcmaeError) as caught:
        opened(place)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_kind_of_picture_in_any_shard(tmp_path):
    for k, extension in enumerate(FORMATS):
        write(tmp_path / f"train-{k}.tar", labelled([b"0", b"1"], extension, 2 * k))
    write(tmp_path / "val.tar", [m for k, e in enumerate(FORMATS) for m in labelled([b"1"], e, k)])
    source = opened(tmp_path)
    assert source.train.labels.tolist() == [0, 1] * len(FORMATS)
    assert source.validation.labels.tolist() == [1] * len(FORMATS)
    exact = [k for k, extension in enumerate(FORMATS) if extension.lower() == "png"]
    for k in range(len(FORMATS)):
        found, drawn = np.asarray(source.train.read(2 * k), float), np.asarray(picture(2 * k), float)
        assert np.abs(found - drawn).mean() < (1e-9 if k in exact else 9)
        assert source.train.file_name(2 * k) == f"{2 * k:04d}.{list(FORMATS)[k]}"


def test_what_lies_beside_a_picture(tmp_path, capsys):
    """Folders, files of a Mac, captions, and names with folders or dots in them."""
    members = [("a", None), ("a/._1.png", b"mac"), ("a/1.png", png(1)), ("a/1.json", b'{"caption": "x"}'),
               ("a/1.cls", b" 1\n"), ("b/1.json", b"[broken"), ("b/1.view.png", png(2)), ("b/1.view.cls", b"0"),
               ("./c/1.cls", b"1"), ("./c/1.png", png(3))]  # fmt: skip
    write(tmp_path / "all.tar", members)
    source = opened(tmp_path, validation_fraction=1e-6)
    split = {
        s.file_name(i): (int(s.labels[i]), s.read(i)) for s in (source.train, source.validation) for i in range(len(s))
    }
    assert {name: label for name, (label, _) in split.items()} == {"a/1.png": 1, "b/1.view.png": 0, "./c/1.png": 1}
    assert np.array_equal(split["b/1.view.png"][1], picture(2))
    assert capsys.readouterr().err == ""


def test_what_is_left_out_is_said(tmp_path, capsys):
    write(
        tmp_path / "s.tar",
        [("1.png", png(1)), ("2.xyz", b"?"), ("2.cls", b"1"), ("3.a.png", png(3)), ("3.b.png", png(4))],
    )
    assert count(opened(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "s.tar: left out 1 samples without a picture, such as 2.xyz\n" in said
    assert "s.tar: left out 1 further pictures of one sample, such as 3.b.png\n" in said


def test_labels_are_names_or_numbers(tmp_path):
    nfd = unicodedata.normalize("NFD", "épée")
    cases = [
        ([b"cat\n", b"dog", b"cat"], [b"dog"], ("cat", "dog"), [0, 1, 0], [1]),
        (["épée".encode(), b"sabre"], [nfd.encode()], ("sabre", "épée"), [1, 0], [1]),
        ([b"7", b"1000\n", b"7"], [b"1000"], ("7", "1000"), [0, 1, 0], [1]),
        ([b"10", b"9", b"x"], [b"10"], ("9", "10", "x"), [1, 0, 2], [1]),  # names, since one is no number
        ([b"0", b"1"], [b""], ("0", "1"), [0, 1], None),
    ]
    for k, (train, validation, classes, *numbers) in enumerate(cases):
        write(tmp_path / str(k) / "train.tar", labelled(train))
        write(tmp_path / str(k) / "test.tar", labelled(validation))
        source = opened(tmp_path / str(k))
        assert source.classes == classes
        assert [
            s.labels if s.labels is None else s.labels.tolist() for s in (source.train, source.validation)
        ] == numbers
    write(tmp_path / "1" / "test.tar", labelled([b"sabres"]))
    assert "class 'sabres' of validation is not in train: did you mean 'sabre'?" in line(tmp_path / "1")
    members = [
        (f"{i}.{e}", d)
        for i in range(2)
        for e, d in (("png", png(i)), ("json", json.dumps({"label": f"n{i}"}).encode()))
    ]
    write(tmp_path / "json" / "train.tar", members)
    assert opened(tmp_path / "json").classes == ("n0", "n1")


def test_names_are_patterns_only_where_nothing_is_called_so(tmp_path):
    for name in ("[2024] leaves", "a*b?", "{x}", "{1,2}", "a{b", "ünï cödé", "a b"):
        folder = tmp_path / name
        for k in range(2):
            write(folder / f"train-00{k}.tar", labelled([b"0", b"1"], first=2 * k))
        places = [folder, f"{folder}/train-{{000..001}}.tar", f"{folder}/train-*.tar", f"{folder}/train-00[01].tar"]
        assert {count(opened(place)) for place in places} == {4}, name
        assert len({source_identity(f"wds:{place}") for place in places}) == 1, name
        assert count(opened(f"file://{folder}/train-000.tar")) == 2, name
        odd = folder / "train-{000..001}[x].tar"
        shutil.copyfile(folder / "train-000.tar", odd)
        assert count(opened(odd)) == 2


def test_splits_by_words_of_names(tmp_path):
    words = {
        "train": ("train-0.tar", "valentine-0.tar", "trainval.tar", "val/train-0.tar", "testudo.tar"),
        "validation": ("imagenet-val-0001.tar", "VALID.tar", "pictures_validation_00.tar"),
        "test": ("test/0.tar", "Testing/a/0.tar"),
    }
    assert {
        split: tuple(n for n in names if split_of(tmp_path, tmp_path / n) == split) for split, names in words.items()
    } == words
    write(tmp_path / "TRAIN" / "0.tar", labelled([b"0", b"1"]))
    write(tmp_path / "Val" / "0.TAR", labelled([b"1"]))
    write(tmp_path / "test" / "0.tar", labelled([b"0", b"0", b"0"]))
    source = opened(tmp_path)
    assert (len(source.train), len(source.validation)) == (2, 1)


def test_broken_or_missing_shards_are_one_line(tmp_path):
    whole = write(tmp_path / "whole.tar", labelled([b"0", b"1"])).read_bytes()
    cases = {"empty": b"", "html": b"<html>not found</html>" * 50, "cut": whole[:3000]}
    for name, data in cases.items():
        (tmp_path / f"{name}.tar").write_bytes(data)
        assert "expected a whole .tar archive" in line(tmp_path / f"{name}.tar")
    write(tmp_path / "twice.tar", [("1.png", png(1)), ("1.png", png(2))])
    assert "got '1.png' twice" in line(tmp_path / "twice.tar")
    write(tmp_path / "none.tar", [("1.xyz", b"?"), ("1.cls", b"1")])
    assert "no picture in it, got extensions cls, xyz, expected one of: " in line(tmp_path / "none.tar")
    shutil.copyfile(tmp_path / "whole.tar", tmp_path / "train-0.tar")
    assert "no such shards, 'train-1.tar' is not in" in line(f"{tmp_path}/train-{{0..1}}.tar")
    assert "no such shards" in line(f"{tmp_path}/nowhere/train-*.tar")
    assert "expected such as train-{000..009}.tar" in line(f"{tmp_path}/train-{{0..1.tar")
    assert "got a command to run, expected a path or URL" in line("pipe:cat /etc/passwd")


def test_compressed_shards_and_worker_processes(tmp_path):
    plain = write(tmp_path / "train.tar", labelled([b"0", b"1", b"0"]))
    (tmp_path / "train.tar.gz").write_bytes(gzip.compress(plain.read_bytes()))
    for place in (plain, tmp_path / "train.tar.gz"):
        source = opened(place, validation_fraction=1e-6)
        for split in (source.train, source.validation):
            copy = pickle.loads(pickle.dumps(split))
            for i in range(len(split)):
                assert np.array_equal(copy.read(i), picture(int(split.file_name(i)[:4])))


def test_shards_that_change_are_read_again(tmp_path):
    file = write(tmp_path / "train.tar", labelled([b"0", b"1"]))
    first = source_identity(f"wds:{file}")
    assert opened(file).classes == ("0", "1")
    write(file, labelled([b"a", b"b", b"c"]))
    assert opened(file).classes == ("a", "b", "c")
    assert first != source_identity(f"wds:{file}")


@pytest.mark.filterwarnings("ignore")  # of the client's threads
def test_remote_shards_are_downloaded(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    there = tmp_path / "there"
    for name, labels in (("train-0", [b"cat", b"dog"]), ("train-1", [b"dog"]), ("val-0", [b"dog"])):
        write(there / f"{name}.tar", labelled(labels, "PNG"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=there)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        try:
            source = opened(f"{address}/{{train-0,train-1,val-0}}.tar")
            assert "could not be loaded" in line(f"{address}/train-9.tar")
        finally:
            server.shutdown()
            thread.join()
    assert source.identity == source.spec  # the string itself
    assert source.classes == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 1, 1]
    assert source.validation.labels.tolist() == [1]
    assert np.array_equal(source.train.read(1), picture(1))


# ---- local folders in a layout of the hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Datasets with a cache of its own, and no network."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return datasets


@pytest.mark.filterwarnings("ignore")  # datasets leaves files open
def test_local_folders_of_the_hub_however_they_are_named(hub, tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "here" / "pets", ["train/cat/0.png", "train/dog/1.png", "test/cat/2.png"])
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "here")
    identities = set()
    for name in ("./pets", "../here/pets", "~/here/pets", str(folder), "pets", f"file://{folder}"):
        source = open_source(Data(source=f"hf:{name}"))
        assert (source.classes, source.train.labels.tolist(), len(source.validation)) == (("cat", "dog"), [0, 1], 1)
        assert source.train.file_name(0) == "train/cat/0.png"  # as on any other machine
        identities.add(source.identity)
    monkeypatch.chdir(folder)
    identities.add(source_identity("hf:."))
    for odd in ("p@ts", "{x}", "ünï cödé"):
        shutil.copytree(folder, tmp_path / odd)
        source = open_source(Data(source=f"hf:{tmp_path}/{odd}"))
        assert (len(source.train), source.train.file_name(1)) == (2, "train/dog/1.png"), odd
        assert np.array_equal(source.train.read(1), picture(1))
        identities.add(source.identity)
    assert len(identities) == 1
    for odd in ("[2024] pets", "a*b", "a?b"):  # `datasets` would look for other folders
        shutil.copytree(folder, tmp_path / odd)
        with pytest.raises(LcmaeError, match=r"in the path, which `datasets` takes for a pattern, expected a folder"):
            open_source(Data(source=f"hf:{tmp_path}/{odd}"))
    for name in ("./gone", "../gone", "~/gone", "/gone/pets", "file:///gone"):
        with pytest.raises(LcmaeError, match=r"no such path, expected an existing folder"):
            open_source(Data(source=f"hf:{name}"))
    assert source_identity("hf:owner/pets@small") == "hf:owner/pets@small"


@pytest.mark.filterwarnings("ignore")
def test_a_table_of_the_hub_with_names_as_labels(hub, tmp_path):
    features = hub.Features({"image": hub.Image(), "label": hub.Value("string")})
    for split, labels in (("train", ["dog", "cat", "dog"]), ("validation", ["cat"])):
        rows = {"image": [{"bytes": png(i), "path": None} for i in range(len(labels))], "label": labels}
        hub.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / f"{split}-0.parquet")
    source = open_source(Data(source=f"hf:{tmp_path}/set"))
    assert (source.classes, source.train.labels.tolist(), source.validation.labels.tolist()) == (
        ("cat", "dog"),
        [1, 0, 1],
        [0],
    )
    first = source.identity
    rows = {"image": [{"bytes": png(7), "path": None}], "label": ["dog"]}
    hub.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "validation-0.parquet")
    source = open_source(Data(source=f"hf:{tmp_path}/set"))
    assert np.array_equal(source.validation.read(0), picture(7))  # not what the cache of `datasets` held before
    assert source.identity != first
    hub.Dataset.from_dict(rows | {"label": ["bird"]}, features=features).to_parquet(
        tmp_path / "set" / "validation-0.parquet"
    )
    with pytest.raises(LcmaeError, match="class 'bird' of validation is not in train"):
        open_source(Data(source=f"hf:{tmp_path}/set"))
