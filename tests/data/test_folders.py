"""Claims: a folder as people have it gives each real picture once, in the right split and under the right class,
whatever its names are made of and wherever its links lead; what is not read is said in one line, once.
"""

import json
import os
import unicodedata
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from made_pictures import names, picture, png, write_folder
from PIL import Image

from lcmae_core.config import Data, LcmaeError
from lcmae_core.config.names import plain, printable, spellings
from lcmae_core.config.resolve import check_source
from lcmae_core.data import open_source, source_identity
from lcmae_core.data.listing import list_files
from lcmae_core.execute import Request, make_plan
from tests.started import CLI, completed

NFC, NFD = unicodedata.normalize("NFC", "épée"), unicodedata.normalize("NFD", "épée")


def opened(root, **more):
    return open_source(Data(source=f"folder:{root}", **more))


def counts(root):
    """(classes, training images, held-out images)."""
    source = opened(root)
    return source.classes, len(source.train), len(source.validation)


def both(train, held_out, classes=("a", "b"), images=(3, 2)):
    """Names of pictures in class folders of two splits."""
    return [f"{s}/{c}/{i}.png" for s, n in zip((train, held_out), images) for c in classes for i in range(n)]


# splits


def test_split_folders_under_their_usual_names_in_any_case(tmp_path):
    pairs = [
        ("Training", "Testing"), ("Train", "Test"), ("TRAIN", "VAL"), ("train", "Validation"), ("training", "valid"),
        ("train", "dev"), ("Train", "Eval"), ("training_set", "test_set"), ("train2017", "val2017"),
        ("Train Images", "Test Images"), ("train", "evaluation"), ("train", "test1"), ("images/train", "images/val"),
        ("archive/Images/TRAIN", "archive/Images/TEST"), ("train/images", "valid/images"),
        ("training/training", "test/test"),
    ]  # fmt: skip
    for k, pair in enumerate(pairs):
        root = write_folder(tmp_path / str(k), both(*pair))
        assert counts(root) == (("a", "b"), 6, 4), pair
        assert opened(root).left_out == "", pair
        assert opened(root).validation.labels.tolist() == [0, 0, 1, 1]


def test_the_best_held_out_folder_is_taken_and_the_rest_is_said(tmp_path):
    write_folder(tmp_path, [*both("train", "test"), *both("train", "Val", images=(0, 1)), "extra/x.png", "cover.png"])
    source = opened(tmp_path)
    assert (len(source.train), len(source.validation)) == (6, 2)
    assert source.left_out.endswith("6 images outside the splits (in extra/, test/, the folder itself)")
    write_folder(tmp_path / "c", [*both("train", "TEST"), *both("Train", "TEST", images=(1, 0))])
    assert opened(tmp_path / "c").left_out.endswith("2 images outside the splits (in Train/)")


def test_classes_that_are_merely_called_like_splits(tmp_path):
    among = write_folder(tmp_path / "among", [f"{c}/{i}.png" for c in ("cat", "dog", "test") for i in range(4)])
    assert counts(among)[0] == ("cat", "dog", "test")
    vehicles = write_folder(tmp_path / "vehicles", [f"{c}/{i}.png" for c in ("bus", "car", "train") for i in range(4)])
    assert counts(vehicles)[0] == ("bus", "car", "train")
    inside = write_folder(tmp_path / "inside", both("train", "val", ("cat", "test")))
    assert counts(inside) == (("cat", "test"), 6, 4)
    only = write_folder(tmp_path / "only", [*both("train", "val", ("cat", "test"), (3, 0)), "val/test/9.png"])
    assert opened(only).validation.labels.tolist() == [1]


def test_splits_that_are_not_complete(tmp_path):
    alone = write_folder(tmp_path / "alone", [f"train/{c}/{i}.png" for c in "ab" for i in range(9)])
    classes, train, held_out = counts(alone)
    assert classes == ("a", "b")
    assert train + held_out == 18
    assert held_out >= 1
    beside = write_folder(tmp_path / "beside", ["train/1.png", "train/2.png", "masks/1.png"])
    assert "1 image outside the splits (in masks/)" in opened(beside).left_out
    for case in (["Val/a/1.png", "Test/a/1.png"], ["test/a/1.png"]):
        root = write_folder(tmp_path / case[0][:3], case)
        with pytest.raises(LcmaeError, match=r"got images in (Val|test)/ but in no train/, expected both"):
            opened(root)
    unknown = write_folder(tmp_path / "unknown", ["TRAIN/Cat/a.png", "TEST/cat/b.png"])
    with pytest.raises(LcmaeError, match="class 'cat' is not in train: did you mean 'Cat'"):
        opened(unknown)


