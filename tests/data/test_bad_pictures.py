"""Claims: a broken picture is an error by name, or is counted and listed when it is skipped, from every source and by
`lcmae prepare`: the pictures that are read and those that are named are all that there are; odd pictures are read as a
person sees them; one of more pixels than memory should hold is refused before it is decoded, or a JPEG comes reduced,
and neither takes a gigabyte.
"""

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_pictures import BROKEN, DEEP, FRAMES, ODD, jpeg_bomb, png_bomb
from made_pictures import picture
from PIL import Image

from lcmae_core import cli
from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import UnreadableImage, open_source
from lcmae_core.data.convert import decode
from lcmae_core.data.decoders import Decoding
from lcmae_core.data.loader import Loader
from tests.loops import over

ALL = {name: data for name, (data, *_) in (BROKEN | ODD).items()}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """All pictures as a folder, a table, a shard, and a tar to prepare."""
    root = tmp_path_factory.mktemp("bad")
    (root / "folder").mkdir()
    for name, data in ALL.items():
        (root / "folder" / name).write_bytes(data)
    rows = pa.array(
        [{"bytes": data, "path": name} for name, data in ALL.items()],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    pq.write_table(pa.table({"image": rows}), root / "table.parquet")
    with tarfile.open(root / "shard.tar", "w") as tar:
        for name, data in ALL.items():
            info = tarfile.TarInfo(name.replace("-", "_"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return {"folder": root / "folder", "parquet": root / "table.parquet", "wds": root / "shard.tar"}


@over("name", BROKEN)
def test_each_broken_picture_is_named_with_its_reason(name):
    data, reason = BROKEN[name]
    with pytest.raises(UnreadableImage, match=rf"^cannot read a/{name}: .*({reason})") as caught:
        decode(data, f"a/{name}")
    assert "\n" not in str(caught.value)


@over("name", [name for name, (_, expected, _) in ODD.items() if expected])
def test_each_odd_picture_is_what_a_person_sees(name):
    data, expected, tolerance = ODD[name]
    found, seen = np.asarray(decode(data, name), float), np.asarray(expected().convert("RGB"), float)
    assert found.shape == seen.shape
    assert np.abs(found - seen).mean() <= tolerance


def test_a_transparent_colour_of_a_palette_is_white():
    found = np.asarray(decode(ODD["palette.png"][0], "x"))
    clear = np.asarray(FRAMES[0]) == 0
    assert clear.any()
    assert (found[clear] == 255).all()
    assert np.array_equal(found[~clear], np.asarray(FRAMES[0].convert("RGB"))[~clear])


@over("scheme", ["folder", "parquet", "wds"])
def test_none_is_lost_in_silence(scheme, sources, capsys):
    skipping = open_source(Data(source=f"{scheme}:{sources[scheme]}", on_unreadable="skip"))
    named = {name.replace("_", "-") for name in skipping.skipped}
    assert named == set(BROKEN)
    assert len(skipping.train) + len(skipping.validation) == len(ODD)
    assert f"{len(BROKEN)} unreadable images (" in capsys.readouterr().err
    strict = open_source(Data(source=f"{scheme}:{sources[scheme]}"))
    failed = set()
    for split in (strict.train, strict.validation):
        for i in range(len(split)):
            try:
                split.read(i)
            except UnreadableImage as error:
                failed.add(re.match(r"cannot read (\S+):", str(error))[1].replace("_", "-"))
    assert failed == set(BROKEN)


def test_training_stops_at_a_broken_picture_with_its_name(sources):
    data = Data(source=f"folder:{sources['folder']}", image_size=(16, 16))
    with pytest.raises(UnreadableImage, match=r"^cannot read ") as caught:
        Loader(open_source(data).train, data, seed=0, batch_size=2, device="cpu", progress=False)
    assert "\n" not in str(caught.value)


def test_prepare_lists_each(sources, tmp_path, capsys):
    assert cli.main(["prepare", str(sources["folder"]), "--to", str(tmp_path / "out"), "--size", "32"]) == 0
    entries = json.loads((tmp_path / "out" / "manifest.json").read_text())["files"]
    reasons = {one["name"]: one["reason"] for entry in entries for one in entry["left_out"]}
    assert reasons.keys() == BROKEN.keys()
    assert all(re.search(BROKEN[name][1], reason) for name, reason in reasons.items())
    assert f"left out {len(BROKEN)} images: " in capsys.readouterr().err
    assert sum(entry["images"] for entry in entries) == len(ODD)


SCRIPT = r"""
import re, sys
from lcmae_core.data.convert import UnreadableImage, decode
for name in sys.argv[1:]:
    try:
        print(*decode(name, name.rsplit('/')[-1]).size)
    except UnreadableImage as error:
        print(error)
print(1024 * int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much a process took at most")
def test_pictures_larger_than_memory_take_less_than_a_gigabyte(tmp_path):
    """Torch's 0.5 GB are part of it; 13000 x 13000 px decoded would be 0.7 GB, and once more to convert it. (getrusage
    would count this process too, of which the other one was forked.)"""
    cases = {
        "rgb.png": (png_bomb(13000, 13000, colours=2), "cannot read rgb.png: it has 13000x13000 px, 169 megapixels"),
        "grey.png": (BROKEN["bomb-400.png"][0], "cannot read grey.png: it has 20000x20000 px, 400 megapixels"),
        "scans.jpg": (BROKEN["progressive-400.jpg"][0], "cannot read scans.jpg: it has 20000x20000 px"),
        "grey.jpg": (jpeg_bomb(20000), "5000 5000"),
        "largest.png": (png_bomb(7000, 7000, colours=2), "7000 7000"),
    }
    for name, (data, _) in cases.items():
        (tmp_path / name).write_bytes(data)
    words = [sys.executable, "-c", SCRIPT, *(str(tmp_path / name) for name in cases)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    *lines, peak = done.stdout.splitlines()
    for line, (_, expected) in zip(lines, cases.values(), strict=True):
        assert line.startswith(expected), line
    assert int(peak) < 1e9


def test_the_limit_is_a_setting_and_a_jpeg_is_reduced_until_it_is_kept(tmp_path):
    for name, form in (("a.png", "PNG"), ("a.jpg", "JPEG")):
        picture(1, width=400, height=300).save(tmp_path / name, form)

    def sizes(**more):
        source = open_source(Data(source=f"folder:{tmp_path}", on_unreadable="skip", validation_fraction=0.5, **more))
        found = {s.file_name(i): s.read(i).size for s in (source.train, source.validation) for i in range(len(s))}
        return found, source.skipped

    assert sizes() == ({"a.png": (400, 300), "a.jpg": (400, 300)}, ())
    assert sizes(max_megapixels=0.12) == ({"a.png": (400, 300), "a.jpg": (400, 300)}, ())
    assert sizes(max_megapixels=0.1) == ({"a.jpg": (200, 150)}, ("a.png",))
    assert sizes(max_megapixels=0.02) == ({"a.jpg": (100, 75)}, ("a.png",))
    with pytest.raises(LcmaeError, match="none of 2 images is readable"):
        sizes(max_megapixels=0.001)
    with pytest.raises(UnreadableImage, match=r"0\.12 megapixels, expected at most 0.1"):
        decode(tmp_path / "a.jpg", "a.jpg", how=Decoding("exact", most=1e5))


def test_large_pictures_are_converted_in_bands_as_small_ones_are_whole(monkeypatch):
    from lcmae_core.data import convert

    deep = Image.fromarray(np.random.default_rng(0).normal(0.5, 0.4, (48, 60)).astype(np.float32))
    clear = picture(3).convert("RGBA")
    clear.putalpha(picture(4).convert("L"))
    unit = deep.point(lambda v: v * 0.2 + 0.3)
    pictures = [DEEP, deep, unit, clear, clear.convert("LA"), clear.convert("RGBa")]
    whole = [np.asarray(convert.to_rgb(one)) for one in pictures]
    monkeypatch.setattr(convert, "BAND", 7 * 60)
    for one, expected in zip(pictures, whole):
        assert len(convert.bands_of(one)) == 7
        assert np.array_equal(np.asarray(convert.to_rgb(one)), expected), one.mode
