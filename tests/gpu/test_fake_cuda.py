"""On a CUDA device that is not there, every method draws its crops and masks, goes forward and takes its losses, and
does what follows a step: nothing is read back, nothing lies on another device, and the host waits for no copy.

Claims: no value is read and no device mixed in a step of every method and way; masks, predictions and losses lie on
the device; losses are float32 under bf16 autocast; a planted `.item()`, `.cpu()`, CPU tensor, shape that hangs on
values and blocking copy is each refused.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensor

from lcmae_core.config import replace
from lcmae_core.data.loader import Batch
from lcmae_core.training.log import Window
from lcmae_core.training.masked import view_masks
from tests.gpu import cases
from tests.gpu.cases import METHODS, WAYS, Subject, plant, subject_of
from tests.gpu.pretended import CUDA, PretendedCuda, RefusedError
from tests.gpu.standin import stand_in
from tests.loops import over


@contextmanager
def bf16_is_there() -> Iterator[None]:
    """torch turns autocast off where it sees no CUDA device; here it is told of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.amp.autocast_mode.torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
        yield


class Prepared(NamedTuple):
    """A method on the device that is not there, with its first batch."""

    device: PretendedCuda
    subject: Subject
    batch: Batch


@cache
def prepared(name: str, **more: Any) -> Prepared:
    """Model and batch of a method, made on the device."""
    subject = subject_of(name, **more)
    with stand_in(), PretendedCuda() as device:
        device.setting_up = True
        loader = subject.objective.loader(CUDA)
        device.place(subject.model)
        device.setting_up = False
        return Prepared(device, subject, next(iter(loader.batches(0, 2))))


def step_of(found: Prepared, step: int = 0, **more: Any) -> dict[str, Tensor]:
    """The terms of a step without gradients, and what follows it; `more` are settings that the model does not read."""
    device, (objective, model), batch = found
    objective = type(objective)(replace(objective.settings, more), objective.source)
    window = Window()
    with stand_in(), device:
        for chunk in batch.chunks(objective.settings.optim.accum_steps):
            terms = objective.terms(model, model, chunk, step / 8)
            window.add(terms)
        objective.after_step(model, step / 8)
    return terms


def all_there(values: Any) -> bool:
    return all(isinstance(value, FakeTensor) and value.device == CUDA for value in values)


@over("name", WAYS)
def test_every_method_goes_forward_on_the_device_alone(name: str) -> None:
    terms = step_of(prepared(name), step=5)
    assert all_there(terms.values()), terms
    assert terms["total"].dtype == torch.float32
    assert terms["total"].shape == ()
    assert terms["total"].requires_grad


@over("name", METHODS)
def test_losses_are_float32_under_autocast(name: str) -> None:
    seen: list[torch.dtype] = []
    with pytest.MonkeyPatch.context() as patch, bf16_is_there():
        linear = torch.nn.functional.linear

        def noted(*given: Any) -> Tensor:
            out = linear(*given)
            seen.append(out.dtype)
            return out

        patch.setattr(torch.nn.functional, "linear", noted)
        terms = step_of(prepared(name), precision="bf16")
    assert seen, "no linear layer was seen"
    assert set(seen) == {torch.bfloat16}
    assert {value.dtype for value in terms.values()} == {torch.float32}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set")
def test_pictures_cut_on_the_cpu_are_sent_without_waiting() -> None:
    for found in (
        prepared("supervised", rand_augment="rand-m9-mstd0.5-inc1", erase=0.25),
        prepared("MAE", device_cache_gb=0.0),
    ):
        assert all_there(found.batch[:3])
        step_of(found)


def test_masks_lie_where_the_images_do() -> None:
    device, (objective, _), batch = prepared("LC-MAE")
    with device:
        masks = view_masks(objective.settings, batch, 2)
    assert all_there([*batch[:3], *masks[0], *masks[1]])
    assert batch.at is not None
    assert not isinstance(batch.at.index, FakeTensor), "the host's own copy stays readable"
    assert batch.first == (0, int(batch.at.index[0]))


FAULTS: dict[str, tuple[Any, type[Exception]]] = {
    "an .item()": (cases.read_back, DataDependentOutputException),
    "a bool()": (lambda t: t if t.sum() > 0 else -t, DataDependentOutputException),
    "a .cpu()": (lambda t: t.cpu().to(CUDA, non_blocking=True), RefusedError),
    "a CPU tensor": (cases.cpu_tensor, RefusedError),
    "a shape that hangs on values": (lambda t: t + t[t > 0].sum(), DynamicOutputShapeException),
    "a blocking copy": (lambda t: t + torch.zeros(t.shape[-1]).to(t.device), RefusedError),
    "numbers made on the device": (lambda t: t + torch.tensor([0.0], device=t.device), RefusedError),
}


@over("fault", FAULTS)
def test_a_planted_fault_is_refused(fault: str) -> None:
    for name in METHODS:
        break_it, error = FAULTS[fault]
        with pytest.MonkeyPatch.context() as patch:
            plant(patch, break_it)
            with pytest.raises(error):
                step_of(prepared(name))


def test_a_host_number_may_come_along() -> None:
    with stand_in(), PretendedCuda():
        there = torch.ones(3, device=CUDA)
        assert (there * torch.tensor(2.0)).device == CUDA
        assert float(torch.tensor([1.0, 2.0]).sum()) == 3.0, "the CPU goes on computing"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.arange(3, device=CUDA).device == CUDA
