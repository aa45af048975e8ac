"""Claims: a parquet table too large to hold is read as it is asked for, and pictures, names, labels, order, crops and a
training resumed in the middle are those of a held one to the last bit, with any row groups, workers and ranks; no more
than a few blocks lie in memory; for random order one copy is made in the cache, and a damaged copy costs only
time; a damaged table is refused by its name, from whatever process.
"""

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from made_pictures import STRUCT, png, write_folder

from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import cache as C
from lcmae_core.data import image_column as I
from lcmae_core.data import open_source
from lcmae_core.data import row_groups as R
from lcmae_core.data.counter import Share
from lcmae_core.data.encoded import Copy
from lcmae_core.data.loader import Loader
from lcmae_core.data.randaugment import AugmentedLoader, Pictures
from lcmae_core.data.sources import opened_once
from lcmae_core.data.views import Views
from lcmae_core.store.progress import say_once
from lcmae_core.store.stopping import Stopped, stop_requests

IMAGES = 11


def write(file, group, images=None, **how):
    images = images or [{"bytes": png(i), "path": f"{i}.png"} for i in range(IMAGES)]
    kind = STRUCT if isinstance(images[0], dict) else pa.binary()
    table = pa.table({"image": pa.array(images, kind), "label": [i % 3 for i in range(len(images))]})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=group, **how)
    return file


@pytest.fixture
def opened(monkeypatch):
    """A source, held or not, opened anew."""

    def open_it(place, *, hold, **more):
        monkeypatch.setattr(I, "SHARE", 1.0 if hold else 0.0)
        opened_once.cache_clear()
        R.RECENT.start_over()
        say_once.cache_clear()
        return open_source(Data(source=f"parquet:{place}", image_size=(16, 16), **more))

    yield open_it
    opened_once.cache_clear()


def on_disk(split):
    return isinstance(split.read.read.fetch.columns[0], I.OnDisk)


def loader_of(source, cache=None, **more):
    how = {"seed": 3, "batch_size": 4, "device": "cpu", "workers": 0, "device_cache_gb": 0.0} | more
    return Loader(source.train, Data(source="photos", image_size=(16, 16)), cache=cache, **how)


def batches(loader, start=0, stop=7):
    found = [*loader.batches(start, stop), *loader.evaluation()]
    return [torch.cat([batch[k] for batch in found]) for k in range(4)]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("group", [1, 4, 1000])
def test_pictures_names_and_labels_are_those_of_a_held_table(group, tmp_path, opened, monkeypatch):
    monkeypatch.setattr(R, "BLOCK", 3 * len(png(0)))  # several blocks a row group
    monkeypatch.setattr(R, "BLOCKS", 2)
    monkeypatch.setattr(R, "FEWEST", 1)
    write_folder(tmp_path / "out", ["far.png"])
    rows = [{"bytes": png(i), "path": f"{i}.png" if i % 2 else None} for i in range(IMAGES)]
    rows[2:2] = [{"bytes": None, "path": "out/far.png"}, {"bytes": b"", "path": "out/far.png"}]
    write(tmp_path / "train-0.parquet", group, rows)
    write(tmp_path / "train-1.parquet", group, [png(i) for i in range(20, 25)])
    write(tmp_path / "val-0.parquet", group)
    held, read = (opened(tmp_path, hold=hold) for hold in (True, False))
    assert (on_disk(held.train), on_disk(read.train)) == (False, True)
    assert held.identity == read.identity
    order = np.random.default_rng(0).permutation(len(held.train))
    for i in [*range(len(held.train)), *order.tolist()]:
        assert held.train.file_name(i) == read.train.file_name(i)
        assert np.array_equal(held.train.read(i), read.train.read(i)), i
    assert held.train.labels.tolist() == read.train.labels.tolist()
    assert [held.validation.file_name(i) for i in range(IMAGES)] == [f"{i}.png" for i in range(IMAGES)]
    assert np.array_equal(held.validation.read(7), read.validation.read(7))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_and_its_middle_are_those_of_a_held_table_with_workers_and_ranks(workers, tmp_path, opened):
    write(tmp_path / "train.parquet", 3)
    cache = C.Cache(tmp_path / "cache", 1e9)
    held = opened(tmp_path, hold=True)
    whole, later = batches(loader_of(held)), batches(loader_of(held), 3, 7)
    parts = [batches(loader_of(held, share=Share(k, 2))) for k in range(2)]
    read = opened(tmp_path, hold=False)
    for kept in (None, cache, cache):
        assert same(batches(loader_of(read, kept, workers=workers)), whole)
        assert same(batches(loader_of(read, kept, workers=workers), 3, 7), later), "resumed in the middle"
        for k in range(2):
            assert same(batches(loader_of(read, kept, workers=workers, share=Share(k, 2))), parts[k])
    assert same(batches(loader_of(read, cache, device_cache_gb=1.0)), whole), "decoded pictures held"


