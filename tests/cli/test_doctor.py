"""The doctor finds what is missing, says what to do, and fails only for what is required."""

from importlib import metadata
from pathlib import Path

import pytest

from lcmae_core.cli import doctor
from tests.loops import over


def test_requirements_are_those_of_the_package() -> None:
    found = {r.package: r for r in doctor.requirements()}
    assert found["torch"].bound == "2.11"
    assert found["torch"].extra == ""
    assert found["papermill"].extra == "notebooks"
    assert found["submitit"].extra == "cluster"
    assert "lcmae-core" not in found


def test_what_is_absent_or_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.9.1+cpu", "timm": "1.0.31"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    wanted = [
        doctor.Requirement("torch", "2.11", ""),
        doctor.Requirement("timm", "1.0.15", ""),
        doctor.Requirement("pyarrow", "16", ""),
        doctor.Requirement("papermill", "2.6", "notebooks"),
    ]
    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr(doctor, "requirements", lambda: wanted)
    found = {f.name: f for f in doctor.check_packages()}
    assert found["torch"][2:] == ("missing", "2.9.1+cpu, needs 2.11", "pip install 'torch>=2.11'")
    assert found["pyarrow"][2:] == ("missing", "not installed", "pip install 'lcmae-core'")
    assert found["papermill"].state == "note"
    assert found["papermill"].advice == "pip install 'lcmae-core[notebooks]'"
    assert found["core"].detail == "timm 1.0.31"


def test_storage_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LCMAE_PROFILE", raising=False)
    found, cache = doctor.check_storage(str(tmp_path / "new"))
    assert found.state == cache.state == "ok"
    assert "0.00 GB in 0 sets of pictures" in cache.detail
    assert not (tmp_path / "new").exists()
    (tmp_path / "old" / "cache").mkdir(parents=True)
    (tmp_path / "old" / "cache" / "x.npy").write_bytes(bytes(20_000_000))
    assert "0.02 GB in 1 sets" in list(doctor.check_storage(str(tmp_path / "old")))[1].detail
    (tmp_path / "file").write_text("")
    assert next(doctor.check_storage(str(tmp_path / "file" / "below"))).state == "missing"
    monkeypatch.setattr(doctor, "hub_reachable", lambda: False)
    monkeypatch.setenv("LCMAE_DATA", "folder:/gone")
    states = {f.name: f.state for f in doctor.check_data()}
    assert states == {"photos": "ok", "LCMAE_DATA": "missing", "model hub": "note"}


@over(("state", "code"), [("ok", 0), ("note", 0), ("missing", 1)])
def test_only_what_is_required_fails(
    state: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = doctor.Diagnosis("group", "thing [x]", state, "found", "advice")
    monkeypatch.setattr(doctor, "examine", lambda out: iter([finding]))
    assert doctor.main() == code
    assert "thing [x]" in capsys.readouterr().out


def test_a_check_that_breaks_down_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("no such thing")

    for name in ("check_packages", "check_device", "check_data", "check_jupyter", "check_tools"):
        monkeypatch.setattr(doctor, name, lambda: iter(()))
    monkeypatch.setattr(doctor, "check_python", broken)
    first = next(doctor.examine())
    assert first.state == "missing"
    assert "no such thing" in first.detail
