"""Claims: DINO and the supervised ViT are runs like any other: they learn, log what tells a collapse, go on bit-equal
after being stopped or torn away, stop at a loss that is no number, do not care how a step is cut into micro-batches;
what their method does not read changes nothing; a source without labels is one clear line."""

import json
import math
import os
import signal

import pytest
import torch
from torch.nn import functional as F

from lcmae_core.config import UNUSED, LcmaeError, profile, replace
from lcmae_core.data.loader import Loader
from lcmae_core.data.sources import open_source
from lcmae_core.data.views import multi_crop
from lcmae_core.models.build import model_of
from lcmae_core.models.interop import load_mae
from lcmae_core.models.reference import Dino, Supervised
from lcmae_core.store.runs import load_run
from lcmae_core.studies import references
from lcmae_core.training.guards import NonFiniteLossError, Stopped
from lcmae_core.training.held_out import evaluation_loader
from lcmae_core.training.loop import pretrain
from lcmae_core.training.objectives import OBJECTIVES, DinoObjective
from tests.config.test_settings import OTHER
from tests.data.made_pictures import write_folder
from tests.started import completed
from tests.training.helpers import losses, weights

METHODS = ["dino", "supervised"]
both = pytest.mark.parametrize("method", METHODS)


@pytest.fixture
def small(tiny, tmp_path):
    """A few pictures of two classes: held-out measurements take no time."""
    write_folder(
        tmp_path / "pictures", [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "ab" for i in "012"]
    )
    return replace(tiny, source=f"folder:{tmp_path / 'pictures'}")


class TornAwayError(BaseException):
    """As sudden as kill -9, in this process."""


@both
def test_a_run_leaves_what_others_do(small, method):
    run = pretrain(replace(small, method=method))
    assert run.name.startswith(f"{method}-s0-")
    assert run.snapshots == [0, 1, 8]
    logged = {"dino": {"teacher_entropy", "kl", "teacher_std"}, "supervised": {"accuracy"}}[method]
    assert logged | {"step", "loss", "lr"} <= set(run.history[-1])
    assert {"loss", "images"} | logged == set(run.results["held_out"])
    model = model_of(load_run(run.path))
    assert type(model) is {"dino": Dino, "supervised": Supervised}[method]
    assert not model.training
    images = next(iter(evaluation_loader(run.settings, 4).evaluation())).images
    taken = load_mae(run.path)  # the encoder, as any checkpoint: of DINO the teacher's
    assert torch.equal(taken.encoder(images), model.encoder(images))
    assert taken.decoder is None


@both
@pytest.mark.parametrize("how", ["signal", "torn"])
def test_an_interrupted_run_goes_on_bit_equal(small, tmp_path, method, how):
    settings = replace(small, method=method, accum_steps=2)
    whole = pretrain(replace(settings, out=str(tmp_path / "whole")))

    def stop(moment):
        if moment.step == 5 and how == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        elif moment.step == 5:  # the last checkpoint is of step 3
            raise TornAwayError

    with pytest.raises(Stopped if how == "signal" else TornAwayError):
        pretrain(settings, callbacks=[stop])
    run = pretrain(settings)
    assert weights(run) == weights(whole)
    assert losses(run) == losses(whole)


@both
def test_micro_batches_change_nothing_but_rounding(small, method):
    one, two = (pretrain(replace(small, method=method, accum_steps=n)).weights() for n in (1, 2))
    assert max((one[key] - two[key]).abs().max() for key in one) < 1e-4
    if method == "dino":
        assert one["criterion.center"].abs().max() > 0.01  # the centre moves once a step in both


@both
def test_what_a_method_does_not_read_has_no_effect(small, tmp_path, method):
    changes = {leaf: OTHER[leaf] for leaf in UNUSED[method] & set(OTHER)}
    base = replace(small, method=method, steps=3)
    plain, changed = pretrain(base), pretrain(replace(base, changes, out=str(tmp_path / "changed")))
    assert plain.path.name == changed.path.name
    assert weights(plain) == weights(changed)


def test_one_step_of_dino_is_what_the_formulas_say(small):
    """The teacher's weights, the centre and the log after the first step with a rate of 0 (warm-up)."""
    settings = replace(small, method="dino", steps=2, warmup=0.9, weight_decay=0.0, teacher_temp_start=0.05)
    run = pretrain(settings)
    source = open_source(settings.data)
    objective = DinoObjective(settings, source)
    before, after = model_of(run, 0), model_of(run, 1)
    loader = Loader(source.train, settings.data, seed=0, batch_size=4, device="cpu", crops=objective.crops)
    with torch.no_grad():
        heads = before(loader.batch(0).crops)
    outputs = torch.stack(heads.teacher)
    assert torch.allclose(after.criterion.center, 0.1 * outputs.mean(dim=(0, 1), keepdim=True), atol=1e-5)
    p = F.softmax(outputs / 0.05, dim=-1)
    entropy = -(p * p.log()).sum(dim=-1).mean().item()
    first = run.history[0]
    assert first["teacher_entropy"] == pytest.approx(entropy, abs=1e-4)
    assert first["loss"] == pytest.approx(before.loss(heads, 0.05).item(), abs=1e-4)
    assert first["kl"] == pytest.approx(first["loss"] - first["teacher_entropy"], abs=1e-5)
    assert first["teacher_std"] == pytest.approx(outputs.flatten(0, 1).std(dim=0, correction=0).mean().item(), abs=1e-4)
    last = model_of(run)  # progress 1/2: momentum half way between 0.996 and 1
    old, student, new = (dict(m.named_parameters()) for m in (after, last, last))
    for name, value in new.items():
        if name.startswith("encoder.") and value.ndim > 1 and "pos_embed" not in name:
            follows = student[name.replace("encoder.", "student.", 1)]
            assert torch.allclose(value, 0.998 * old[name] + 0.002 * follows, atol=1e-6), name


