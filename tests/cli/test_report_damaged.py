"""`lcmae report` of a folder whose files are damaged: each is named in one line and left out, and the rest is shown; of
a folder with nothing in it one line says so."""

import json
from pathlib import Path

import pytest

from lcmae_core import cli
from lcmae_core.store.files import write_json
from lcmae_core.store.progress import say_once
from tests.loops import over

BROKEN = {
    "empty": (b"", "which is empty"),
    "cut": (b'{"values": {"a', "bytes that are no JSON"),
    "a list": (b"[1]", "got a list"),
    "values in a list": (b'{"values": [1, 2]}', "with values that are a list"),
    "a value without one": (b'{"values": {"C03": {"sd": 1}}}', "of which 'C03' is"),
    "a spread in words": (b'{"values": {"C03": {"value": 1, "sd": "x"}}}', "of which 'C03' is"),
    "versions in a list": (b'{"versions": ["torch"]}', "with versions that are a list"),
    "an edited number": (b'{"values": {}, "seed": 1, "sha256_of_rest": "00"}', "it differs from its own sha256"),
}


@pytest.fixture(autouse=True)
def _unsaid():
    say_once.cache_clear()


def report(out: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stderr."""
    capsys.readouterr()
    assert cli.main(["report", "--profile", "smoke", "--out", str(out)]) == 0
    return capsys.readouterr().err.splitlines()


@over("name", ["00.json", "10.json"])
@over("kind", list(BROKEN))
def test_a_damaged_result_is_named_and_left_out(name, kind, tmp_path, capsys):
    say_once.cache_clear()
    (tmp_path / "results").mkdir(exist_ok=True)
    whole = {"notebook": "03", "values": {"mean_cosine_c": {"value": 0.4321, "paper": None}}}
    write_json(tmp_path / "results" / "03.json", whole, sealed=True)
    content, words = BROKEN[kind]
    (tmp_path / "results" / name).write_bytes(content)
    (line,) = report(tmp_path, capsys)
    assert line.startswith(f"left out: {name}: got "), line
    assert words in line, line
    assert "0.4321" in (tmp_path / "report.html").read_text()
    (tmp_path / "results" / name).unlink()


def test_an_entry_of_the_ledger_that_is_none_is_left_out(tmp_path, capsys):
    failed = {"status": "failed", "error": "killed by hand", "seconds": 1.0}
    (tmp_path / "ledger.json").write_text(
        json.dumps({"00_good": "x", "01_late": {"seconds": "long"}, "02_gone": failed})
    )
    (line,) = report(tmp_path, capsys)
    assert line == "left out: ledger.json: got '00_good', '01_late' with no entry of a notebook, expected an object"
    assert "killed by hand" in (tmp_path / "report.html").read_text()


def test_a_folder_with_nothing_in_it_is_said(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "which holds no notebook or result, expected a folder of lcmae run\n" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
