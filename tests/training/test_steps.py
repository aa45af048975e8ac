"""The one loop does every part of a task, in its place: rate, backward, clip, optimiser, what follows, average, log,
kept weights, checkpoints; and a task resumed in the middle ends where an uninterrupted one does."""

import time

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from lcmae_core.store.runs import open_run
from lcmae_core.training.guards import NonFiniteLossError, Stopped
from lcmae_core.training.steps import Steps, one_step, run_steps, run_unsaved
from tests.studies.tiny_studies import tiny_settings

BATCHES = [torch.tensor([[float(n), 1.0]]) for n in range(1, 7)]


def task_of(said, **more):
    """A linear model that learns to say 3, and a list that is told what is done."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def rate(step):
        said.append(f"rate {step}")
        optimizer.param_groups[0]["lr"] = 0.01 * (step + 1)
        return 0.01 * (step + 1)

    def backward(batch, step):
        said.append(f"backward {step}")
        loss = (model(batch) - 3).square().mean()
        loss.backward()
        return {"total": loss}

    def batches(start, stop):
        return (batch for batch in BATCHES[start:stop])

    return Steps(
        model, optimizer, batches, rate, backward, after_step=lambda step: said.append(f"after {step}"), **more
    )


def by_hand(steps, clip=None):
    """The same steps written out."""
    torch.manual_seed(0)
    model, average = nn.Linear(2, 1), None
    for step, batch in enumerate(BATCHES[:steps]):
        gradients = torch.autograd.grad((model(batch) - 3).square().mean(), [*model.parameters()])
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        scale = 1.0 if clip is None else min(1.0, clip / (float(norm) + 1e-6))
        with torch.no_grad():
            for p, g in zip(model.parameters(), gradients):
                p -= 0.01 * (step + 1) * scale * g
        now = model.weight.detach().clone()
        average = now if average is None else 0.5 * average + 0.5 * now
    return model.weight.detach(), average


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_step_does_its_parts_in_order(clip):
    said = []
    task = task_of(said, clip_grad=clip)
    for step, batch in enumerate(task.batches(0, 3)):
        found = one_step(task, batch, step, lambda step, *_: said.append(f"check {step}"))
        assert found.rate == pytest.approx(0.01 * (step + 1))
        assert all(p.grad is None for p in task.model.parameters())
    assert said == [f"{part} {step}" for step in range(3) for part in ("rate", "backward", "check", "after")]
    assert task.model.weight.detach() == pytest.approx(by_hand(3, clip)[0])


def test_a_loss_that_is_no_number_changes_nothing():
    task = task_of([])
    before = task.model.weight.detach().clone()

    def refuse(step, batch, loss, rate):
        raise NonFiniteLossError("no")

    with pytest.raises(NonFiniteLossError):
        one_step(task, BATCHES[0], 0, refuse)
    assert torch.equal(task.model.weight, before)


@pytest.fixture
def run(tmp_path):
    return open_run(tiny_settings(tmp_path, checkpoint_every=2, log_every=2), "x")


def test_all_is_logged_kept_and_saved_and_the_average_follows(run):
    said = []
    task = task_of(said, snapshots={0, 3}, logged=lambda done, batch: {"seen": float(batch[0, 0])})
    task.average = ModelEmaV3(task.model, decay=0.5)
    with run.lock():
        run_steps(run, run.settings, task, 5, time.perf_counter())
    assert [s for s in said if s.startswith("after")] == [f"after {step}" for step in range(5)]
    assert [(line["step"], line["lr"], line["seen"]) for line in run.history] == [
        (2, pytest.approx(0.02), 2.0), (4, pytest.approx(0.04), 4.0), (5, pytest.approx(0.05), 5.0),
    ]  # fmt: skip
    assert sorted(int(f.stem[5:]) for f in (run.path / "snapshots").iterdir()) == [0, 3]
    assert [f.name for f in sorted((run.path / "checkpoints").iterdir())][-1] == "step-00000005"
    assert task.model.weight.detach() == pytest.approx(by_hand(5)[0])
    assert task.average.module.weight.detach() != pytest.approx(by_hand(5)[0])


def test_what_is_not_saved_takes_the_same_steps(run):
    saved, unsaved = task_of([]), task_of([])
    with run.lock():
        run_steps(run, run.settings, saved, 6, time.perf_counter())
    losses = run_unsaved(unsaved, 6)
    assert torch.equal(unsaved.model.weight, saved.model.weight)
    pairs = [sum(losses[at : at + 2]) / 2 for at in (0, 2, 4)]  # a line of the log is the mean of two steps
    assert [line["loss"] for line in run.history] == pytest.approx(pairs)


def test_the_averaged_model_counts_where_there_is_one():
    task = task_of([])
    assert task.trained is task.model
    task.average = ModelEmaV3(task.model, decay=0.5)
    assert task.trained is task.average.module


def test_a_task_that_was_stopped_ends_where_an_uninterrupted_one_does(run, terminated_at):
    def trained(task):
        with run.lock():
            run_steps(run, run.settings, task, 6, time.perf_counter())
        return torch.cat([task.model.weight.detach(), task.average.module.weight.detach()])

    def averaged():
        task = task_of([])
        task.average = ModelEmaV3(task.model, decay=0.5)
        return task

    with terminated_at(3), pytest.raises(Stopped, match="stopped at step 3 of 6 after a checkpoint"):
        trained(averaged())
    resumed, losses = trained(averaged()), [line["loss"] for line in run.history]
    run.clear()
    (run.path / "settings.json").write_text(run.settings.model_dump_json())
    assert torch.equal(trained(averaged()), resumed)
    assert [line["loss"] for line in run.history] == losses
