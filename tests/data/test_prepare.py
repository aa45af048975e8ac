"""Claims: a folder, a tar of it and a tar of class tars become the same shards, which give the resized pictures with
their classes; work that is stopped or killed goes on and ends in the same bytes; a bad picture is counted and named; an
archive that leads out of itself is refused by its member's name before anything is written; links out of a folder too.
"""

import io
import json
import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from made_pictures import picture
from PIL import Image

from lcmae_core import cli
from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import open_source
from lcmae_core.data import prepare as P
from lcmae_core.data.contents import contents_of
from lcmae_core.data.loader import Loader
from lcmae_core.data.shard_plan import Recipe
from lcmae_core.store.files import sha256
from tests.loops import over

CLASSES = {"c1": 5, "c2": 4, "c10": 6}
RECIPE = Recipe(size=32, shard_images=4)


def jpeg(seed, **more):
    buffer = io.BytesIO()
    picture(seed, **more).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def class_folder(root, classes=CLASSES):
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{name}_{i}.jpg").write_bytes(jpeg(10 * len(name) + i))
    return root


def tar_of(file, folder):
    with tarfile.open(file, "w") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return file


def tar_of_tars(file, folder):
    inner = [tar_of(file.parent / f"{c.name}.tar", c) for c in sorted(folder.iterdir())]
    with tarfile.open(file, "w") as tar:
        for one in inner:
            tar.add(one, one.name)
            one.unlink()
    return file


def made(source, folder, recipe=RECIPE, **more):
    return P.prepare(contents_of(str(source)), folder, recipe, **more)


def shards(folder):
    return {p.name: sha256(p) for p in folder.glob("[!.]*.tar")}


def pictures(source):
    return {s.file_name(i): (s.read(i), s.labels[i]) for s in (source.train, source.validation) for i in range(len(s))}


# ---- what comes of it


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
    made(class_folder(tmp_path / "in", {"a": 40, "b": 40}), tmp_path / "out", Recipe(size=8, shard_images=40))
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
        made(tmp_path / "in", tmp_path / "other", Recipe(size=32, split="test"))


def test_splits_prepared_one_by_one_are_one_source(tmp_path):
    """As ImageNet comes; the held-out classes are fewer, so their numbers differ."""
    made(class_folder(tmp_path / "a"), tmp_path / "out" / "train")
    made(class_folder(tmp_path / "b", {"c10": 2}), tmp_path / "out" / "val", Recipe(size=32, split="validation"))
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
    assert P.resized(jpeg(0), "x", Recipe(size=48)) == jpeg(0)
    for content in (buffer.getvalue(), jpeg(0, mode="CMYK")):  # these are not what every reader takes them for
        with Image.open(io.BytesIO(P.resized(content, "x", Recipe(size=60)))) as image:
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


# ---- bad pictures


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
    manifest = made(tmp_path / "in", tmp_path / "out", Recipe(size=32, shard_images=1))
    assert (manifest["images"], manifest["left_out"], len(shards(tmp_path / "out"))) == (1, 5, 1)
    assert made(tmp_path / "in", tmp_path / "out", Recipe(size=32, shard_images=1)) == manifest
    source = open_source(Data(source=f"wds:{tmp_path / 'out'}"))
    assert len(source.train) + len(source.validation) == 1
    (tmp_path / "in" / "2.jpg").write_bytes(b"")
    with pytest.raises(LcmaeError, match=r"none of 6 images is readable, the first: cannot read .*: the file is empty"):
        made(tmp_path / "in", tmp_path / "none")


# ---- stopped, killed, damaged


def test_work_that_breaks_off_goes_on_and_ends_in_the_same_bytes(tmp_path, monkeypatch):
    root = class_folder(tmp_path / "in")
    made(root, tmp_path / "whole")
    whole, plain, done = shards(tmp_path / "whole"), P.resized, []

    def broken(content, name, recipe):
        done.append(name)
        if len(done) == 11:  # in the third shard
            raise KeyboardInterrupt
        return plain(content, name, recipe)

    monkeypatch.setattr(P, "resized", broken)
    with pytest.raises(KeyboardInterrupt):
        made(root, tmp_path / "out")
    before = shards(tmp_path / "out")
    assert before == {name: whole[name] for name in ("train-000000.tar", "train-000001.tar")}
    assert not list((tmp_path / "out").glob(".*.tar-*"))
    with pytest.raises(LcmaeError, match=r"out/ is not finished, expected `lcmae prepare` given once more"):
        open_source(Data(source=f"wds:{tmp_path / 'out'}"))
    done.clear()
    monkeypatch.setattr(P, "resized", lambda *words: (done.append(words[1]), plain(*words))[1])
    made(root, tmp_path / "out")
    assert len(done) == 15 - 8, "the two finished shards are kept"
    assert shards(tmp_path / "out") == whole
    assert (tmp_path / "out" / "manifest.json").read_bytes() == (tmp_path / "whole" / "manifest.json").read_bytes()


