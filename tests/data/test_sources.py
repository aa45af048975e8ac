"""Claims: every source string gives the right pictures, labels and splits; its identity does not depend on the machine;
hold-outs are stable; broken files stop or are skipped; every error is one line that says what to do.
"""

import builtins
import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_pictures import names, picture, png, write_folder, write_shard

from lcmae_core.config import Data, LcmaeError, resolve
from lcmae_core.data import UnreadableImage, open_source, source_identity, sources
from lcmae_core.data.splits import Split, hold_out


def opened(spec, **more):
    return open_source(Data(source=str(spec), **more))


def error_line(spec, kind=LcmaeError, **more):
    with pytest.raises(kind) as caught:
        opened(spec, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# folder:


def test_class_folders_with_splits(tmp_path):
    write_folder(tmp_path, ["train/cat/2.png", "train/cat/10.png", "train/dog/a.png", "val/dog/z.png", "train/a.txt"])
    source = opened(f"folder:{tmp_path}")
    assert names(source.train) == ["cat/2.png", "cat/10.png", "dog/a.png"]  # 2 before 10; text passed over
    assert source.train.labels.tolist() == [0, 0, 1]
    assert source.validation.labels.tolist() == [1]
    assert source.classes == ("cat", "dog")
    assert np.array_equal(source.train.read(1), picture(1))
    assert np.array_equal(source.validation.read(0), picture(3))
    assert source.train.read(0).mode == "RGB"
    assert opened(f"folder:{tmp_path}", channels=1).train.read(0).mode == "L"


def test_flat_folder_has_no_labels_and_a_hold_out(tmp_path):
    write_folder(tmp_path, [f"{i}.png" for i in range(40)])
    source = opened(f"folder:{tmp_path}", validation_fraction=0.25)
    assert source.train.labels is source.validation.labels is source.classes is None
    assert sorted(names(source.train) + names(source.validation)) == sorted(f"{i}.png" for i in range(40))
    assert 4 <= len(source.validation) <= 17
    held = names(source.validation)
    assert np.array_equal(source.validation.read(0), picture(int(held[0][:-4])))
    write_folder(tmp_path, [f"{i}.png" for i in range(60)])  # files added later move no earlier file
    later = names(opened(f"folder:{tmp_path}", validation_fraction=0.25).validation)
    assert [n for n in later if int(n[:-4]) < 40] == held


def test_hold_out_keeps_a_picture_of_every_class_in_train():
    labels = np.arange(30) % 10
    split = Split("all", 30, labels, lambda i: None, lambda i: f"{i}.png")
    for fraction in (1e-6, 0.5, 0.999):
        train, validation = hold_out(split, fraction)
        assert set(train.labels) == set(range(10))
        assert len(validation) >= 1
        assert len(train) + len(validation) == 30
        assert [labels[int(validation.file_name(i)[:-4])] for i in range(len(validation))] == validation.labels.tolist()


def test_one_photograph_trains_without_validation(tmp_path):
    source = opened(f"folder:{write_folder(tmp_path, ['a.png'])}")
    assert (len(source.train), len(source.validation)) == (1, 0)


def test_folder_errors(tmp_path):
    assert "no such path" in error_line(f"folder:{tmp_path}/nowhere")
    assert "no image" in error_line(f"folder:{tmp_path}")
    write_folder(tmp_path, ["train/cat/a.png", "val/cats/b.png"])
    assert "did you mean 'cat'" in error_line(f"folder:{tmp_path}")


def test_unreadable_files_stop_or_are_skipped(tmp_path):
    write_folder(tmp_path, ["train/cat/a.png", "train/dog/b.png", "train/dog/c.png", "val/cat/d.png"])
    (tmp_path / "train/dog/b.png").write_bytes(b"<html>")
    stopped = opened(f"folder:{tmp_path}")
    with pytest.raises(UnreadableImage, match=r"dog/b\.png.*web page"):
        stopped.train.read(1)
    assert stopped.skipped == ()
    skipping = opened(f"folder:{tmp_path}", on_unreadable="skip")
    assert skipping.skipped == ("dog/b.png",)
    assert names(skipping.train) == ["cat/a.png", "dog/c.png"]
    assert skipping.train.labels.tolist() == [0, 1]
    assert np.array_equal(skipping.train.read(1), picture(2))
    for name in ("train/cat/a.png", "train/dog/c.png"):
        (tmp_path / name).write_bytes(b"")
    assert "none of 3 images is readable" in error_line(f"folder:{tmp_path}", on_unreadable="skip")


def test_identity_moves_with_the_folder_and_changes_with_its_files(tmp_path):
    first = write_folder(tmp_path / "here" / "pets", ["cat/a.png", "dog/b.png"])
    there = tmp_path / "there" / "pets"
    shutil.copytree(first, there)
    identity = source_identity(f"folder:{first}")
    assert identity.startswith("folder-")
    assert identity == source_identity(f"folder:{there}") == opened(f"folder:{there}").identity
    (there / "dog/b.png").rename(there / "dog/c.png")
    assert identity != source_identity(f"folder:{there}")
    (first / "dog/b.png").write_bytes(png(1) + b" ")
    assert identity != source_identity(f"folder:{first}")


# parquet:


def write_parquet(path, seeds, column="image", labels=True, classes=None):
    rows = [{"bytes": png(s), "path": f"{s}.png"} for s in seeds]
    table = pa.table({column: rows} | ({"label": [s % 2 for s in seeds]} if labels else {}))
    if classes:
        info = {"info": {"features": {"label": {"names": classes, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def test_parquet_splits_labels_and_class_names(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [0, 1, 2], classes=["even", "odd"])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [3, 4], classes=["even", "odd"])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [5])
    source = opened(f"parquet:{tmp_path}")
    assert source.classes == ("even", "odd")
    assert source.train.labels.tolist() == [0, 1, 0, 1, 0]
    assert names(source.train) == [f"{i}.png" for i in range(5)]
    assert np.array_equal(source.train.read(4), picture(4))
    assert source.validation.labels.tolist() == [1]
    assert np.array_equal(source.validation.read(0), picture(5))


def test_parquet_class_names_from_the_manifest_and_no_labels(tmp_path):
    write_parquet(tmp_path / "a" / "train.parquet", range(6))
    (tmp_path / "a" / "manifest.json").write_text('{"classes": ["e", "o"]}')
    assert opened(f"parquet:{tmp_path}/a").classes == ("e", "o")
    write_parquet(tmp_path / "b" / "pictures.parquet", range(6), labels=False)
    source = opened(f"parquet:{tmp_path}/b")
    assert source.train.labels is source.classes is None
    assert len(source.train) + len(source.validation) == 6


def test_parquet_errors(tmp_path):
    assert "no *.parquet" in error_line(f"parquet:{tmp_path}")
    write_parquet(tmp_path / "train.parquet", [0], column="picture")
    assert "no column 'image', got picture, label" in error_line(f"parquet:{tmp_path}")


def test_parquet_names_a_broken_row(tmp_path):
    rows = [{"bytes": data, "path": None} for data in (png(0), b"")]
    pq.write_table(pa.table({"image": rows}), tmp_path / "x.parquet")
    source = open_source(Data(source=f"parquet:{tmp_path}", on_unreadable="skip"))
    assert source.skipped == ("x.parquet#1",)


def test_parquet_needs_only_pyarrow(tmp_path, monkeypatch):
    write_parquet(tmp_path / "train.parquet", range(4))
    block(monkeypatch, "datasets", "webdataset", "timm", "torchvision", "skimage", "sklearn")
    assert len(opened(f"parquet:{tmp_path}").train) >= 1


# hubs and packages


def block(monkeypatch, *packages):
    """As on a machine where these are not installed."""
    real = builtins.__import__

    def without(name, *more, **kwargs):
        if name.split(".")[0] in packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *more, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


def labelled(seeds):
    """A picture and its class for each seed, as members of a shard."""
    both = {seed: (png(seed), str(seed % 3).encode()) for seed in seeds}
    return {f"{seed:04d}.{end}": content for seed, two in both.items() for end, content in zip(("png", "cls"), two)}


@pytest.fixture
def hf_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.mark.filterwarnings("ignore")  # datasets leaves archives open
def test_webdataset_shards(tmp_path, hf_cache):
    for k in range(2):
        write_shard(tmp_path / f"train-{k}.tar", labelled(range(4 * k, 4 * k + 4)))
    write_shard(tmp_path / "validation-0.tar", labelled([8, 9]))
    source = opened(f"wds:{tmp_path}")
    assert source.train.labels.tolist() == [i % 3 for i in range(8)]
    assert np.array_equal(source.train.read(6), picture(6))
    assert np.array_equal(source.validation.read(1), picture(9))
    assert source.identity.startswith("wds-")
    braces = opened(f"wds:{tmp_path}/train-{{0..1}}.tar")
    assert len(braces.train) + len(braces.validation) == 8
    assert "no such shards" in error_line(f"wds:{tmp_path}/none-{{0..3}}.tar")


@pytest.mark.filterwarnings("ignore")
def test_hub_layout_on_disk(tmp_path, hf_cache):
    write_folder(tmp_path, ["train/cat/0.png", "train/dog/1.png", "train/dog/2.png", "test/cat/3.png"])
    source = opened(f"hf:{tmp_path}")
    assert source.classes == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 1, 1]
    assert np.array_equal(source.train.read(2), picture(2))
    assert np.array_equal(source.validation.read(0), picture(3))


def test_unreachable_hub_and_missing_package(monkeypatch):
    import datasets

    def offline(*arguments, **more):
        assert arguments == ("someone/pets", "small")
        raise ConnectionError("Couldn't reach the Hub\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    assert "not reachable" in error_line("hf:someone/pets@small")
    block(monkeypatch, "datasets")
    assert "needs `datasets`: pip install lcmae-core[sources]" in error_line("hf:someone/pets")


def test_torchvision_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("LCMAE_DATA_ROOT", str(tmp_path))
    wnids = ["n01440764", "n02102040"]
    files = [f"{split}/{wnid}/{i}.png" for split in ("train", "val") for wnid in wnids for i in range(2)]
    write_folder(tmp_path / "imagenette2", files)
    for split in ("train", "val"):  # torchvision looks for .JPEG
        for path in (tmp_path / "imagenette2" / split).rglob("*.png"):
            path.rename(path.with_suffix(".JPEG"))
    source = opened("torchvision:Imagenette")
    assert source.classes == ("tench", "English springer")
    assert source.train.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(source.train.read(3), picture(3))
    assert np.array_equal(source.validation.read(0), picture(4))
    assert source.identity == "torchvision:Imagenette"
    assert "did you mean 'Imagenette'" in error_line("torchvision:imagenette")


def test_torchvision_train_flag_and_unreachable_download(tmp_path, monkeypatch):
    import torchvision.datasets as vision

    class Ten(vision.VisionDataset):
        def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
            if download:
                raise OSError("no route to host")
            if not (tmp_path / "ready").exists():
                raise RuntimeError("Dataset not found")
            self.targets, self.classes, self.first = [0, 1, 1], ["a", "b"], 0 if train else 10

        def __getitem__(self, i):
            return picture(self.first + i), self.targets[i]

        def __len__(self):
            return 3

    monkeypatch.setattr(vision, "CIFAR10", Ten)
    monkeypatch.setenv("LCMAE_DATA_ROOT", str(tmp_path))
    assert "not reachable: no route to host" in error_line("torchvision:CIFAR10")
    (tmp_path / "ready").touch()
    source = opened("torchvision:CIFAR10")
    assert source.train.labels.tolist() == [0, 1, 1]
    assert np.array_equal(source.validation.read(2), picture(12))


# strings


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("folders:x", "did you mean 'folder'"),
        ("photo", "did you mean 'photos'"),
        ("s3:x", "expected one of: photos, folder"),
        ("photos:", "expected 'photos' alone or with a number"),
        ("folder:", "expected 'folder:' and what to read"),
        ("hf", "expected 'hf:' and what to read"),
    ],
)
def test_wrong_strings(spec, expected):
    assert expected in error_line(spec)


def test_relative_paths_are_found_from_anywhere(tmp_path, monkeypatch):
    from lcmae_core.data import paths

    write_folder(tmp_path / "data" / "pets", ["a.png", "b.png"])
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert opened("folder:data/pets").identity == source_identity(f"folder:{tmp_path}/data/pets")


def test_splits_travel_to_worker_processes(tmp_path):
    write_parquet(tmp_path / "p" / "train.parquet", range(4))
    write_folder(tmp_path / "f", ["a.png", "b.png"])
    for spec in ("photos", f"parquet:{tmp_path}/p", f"folder:{tmp_path}/f"):
        split = opened(spec).train
        copy = pickle.loads(pickle.dumps(split))
        assert np.array_equal(copy.read(0), split.read(0))


def test_names_that_are_checked_first_are_those_that_can_be_opened():
    assert [name.rstrip(":") for name in resolve.SCHEMES] == [*sources.SCHEMES]


def test_imagenette(imagenette):
    source = opened(imagenette)
    assert (len(source.train), len(source.validation)) == (9469, 3925)
    assert source.classes[6] == "garbage truck"
    assert np.bincount(source.validation.labels).sum() == 3925
    assert set(source.train.labels) == set(range(10))
    assert source.identity.startswith("parquet-")
    assert source.train.read(9468).size == (128, 128)
