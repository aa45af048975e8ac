"""Files are whole or absent; a flipped byte is noticed; the newest whole checkpoint is the one that loads."""

import json

import pytest
import torch

from lcmae_core.config import LcmaeError
from lcmae_core.store import checkpoint as ck


def save(folder, step, keep=2):
    ck.save_checkpoint(folder, step, {"w": torch.full((3,), float(step))}, {"note": torch.tensor(step)}, keep=keep)


def test_round_trip_and_only_the_newest_are_kept(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000020", "step-00000030"]
    weights, rest = ck.load_checkpoint(tmp_path)
    assert weights["w"].tolist() == [30.0] * 3
    assert rest["step"] == 30
    assert rest["note"] == 30


def test_none_without_checkpoint(tmp_path):
    assert ck.load_checkpoint(tmp_path) is None


@pytest.mark.parametrize("name", ["model.safetensors", "rest.pt", "manifest.json"])
def test_a_flipped_byte_falls_back_to_the_one_before(tmp_path, name):
    save(tmp_path, 10)
    save(tmp_path, 20)
    file = tmp_path / "step-00000020" / name
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    assert ck.damaged(tmp_path / "step-00000020")
    assert ck.load_checkpoint(tmp_path)[1]["step"] == 10


@pytest.mark.parametrize("content", ["{}", "[1, 2]", "7", '{"rest.pt": "x"}', '{"rest.pt": {}}', '{"rest.pt": null}'])
def test_a_manifest_of_another_form_counts_as_damage(content, tmp_path, capsys):
    save(tmp_path, 10)
    save(tmp_path, 20)
    (tmp_path / "step-00000020" / "manifest.json").write_text(content)
    assert ck.load_checkpoint(tmp_path)[1]["step"] == 10
    assert capsys.readouterr().err == "checkpoint step-00000020 is left out: manifest.json damaged\n"


def test_a_missing_file_counts_as_damage(tmp_path):
    save(tmp_path, 10)
    (tmp_path / "step-00000010" / "rest.pt").unlink()
    assert ck.damaged(tmp_path / "step-00000010") == ["rest.pt"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    ck.write_json(path, {"x": 1})

    def fails(p):
        p.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        ck.write_atomic(path, fails)
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_broken_weights_are_named(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(LcmaeError, match=r"weights: got '.*w.safetensors', expected a readable safetensors file"):
        ck.load_tensors(tmp_path / "w.safetensors")
