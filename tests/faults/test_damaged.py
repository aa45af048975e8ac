"""A file that is empty, cut off or has one bit flipped is refused by name in one line, or left out for the one before,
or made anew; it is never read as something else."""

import json
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from lcmae_core import cli
from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.execute.ledger import Ledger
from lcmae_core.store.checkpoint import load_checkpoint
from lcmae_core.store.files import DamagedError, read_json, sha256, write_json
from lcmae_core.store.machine import REPOSITORY
from lcmae_core.store.records import Record
from lcmae_core.store.results import Measured, Notebook
from lcmae_core.store.runs import load_run
from lcmae_core.studies.trials import jobs
from lcmae_core.training.loop import pretrain
from lcmae_core.training.steps import Stopped
from tests.loops import over
from tests.studies.tiny_studies import MAE, tiny_settings

EMPTY, CUT, LIST = b"", b'{"a": 1, "b', b"[1, 2]"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's folder."""
    out = tmp_path_factory.mktemp("finished")
    return pretrain(replace(profile("smoke"), MAE | {"steps": 3, "snapshots": 1, "out": str(out)})).path


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "runs" / finished.name))


def read_all(folder: Path) -> None:
    run = load_run(folder)
    run.weights()
    _ = run.results


def flip(file: Path, rng: random.Random) -> None:
    """One bit, somewhere."""
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


@over("content", [EMPTY, CUT, LIST])
@over("name", ["settings.json", "results.json", "manifest.json"])
def test_a_run_with_a_broken_file_is_refused_by_its_name(name, content, copied):
    before = (copied / name).read_bytes()
    (copied / name).write_bytes(content)
    try:
        with pytest.raises(DamagedError, match=rf"^{name}: got .*{copied.name}/{name}"):
            read_all(copied)
    finally:
        (copied / name).write_bytes(before)


@over("content", [EMPTY, CUT, LIST])
def test_settings_of_a_run_that_is_known_are_written_anew(content, copied):
    (copied / "settings.json").write_bytes(content)
    (copied / "results.json").unlink(missing_ok=True)
    settings = replace(profile("smoke"), MAE | {"steps": 3, "snapshots": 1, "out": str(copied.parent.parent)})
    run = pretrain(settings)
    assert run.path == copied
    assert load_run(copied).settings.model_dump(exclude={"runtime"}) == settings.model_dump(exclude={"runtime"})


@over("command", [["evaluate", "RUN", "--by", "knn"], ["export", "RUN", "x.safetensors", "--to", "timm"],
                  ["train", "--resume", "RUN"]])  # fmt: skip
@over("name", ["settings.json", "results.json"])
def test_commands_say_it_in_one_line(name, command, copied, capsys, monkeypatch):
    monkeypatch.chdir(copied.parent)
    before = (copied / name).read_bytes()
    (copied / name).write_bytes(EMPTY)
    capsys.readouterr()
    words = [str(copied) if word == "RUN" else word for word in command]
    try:
        if name == "results.json" and command[0] != "train":
            return  # weights need no results
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith(f"lcmae: error: {name}: got "), said
        assert said.endswith("which is empty, expected it as it was written\n")
        assert said.count("\n") == 1
    finally:
        (copied / name).write_bytes(before)


@pytest.mark.parametrize("trials", [3, pytest.param(10, marks=pytest.mark.fault)])
def test_a_flipped_bit_in_weights_is_always_found(trials, copied):
    rng, run = random.Random(0), load_run(copied)
    for file in (copied / "model.safetensors", copied / "snapshots" / "step-00000000.safetensors"):
        whole = file.read_bytes()
        for _ in range(trials):
            flip(file, rng)
            with pytest.raises(LcmaeError, match="whose bytes differ from the run's manifest"):
                run.weights(None if file.stem == "model" else 0)
            file.write_bytes(whole)
    run.weights()


