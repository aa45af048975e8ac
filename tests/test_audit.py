"""`make lint` fails where a vulnerability is known, and says so where nobody could be asked."""

import runpy
from pathlib import Path

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "audit.py"))
SOUND = {"name": "numpy", "version": "2.0", "vulns": []}
HURT = {"name": "torch", "version": "2.0", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1", "2.2"]}]}
UNKNOWN = {"name": "lcmae-core", "skip_reason": "not found"}
NOTHING = "says nothing of vulnerabilities here"


@pytest.mark.parametrize(
    ("packages", "code", "needed", "line"),
    [
        ([SOUND, HURT, UNKNOWN], 1, 1, "audit: torch 2.0: CVE-1, mended in 2.1, 2.2\naudit: 2 packages looked up\n"),
        ([SOUND, UNKNOWN], 0, 0, "audit: 1 packages looked up\n"),
        ([UNKNOWN, UNKNOWN, SOUND], 0, 1, NOTHING),
        ([], 0, 1, NOTHING),
    ],
)
def test_what_is_known_decides(packages, code, needed, line, monkeypatch, capsys):
    main = SCRIPT["main"]
    monkeypatch.setitem(main.__globals__, "asked", lambda: packages)
    assert main([]) == code
    assert line in capsys.readouterr().out
    assert main(["--needed"]) == needed


def test_one_that_ends_without_an_answer_is_no_answer(monkeypatch):
    monkeypatch.setitem(SCRIPT["asked"].__globals__, "COMMAND", ["false"])
    assert SCRIPT["asked"]() == []
