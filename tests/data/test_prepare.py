"""Claims: a folder, a tar of it and a tar of class tars become the same shards, which give the resized pictures with
their classes; names, splits and classes are kept; a bad picture is counted and named.
"""

import io
import json
from collections import Counter

import numpy as np
import pytest
import torch
from made_pictures import picture
from PIL import Image
from prepared import CLASSES, class_folder, jpeg, made, shards, tar_of, tar_of_tars

from lcmae_core import cli
from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import open_source
from lcmae_core.data import prepare as P
from lcmae_core.data.loader import Loader
from lcmae_core.data.shard_plan import ShardRecipe


def pictures(source):
    return {s.file_name(i): (s.read(i), s.labels[i]) for s in (source.train, source.validation) for i in range(len(s))}


def test_shards_give_the_resized_pictures_with_their_classes(tmp_path):
    root = class_folder(tmp_path / "in")
    manifest = made(root, tmp_path / "out")
    assert manifest["complete"]
    assert (manifest["images"], manifest["left_out"], manifest["classes"]) == (15, 0, ("c1", "c2", "c10"))
    assert sum((Counter(entry["classes"]) for entry in manifest["files"]), Counter()) == CLASSES
    assert [e["images"] for e in manifest["files"]] == [4, 4, 4, 3]
    assert {e["file"]: e["sha256"] for e in manifest["files"]} == shards(tmp_path / "out")
    source = open_source(Data(source=f"wds:{tmp_path / 'out'}", validation_fraction=0.2))
    assert source.classes == ("c1", "c2", "c10")  # by number, as the folder has them
    found = pictures(source)
    assert len(found) == 15
    for name, (image, label) in found.items():
        assert source.classes[label] == name.partition("/")[0]
        with Image.open(root / name) as original:
            reduced = original.resize((40, 32), Image.Resampling.LANCZOS, reducing_gap=3.0)
        reduced.save(buffer := io.BytesIO(), "JPEG", quality=95)
        assert np.array_equal(image, Image.open(buffer))


@pytest.mark.filterwarnings("ignore")  # it leaves files open
def test_webdataset_itself_reads_them(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    made(class_folder(tmp_path / "in"), tmp_path / "out")
    urls = sorted(str(p) for p in (tmp_path / "out").glob("*.tar"))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("__key__", "jpg", "cls"))
    assert len(samples) == 15
    assert all(("c1", "c2", "c10")[label] == key.partition("/")[0] for key, _, label in samples)


def test_folder_and_archives_become_the_same_shards(tmp_path):
    root = class_folder(tmp_path / "in")
    made(root, tmp_path / "a")
    made(tar_of(tmp_path / "flat.tar", root), tmp_path / "b", workers=3)
    made(tar_of_tars(tmp_path / "nested.tar", root), tmp_path / "c")
    assert shards(tmp_path / "a") == shards(tmp_path / "b") == shards(tmp_path / "c") != {}


def test_shards_are_samples_of_all_classes(tmp_path):
    made(class_folder(tmp_path / "in", {"a": 40, "b": 40}), tmp_path / "out", ShardRecipe(size=8, shard_images=40))
    first, _ = json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    assert first["classes"].keys() == {"a", "b"}
    assert min(first["classes"].values()) > 8  # 20 of each are to be expected, with a deviation of 3


def test_shards_are_read_by_number_so_that_an_epoch_goes_on_anywhere(tmp_path):
    made(class_folder(tmp_path / "in"), tmp_path / "out")
    data = Data(source=f"wds:{tmp_path / 'out'}", image_size=(16, 16), validation_fraction=0.2)

    def loader(**more):
        how = {"seed": 0, "batch_size": 4, "device": "cpu", "progress": False} | more
        return Loader(open_source(data).train, data, **how)

    whole = list(loader(device_cache_gb=0, workers=0).batches(0, 7))  # two epochs and a little more
    for begun, more in ((2, {"device_cache_gb": 0, "workers": 2}), (5, {"device_cache_gb": 0, "workers": 1}), (3, {})):
        for one, other in zip(whole[begun:], loader(**more).batches(begun, 7), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one[:4], other[:4], strict=True))
    seen = torch.cat([batch.index for batch in whole])[: len(open_source(data).train)]
    assert len(set(seen.tolist())) == len(open_source(data).train), "each picture once an epoch"


def test_the_index_says_what_the_headers_say(tmp_path):
    root = class_folder(tmp_path / "in")
    (root / "c1" / ("long " * 40 + "é.jpg")).write_bytes(jpeg(9))  # takes a header of its own
    made(root, tmp_path / "out")
    data = Data(source=f"wds:{tmp_path / 'out'}", validation_fraction=1e-6)
    by_index = pictures(open_source(data))
    for file in (tmp_path / "out").glob("*.index.json"):
        file.unlink()
    by_headers = pictures(open_source(data.model_copy(update={"validation_fraction": 2e-6})))
    assert by_index.keys() == by_headers.keys()
    assert len(by_index) == 16
    for name, (image, label) in by_index.items():
        assert np.array_equal(image, by_headers[name][0])
        assert label == by_headers[name][1]


def test_a_damaged_index_is_refused_by_name(tmp_path):
    made(class_folder(tmp_path / "in"), tmp_path / "out")
    index = tmp_path / "out" / "train-000001.index.json"
    index.write_text(index.read_text().replace("[", "[ ", 1))
    with pytest.raises(LcmaeError, match=r"train-000001\.index\.json: got sha256 .*: damaged$"):
        open_source(Data(source=f"wds:{tmp_path / 'out'}"))
    made(tmp_path / "in", tmp_path / "out")
    open_source(Data(source=f"wds:{tmp_path / 'out'}"))


