"""Training lowers the loss, is done once, goes on bit-equal after kill -9 and SIGTERM, stops at a loss that is no
number without saving it and where its folder is removed, and every setting that enters the digest changes the
weights."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lcmae_core.config import LEAVES, replace
from lcmae_core.models.build import build_model, model_of
from lcmae_core.models.masking import random_mask
from lcmae_core.store.checkpoint import sha256
from lcmae_core.store.runs import MODEL, TIMINGS, RunLostError
from lcmae_core.store.stopping import stop_requests
from lcmae_core.training import steps
from lcmae_core.training.guards import NonFiniteLossError, Stopped
from lcmae_core.training.log import Window
from lcmae_core.training.loop import pretrain, snapshot_steps
from lcmae_core.training.micro_batches import StepDroppedError, micro_batches
from lcmae_core.training.objectives import Masked
from tests.config.test_settings import OTHER, method_of
from tests.started import completed
from tests.training.helpers import losses, weights


def test_training_lowers_the_loss(tiny):
    run = pretrain(replace(tiny, steps=60, batch_size=16, log_every=10, base_lr=0.03))
    _, curve = run.curve("reconstruction")
    assert curve[-1] < 0.9 * curve[0]
    assert run.results["held_out"]["reconstruction"] < 0.9 * curve[0]


def test_a_run_is_trained_once_and_afresh_on_request(tiny):
    run = pretrain(tiny)
    stamp = (run.path / MODEL).stat().st_mtime_ns
    calls = []
    again = pretrain(tiny, callbacks=[lambda moment: calls.append(moment.step)])
    assert (again.path / MODEL).stat().st_mtime_ns == stamp
    assert not calls
    fresh = pretrain(tiny, resume=False)
    assert (fresh.path / MODEL).stat().st_mtime_ns > stamp
    assert weights(fresh) == weights(run)


def test_what_a_run_leaves(tiny):
    run = pretrain(replace(tiny, tensorboard=True))
    assert [entry["step"] for entry in run.history] == list(range(1, 9))
    assert run.snapshots == [0, 1, 8]
    assert {"steps", "seconds", "held_out", "device", "versions", "commit", "date"} <= set(run.results)
    assert not (run.path / "checkpoints").exists()
    assert list((run.path / "tensorboard").glob("events*"))
    first, last = model_of(run, 0), model_of(run)
    assert not torch.equal(first.encoder.cls_token, last.encoder.cls_token)
    assert torch.equal(first.encoder.pos_embed, last.encoder.pos_embed)  # positions are fixed


def test_callbacks_measure_on_the_way(tiny):
    seen = []
    run = pretrain(tiny, callbacks=[lambda m: seen.append(m.step) or {"norm": m.model.encoder.cls_token.norm()}])
    assert seen == list(range(1, 9))
    assert len(run.curve("norm")[1]) == 8


def test_snapshots_are_logarithmic():
    assert snapshot_steps(150, 8) == {0, 1, 2, 5, 12, 28, 65}
    assert snapshot_steps(150, 0) == set()
    assert snapshot_steps(4, 8) == {0, 1, 2, 3}


@pytest.mark.parametrize("where", [1, 4, 7])
def test_sigterm_checkpoints_and_the_same_call_resumes_bit_equal(tiny, tmp_path, where):
    whole = pretrain(replace(tiny, out=str(tmp_path / "whole")))

    def stop(moment):
        if moment.step == where:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped, match=f"stopped at step {where}"):
        pretrain(tiny, callbacks=[stop])
    run = pretrain(tiny)
    assert weights(run) == weights(whole)
    assert losses(run) == losses(whole)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("first", [0, 2])
def test_a_stop_between_micro_batches_drops_the_step_and_loses_nothing(tiny, tmp_path, monkeypatch, first):
    settings = replace(tiny, in_view=1.0, accum_steps=4)
    whole = pretrain(replace(settings, out=str(tmp_path / "whole")))
    plain, calls = Masked.terms, []

    def stopped(self, *arguments):
        calls.append(None)
        if len(calls) == 4 * first + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, *arguments)

    monkeypatch.setattr(Masked, "terms", stopped)
    with pytest.raises(Stopped, match=f"stopped at step {first} of"):
        pretrain(settings)
    assert len(calls) == 4 * first + 2, "the rest of the micro-batches is not computed"
    monkeypatch.undo()
    run = pretrain(settings)
    assert weights(run) == weights(whole)
    assert losses(run) == losses(whole)


def test_a_dropped_step_leaves_neither_gradients_nor_running_statistics():
    model = torch.nn.BatchNorm1d(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parts = micro_batches(torch.arange(12.0).view(3, 2, 2), model)
    with stop_requests() as asked:
        model(next(parts)).sum().backward()
        asked.set()
        with pytest.raises(StepDroppedError):
            next(parts)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


KILL = """
import json, os, pathlib, random, sys, time
import torch
from PIL import Image
torch.set_num_threads(1)
from lcmae_core.config import parse, replace
from lcmae_core.training.loop import pretrain
settings, trials, out = parse(json.loads(sys.argv[1])), int(sys.argv[2]), sys.argv[3]

