"""Claims: work that is stopped or killed goes on and ends in the same bytes; what is damaged or lost is made again and
nothing else; a folder of something else, or one that another process fills, is refused.
"""

import pytest
from prepared import class_folder, jpeg, made, shards

from lcmae_core.config import Data, LcmaeError
from lcmae_core.data import open_source
from lcmae_core.data import prepare as P
from lcmae_core.data.shard_plan import Recipe


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
    with P.alone_in(folder), pytest.raises(LcmaeError, match="which another process is filling"):
        made(root, folder)
    assert made(root, folder)["complete"]