@pytest.mark.parametrize("trials", [3, pytest.param(10, marks=pytest.mark.fault)])
def test_a_damaged_checkpoint_is_left_out_for_the_one_before(trials, tmp_path, capsys):
    settings = replace(
        profile("smoke"), MAE | {"steps": 6, "checkpoint_every": 2, "snapshots": 0, "out": str(tmp_path)}
    )

    def stop(moment) -> None:
        if moment.step == 5:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        pretrain(settings, callbacks=[stop])
    (folder,) = tmp_path.glob("runs/*/checkpoints")
    newest = folder / "step-00000004"
    rng = random.Random(1)
    for trial in range(trials):
        file = rng.choice(sorted(newest.iterdir()))
        whole = file.read_bytes()
        if trial % 3 == 0:
            file.write_bytes(whole[: len(whole) // 2])
        else:
            flip(file, rng)
        kept = load_checkpoint(folder)
        assert kept is not None
        known = file.name == "manifest.json" and kept[1]["step"] == 4  # a flip in a size changes nothing that is read
        assert known or kept[1]["step"] == 2, (file.name, trial)
        if not known:
            assert "checkpoint step-00000004 is left out" in capsys.readouterr().err
        file.write_bytes(whole)
    assert load_checkpoint(folder)[1]["step"] == 4


def test_a_damaged_record_is_refused_by_its_name(tmp_path, capsys):
    job = jobs(["random"], tiny_settings(tmp_path), "smoke")[0]
    job.record.path.parent.mkdir(parents=True)
    for content in (EMPTY, CUT, LIST):
        job.record.path.write_bytes(content)
        with pytest.raises(DamagedError, match=rf"^{job.record.path.name}: got "):
            _ = job.done


@pytest.fixture
def sealed(copied: Path, tmp_path: Path) -> dict[str, Path]:
    """A record, a ledger, a notebook's numbers, and settings and results of a run, as they are written."""
    job = jobs(["random"], tiny_settings(tmp_path), "smoke")[0]
    job.record.begin(None, job.case.settings)
    job.record.note("cka", {"mean": [0.123456, 17.0], "rows": [[1.5e-7, 3]]}, 1.25, {"device": "cpu"})
    ledger = Ledger(tmp_path)
    for name in ("00_a", "01_b"):
        ledger.put(name, {"status": "ok", "seconds": 12.5, "digest": "0123456789abcdef", "kept_seconds": 1.5})
    Notebook("00", "A", profile="smoke", out=str(tmp_path)).record(loss=Measured(0.4321, "dB", sd=0.01, n=12))
    return {
        "record": job.record.path,
        "ledger": tmp_path / "ledger.json",
        "numbers": tmp_path / "results" / "00.json",
        "settings": copied / "settings.json",
        "results": copied / "results.json",
    }


@pytest.mark.parametrize("trials", [10, pytest.param(300, marks=pytest.mark.fault)])
@pytest.mark.parametrize("kind", ["record", "ledger", "numbers", "settings", "results"])
def test_a_flipped_bit_in_what_is_kept_is_always_found(kind, trials, sealed):
    file, rng = sealed[kind], random.Random(3)
    whole, known = file.read_bytes(), read_json(sealed[kind])
    for _ in range(trials):
        flip(file, rng)
        if file.read_bytes().lower() == whole.lower():  # 1e-05 has become 1E-05, or a digit of the seal a capital
            with suppress(DamagedError):
                assert read_json(file) == known
        else:
            with pytest.raises(DamagedError, match=rf"^{file.name}: got '{file}', "):
                read_json(file)
        file.write_bytes(whole)
    assert read_json(file) == known


def test_every_bit_of_a_number_and_of_the_seals_own_name_is_watched(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"mean": 0.125, "name": "x"}, sealed=True)
    whole = file.read_bytes()
    for place in range(len(whole) - 1):  # behind the last brace a line may end as it likes
        for bit in range(8):
            content = bytearray(whole)
            content[place] ^= 1 << bit
            file.write_bytes(content)
            with pytest.raises(DamagedError, match=r"^a\.json: got "):
                read_json(file)


def test_a_damaged_record_is_refused_by_who_asks_for_it_and_not_written_over(sealed, tmp_path):
    file = sealed["record"]
    file.write_bytes(file.read_bytes().replace(b"0.123456", b"0.133456"))
    record, before = Record(file), file.read_bytes()
    line = "it differs from its own sha256, expected it as it was written: delete it and give the command again"
    with pytest.raises(DamagedError, match=line):
        _ = record.measures
    with pytest.raises(DamagedError, match=line):
        record.note("another", {"mean": 1.0}, 1.0, {})
    assert file.read_bytes() == before
    file.unlink()
    record.note("another", {"mean": 1.0}, 1.0, {})
    assert record.measures["another"]["values"] == {"mean": 1.0}


def test_a_damaged_ledger_is_said_once_and_begun_anew(sealed, tmp_path, capsys):
    file = sealed["ledger"]
    file.write_bytes(file.read_bytes().replace(b"12.5", b"13.5", 1))
    ledger = Ledger(tmp_path)
    assert ledger.entry("00_a") == ledger.entry("01_b") == {}
    ledger.put("02_c", {"status": "ok", "seconds": 1.0})
    said = capsys.readouterr().err
    assert said.startswith("left out: ledger.json: got ")
    assert said.count("\n") == 1
    assert ledger.entry("02_c") == {"status": "ok", "seconds": 1.0}
    assert read_json(file) == {"02_c": {"status": "ok", "seconds": 1.0}}


def test_settings_edited_by_hand_are_refused_with_the_way_out(copied):
    file = copied / "settings.json"
    edited = json.loads(file.read_text())
    edited["runtime"]["log_every"] += 1
    file.write_text(json.dumps(edited))
    with pytest.raises(DamagedError, match=r"is damaged or was edited.* or take 'sha256_of_rest' out of it to keep"):
        load_run(copied)
    del edited["sha256_of_rest"]
    file.write_text(json.dumps(edited))
    assert load_run(copied).settings.runtime.log_every == edited["runtime"]["log_every"]


def test_what_was_written_before_there_were_seals_is_read(tmp_path):
    records = sorted((REPOSITORY / "outputs").glob("*/results/runs/*.json"))
    old = [file for file in records if b"sha256_of_rest" not in file.read_bytes()]
    assert old, "the committed records have none"
    for file in old[:5]:
        assert Record(file).content == json.loads(file.read_text())


@pytest.mark.parametrize("trials", [3, pytest.param(10, marks=pytest.mark.fault)])
def test_a_flipped_bit_in_the_cache_is_found_and_made_anew(trials, tmp_path, capsys):
    from lcmae_core.data import open_source
    from lcmae_core.data.cache import Cache
    from lcmae_core.data.loader import Loader

    data, rng = profile("smoke").data, random.Random(2)
    split, cache = open_source(data).validation, Cache(tmp_path, 1e9)

    def pixels():
        return Loader(split, data, seed=0, batch_size=4, device="cpu", cache=cache, progress=False).batch(0).images

    first = pixels()
    (file,) = tmp_path.glob("*.npy")
    digest = sha256(file)
    for _ in range(trials):
        flip(file, rng)
        assert sha256(file) != digest
        assert pixels().equal(first)
        assert sha256(file) == digest, "it was made anew"