def child(place, pause):
    pid = os.fork()
    if pid == 0:
        pretrain(replace(settings, out=place), callbacks=[lambda m: time.sleep(pause) or None])
        os._exit(0)
    return pid

def finish(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert finish(child(f"{out}/whole", 0)) == 0
rng = random.Random(0)
for trial in range(trials):
    place = f"{out}/killed{trial}"
    pid = child(place, 0.03)
    while not any(f.stat().st_size for f in pathlib.Path(place).rglob("history.jsonl")):
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.35))
    os.kill(pid, 9)
    print("killed" if finish(pid) == -9 else "too late", flush=True)
    assert finish(child(place, 0)) == 0
"""


@pytest.mark.slow
def test_kill_9_then_the_same_command_is_bit_equal(tiny, tmp_path):
    """Three times here; twenty times, and anywhere inside a save, in `tests/faults/test_kills.py`."""
    settings = json.dumps(replace(tiny, steps=12, cross_view=1.0, in_view=1.0).model_dump(mode="json"))
    ended = completed("-c", KILL, settings, "3", str(tmp_path), timeout=250)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.split().count("killed") >= 2, ended.stdout
    whole, *killed = [
        next((tmp_path / name / "runs").iterdir()) for name in ("whole", *(f"killed{i}" for i in range(3)))
    ]

    def trace(path: Path):
        entries = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
        return [{k: v for k, v in e.items() if k not in TIMINGS} for e in entries]

    assert [sha256(path / MODEL) for path in killed] == [sha256(whole / MODEL)] * 3
    assert [trace(path) for path in killed] == [trace(whole)] * 3


def test_a_loss_that_is_no_number_stops_and_nothing_broken_is_saved(tiny):
    def spoil(moment):
        if moment.step == 4:
            moment.model.decoder.pred.bias.fill_(torch.nan)

    with pytest.raises(
        NonFiniteLossError,
        match=r"loss: got nan at step 4 \(epoch 0, images \d+, \d+, \d+, \d+, ..., learning rate \d\S*\)",
    ):
        pretrain(tiny, callbacks=[spoil])
    (run_folder,) = (Path(tiny.runtime.out) / "runs").iterdir()
    assert [p.name for p in (run_folder / "checkpoints").iterdir()] == ["step-00000003"]
    whole = pretrain(tiny)  # the same call goes on from the healthy checkpoint
    assert whole.done


@pytest.mark.parametrize(("where", "changes"), [(2, {}), (3, {"log_every": 4}), (8, {"log_every": 8})])
def test_a_run_whose_folder_is_removed_stops_and_is_never_done(tiny, where, changes):
    """At a logged step, before a checkpoint, and at the very end."""
    settings, step = replace(tiny, changes), []

    class Source(Window):
        def add(self, terms):
            super().add(terms)
            step.append(1)
            if len(step) == where:
                shutil.rmtree(next((Path(tiny.runtime.out) / "runs").iterdir()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "Window", Source)
        with pytest.raises(RunLostError, match=r"^run: '.*' was removed while it was trained, expected it to stay$"):
            pretrain(settings)
    assert len(step) <= where + 3, "not at the end of a long training"
    assert not list((Path(tiny.runtime.out) / "runs").iterdir()), "nothing is made anew"
    assert pretrain(settings).done, "the same call trains it afresh"


REMOVED = """
import shutil, sys
from lcmae_core.cli.main import main
from lcmae_core.training import optim

