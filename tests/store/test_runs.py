"""A run is one folder named by what affects its results, with one writer, and its snapshots come back by step; a
flipped bit in its weights is noticed by whoever reads them, export included; a folder that was removed is no run."""

import os
import shutil

import pytest
import torch

from lcmae_core.cli.main import main
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.models.interop import load_mae
from lcmae_core.store.runs import RunLostError, load_run, open_run, run_folder
from tests.started import Started


@pytest.fixture
def settings(tmp_path):
    return replace(profile("smoke"), out=str(tmp_path))


def test_folder_depends_on_results_not_on_runtime(settings):
    here = run_folder(settings, "photos-v1")
    assert here.name.startswith("mae-s0-")
    assert run_folder(replace(settings, log_every=7, device="cpu", workers=0), "photos-v1") == here
    assert run_folder(replace(settings, source="folder:/elsewhere"), "photos-v1") == here  # content counts, not place
    others = [replace(settings, seed=1), replace(settings, mask_ratio=0.5), replace(settings, cross_view=1)]
    names = {run_folder(s, "photos-v1").name for s in others} | {run_folder(settings, "other").name, here.name}
    assert len(names) == 5


def test_name_says_which_terms(settings):
    names = {
        "lcmae": {"cross_view": 1, "in_view": 1},
        "cross_view+in_view": {"reconstruction": 0, "cross_view": 1, "in_view": 1},
    }
    for name, weights in names.items():
        assert run_folder(replace(settings, weights), "x").name.rsplit("-s0-")[0] == name


def test_round_trip(settings):
    run = open_run(settings, "photos-v1")
    assert not run.done
    for step in (0, 2):
        run.keep_snapshot(step, {"w": torch.tensor([float(step)])})
    run.finish({"w": torch.tensor([9.0])}, {"steps": 4})
    again = load_run(run.path)
    assert again.done
    assert again.settings == settings
    assert again.snapshots == [0, 2, 4]
    assert [again.weights(s)["w"].item() for s in (0, 2, 4, None)] == [0, 2, 9, 9]
    with pytest.raises(LcmaeError, match="snapshot: got step 3, expected one of: 0, 2, 4"):
        again.weights(3)


def test_unfinished_run_has_no_results(settings):
    with pytest.raises(LcmaeError, match="is not finished"):
        _ = open_run(settings, "x").results


def test_second_writer_is_refused_and_told_who_writes(settings):
    run = open_run(settings, "x")
    code = (
        "import sys, time; from lcmae_core.store.runs import load_run\n"
        "with load_run(sys.argv[1]).lock(): print('held', flush=True); time.sleep(60)"
    )
    with Started("-c", code, str(run.path)) as holder:
        assert holder.stdout.readline() == "held\n"
        message = f"is being written by process {holder.pid}, expected no other writer"
        with pytest.raises(LcmaeError, match=message), run.lock(timeout=0.2):
            pass
        holder.kill()  # a killed holder leaves no lock behind
    with run.lock(timeout=5):
        pass


def test_a_folder_without_run_is_named(tmp_path):
    with pytest.raises(LcmaeError, match=r"expected a run's folder with settings.json"):
        load_run(tmp_path)


def test_unwritable_out_is_one_line(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LcmaeError, match=r"out: got .*, expected a folder that can be written"):
        open_run(replace(settings, out=str(tmp_path / "file")), "x")


def test_a_flipped_bit_in_kept_weights_is_noticed(settings):
    run = open_run(settings, "x")
    run.keep_snapshot(0, {"w": torch.zeros(3)})
    run.finish({"w": torch.ones(3)}, {"steps": 4})
    for step, file in (
        (0, run.path / "snapshots" / "step-00000000.safetensors"),
        (None, run.path / "model.safetensors"),
    ):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        with pytest.raises(LcmaeError, match="whose bytes differ from the run's manifest"):
            run.weights(step)


