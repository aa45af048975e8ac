"""`lcmae prepare` into a folder that cannot be made says so in one line."""

from pathlib import Path

import pytest
from PIL import Image

from lcmae_core import cli


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "s" / "a.png")
    (tmp_path / "file").touch()
    for where in ("/proc/x", str(tmp_path / "file" / "x")):
        with pytest.raises(SystemExit) as ended:
            cli.main(["prepare", str(tmp_path / "s"), "--to", where, "--size", "16"])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith(f"lcmae: error: --to: got {where!r}, expected a folder that can be written"), said
        assert said.count("\n") == 1