def test_schedules_of_the_teacher(small):
    changes = {"teacher_temp": 0.08, "teacher_temp_start": 0.04, "teacher_temp_warmup": 0.5, "teacher_momentum": 0.9}
    objective = DinoObjective(replace(small, changes, method="dino"), None)
    assert [objective.temperature(p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([0.04, 0.06, 0.08, 0.08])
    assert [objective.momentum(p) for p in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1.0])
    none = DinoObjective(replace(small, changes, method="dino", teacher_temp_warmup=0.0), None)
    assert none.temperature(0) == 0.08


def test_prototypes_rest_at_first(small):
    run = pretrain(replace(small, method="dino", prototypes_frozen=0.5, snapshots=8, warmup=0.0))
    key = "student_head.last_layer.weight_v"
    start, resting, last = (run.weights(step)[key] for step in (0, 3, None))
    assert torch.equal(start, resting)
    assert not torch.equal(resting, last)
    assert not torch.equal(
        run.weights(0)["student_head.layers.0.weight"], run.weights(3)["student_head.layers.0.weight"]
    )


def test_crops_of_a_run_are_those_of_multi_crop(small):
    settings, seen = replace(small, method="dino"), []
    pretrain(settings, callbacks=[lambda moment: seen.append([c.shape[-1] for c in moment.batch.crops]) or None])
    assert seen == [[32, 32, 16, 16]] * 8
    assert OBJECTIVES["dino"](settings, None).crops == multi_crop(settings.data, settings.dino, 0)


@both
def test_a_loss_that_is_no_number_stops(small, method):
    def spoil(moment):
        if moment.step == 4:
            model = moment.model
            (model.student if method == "dino" else model.encoder).cls_token.fill_(torch.nan)

    with pytest.raises(NonFiniteLossError, match="loss: got nan at step 4"):
        pretrain(replace(small, method=method), callbacks=[spoil])
    assert pretrain(replace(small, method=method)).done


@both
def test_bfloat16_trains_nearly_the_same(small, method):
    plain, coarse = (pretrain(replace(small, method=method, steps=3, precision=p)).weights() for p in ("fp32", "bf16"))
    assert all(torch.allclose(value, coarse[key], atol=0.05) for key, value in plain.items())
    assert any(not torch.equal(value, coarse[key]) for key, value in plain.items())


COMPILED = """
import json, sys, torch
from lcmae_core.config import parse, replace
from lcmae_core.training.loop import pretrain
whole, calls = torch.compile, []
torch.compile = lambda model: calls.append(model) or whole(model, backend="eager")  # captured as for the real backend
for method in ("dino", "supervised"):
    settings = replace(parse(json.loads(sys.argv[1])), method=method, steps=2)
    plain = pretrain(settings).weights()
    same = pretrain(replace(settings, compile=True, out=settings.runtime.out + "/compiled")).weights()
    assert len(calls) == 1, calls
    calls.clear()
    print(method, max(float((plain[key] - same[key]).abs().max()) for key in plain))
"""


def test_a_compiled_model_trains_the_same(small):
    """In a process of its own: the shape checks of the tests cannot be captured."""
    ended = completed("-c", COMPILED, json.dumps(small.model_dump(mode="json")))
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = dict(line.split() for line in ended.stdout.splitlines())
    assert set(found) == set(METHODS)
    assert all(float(gap) < 1e-5 for gap in found.values())


def test_supervised_learns_the_photographs(tiny):
    learning = {"source": "photos", "steps": 60, "batch_size": 16, "base_lr": 0.03, "log_every": 20}
    run = pretrain(replace(tiny, learning, method="supervised"))
    held_out = run.results["held_out"]
    assert held_out["accuracy"] > 0.3  # chance 0.1
    assert held_out["loss"] < 0.9 * math.log(10)
    assert run.curve("loss")[1][-1] < 0.8 * run.curve("loss")[1][0]


def test_dino_neither_collapses_nor_stands_still(tiny):
    changes = {"source": "photos", "steps": 60, "batch_size": 16, "base_lr": 0.03, "log_every": 10}
    run = pretrain(replace(tiny, changes, method="dino", teacher_momentum=0.9))
    final = run.results["held_out"]
    assert 0.2 * math.log(32) < final["teacher_entropy"] < 0.99 * math.log(32)
    assert final["kl"] > 0.01
    assert final["teacher_std"] > 0.01


def test_no_labels_is_one_line(tiny, tmp_path):
    write_folder(tmp_path / "flat", [f"{i}.png" for i in range(6)])
    settings = replace(tiny, method="supervised", source=f"folder:{tmp_path / 'flat'}")
    with pytest.raises(LcmaeError, match=r"^labels: got none in 'folder:.*', expected labels"):
        pretrain(settings)
    assert pretrain(replace(settings, method="dino", steps=1)).done  # DINO needs none


@pytest.mark.parametrize("name", ["smoke", "quick", "desk", "lab", "paper"])
def test_references_share_data_and_encoder_with_mae(name):
    base = profile(name)
    runs = references(base, name)
    assert {key: run.method for key, run in runs.items()} == {"DINO": "dino", "supervised": "supervised"}
    for run in runs.values():
        assert run.seed == base.seed
        assert run.data == base.data
        assert run.model == base.model
        if name in ("desk", "lab", "paper"):
            assert run.optim.epochs == base.optim.epochs