def test_augmented_training_is_that_of_a_held_table_and_reads_the_copy(tmp_path, opened, monkeypatch):
    write(tmp_path / "train.parquet", 3)
    cache, found, read_from_copy = C.Cache(tmp_path / "cache", 1e9), [], []
    plain = Copy.__call__
    monkeypatch.setattr(Copy, "__call__", lambda self, i: (read_from_copy.append(i), plain(self, i))[1])
    for hold, kept in ((True, None), (False, None), (False, cache)):
        source = opened(tmp_path, hold=hold)
        pictures = Pictures(source.train, Views(0, (16, 16), (0.2, 1.0), (0.75, 1.33), True), 3, "rand-m9-inc1", 0.2)
        loader = AugmentedLoader(pictures, 4, device=torch.device("cpu"), workers=0, cache=kept)
        found.append(torch.cat([batch.images for batch in loader.batches(0, 4)]))
        assert len(read_from_copy) == (16 if kept else 0)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_in_order_every_row_group_is_read_once_and_few_blocks_are_kept(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(R, "BLOCK", 2 * len(png(0)))
    monkeypatch.setattr(R, "BLOCKS", 2)
    monkeypatch.setattr(R, "FEWEST", 1)
    started, plain = [], R.RowGroups.blocks
    monkeypatch.setattr(R.RowGroups, "blocks", lambda self, group: (started.append(group), plain(self, group))[1])
    write(tmp_path / "train.parquet", 4)
    source = opened(tmp_path, hold=False, validation_fraction=1e-9)
    most = 0
    for i in range(len(source.train)):
        source.train.read(i)
        most = max(most, len(R.RECENT))
    assert started == [0, 1, 2]
    assert most == 2
    loader = loader_of(source, C.Cache(tmp_path / "cache", 1e9))
    started.clear()
    for _ in range(2):
        batches(loader)
    assert started == [0, 1, 2], "the copy is one pass, and then it alone is read"


def test_a_copy_is_made_once_and_what_is_wrong_with_it_costs_only_time(tmp_path, opened, capsys):
    write(tmp_path / "data" / "train.parquet", 3)
    source, cache = opened(tmp_path / "data", hold=False), C.Cache(tmp_path / "cache", 1e9)
    good = batches(loader_of(source))
    assert not cache.folder.exists(), "evaluation and training without a cache keep nothing"
    assert same(batches(loader_of(source, cache)), good)
    [copy] = cache.folder.glob("*.bytes")
    content, made = copy.read_bytes(), copy.stat().st_mtime_ns
    assert same(batches(loader_of(source, cache)), good)
    assert copy.stat().st_mtime_ns == made
    assert C.taken(cache.folder)[0] == 1
    ends = np.frombuffer(content[-(8 * (IMAGES + 1) + 4 * IMAGES) : -4 * IMAGES], "<i8")
    flipped = bytearray(content)
    for start in ends[:-1]:
        flipped[int(start) + 40] ^= 1
    copy.write_bytes(flipped)
    capsys.readouterr()
    say_once.cache_clear()
    assert same(batches(loader_of(source, cache)), good)
    assert (
        capsys.readouterr().err
        == f"cache: {copy.name} is damaged or gone, some of its pictures are read from the table\n"
    )
    for wrong in (content[:-1], b"", content[:-5] + b"x" + content[-4:]):
        copy.write_bytes(wrong)
        say_once.cache_clear()
        assert same(batches(loader_of(source, cache)), good)
        assert f"cache: {copy.name} is damaged, and is made anew\n" in capsys.readouterr().err
        assert copy.read_bytes() == content
    loader = loader_of(source, cache)
    first = [*loader.batches(0, 1)]
    copy.unlink()  # by another run that makes room
    assert torch.equal(first[0].images, loader_of(source).batch(0).images)
    assert same(batches(loader), good)


def test_no_room_for_a_copy_is_a_line(tmp_path, opened, capsys):
    write(tmp_path / "data" / "train.parquet", 3)
    source = opened(tmp_path / "data", hold=False)
    good = batches(loader_of(source))
    (tmp_path / "file").write_text("")
    for cache, said in ((C.Cache(tmp_path / "cache", 10), "do not fit into"),
                        (C.Cache(tmp_path / "file" / "cache", 1e9), "is left out")):  # fmt: skip
        capsys.readouterr()
        assert same(batches(loader_of(source, cache)), good)
        err = capsys.readouterr().err
        assert said in err
        assert "pictures in random order are read from row groups, each in the time of many" in err
    assert not list((tmp_path / "cache").glob("*.bytes"))


def test_training_without_a_cache_says_that_it_is_slow(tmp_path, opened, capsys):
    write(tmp_path / "train.parquet", 3)
    for hold, said in ((True, ""), (False, "cache: none is kept (cache_gb 0), pictures in random order are read from")):
        loader = loader_of(opened(tmp_path, hold=hold))
        capsys.readouterr()
        list(loader.evaluation())
        assert not capsys.readouterr().err, "in order it is not"
        for _ in range(2):
            batches(loader)
        assert capsys.readouterr().err.startswith(said)


def test_a_copy_that_is_stopped_leaves_nothing_and_is_made_the_next_time(tmp_path, opened, monkeypatch):
    write(tmp_path / "data" / "train.parquet", 3)
    source, cache = opened(tmp_path / "data", hold=False), C.Cache(tmp_path / "cache", 1e9)
    plain = R.RowGroups.blocks

    def asked(table, group):
        yield from plain(table, group)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(R.RowGroups, "blocks", asked)
    with stop_requests(), pytest.raises(Stopped, match=r"^stopped while copying pictures to the cache; ") as stopped:
        batches(loader_of(source, cache))
    assert stopped.value.exit_code == 143
    assert not list(cache.folder.glob("*bytes*"))
    monkeypatch.setattr(R.RowGroups, "blocks", plain)
    assert same(batches(loader_of(source, cache)), batches(loader_of(source)))
    assert len(list(cache.folder.glob("*.bytes"))) == 1


def test_who_waits_for_a_copy_of_another_can_be_stopped(tmp_path, opened, monkeypatch):
    write(tmp_path / "data" / "train.parquet", 3)
    source, cache = opened(tmp_path / "data", hold=False), C.Cache(tmp_path / "cache", 1e9)
    batches(loader_of(source, cache))
    [copy] = cache.folder.glob("*.bytes")
    copy.unlink()
    monkeypatch.setattr("lcmae_core.store.locks.LOOK", 0.05)
    with FileLock(cache.folder / f".{copy.stem}.lock"), stop_requests() as asked:
        threading.Timer(0.3, asked.set).start()  # a budget
        with pytest.raises(Stopped, match=r"^stopped while another process filled the cache; ") as stopped:
            batches(loader_of(source, cache))
    assert stopped.value.exit_code == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_page_is_refused_by_the_name_of_its_table(workers, tmp_path, opened):
    images = [png(i) for i in range(80)]  # more than are read to see whether all could be held
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}  # a picture stands there once
    file = write(tmp_path / "t.parquet", 3, images, write_page_checksum=True, **plain)
    data = bytearray(file.read_bytes())
    data[data.index(images[77]) + 30] ^= 1
    file.write_bytes(data)
    for cache in (None, C.Cache(tmp_path / "cache", 1e9)):
        source = opened(tmp_path, hold=False, validation_fraction=1e-9)
        loader = loader_of(source, cache, workers=workers)
        with pytest.raises(LcmaeError, match=r"^t.parquet: column 'image': got .* CRC .*: damaged") as got:
            [*loader.batches(0, 20)]
        assert "\n" not in str(got.value)
    assert not list((tmp_path / "cache").glob("*.bytes")), "nothing half made is taken for a copy"
    assert not list((tmp_path / "cache").glob(".*.bytes"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_table_that_lost_rows_meanwhile_is_an_error_and_no_end(workers, tmp_path, opened, monkeypatch):
    monkeypatch.setattr(R, "FEWEST", 1)
    monkeypatch.setattr(R, "BLOCK", 2 * len(png(0)))
    images = [png(i) for i in range(80)]
    write(tmp_path / "t.parquet", 20, images)
    source = opened(tmp_path, hold=False, validation_fraction=1e-9)
    loader = loader_of(source, None, workers=workers)
    monkeypatch.setattr(R.RowGroups, "blocks", lambda self, group: iter(()))
    R.RECENT.start_over()
    with pytest.raises(LcmaeError, match=r"^t.parquet: column 'image': got it has fewer rows than .*: damaged"):
        [*loader.batches(0, 20)]


def test_it_is_held_up_to_a_share_of_the_memory_and_of_the_ranks(tmp_path, opened, monkeypatch):
    file = write(tmp_path / "train.parquet", 3)
    size = R.bytes_of(pq.read_metadata(file), "image.bytes")
    assert size > IMAGES * len(png(0)) * 0.5
    monkeypatch.setattr(I, "SHARE", 1 / 8)
    for memory, ranks, fits in ((8 * size, 1, True), (8 * size - 8, 1, False), (8 * size, 2, False),
                                (16 * size, 2, True), (None, 1, True)):  # fmt: skip
        monkeypatch.setattr(I, "machine_memory", lambda memory=memory: memory)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        assert I.fits([file]) is fits, (memory, ranks)


CHILD = """
import json, sys
from pathlib import Path
import numpy as np, pyarrow.parquet, pyarrow.dataset
from lcmae_core.config import Data
from lcmae_core.data import image_column as I, open_source
from lcmae_core.data.cache import Cache

def peak():
    return next(int(line.split()[1]) / 1e3 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def taken(share):
    I.SHARE, before = share, peak()
    split = open_source(Data(source="parquet:" + sys.argv[1], min_side=8 + (share > 0))).train  # not opened before
    copied = split.copied(Cache(Path(sys.argv[1]) / "cache", 1e9))
    fetch, again = copied.read.function.read.fetch, split.read.function.read.fetch
    sizes = sum(len(fetch(int(i))) for i in np.random.default_rng(0).permutation(len(split)))
    assert sizes > 0 and fetch(5) == again(5)
    return peak() - before

open_source(Data(source="photos"))
print(json.dumps([taken(0.0), taken(1.0)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says the peak of memory")
def test_a_large_table_takes_little_memory(tmp_path):
    """MB above what the process had, of a table of 160: at most a quarter where it is read, all where it is held."""
    rows, size = 3200, 50_000
    rng = np.random.default_rng(0)
    schema = pa.schema([("image", pa.binary())])
    with pq.ParquetWriter(tmp_path / "train.parquet", schema, compression="none", use_dictionary=False) as file:
        for _ in range(rows // 100):
            file.write_table(pa.table({"image": [rng.bytes(size) for _ in range(100)]}, schema))
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    read, held = json.loads(done.stdout.splitlines()[-1])
    assert read < rows * size / 1e6 / 4, (read, held)
    assert held > rows * size / 1e6 * 0.8, (read, held)
