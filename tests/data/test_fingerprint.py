"""Claims: what identifies files is their content, names and sizes, wherever they lie; a byte of a small file counts;
of many files 256 and of large ones evenly spaced blocks are read, and no more; runs on other content have other names.
"""

import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from made_pictures import png, write_folder

from lcmae_core.config import profile, replace
from lcmae_core.data import fingerprint as module
from lcmae_core.data import source_identity
from lcmae_core.data.fingerprint import BLOCK, BLOCKS, FILES, evenly, fingerprint
from lcmae_core.store.runs import run_folder


def of(root):
    return fingerprint((f.relative_to(root).as_posix(), f) for f in Path(root).rglob("*") if f.is_file())


def change(file, at=0, later=1):
    """Another byte, and a time stamp that says so whatever the clock's grain is."""
    data, seen = bytearray(file.read_bytes()), file.stat().st_mtime_ns
    data[at] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(seen + later * 10**9, seen + later * 10**9))


def test_a_byte_a_name_and_a_size_count_and_nothing_else(tmp_path):
    root = write_folder(tmp_path / "a" / "pets", ["cat/1.png", "dog/2.png", "dog/3.png"])
    first = of(root)
    assert len(first) == 10
    shutil.copytree(root, tmp_path / "b" / "animals", copy_function=shutil.copyfile)  # another path, name and time
    assert of(tmp_path / "b" / "animals") == first
    seen = {first}
    change(root / "dog" / "3.png", 40)
    seen.add(of(root))
    (root / "dog" / "3.png").rename(root / "dog" / "4.png")
    seen.add(of(root))
    with (root / "cat" / "1.png").open("ab") as file:
        file.write(b"\0")
    seen.add(of(root))
    (root / "dog" / "5.png").symlink_to("nowhere")
    seen.add(fingerprint([("dog/5.png", root / "dog" / "5.png")]))  # a broken link is no error here
    assert len(seen) == 5


def test_names_count_in_one_unicode_form(tmp_path):
    for form in ("NFC", "NFD"):
        (tmp_path / form).mkdir()
        (tmp_path / form / unicodedata.normalize(form, "épée.png")).write_bytes(b"x")
    assert of(tmp_path / "NFC") == of(tmp_path / "NFD")
    odd = os.fsencode(tmp_path) + b"/odd/\xe9t\xe9.png"
    os.makedirs(os.path.dirname(odd))
    Path(os.fsdecode(odd)).write_bytes(b"x")
    assert len(of(tmp_path / "odd")) == 10  # no UTF-8


def test_of_many_files_256_are_read(tmp_path, monkeypatch):
    names = [f"{i:03d}.bin" for i in range(600)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    read, real = [], module.content_digest
    monkeypatch.setattr(module, "content_digest", lambda place, *rest: read.append(place) or real(place, *rest))
    first = of(tmp_path)
    chosen = [names[round(k * 599 / (FILES - 1))] for k in range(FILES)]  # the first and the last among them
    assert [Path(place).name for place in read] == chosen
    skipped = next(name for name in names if name not in chosen)
    change(tmp_path / skipped)
    assert of(tmp_path) == first  # the limit that is documented
    change(tmp_path / chosen[1])
    assert of(tmp_path) != first
    assert evenly(3, 256) == [0, 1, 2]
    assert evenly(0, 256) == []


def test_of_a_large_file_blocks_are_read(tmp_path):
    size, file = 3 * BLOCKS * BLOCK, tmp_path / "train.tar"
    with file.open("wb") as out:
        out.truncate(size)  # zeros that take no room
    first, seen = of(tmp_path), set()
    last = size - BLOCK
    starts = [int(k * last / (BLOCKS - 1)) for k in range(BLOCKS)]
    between = starts[10] + BLOCK + 5
    assert between < starts[11]
    for at, counts in ((starts[0], True), (starts[100] + BLOCK // 2, True), (size - 1, True), (between, False)):
        later = len(seen) + 1
        with file.open("r+b") as out:
            out.seek(at)
            out.write(b"\1")
        os.utime(file, ns=(later * 10**9, later * 10**9))
        found = of(tmp_path)
        assert (found not in seen | {first}) == counts, at
        seen.add(found)


def test_runs_on_other_content_have_other_names(tmp_path):
    names = ["cat/1.png", "dog/2.png"]
    places = [write_folder(tmp_path / part / "img", names) for part in "abc"]
    change(places[1] / "dog" / "2.png", 50)  # the same names and sizes
    base = replace(profile("smoke"), out=str(tmp_path / "out"))
    runs = [run_folder(base, source_identity(f"folder:{place}")).name for place in places]
    assert runs[0] == runs[2] != runs[1]
    assert run_folder(base, source_identity("photos")).name == "mae-s0-" + runs_digest(base)


def runs_digest(base):
    from lcmae_core.config import digest

    return digest(base, "photos-v1")


@pytest.mark.parametrize("scheme", ["folder", "hf"])
def test_a_change_while_a_process_lives_is_seen(scheme, tmp_path):
    root = write_folder(tmp_path, ["train/cat/1.png", "train/dog/2.png"])
    first = source_identity(f"{scheme}:{root}")
    (root / "train/dog/2.png").write_bytes(png(9))
    os.utime(root / "train/dog/2.png", (1, 1))
    assert first != source_identity(f"{scheme}:{root}")
    assert first.startswith(f"{scheme}-")