def test_a_damaged_or_lost_shard_is_made_again_and_no_other(tmp_path, monkeypatch):
    root = class_folder(tmp_path / "in")
    made(root, tmp_path / "out")
    whole, plain, done = shards(tmp_path / "out"), P.resized, []
    monkeypatch.setattr(P, "resized", lambda *words: (done.append(words[1]), plain(*words))[1])
    data = bytearray((tmp_path / "out" / "train-000001.tar").read_bytes())
    data[700] ^= 4
    (tmp_path / "out" / "train-000001.tar").write_bytes(data)
    (tmp_path / "out" / "train-000003.tar").unlink()
    left = [tmp_path / "out" / f".{name}" for name in ("train-000003.tar-abc.tar", "manifest.json-a.json",
                                                       "train-000003.index.json-b_c.json")]  # fmt: skip
    for one in left:
        one.write_bytes(b"left by a killed process")
    made(root, tmp_path / "out")
    assert len(done) == 4 + 3
    assert shards(tmp_path / "out") == whole
    assert not any(one.exists() for one in left)


def test_a_folder_of_something_else_is_refused(tmp_path):
    root = class_folder(tmp_path / "in")
    made(root, tmp_path / "out")
    before = shards(tmp_path / "out")
    with pytest.raises(LcmaeError, match="holds shards of size 32, now 64: expected another folder"):
        made(root, tmp_path / "out", Recipe(size=64, shard_images=4))
    (root / "c1" / "more.jpg").write_bytes(jpeg(77))
    with pytest.raises(LcmaeError, match=r"holds shards of source folder-.*, now folder-"):
        made(root, tmp_path / "out")
    assert shards(tmp_path / "out") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(LcmaeError, match=r"in which 'thesis.tex' lies, expected a new or empty folder"):
        made(root, tmp_path / "mine")
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    with pytest.raises(LcmaeError, match=r"whose manifest.json is not ours"):
        made(root, tmp_path / "mine")


def test_a_second_writer_is_refused(tmp_path):
    root = class_folder(tmp_path / "in")
    folder = tmp_path / "out"
    folder.mkdir()
    with P._alone(folder), pytest.raises(LcmaeError, match="which another process is filling"):
        made(root, folder)
    assert made(root, folder)["complete"]


# ---- what leads out


def archive(file, name, kind=tarfile.REGTYPE, target=""):
    """Good pictures, then the bad member, then a good one."""
    with tarfile.open(file, "w") as tar:
        for k, (member, of, link) in enumerate([("a.jpg", tarfile.REGTYPE, ""), (name, kind, target)]):
            info = tarfile.TarInfo(member)
            info.type, info.linkname = of, link
            data = jpeg(k) if of == tarfile.REGTYPE else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


OUT = [
    ("../out.jpg", tarfile.REGTYPE, "", "a path with '..'"),
    ("a/../../out.jpg", tarfile.REGTYPE, "", "a path with '..'"),
    ("/tmp/out.jpg", tarfile.REGTYPE, "", "an absolute path"),
    ("l.jpg", tarfile.SYMTYPE, "/etc/passwd", "a link to '/etc/passwd'"),
    ("l.jpg", tarfile.LNKTYPE, "../x", "a link to '../x'"),
    ("l.jpg", tarfile.SYMTYPE, "a.jpg", "a link to 'a.jpg'"),
    ("pipe.jpg", tarfile.FIFOTYPE, "", "no file"),
    ("disk.jpg", tarfile.BLKTYPE, "", "no file"),
]


