"""Fine-tuning and linear probes on the devices without values: what judges a model does not wait for a GPU either.

Claims: a step of every recipe of fine-tuning (mixup, CutMix, drop path, layer decay) and steps of a linear probe need
no value, backward pass and optimiser included; images are encoded for a probe on the device alone, and features made
before are drawn without waiting for what is sent; a planted `.item()` and a blocking copy are refused.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor

from lcmae_core.config.downstream import RECIPES, LinearProbe, vary
from lcmae_core.training import finetune, probe
from lcmae_core.training.features import Features
from lcmae_core.training.finetune import build_adamw, build_classifier
from lcmae_core.training.log import Window
from lcmae_core.training.probe import Probe, build_lars, cached_batches
from lcmae_core.training.steps import Steps, one_step
from tests.gpu.cases import plant, read_back, subject_of
from tests.gpu.pretended import CUDA, PretendedCuda, RefusedError

META = torch.device("meta")
CLASSES = 10
pytestmark = pytest.mark.usefixtures("meta_is_taken")


def stepped(task: Steps, batches: Any) -> list[Tensor]:
    """Terms of all steps, which were logged."""
    window, found = Window(), []
    for step, batch in enumerate(batches):
        terms = one_step(task, batch, step).terms
        window.add(terms)
        found += terms.values()
    return found


def fine_tuned(name: str = "v2", fault: Callable[[Tensor], Tensor] = lambda logits: logits) -> list[Tensor]:
    """A step of the recipe, its average of weights apart, which draws from a generator that this device has none of."""
    objective, model = subject_of("supervised")
    recipe = vary(RECIPES[name], batch_size=4)
    classifier = build_classifier(model.encoder, CLASSES, recipe).to(META)
    backward = finetune.mixed_backward(lambda images: fault(classifier(images)), recipe, CLASSES, 0, META)
    task = Steps(classifier, build_adamw(classifier, recipe), lambda *_: iter(()), lambda step: 0.1, backward, 1.0)
    return stepped(task, objective.loader(META).batches(0, 1))


def test_fine_tuning_needs_no_value() -> None:
    for name in RECIPES:
        assert all(value.device == META for value in fine_tuned(name)), name


def test_a_planted_read_is_refused() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        fine_tuned(fault=read_back)


def probed(recipe: LinearProbe) -> list[Tensor]:
    """Two steps of a probe on features made before."""
    head = Probe(32, CLASSES).to(META)
    known = Features(torch.empty(40, 32, device=META), torch.empty(40, dtype=torch.long, device=META))
    task = Steps(head, build_lars(head, recipe), lambda *_: iter(()), lambda step: 0.1, probe.probe_backward(head))
    return stepped(task, cached_batches(known, recipe, 0, 0, 2))


def test_a_probe_needs_no_value() -> None:
    assert all(value.device == META for value in probed(LinearProbe(batch_size=8)))


def drawn() -> Any:
    """The first batch of features made before, on the fake CUDA device."""
    with PretendedCuda():
        known = Features(torch.empty(40, 32, device=CUDA), torch.empty(40, dtype=torch.long, device=CUDA))
        return next(cached_batches(known, LinearProbe(batch_size=8), 0, 0, 1))


def test_features_are_drawn_without_waiting() -> None:
    batch = drawn()
    assert all(isinstance(t, FakeTensor) and t.device == CUDA for t in (batch.images, batch.index, batch.labels))
    assert not isinstance(batch.at.index, FakeTensor)


def test_a_blocking_copy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = probe.positions

    class Blocking(Tensor):
        def to(self, device: Any, **_: Any) -> Tensor:
            return self.as_subclass(Tensor).to(device)

    monkeypatch.setattr(
        probe,
        "positions",
        lambda *given: type(positions(*given))(*(t.as_subclass(Blocking) for t in positions(*given))),
    )
    with pytest.raises(RefusedError, match="the host waits for"):
        drawn()


def encoded() -> Tensor:
    """Features of a batch on the fake CUDA device."""
    _, model = subject_of("supervised")
    with PretendedCuda() as device:
        encoder: Any = device.place(model).encoder
        return probe.pooled_features(encoder, torch.empty(4, 3, 32, 32, device=CUDA), LinearProbe(token="mean"))


def test_encoding_for_a_probe_stays_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert encoded().device == CUDA
    plant(monkeypatch, read_back)
    with pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        encoded()
