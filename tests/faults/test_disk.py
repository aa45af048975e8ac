"""A full disk is one line with the path and the bytes that found no room, exit code 1; what was there before is intact,
and with room again the same command goes on. A batch of notebooks goes on with the next one."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from lcmae_core.config import profile, replace
from lcmae_core.store import files
from lcmae_core.store.checkpoint import Shards, load_checkpoint, newest, save_checkpoint, save_shared
from lcmae_core.store.files import DiskFullError, read_json, room_for, write_atomic, write_json
from lcmae_core.store.outputs import read_ledger
from lcmae_core.store.records import open_record
from lcmae_core.training.loop import pretrain
from lcmae_core.training.sharding import bytes_of_shards, save_shards
from tests.execute.toys import code, make_notebook
from tests.loops import over
from tests.started import CLI, completed
from tests.studies.tiny_studies import MAE


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of a size."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip("no disk can be mounted here: " + done.stderr.decode().strip())
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """A file that leaves so many bytes of room."""
    filler = folder / "filler"
    filler.write_bytes(b"0" * (shutil.disk_usage(folder).free - leave))
    return filler


@over(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("a bug of ours"), False),
    ],
)
def test_a_full_disk_is_known_however_it_is_said(error, full, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda path: 1234)
    with pytest.raises(DiskFullError if full else type(error)) as raised, room_for(tmp_path / "x", 56789):
        raise error
    if full:
        line = f"disk: '{tmp_path}/x' got 1,234 bytes of room, expected 56,789 bytes; what was there before is intact"
        assert str(raised.value) == line


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})

    def full(path: Path) -> None:
        path.write_text("half of")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match=r"a\.json' got .* bytes of room, expected 10 bytes; what was there"):
        write_atomic(tmp_path / "a.json", full, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_a_checkpoint_without_room_leaves_the_one_before(small_disk):
    disk = small_disk("4m")
    weights = {"w": torch.arange(200_000.0)}  # 800 kB, and as much again in the rest
    save_checkpoint(disk / "c", 1, weights, {"optimizer": weights})
    for leave in (1000, 300_000, 900_000, 1_600_000):  # in the weights, and in the rest, which torch writes
        filler = fill(disk, leave)
        with pytest.raises(DiskFullError, match=r"step-00000002' got .* bytes of room, expected 1,600,000 bytes"):
            save_checkpoint(disk / "c", 2, weights, {"optimizer": weights})
        assert [path.name for path in (disk / "c").iterdir()] == ["step-00000001"]
        filler.unlink()
    kept = load_checkpoint(disk / "c")
    assert kept is not None
    assert kept[1]["step"] == 1
    assert torch.equal(kept[0]["w"], weights["w"])


def test_shards_without_room_leave_the_checkpoint_before(small_disk):
    """As torch's distributed checkpoints are written, here by a single process."""
    disk, model = small_disk("4m"), torch.nn.Linear(500, 300, bias=False)  # 600 kB, and twice as much of Adam's
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 500)).sum().backward()
    optimizer.step()

    def save(step: int) -> None:
        size = bytes_of_shards(model, optimizer)
        shards = Shards(lambda place: save_shards(place, model, optimizer), size, first=True, wait=lambda: None)
        save_shared(disk / "c", step, {"groups": []}, shards)

    save(1)
    for leave in (1000, 300_000, 900_000, 1_790_000):
        filler = fill(disk, leave)
        with pytest.raises(DiskFullError, match=r"step-00000002' got .* bytes of room, expected 1,800,004 bytes"):
            save(2)
        assert [path.name for path in (disk / "c").iterdir()] == ["step-00000001"]
        filler.unlink()
    save(2)
    assert newest(disk / "c") == disk / "c" / "step-00000002"


def test_a_training_ends_in_one_line_and_goes_on_with_room(small_disk, tmp_path):
    asked = MAE | {"steps": 6, "checkpoint_every": 2, "snapshots": 0, "cache_gb": 0.0}
    words = [word for name, value in asked.items() for word in ("-p", f"{name}={value}")]
    disk = small_disk("8m")

    def train(room: int) -> subprocess.CompletedProcess[str]:
        filler = fill(disk, room)
        ended = completed(*CLI, "train", "--profile", "smoke", *words, "--out", str(disk / "o"))
        filler.unlink()
        return ended

    for room in (40_000, 400_000):
        done = train(room)
        assert done.returncode == 1, done
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"lcmae: error: disk: '{disk}/o/runs/"), last
        assert "Traceback" not in done.stderr
    assert train(6_000_000).returncode == 0
    (run,) = (disk / "o" / "runs").iterdir()
    whole = pretrain(replace(profile("smoke"), asked | {"out": str(tmp_path / "whole")}))
    assert (run / "model.safetensors").read_bytes() == (whole.path / "model.safetensors").read_bytes()


def test_a_record_without_room_keeps_its_measures(small_disk):
    disk = small_disk("1m")
    record = open_record(disk, "mae-s0-0123456789", "photos")
    record.path.parent.mkdir(parents=True, exist_ok=True)
    write_json(record.path, {"measures": {"a": {"values": {"x": 1}}}})
    filler = fill(disk, 4096)
    where = {"device": "CPU", "commit": "0", "date": "0"}
    with pytest.raises(DiskFullError, match=r"mae-s0-0123456789\.json' got .* bytes of room, expected \d"):
        record.note("b", {"x": list(range(20_000))}, 1.0, where)
    filler.unlink()
    assert set(record.measures) == {"a"}
    record.note("b", {"x": [1]}, 1.0, where)
    assert set(record.measures) == {"a", "b"}


@pytest.mark.slow
def test_a_batch_goes_on_with_the_next_notebook(small_disk, tmp_path):
    disk = small_disk("3m")
    make_notebook(tmp_path / "n", "00_big", code("print('x' * 4_000_000)"))
    make_notebook(tmp_path / "n", "01_small", code("print('small')"))
    ended = completed(*CLI, "run", "--notebooks", str(tmp_path / "n"), "--out", str(disk / "o"),
                 env=os.environ | {"COLUMNS": "200"})  # fmt: skip
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1, said
    assert "Traceback" not in said
    assert "01_small: ok" in said
    ledger = read_ledger(disk / "o")
    assert {name: entry["status"] for name, entry in ledger.items()} == {"00_big": "failed", "01_small": "ok"}
    assert "No space left" in ledger["00_big"]["error"] or "disk is full" in ledger["00_big"]["error"]