def test_splits_of_the_source_are_kept(tmp_path):
    class_folder(tmp_path / "in" / "train")
    class_folder(tmp_path / "in" / "val", {"c1": 2, "c10": 1})
    (tmp_path / "in" / "cover.jpg").write_bytes(jpeg(0))
    manifest = made(tmp_path / "in", tmp_path / "out")
    assert manifest["passed_over"] == ("1 image outside the splits",)
    source = open_source(Data(source=f"wds:{tmp_path / 'out'}"))
    assert (len(source.train), sorted(source.validation.labels)) == (15, [0, 0, 2])
    with pytest.raises(LcmaeError, match=r"--split: got 'test' of a source that has train/ and val/"):
        made(tmp_path / "in", tmp_path / "other", ShardRecipe(size=32, split="test"))


def test_splits_prepared_one_by_one_are_one_source(tmp_path):
    """As ImageNet comes; the held-out classes are fewer, so their numbers differ."""
    made(class_folder(tmp_path / "a"), tmp_path / "out" / "train")
    made(class_folder(tmp_path / "b", {"c10": 2}), tmp_path / "out" / "val", ShardRecipe(size=32, split="validation"))
    source = open_source(Data(source=f"wds:{tmp_path / 'out'}"))
    assert source.classes == ("c1", "c2", "c10")
    assert source.validation.labels.tolist() == [2, 2]


def test_classes_that_are_numbers_keep_their_names(tmp_path):
    made(class_folder(tmp_path / "in", {"7": 2, "10": 3}), tmp_path / "out")
    source = open_source(Data(source=f"wds:{tmp_path / 'out'}", validation_fraction=1e-6))
    assert source.classes == ("7", "10")
    assert all(source.classes[label] == name.partition("/")[0] for name, (_, label) in pictures(source).items())


def test_a_picture_that_is_small_enough_keeps_its_bytes(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    picture(1).save(buffer, "JPEG", exif=turned)
    assert P.resized(jpeg(0), "x", ShardRecipe(size=48)) == jpeg(0)
    for content in (buffer.getvalue(), jpeg(0, mode="CMYK")):  # these are not what every reader takes them for
        with Image.open(io.BytesIO(P.resized(content, "x", ShardRecipe(size=60)))) as image:
            assert (image.mode, image.getexif().get(0x0112)) == ("RGB", None)
            assert image.size == ((48, 60) if content == buffer.getvalue() else (60, 48))


def test_names_with_dots_and_of_several_kinds_stay_apart(tmp_path):
    (tmp_path / "in").mkdir()
    for k, name in enumerate(("a.b.jpg", "a.c.jpg", "a_b.png", "é.jpg", "é.png", "n\nl.jpg")):
        picture(k).save(tmp_path / "in" / name)
    made(tmp_path / "in", tmp_path / "out")
    source = open_source(Data(source=f"wds:{tmp_path / 'out'}", validation_fraction=1e-6))
    names = sorted(s.file_name(i) for s in (source.train, source.validation) for i in range(len(s)))
    assert names == sorted(["a_b.jpg", "a_c.jpg", "a_b-2.jpg", "é.jpg", "é-2.jpg", "n_l.jpg"])


def test_bad_pictures_are_counted_and_named(tmp_path, capsys):
    root = class_folder(tmp_path / "in")
    (root / "c1" / "text.jpg").write_bytes(b"<html>gone</html>")
    (root / "c2" / "cut.jpg").write_bytes(jpeg(3)[:300])
    (root / "c2" / "empty.png").write_bytes(b"")
    (root / "c2" / "notes.heic").write_bytes(b"?")
    assert cli.main(["prepare", str(root), "--to", str(tmp_path / "out"), "--size", "32"]) == 0
    said = capsys.readouterr()
    assert "left out 3 images: cannot read c" in said.err
    assert "passed over: 1 .heic" in said.err
    assert "15 images in 1 shards" in said.out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    reasons = {one["name"]: one["reason"] for entry in manifest["files"] for one in entry["left_out"]}
    assert set(reasons) == {"c1/text.jpg", "c2/cut.jpg", "c2/empty.png"}
    assert "the content is text" in reasons["c1/text.jpg"]
    assert "Truncated" in reasons["c2/cut.jpg"]
    assert "empty" in reasons["c2/empty.png"]
    assert manifest["left_out"] == 3


def test_a_shard_of_bad_pictures_alone_is_no_file(tmp_path):
    (tmp_path / "in").mkdir()
    for k in range(6):
        (tmp_path / "in" / f"{k}.jpg").write_bytes(jpeg(k) if k == 2 else b"")
    manifest = made(tmp_path / "in", tmp_path / "out", ShardRecipe(size=32, shard_images=1))
    assert (manifest["images"], manifest["left_out"], len(shards(tmp_path / "out"))) == (1, 5, 1)
    assert made(tmp_path / "in", tmp_path / "out", ShardRecipe(size=32, shard_images=1)) == manifest
    source = open_source(Data(source=f"wds:{tmp_path / 'out'}"))
    assert len(source.train) + len(source.validation) == 1
    (tmp_path / "in" / "2.jpg").write_bytes(b"")
    with pytest.raises(LcmaeError, match=r"none of 6 images is readable, the first: cannot read .*: the file is empty"):
        made(tmp_path / "in", tmp_path / "none")