def test_a_torn_last_line_of_the_history_is_left_out(settings):
    run = open_run(settings, "x")
    (run.path / "history.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert run.curve("loss") == ([1], [2.0])


def test_damaged_lines_of_the_history_are_left_out_and_said(settings, capsys):
    run = open_run(settings, "x")
    lines = ['{"step": 1, "loss": 2.0}', '{"step": 2, "lo', '{"loss": 3.0}', "[1]", '{"step": 5, "loss": "x"}', "",
             '{"step": 7, "loss": 1.0}']  # fmt: skip
    (run.path / "history.jsonl").write_text("\n".join(lines) + "\n")
    assert run.curve("loss") == ([1, 7], [2.0, 1.0])
    assert capsys.readouterr().err == f"{run.name}: lines 2, 3, 4, 5, 6 of history.jsonl damaged, left out\n"


def test_who_holds_a_run_removes_what_killed_writers_began(settings):
    run = open_run(settings, "x")
    with run.lock():
        run.keep_snapshot(3, {"w": torch.zeros(2)})
    whole = {path for path in run.path.rglob("*") if path.name != ".lock"}
    names = ("checkpoints/.step-00000002-999/rest.pt", "checkpoints/.step-00000004-shards/x",
             "snapshots/.step-00000009.safetensors-ab_c.safetensors", ".results.json-q.json")  # fmt: skip
    left = [run.path / name for name in names]
    others = run.path / ".settings.json-w.json"  # another process may just be writing it
    for file in (*left, others):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("half")
    with run.lock():
        assert {path for path in run.path.rglob("*") if path.name not in (".lock", ".holder", "checkpoints")} == {
            *whole, others
        }  # fmt: skip


def test_export_and_load_refuse_every_flipped_bit_of_a_run(settings, tmp_path, capsys):
    run, weights = open_run(settings, "x"), build_model(settings).state_dict()
    run.keep_snapshot(0, weights)
    run.finish(weights, {"steps": 4})
    file, target = run.path / "model.safetensors", tmp_path / "out.safetensors"
    whole = file.read_bytes()
    for place in torch.linspace(9, len(whole) - 1, 10).long().tolist():  # from the header to the last weight
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        file.write_bytes(data)
        for source in (run.path, file):
            with pytest.raises(SystemExit) as stop:
                main(["export", str(source), str(target), "--to", "timm"])
            said = capsys.readouterr().err.strip()
            assert stop.value.code == 2
            assert "\n" not in said
            assert said.startswith(f"lcmae: error: weights: got {str(file)!r}, ")
            if source == run.path:  # a file alone is first asked for its keys
                assert said.endswith("whose bytes differ from the run's manifest, expected them whole")
        assert not target.exists()
    file.write_bytes(whole)
    assert main(["export", str(run.path), str(target), "--to", "timm"]) == 0
    snapshot = run.path / "snapshots" / "step-00000000.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:-1] + bytes([snapshot.read_bytes()[-1] ^ 1]))
    with pytest.raises(LcmaeError, match="whose bytes differ from the run's manifest"):
        load_mae(snapshot)


def test_weights_copied_out_of_a_run_load_and_a_damaged_manifest_is_said(settings, tmp_path):
    run = open_run(settings, "x")
    run.finish(build_model(settings).state_dict(), {"steps": 4})
    (tmp_path / "copy").mkdir()
    for name in ("model.safetensors", "settings.json"):
        shutil.copy(run.path / name, tmp_path / "copy" / name)
    assert load_mae(tmp_path / "copy").decoder is not None
    manifest = run.path / "manifest.json"
    manifest.write_text(manifest.read_text()[:-3])
    for read in (lambda: load_mae(run.path), run.weights):
        with pytest.raises(LcmaeError, match=r"^manifest.json: got '.*manifest.json', \d+ bytes that are no JSON"):
            read()
    manifest.unlink()
    with pytest.raises(LcmaeError, match="differ from the run's manifest"):
        load_mae(run.path)


def refused_while_locked(run, write) -> str:
    """What a writer that holds the run is told."""
    with pytest.raises(RunLostError) as error, run.lock():  # noqa: PT012
        write()
        run.finish({"w": torch.zeros(1)}, {"steps": 1})
    return str(error.value)


def test_nothing_is_written_into_a_folder_that_was_removed(settings):
    run = open_run(settings, "x")
    assert "was removed while it was trained" in refused_while_locked(run, lambda: shutil.rmtree(run.path))
    with pytest.raises(RunLostError):
        run.keep_snapshot(1, {"w": torch.zeros(1)})
    assert not run.path.exists()
    open_run(settings, "x")
    line = refused_while_locked(run, lambda: (run.path / ".holder").write_text("12\n"))
    assert line.endswith(f"is written by process 12 now, expected {os.getpid()}")
    assert not run.done
    assert (run.path / ".holder").read_text() == "12\n", "another's mark is left alone"


def test_a_file_that_cannot_be_written_says_so_unless_the_folder_is_gone(settings):
    run = open_run(settings, "x")

    def unasked():
        shutil.rmtree(run.path)
        (run.path / "x").write_text("")

    assert "was removed while it was trained" in refused_while_locked(run, unasked)
    with pytest.raises(FileNotFoundError), open_run(settings, "x").lock():
        (run.path / "no" / "x").write_text("")