@over("name, kind, target, why", OUT)
@over("nested", [False, True])
def test_members_that_lead_out_are_refused_by_name(nested, name, kind, target, why, tmp_path):
    file = archive(tmp_path / "in.tar", name, kind, target)
    if nested:
        with tarfile.open(tmp_path / "outer.tar", "w") as tar:
            tar.add(file, "n01.tar")
        file = tmp_path / "outer.tar"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LcmaeError, match=f"got member '{name}', {why}".replace(".", r"\.")) as caught:
        made(file, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


def test_names_of_a_folder_stay_below_the_shards(tmp_path):
    made(class_folder(tmp_path / "in"), tmp_path / "out")
    for shard in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(shard) as tar:
            assert all(m.isfile() and not m.name.startswith(("/", ".")) and ".." not in m.name for m in tar)


def test_archives_that_are_not_whole_are_one_line(tmp_path):
    whole = tar_of(tmp_path / "whole.tar", class_folder(tmp_path / "in")).read_bytes()
    nested = tar_of_tars(tmp_path / "nested.tar", tmp_path / "in").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        third = tar.getmembers()[4]
    flipped = bytearray(whole)
    flipped[third.offset + 3] ^= 1  # in a name: the sum of the header is wrong
    cut = nested.rindex(b"c2_3.jpg") + 600
    cases = {"cut": whole[: third.offset_data + 100], "at": whole[: third.offset], "half": whole[: third.offset + 99],
             "flipped": bytes(flipped), "inner": nested[:cut], "empty": b"", "text": b"<html>" * 200}  # fmt: skip
    for name, data in cases.items():
        (tmp_path / f"{name}.tar").write_bytes(data)
        with pytest.raises(LcmaeError, match=r"expected a whole \.tar archive") as caught:
            made(tmp_path / f"{name}.tar", tmp_path / "out")
        assert str(caught.value).startswith(f"{name}.tar: "), name
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_links_out_of_a_folder_need_a_word(tmp_path):
    root = class_folder(tmp_path / "in")
    made(root, tmp_path / "plain")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "s.jpg").write_bytes(jpeg(99))
    (root / "c1" / "again.jpg").symlink_to(root / "c1" / "c1_0.jpg")  # inside: counts once
    made(root, tmp_path / "inside")
    assert shards(tmp_path / "inside") == shards(tmp_path / "plain")
    for link, target in (("c1/x.jpg", "secret/s.jpg"), ("c3", "secret")):
        (root / link).symlink_to(tmp_path / target)
        with pytest.raises(LcmaeError, match=rf"got 1 links out of it, the first '{link}.*secret/s.jpg', expected"):
            made(root, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        taken = contents_of(str(root), follow_links=True)
        assert len(taken.files) == 16
        (root / link).unlink()


# ---- words


@over(
    "words, line",
    [
        (["IN", "--to", "OUT"], "--size"),
        (["IN", "--to", "OUT", "--size", "2"], "--size: got 2, expected 8 to 16384"),
        (["IN", "--to", "OUT", "--size", "64", "--quality", "101"], "--quality: got 101, expected 1 to 100"),
        (["IN", "--to", "OUT", "--size", "64", "--shard-images", "0"], "--shard-images: got 0"),
        (["IN", "--to", "OUT", "--size", "64", "--split", "trian"], "did you mean 'train'?"),
        (["/not/there", "--to", "OUT", "--size", "64"], "which is not there, expected an image folder or a .tar"),
        (["IN", "--to", "IN", "--size", "64"], "where the source lies, expected another folder"),
        (["IN", "--to", "OUT", "--sise", "64"], "--size"),
        (["FILE", "--to", "OUT", "--size", "64"], "note.txt: got "),
    ],
)
def test_wrong_words_are_one_line(words, line, tmp_path, capsys):
    root = tmp_path / "in"
    if not root.exists():
        class_folder(root)
    (tmp_path / "note.txt").write_text("no archive")
    places = {"IN": str(root), "OUT": str(tmp_path / "out"), "FILE": str(tmp_path / "note.txt")}
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["prepare", *(places.get(word, word) for word in words)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert line in said
    assert not (tmp_path / "out").exists()


def test_files_that_may_not_be_read_are_listed(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    root: Path = class_folder(tmp_path / "in")
    (root / "c1" / "c1_0.jpg").chmod(0)
    assert made(root, tmp_path / "out")["left_out"] == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    class_folder(tmp_path / "s")
    (tmp_path / "file").touch()
    for where in ("/proc/x", str(tmp_path / "file" / "x")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["prepare", str(tmp_path / "s"), "--to", where, "--size", "16"])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith(f"lcmae: error: --to: got {where!r}, expected a folder that can be written"), said
        assert said.count("\n") == 1