# links


def test_links_that_loop_count_nothing_twice(tmp_path):
    root = write_folder(tmp_path / "d", [f"{c}/{i}.png" for c in "ab" for i in range(6)])
    write_folder(tmp_path, ["neighbour.png", "neighbours/1.png"])  # a link up to these does not mean them
    expected = sorted(f"{c}/{i}.png" for c in "ab" for i in range(6))
    identity = source_identity(f"folder:{root}")
    links = {"a/back": root, "a/up": tmp_path, "a/beside": root / "b", "b/self": root / "b",
             "c": root / "a", "b/round": root / "b/round", "b/0-again.png": root / "b/0.png",
             "a/of-b.png": root / "b/1.png"}  # fmt: skip
    for name, target in links.items():
        (root / name).symlink_to(target)
    source = opened(root)
    assert sorted(names(source.train) + names(source.validation)) == expected
    assert source.classes == ("a", "b")
    assert source.left_out.endswith(f"left out of folder:{root}: 7 links to what counts already, 1 link to nothing")
    assert source_identity(f"folder:{root}") == identity


def test_links_to_folders_elsewhere_are_followed_once(tmp_path):
    elsewhere = write_folder(
        tmp_path / "elsewhere", ["cats/1.png", "cats/2.png", "dogs/3.png", "dogs/old/4.png", "5.png"]
    )
    root = tmp_path / "d"
    for name, target in (
        ("train/cat", "cats"),
        ("train/dog", "dogs"),
        ("train/hound", "dogs/old"),
        ("test/cat", "cats"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(elsewhere / target)
    (root / "train" / "hound-2").symlink_to(elsewhere / "dogs")
    (root / "test/dog").mkdir()
    (root / "test/dog/five.png").symlink_to(elsewhere / "5.png")
    (elsewhere / "cats" / "home").symlink_to(elsewhere)
    source = opened(root)
    assert names(source.train) == ["cat/1.png", "cat/2.png", "dog/3.png", "dog/old/4.png"]  # it comes before test
    assert names(source.validation) == ["dog/five.png"]
    assert np.array_equal(source.validation.read(0), picture(4))
    assert "4 links to what counts already" in source.left_out


def test_one_picture_in_both_splits_stays_where_it_lies(tmp_path):
    root = write_folder(tmp_path, ["train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png"])
    (root / "train/a/3.png").symlink_to(root / "val/a/3.png")
    (root / "train/b/4-hard.png").hardlink_to(root / "val/b/4.png")
    source = opened(root)
    assert (names(source.train)[0], names(source.validation)[0]) == ("a/1.png", "a/3.png")
    assert len(source.train) + len(source.validation) == 4
    assert "2 links to what counts already" in source.left_out


def test_only_broken_links(tmp_path):
    (tmp_path / "a").mkdir()
    for i in range(3):
        (tmp_path / "a" / f"{i}.jpg").symlink_to(tmp_path / "not-fetched" / f"{i}.jpg")
    with pytest.raises(LcmaeError, match=r"no image in it, .* \(left out: 3 links to nothing\)"):
        opened(tmp_path)


# formats


def test_formats_that_are_not_read_are_counted_and_said_once(tmp_path, capsys):
    write_folder(tmp_path, [f"{i}.png" for i in range(4)])
    passed = ["1.HEIC", "2.heic", "3.svg", "4.RAW", "5.cr2", "x.mp4", "no-suffix"]
    for name in [*passed, "labels.txt", "labels.csv", "README", ".hidden.heic", "Thumbs.db"]:
        (tmp_path / name).write_bytes(b"something")
    line = opened(tmp_path).left_out
    assert line == (
        f"left out of folder:{tmp_path}: 2 .heic (convert it, for example by `magick mogrify -format jpg *.heic`), "
        "1 without a suffix, 1 .cr2, 1 .mp4, 1 .raw, 1 .svg"
    )
    opened(tmp_path, channels=1)
    assert capsys.readouterr().err == line + "\n"
    (tmp_path / "0.png").write_bytes(b"<html>")
    assert opened(tmp_path, on_unreadable="skip").left_out == f"{line}, 1 unreadable image (0.png)"
    assert open_source(Data(source="photos")).left_out == ""


def test_many_unreadable_files_are_counted_and_some_named(tmp_path):
    write_folder(tmp_path, ["a.png", "b.png"])
    for i in range(20):
        (tmp_path / f"broken{i}.jpg").write_bytes(b"")
    source = opened(tmp_path, on_unreadable="skip")
    assert source.left_out.endswith(
        "20 unreadable images (" + ", ".join(f"broken{i}.jpg" for i in range(8)) + " and 12 more)"
    )
    assert len(source.skipped) == 20


def test_formats_that_pillow_reads_by_itself_are_read(tmp_path):
    written = {"pgm": "L", "PBM": "1", "pnm": "RGB", "ppm": "RGB", "tga": "RGB", "dib": "RGB", "pcx": "RGB",
               "jp2": "RGB", "tiff": "RGB", "bmp": "RGB", "gif": "P", "qoi": "RGB"}  # fmt: skip
    for k, (suffix, mode) in enumerate(written.items()):
        picture(k).convert(mode).save(
            tmp_path / f"{k}.{suffix}", **({"irreversible": False} if suffix == "jp2" else {})
        )
    found = list_files(tmp_path, frozenset(f".{s.lower()}" for s in written)).files
    source = opened(tmp_path)
    read = {n: s.read(i) for s in (source.train, source.validation) for i, n in enumerate(names(s))}
    assert sorted(read) == sorted(map(str, found))
    assert len(read) == len(written)
    for k, (suffix, mode) in enumerate(written.items()):
        expected = picture(k).convert(mode).convert("RGB")
        assert np.array_equal(read[f"{k}.{suffix}"], expected), suffix


def test_sixteen_bit_grey_and_cmyk_and_animations_in_a_folder(tmp_path):
    deep = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    for suffix in ("png", "tiff", "pgm"):
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / "ink.jpg", quality=95)
    frames = [Image.new("RGB", (64, 64), c) for c in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    source = opened(tmp_path)
    read = {
        n: np.asarray(s.read(i)).astype(int) for s in (source.train, source.validation) for i, n in enumerate(names(s))
    }
    for suffix in ("png", "tiff", "pgm"):
        assert np.abs(read[f"deep.{suffix}"][..., 0] - deep / 257).max() <= 0.5
    for name in ("ink.jpg", "moving.gif"):
        assert np.abs(read[name] - [255, 0, 0]).max() <= 4


# names


def test_unicode_forms_of_one_class_are_one_class(tmp_path):
    write_folder(tmp_path / "d", [f"train/{NFC}/1.png", "train/sabre/2.png", f"val/{NFD}/3.png", "val/sabre/4.png"])
    source = opened(tmp_path / "d")
    assert source.classes == ("sabre", NFC)
    assert source.validation.labels.tolist() == [0, 1] or source.validation.labels.tolist() == [1, 0]
    assert dict(zip(names(source.validation), source.validation.labels)) == {f"{NFC}/3.png": 1, "sabre/4.png": 0}
    mixed = write_folder(tmp_path / "mixed", [f"{form}/{i}.png" for form in (NFC, NFD, "b") for i in range(3)])
    assert opened(mixed).classes == ("b", NFC)
    case = write_folder(tmp_path / "case", [f"{c}/{i}.png" for c in ("Cat", "cat") for i in range(3)])
    assert opened(case).classes == ("Cat", "cat")  # two folders here, and nobody says that they mean the same


def test_a_folder_is_found_under_the_other_unicode_form(tmp_path):
    for there, asked in ((NFD, NFC), (NFC, NFD)):
        write_folder(tmp_path / there / there, ["1.png", "2.png"])
        (tmp_path / there).rename(tmp_path / f"{there}-{len(there)}")
        assert len(names(opened(tmp_path / f"{asked}-{len(there)}" / asked).train)) >= 1


def test_the_hold_out_does_not_depend_on_the_unicode_form(tmp_path):
    for form in (NFC, NFD):
        write_folder(tmp_path / form, [f"{form}{i}.png" for i in range(40)])
    first, second = (names(opened(tmp_path / form).validation) for form in (NFC, NFD))
    assert first == second != []


@pytest.fixture
def latin(tmp_path) -> Path:
    """40 pictures in class folders of a folder, all of whose names are Latin-1 bytes, and one that is none."""
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        for seed in range(40):
            file = Path(os.fsdecode(os.fsencode(root) + b"/\xe9cole%d/caf\xe9_%02d.png" % (seed % 2, seed)))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(seed, width=72, height=72))
    except OSError:
        pytest.skip("this disk takes no name that is no UTF-8")
    (file.parent / os.fsdecode(b"no\xe9.png")).write_bytes(b"<html>")
    return root


def test_names_that_are_no_utf8_are_text_everywhere(latin, capsys):
    source = opened(latin, on_unreadable="skip")
    assert source.classes == (r"\udce9cole0", r"\udce9cole1")
    assert (len(source.train) + len(source.validation), len(source.skipped)) == (40, 1)
    said = [source.spec, source.identity, source.left_out, *source.classes, *source.skipped, *names(source.train)]
    for text in [*said, capsys.readouterr().err]:
        assert text.encode("utf-8").decode() == text
    assert json.loads(json.dumps(said, ensure_ascii=False)) == said
    assert np.array_equal(source.train.read(0), picture(int(names(source.train)[0][-6:-4]), width=72, height=72))
    again = open_source(Data.model_validate_json(Data(source=source.spec, on_unreadable="skip").model_dump_json()))
    assert names(again.train) == names(source.train)
    for said in (f"folder:{latin}", source.spec):  # by a shell, and by the settings of a run
        assert check_source(said) == source.spec
    with pytest.raises(LcmaeError, match=r"no\\udce9.png: the content is text"):
        opened(latin).train.read(names(opened(latin).train).index(r"\udce9cole1/no\udce9.png"))


def test_printable_names():
    assert [printable(n) for n in ("a\\b", NFD, "caf\udce9", "\ud800")] == ["a\\b", NFD, r"caf\udce9", r"\ud800"]
    assert plain(NFD + "\udce9") == NFC + r"\udce9"
    assert "caf\udce9" in spellings(printable("caf\udce9"))
    assert next(iter(spellings(r"literally\udce9"))) == r"literally\udce9"


# all at once


def download(root: Path) -> Path:
    """40 photographs as downloads have them: two splits, a HEIC, a damaged EXIF, one of 16 bits, a looped link."""
    rng = np.random.default_rng(0)
    for split, count in (("Training", 15), ("Testing", 5)):
        for k, name in enumerate(("glioma", "pituitary")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 128, (72, 72, 3), dtype=np.uint8) + np.uint8(100 * k)
                Image.fromarray(noise).save(root / split / name / f"Image{i}.jpg")
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\2\x01\x12\0\3")
    (root / "Training/glioma/Image3.jpg").write_bytes(buffer.getvalue())
    (root / "Training/glioma/Image4.jpg").unlink()
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(root / "Training/glioma/Image4.png")
    (root / "Training/pituitary/Image5.jpg").unlink()
    (root / "Training/pituitary/IMG_0005.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(200))
    (root / "Training/glioma/all").symlink_to(root)
    return root


def test_a_download_gives_the_right_classes_and_counts(tmp_path):
    source = opened(download(tmp_path / "brain"))
    assert source.classes == ("glioma", "pituitary")
    assert np.bincount(source.train.labels).tolist() == [15, 14]
    assert np.bincount(source.validation.labels).tolist() == [5, 5]
    for split in (source.train, source.validation):
        assert {split.read(i).size for i in range(len(split))} == {(72, 72)}
    assert source.left_out.partition(": ")[2] == (
        "1 .heic (convert it, for example by `magick mogrify -format jpg *.heic`), 1 link to what counts already"
    )


def test_the_commands_say_it_in_one_line(tmp_path):
    root, out = download(tmp_path / "brain"), tmp_path / "out"
    for command in (["train", "-p", "steps=2"], ["evaluate", "untrained", "--by", "knn"]):
        more = ["--profile", "smoke", "--data", f"folder:{root}", "--out", str(out)]
        ended = completed(*CLI, *command, *more)
        assert ended.returncode == 0, ended.stderr
        said = [line for line in ended.stderr.splitlines() if "left out" in line]
        assert said == [opened(root).left_out]
        assert "Traceback" not in ended.stderr
    assert "of 10 held-out images, 2 classes" in ended.stdout


def test_a_plan_of_notebooks_says_it_before_any_starts(tmp_path, capsys):
    root = download(tmp_path / "brain")
    make_plan(Request(("00",), profile="smoke", data=f"folder:{root}", out=str(tmp_path / "out")))
    err = capsys.readouterr().err
    assert err == opened(root).left_out + "\n"
