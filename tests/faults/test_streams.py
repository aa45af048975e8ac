"""Preparing shards that is killed or stopped loses at most the shard under way and ends in the same bytes; a shard or a
table that is cut off, flipped, missing or strange is refused by its name where a manifest or a checksum
knows better."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import open_source
from lcmae_core.data.contents import contents_of
from lcmae_core.data.manifest import MANIFEST
from lcmae_core.data.prepare import prepare
from lcmae_core.data.shard_plan import ShardRecipe
from lcmae_core.store.files import DiskFullError, sha256
from tests.started import CLI, Started

SHARDS, IMAGES = 12, 8
"""Of the prepared source: enough that a kill finds work both done and to do."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that take a while to resize."""
    root = tmp_path_factory.mktemp("pictures")
    Image.effect_noise((1000, 800), 60).convert("RGB").save(buffer := io.BytesIO(), "JPEG")
    for i in range(SHARDS * IMAGES):
        (root / f"c{i % 3}").mkdir(exist_ok=True)
        (root / f"c{i % 3}" / f"{i}.jpg").write_bytes(buffer.getvalue())
    return root


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its shards, made without interruption."""
    out = tmp_path_factory.mktemp("whole")
    prepare(contents_of(str(folder)), out, ShardRecipe(size=320, shard_images=IMAGES))
    return out


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "shards"))


def digests(folder: Path) -> dict[str, str]:
    return {p.name: sha256(p) for p in folder.glob("[!.]*")}


def started(folder: Path, out: Path) -> Started:
    words = f"prepare {folder} --to {out} --size 320 --shard-images {IMAGES} --jobs 1".split()
    return Started(*CLI, *words, env={**os.environ, "OMP_NUM_THREADS": "1"})


def struck(folder: Path, out: Path, count: int, sign: signal.Signals, wait: float) -> tuple[int, str]:
    """Start, wait for so many shards and a little longer, and send a signal; exit code and what was said."""
    process = started(folder, out)
    until = time.monotonic() + 120
    while len([*out.glob("[!.]*.tar")]) < count and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(wait)
    process.send_signal(sign)
    said = process.communicate(timeout=60)[1]
    return process.returncode, said


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.fault)])
def test_killed_at_random_it_ends_in_the_same_bytes(kills, folder, whole, tmp_path):
    out, rng, good = tmp_path / "out", random.Random(kills), digests(whole)
    for kill in range(kills):
        target = 1 + kill * (SHARDS - 3) // kills
        code, said = struck(folder, out, target, signal.SIGKILL, rng.random() * 0.05)
        assert code == -signal.SIGKILL, said
        there = {name: digest for name, digest in digests(out).items() if name.endswith(".tar")}
        assert len(there) >= target
        assert there.items() <= good.items(), "a shard is whole or not there"
        known = json.loads((out / MANIFEST).read_text())
        assert len(there) - len(known["files"]) <= 1, "at most the shard under way is done again"
    process = started(folder, out)
    assert process.communicate(timeout=120)[1] is not None
    assert process.returncode == 0
    assert digests(out) == good
    assert sorted(p.name for p in out.glob(".*")) == [".prepare.lock"]


@pytest.mark.parametrize(
    ("sign", "code"),
    [(signal.SIGTERM, 143), *(pytest.param(s, c, marks=pytest.mark.fault) for s, c in
                              ((signal.SIGINT, 130), (signal.SIGUSR2, 75)))],
)  # fmt: skip
def test_a_signal_ends_it_in_a_line_with_its_exit_code(sign, code, folder, whole, tmp_path):
    out = tmp_path / "out"
    found, said = struck(folder, out, 2, sign, 0.01)
    assert found == code, said
    assert said.endswith("lcmae: prepare: finished shards are kept; the same command resumes\n")
    assert "Traceback" not in said
    there = {name: digest for name, digest in digests(out).items() if name.endswith(".tar")}
    assert 2 <= len(there) < SHARDS
    assert there.items() <= digests(whole).items()
    assert sorted(p.name for p in out.glob(".*")) == [".prepare.lock"], "nothing half made is left"


def test_a_full_disk_is_one_line_and_work_goes_on_when_there_is_room(folder, whole, tmp_path):
    small, out = tmp_path / "small", tmp_path / "small" / "out"
    small.mkdir()
    size = sum(file.stat().st_size for file in whole.glob("*.tar"))
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", str(small)], capture_output=True)
    if done.returncode:
        pytest.skip("no disk can be mounted here: " + done.stderr.decode().strip())
    try:
        with pytest.raises(DiskFullError, match=r"^disk: '.*/out/train-\d+\.tar' got .* bytes of room") as caught:
            prepare(contents_of(str(folder)), out, ShardRecipe(size=320, shard_images=IMAGES))
        assert "\n" not in str(caught.value)
        good, there = digests(whole), {k: v for k, v in digests(out).items() if k.endswith(".tar")}
        assert 0 < len(there) < SHARDS
        assert there.items() <= good.items()
        assert sorted(p.name for p in out.glob(".*")) == [".prepare.lock"]
        subprocess.run(["mount", "-o", f"remount,size={3 * size}", str(small)], check=True)
        prepare(contents_of(str(folder)), out, ShardRecipe(size=320, shard_images=IMAGES))
        assert digests(out) == good
    finally:
        subprocess.run(["umount", str(small)], check=True)


def line(source: str) -> str:
    with pytest.raises(LcmaeError) as caught:
        open_source(Data(source=source))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("trials", [3, pytest.param(30, marks=pytest.mark.fault)])
def test_a_flipped_bit_in_a_shard_is_refused_by_its_name(trials, copied):
    rng = random.Random(trials)
    for _ in range(trials):
        file = rng.choice(sorted(copied.glob("*.tar")))
        good = file.read_bytes()
        data = bytearray(good)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        said = line(f"wds:{copied}")
        assert f"{file.name}: got sha256 " in said
        assert said.endswith(f"of {MANIFEST}: damaged")
        file.write_bytes(good)
    assert open_source(Data(source=f"wds:{copied}")).classes == ("c0", "c1", "c2")


def test_shards_that_are_cut_off_missing_or_strange_are_refused_by_name(copied):
    file = copied / "train-000003.tar"
    good = file.read_bytes()
    for size in (0, 100, len(good) // 2, len(good) - 512):
        file.write_bytes(good[:size])
        assert f"train-000003.tar: got {size:,} bytes, expected {len(good):,} bytes: damaged" in line(f"wds:{copied}")
        assert "train-000003.tar: got " in line(f"wds:{file}"), "alone too"
    file.unlink()
    assert "train-000003.tar is not there (1 that manifest.json lists are not)" in line(f"wds:{copied}")
    assert open_source(Data(source=f"wds:{copied}/train-{{000004..000005}}.tar")).classes, "a part may be asked for"
    file.write_bytes(good)
    shutil.copyfile(file, copied / "train-000099.tar")
    assert "train-000099.tar is not in shards/manifest.json" in line(f"wds:{copied}")
    (copied / "train-000099.tar").unlink()
    for content in (b"", b'{"a": 1, "b'):
        before = (copied / MANIFEST).read_bytes()
        (copied / MANIFEST).write_bytes(content)
        assert line(f"wds:{copied}").startswith(f"{MANIFEST}: got ")
        (copied / MANIFEST).write_bytes(before)
    open_source(Data(source=f"wds:{copied}"))


@pytest.mark.parametrize("trials", [4, pytest.param(40, marks=pytest.mark.fault)])
@pytest.mark.parametrize("by", ["manifest", "checksums"])
def test_a_flipped_bit_in_a_table_is_refused_by_its_name_where_something_knows_better(by, trials, tmp_path):
    """Checksums cover what is in the pages; a manifest covers all bytes."""
    rng, file = random.Random(trials), tmp_path / "train-0.parquet"
    pictures = [Image.effect_noise((64, 64), 60).convert("RGB") for _ in range(20)]
    content = []
    for one in pictures:
        one.save(buffer := io.BytesIO(), "JPEG")
        content.append(buffer.getvalue())
    table = pa.table({"image": content, "label": list(range(20))})
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}  # a picture stands there once
    pq.write_table(table, file, write_page_checksum=by == "checksums", **plain)
    good = file.read_bytes()
    if by == "manifest":
        listed = {"file": file.name, "sha256": sha256(file), "bytes": len(good)}
        (tmp_path / MANIFEST).write_text(json.dumps({"files": [listed]}))
    pages = (good.index(content[0]), good.index(content[-1]) + len(content[-1]))
    for _ in range(trials):
        data = bytearray(good)
        data[rng.randrange(*(pages if by == "checksums" else (0, len(data))))] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        said = line(f"parquet:{tmp_path}")
        assert f"{file.name}: " in said
        assert ("CRC checksum" if by == "checksums" else "sha256 ") in said
    file.write_bytes(good)
    assert len(open_source(Data(source=f"parquet:{tmp_path}")).train) >= 1
    if by == "manifest":
        shutil.copyfile(file, tmp_path / "train-1.parquet")
        assert open_source(Data(source=f"parquet:{tmp_path}")).classes, "a manifest of others need not list all"
        file.unlink()
        assert "train-0.parquet is not there (1 that manifest.json lists are not)" in line(f"parquet:{tmp_path}")


def test_shards_without_a_manifest_that_are_cut_off_are_refused_by_name(copied):
    """A flipped bit in a picture cannot be seen without a digest; one in a header can, and so can an end that lacks."""
    (copied / MANIFEST).unlink()
    file = copied / "train-000003.tar"
    good = file.read_bytes()
    header = good.index(b"c1/", 600)
    flipped = bytearray(good)
    flipped[header + 1] ^= 2
    for data in (good[:header], good[: header + 100], good[: header + 600], bytes(flipped)):
        file.write_bytes(data)
        said = line(f"wds:{copied}")
        assert said.startswith("train-000003.tar: got ")
        assert said.endswith("expected a whole .tar archive")


def test_a_link_in_a_shard_is_refused_by_name(tmp_path):
    import tarfile

    Image.new("RGB", (9, 9)).save(buffer := io.BytesIO(), "PNG")
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        info = tarfile.TarInfo("1.png")
        info.size = len(buffer.getvalue())
        tar.addfile(info, io.BytesIO(buffer.getvalue()))
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "train-0.tar: got member '2.png', a link to '/etc/passwd'" in line(f"wds:{tmp_path}")
