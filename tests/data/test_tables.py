"""Claims: a parquet table may hold bytes, paths or both, and labels of any kind; a row without a picture is named with
its reason; the pictures that lie outside a table are part of what identifies it; names of files are never patterns.
"""

import json
import os
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_pictures import STRUCT, picture, png, write_folder

from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import UnreadableImage, open_source, source_identity


def write(file, images, **columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, **columns}), file)
    return file


def opened(place, **more):
    return open_source(Data(source=f"parquet:{place}", **more))


def everything(source):
    """(name, label, picture) of all pictures, by name."""
    return sorted(
        (split.file_name(i), None if split.labels is None else int(split.labels[i]), np.asarray(split.read(i)).tolist())
        for split in (source.train, source.validation)
        for i in range(len(split))
    )


def test_paths_are_beside_the_table_below_the_source_or_absolute(tmp_path):
    write_folder(tmp_path / "pics", [f"{i}.png" for i in range(4)])
    forms = {
        "struct": lambda paths: pa.array([{"bytes": None, "path": p} for p in paths], STRUCT),
        "text": pa.array,
        "large": lambda paths: pa.array(paths, pa.large_string()),
        "dictionary": lambda paths: pa.array(paths).dictionary_encode(),
    }
    for name, form in forms.items():
        beside = write(tmp_path / f"{name}-a.parquet", form([f"pics/{i}.png" for i in range(4)]))
        absolute = write(tmp_path / name / "b.parquet", form([str(tmp_path / f"pics/{i}.png") for i in range(4)]))
        for file in (beside, absolute):
            found = everything(opened(file))
            assert [pixels for _, _, pixels in found] == [np.asarray(picture(i)).tolist() for i in range(4)], file
    root = tmp_path / "below"
    shutil.copytree(tmp_path / "pics", root / "pics")
    write(root / "data" / "train.parquet", pa.array([f"pics/{i}.png" for i in range(4)]))
    assert len(everything(opened(root))) == 4  # relative to the source
    (root / "pics").rename(root / "data" / "pics")
    assert len(everything(opened(root))) == 4  # relative to the table


def test_bytes_paths_and_nothing_in_one_table(tmp_path):
    write_folder(tmp_path, ["0.png"])
    rows = [{"bytes": None, "path": "0.png"}, {"bytes": png(1), "path": "one.png"}, {"bytes": png(2), "path": None},
            {"bytes": None, "path": "gone.png"}, {"bytes": None, "path": None}, None,
            {"bytes": b"", "path": None}]  # fmt: skip
    write(tmp_path / "train.parquet", pa.array(rows, STRUCT))
    source = opened(tmp_path, validation_fraction=1e-6)
    split = {s.file_name(i): (s, i) for s in (source.train, source.validation) for i in range(len(s))}
    for name, seed in (("0.png", 0), ("one.png", 1), ("train.parquet#2", 2)):
        s, i = split[name]
        assert np.array_equal(s.read(i), picture(seed))
    reasons = {
        "gone.png": r"cannot read train.parquet#3: no file at 'gone.png'",
        "train.parquet#4": "cannot read train.parquet#4: neither bytes nor a path",
        "train.parquet#5": "cannot read train.parquet#5: neither bytes nor a path",
        "train.parquet#6": "cannot read train.parquet#6: the file is empty",
    }
    for name, reason in reasons.items():
        s, i = split[name]
        with pytest.raises(UnreadableImage, match=reason):
            s.read(i)
    assert sorted(opened(tmp_path, on_unreadable="skip").skipped) == sorted(reasons)
    s, i = split["0.png"]
    assert np.array_equal(pickle.loads(pickle.dumps(s)).read(i), picture(0))