def remove(optimizer, rate, first=optim.set_learning_rate, seen=[]):
    seen.append(1)
    if len(seen) == 3:
        shutil.rmtree(next(__import__("pathlib").Path(sys.argv[1]).glob("runs/*")))
    first(optimizer, rate)

optim.set_learning_rate = remove
sys.exit(main(["train", "--profile", "smoke", "--out", sys.argv[1], *sys.argv[2:]]))
"""


def test_the_command_says_so_in_one_line_and_fails(tmp_path):
    small = ("depth=1", "width=32", "heads=2", "decoder_depth=1", "steps=8", "batch_size=4", "log_every=100")
    words = [word for value in small for word in ("-p", value)]
    ended = completed("-c", REMOVED, str(tmp_path), *words, timeout=250, env=os.environ | {"LCMAE_HEADLESS": "1"})
    assert ended.returncode == 1, ended.stderr[-2000:]
    assert ended.stderr.splitlines()[-1].startswith("lcmae: error: run: "), ended.stderr[-2000:]
    assert "was removed while it was trained" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert not list((tmp_path / "runs").iterdir())


def test_accumulated_gradients_equal_those_of_the_whole_batch(tiny):
    one, four = (pretrain(replace(tiny, accum_steps=n)) for n in (1, 4))
    a, b = one.weights(), four.weights()
    assert max((a[k] - b[k]).abs().max() for k in a) < 1e-5


CHANGED = {
    "in_view": 0.5, "cross_view": 0.5, "clip_grad": 1e-3, "heads": 1, "depth": 2, "decoder_depth": 2,
    "decoder_heads": 4, "batch_size": 2, "steps": 2, "image_size": 48, "local_size": 24, "teacher_momentum": 0.5,
}  # fmt: skip
CONTENT = {"on_unreadable", "image_decoder", "max_megapixels", "min_side", "validation_fraction"}
"""Settings that change what is read, and only of some sources."""


def has_an_effect(tiny, name):
    """Whether a run of three steps comes out otherwise when one setting is changed."""
    base = replace(tiny, method_of(name), steps=3, in_view=1.0, cross_view=1.0, checkpoint_every=100, snapshots=0)
    value = CHANGED.get(name, OTHER[name])
    if name == "drop_path":  # it grows from 0 in the first block
        base = replace(base, depth=2)
    if name == "views":
        base, value = replace(base, cross_view=0.0), 2
    reference = pretrain(base)
    changed = pretrain(replace(base, {name: value}))
    return weights(changed) != weights(reference)


@pytest.mark.parametrize("group", sorted({LEAVES[name] or "top" for name in set(OTHER) - CONTENT}))
def test_every_setting_has_an_effect(tiny, group):
    names = [name for name in sorted(set(OTHER) - CONTENT) if (LEAVES[name] or "top") == group]
    silent = [name for name in names if not has_an_effect(tiny, name)]
    assert not silent, f"these do nothing: {', '.join(silent)}"


@pytest.mark.parametrize("where", [3, 8])
def test_a_broken_weight_is_never_saved(tiny, where):
    """The loss is finite, a gradient is not: at a checkpoint (3) and at the very end (8)."""

    def spoil(moment):
        if moment.step == where:
            moment.model.decoder.pred.bias[0] = torch.nan

    with pytest.raises(NonFiniteLossError, match=f"weights: got NaN or infinity after step {where}"):
        pretrain(tiny, callbacks=[spoil])
    run = pretrain(tiny)
    assert run.done
    assert all(torch.isfinite(w).all() for w in run.weights().values())


def test_residual_stream_is_float32_under_autocast(tiny):
    model, seen = build_model(tiny), []
    for block in (*model.encoder.blocks, *model.decoder.blocks):
        block.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(1, 3, 32, 32), random_mask(1, 16, 0.75))
    assert seen == [torch.float32] * 2


def test_one_image_trains_without_anything_held_out(tiny, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "one.png")
    run = pretrain(replace(tiny, source=f"folder:{tmp_path}", out=str(tmp_path / "out")))
    assert run.results["held_out"] == {"images": 0}
