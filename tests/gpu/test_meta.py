"""On torch's device without values (`meta`) whole steps are taken: augmentation, losses, backward pass, clipping, fused
AdamW, what follows a step, and the mean of its terms.

Claims: two steps of every method, and one of every way, need no value, and the loss is watched without waiting for it;
every weight that is trained has a gradient; a planted `.item()` or CPU tensor in the backward pass is refused.
"""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from lcmae_core.config.settings import Method
from lcmae_core.store import accelerator
from lcmae_core.training import guards
from lcmae_core.training.guards import LossGuard
from lcmae_core.training.log import Window
from lcmae_core.training.loop import task_of
from lcmae_core.training.steps import one_step
from tests.gpu import cases
from tests.gpu.cases import METHODS, WAYS, settings_of, subject_of
from tests.loops import over

META = torch.device("meta")
pytestmark = pytest.mark.usefixtures("meta_is_taken")


def steps_of(name: str, count: int = 2) -> tuple[list[dict[str, Tensor]], dict[str, Any]]:
    """Terms of some steps, and the gradients that the last one left before the optimiser."""
    subject = subject_of(name, clip_grad=1.0)
    subject.model.to(META)
    task = task_of(*subject, subject.model, subject.objective.loader(META).batches, total=8)
    window, found, gradients = Window(), [], {}

    def check(*_: Any) -> None:
        gradients.update({n: p.grad for n, p in subject.model.named_parameters() if p.requires_grad})

    for step, batch in enumerate(task.batches(0, count)):
        found.append(dict(one_step(task, batch, step, check).terms))
        window.add(found[-1])
    return found, gradients


def test_no_method_is_forgotten() -> None:
    assert {settings_of(name).method for name in METHODS} == set(get_args(Method))


@over("name", WAYS)
def test_steps_need_no_value(name: str) -> None:
    terms, gradients = steps_of(name, 2 if name in METHODS else 1)
    assert all(value.device == META for step in terms for value in step.values())
    assert gradients, "something is trained"
    missing = [name for name, grad in gradients.items() if grad is None]
    assert not missing, f"no gradient: {', '.join(missing)}"


def test_the_loss_is_watched_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loss is sent to the host when its step is made, and read at the next one's, or at the end."""
    said: list[str] = []

    class Sent:
        def __init__(self, number: int):
            self.number, self.value = number, torch.tensor(1.0)

        def wait(self) -> None:
            said.append(f"read {self.number}")

    def send(loss: Tensor) -> Sent:
        assert loss.device == META
        said.append(f"send {len(said)}")
        return Sent(len(said) - 1)

    monkeypatch.setattr(guards, "read_late", send)
    subject, guard = subject_of("MAE"), LossGuard()
    subject.model.to(META)
    task = task_of(*subject, subject.model, subject.objective.loader(META).batches, total=8)
    for step, batch in enumerate(task.batches(0, 2)):
        one_step(task, batch, step, guard.check)
    guard.settle()
    assert said == ["send 0", "read 0", "send 2", "read 2"]
    assert accelerator.read_late(torch.zeros(())) is None, "a CPU gains nothing by being late"


FAULTS = {"an .item()": cases.read_back, "a CPU tensor": cases.cpu_tensor, "a .cpu()": lambda t: t.cpu().to(META)}


@over("fault", FAULTS)
def test_a_fault_planted_in_the_backward_pass_is_refused(fault: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cases.InBackward, "fault", FAULTS[fault])
        cases.plant(patch, cases.InBackward.apply)
        for name in ("LC-MAE", "DINO", "Siamese"):  # the models that have a backward pass of their own
            with pytest.raises((RuntimeError, NotImplementedError), match=r"[mM]eta"):
                steps_of(name, 1)