def test_tables_without_a_picture_are_one_line(tmp_path):
    cases = [
        (pa.array([{"bytes": None, "path": None}] * 2, STRUCT), "holds neither bytes nor a path in any row"),
        (pa.array([None] * 2, STRUCT), "holds neither bytes nor a path in any row"),
        (pa.nulls(2), "holds neither bytes nor a path in any row"),
        (pa.array([[1, 2], [3]]), "column 'image' is list<.*>, expected {bytes, path}, bytes or paths"),
        (pa.array([1, 2]), "column 'image' is int64, expected"),
    ]
    for images, line in cases:
        write(tmp_path / "train.parquet", images)
        with pytest.raises(LcmaeError, match=line):
            opened(tmp_path)
    (tmp_path / "train.parquet").write_bytes(b"<html>not found</html>")
    for look in (opened, lambda place: source_identity(f"parquet:{place}")):
        with pytest.raises(LcmaeError, match=r"source 'parquet:.*got Parquet magic bytes not found") as caught:
            look(tmp_path)
        assert "\n" not in str(caught.value)


def test_labels_of_tables_that_differ(tmp_path):
    pictures = [png(i) for i in range(4)]
    for file, images, labels in (
        ("train-0", pa.array(pictures), pa.array(["cat", "dog", "cat", "dog"])),
        ("train-1", pa.array(pictures, pa.large_binary()), pa.array(["dog", "cat"] * 2).dictionary_encode()),
        ("val-0", pa.array([{"bytes": b} for b in pictures], STRUCT), pa.array(["dog"] * 4, pa.large_string())),
    ):
        write(tmp_path / f"{file}.parquet", images, label=labels)
    source = opened(tmp_path)
    assert source.classes == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 1, 0, 1, 1, 0, 1, 0]
    assert source.validation.labels.tolist() == [1] * 4
    assert np.array_equal(source.train.read(5), picture(1))
    write(tmp_path / "val-0.parquet", pa.array(pictures))  # labels in train alone
    source = opened(tmp_path)
    assert (source.classes, source.validation.labels) == (("cat", "dog"), None)
    write(tmp_path / "val-0.parquet", pa.array(pictures), label=["cats"] * 4)
    with pytest.raises(LcmaeError, match=r"class 'cats' of validation is not in train: did you mean 'cat'\?"):
        opened(tmp_path)


def test_names_of_classes_are_those_of_the_label_column(tmp_path):
    table = pa.table({"image": [png(0), png(1)], "fine_label": [1, 0]})
    info = {"info": {"features": {"fine_label": {"names": ["a", "b"]}, "label": {"names": ["wrong"]}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "train.parquet")
    assert opened(tmp_path).classes == ("a", "b")


def test_names_are_no_patterns(tmp_path):
    for name in ("[2024] leaves", "a*b?", "{x}", "ünï cödé", "a b"):
        file = write(tmp_path / name / "tr[a]in-{0}*.parquet", pa.array([png(0), png(1)]))
        for place in (file, file.parent):
            assert len(everything(opened(place))) == 2
            assert source_identity(f"parquet:{place}") == source_identity(f"parquet:{file}")


def test_pictures_outside_a_table_are_part_of_it(tmp_path):
    for name in ("a", "b"):
        root = write_folder(tmp_path / name / "set", [f"pics/{i}.png" for i in range(3)])
        write(root / "text.parquet", pa.array([f"pics/{i}.png" for i in range(3)]))
        rows = [{"bytes": None, "path": f"pics/{i}.png"} for i in range(3)]
        write(root / "struct.parquet", pa.array(rows, STRUCT))
        whole = [{"bytes": png(i), "path": f"pics/{i}.png"} for i in range(3)]
        write(root / "whole.parquet", pa.array(whole, STRUCT))
    before = {name: [source_identity(f"parquet:{tmp_path}/{p}/set/{name}.parquet") for p in "ab"]
              for name in ("text", "struct", "whole")}  # fmt: skip
    assert all(first == second for first, second in before.values())
    other = tmp_path / "a" / "set" / "pics" / "1.png"
    data = bytearray(other.read_bytes())
    data[-20] ^= 1
    other.write_bytes(data)
    os.utime(other, (5, 5))
    changed = {name: source_identity(f"parquet:{tmp_path}/a/set/{name}.parquet") != before[name][0] for name in before}
    assert changed == {"text": True, "struct": True, "whole": False}
