"""What a file or class is called is shown, never obeyed: not by a terminal, and not by a page."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcmae_core import cli
from lcmae_core.config import Data
from lcmae_core.config.names import printable, spellings
from lcmae_core.data import open_source

ESCAPES = "\x1b]0;owned\x07\x1b[31mred", "a\x9b2J", "turn\u202eed", "two\nlines", "back\x08\x7f"


def pictures(folder: Path, count: int = 6) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")


def test_what_a_terminal_obeys_is_spelt_out_and_found_again():
    assert [printable(name) for name in ESCAPES] == [
        r"\x1b]0;owned\x07\x1b[31mred", r"a\x9b2J", r"turn\u202eed", r"two\x0alines", r"back\x08\x7f",
    ]  # fmt: skip
    for name in ESCAPES:
        assert printable(printable(name)) == printable(name)
        assert name in spellings(printable(name))
    for name in ("plain", "caf\u00e9", r"C:\new", "\u5b57", "a b"):
        assert printable(name) == name


def test_such_a_folder_is_opened_by_its_printable_name(tmp_path):
    pictures(tmp_path / ESCAPES[0] / "c")
    assert len(open_source(Data(source=f"folder:{tmp_path}/{printable(ESCAPES[0])}")).train) == 5


def test_no_command_hands_an_escape_to_the_terminal(tmp_path, capfd):
    source = tmp_path / "s"
    for name in (ESCAPES[0], ESCAPES[2]):
        pictures(source / name)
    (source / ESCAPES[0] / f"bad{ESCAPES[1]}.png").write_bytes(b"none")
    words = ["--data", f"folder:{source}", "--profile", "smoke", "--out", str(tmp_path / "o")]
    assert cli.main(["evaluate", "untrained", "--by", "knn", "-p", "on_unreadable=skip", *words]) == 0
    said = capfd.readouterr()
    assert r"\x1b]0;owned\x07" in said.out
    assert r"turn\u202eed" in said.out
    assert r"bada\x9b2J.png" in said.err
    with pytest.raises(SystemExit):
        cli.main(["train", *words])
    said = (said, capfd.readouterr())
    assert r"bada\x9b2J.png" in said[1].err
    assert cli.main(["prepare", str(source), "--to", str(tmp_path / "p"), "--size", "16"]) == 0
    said = (*said, capfd.readouterr())
    assert r"bada\x9b2J.png" in said[2].err
    for text in (part for both in said for part in both):
        assert not set(text) & set("\x1b\x07\x9b\u202e\x08")
    shutil.rmtree(source)
