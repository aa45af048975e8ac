"""Claims: an archive that leads out of itself is refused by its member's name before anything is written, links out of
a folder too; archives that are not whole and wrong words are one line.
"""

import io
import os
import tarfile
from pathlib import Path

import pytest
from prepared import class_folder, jpeg, made, shards, tar_of, tar_of_tars

from lcmae_core import cli
from lcmae_core.config import LcmaeError
from lcmae_core.data.contents import contents_of
from tests.loops import over


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
