"""No step off the logging steps waits for the device, in the whole loop of `pretrain` as it runs.

Claims: of every method, with clipping, micro-batches and an average that follows, values are read in logged steps and
at the end alone; the loss of a step is read one step late; a planted `.item()`, `bool()`, `.cpu()` or `.tolist()`,
forward, backward or in what follows a step, is found with its step and its line.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lcmae_core.bench.waits import Wait, Waits
from lcmae_core.data.loader import Batch, Loader
from lcmae_core.models.reference import Dino
from lcmae_core.training import guards, loop
from tests.data.made_pictures import write_folder
from tests.gpu import cases
from tests.gpu.cases import METHODS, settings_of
from tests.loops import over

STEPS, EVERY = 7, 3
LOGGED = {3, 6, 7}


class Sent:
    """A loss on its way, as `accelerator.Late`: a copy in the host's memory."""

    def __init__(self, loss: Tensor):
        self.value = torch.empty(()).copy_(loss.detach(), non_blocking=True)

    def wait(self) -> None:
        """It has come long ago."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "ab" for i in "0123"]
    return write_folder(tmp_path_factory.mktemp("waits"), names)


def waits_of(name: str, pictures: Path, out: Path, **more: Any) -> list[Wait]:
    """What a run waits for before it is measured, with its CPU tensors marked as the device's from where they would be
    sent."""
    waits = Waits()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "send", lambda self, tensor: waits.mark(tensor.clone()))
        patch.setattr(guards, "read_late", Sent)
        spread, run_steps, plain = loop.spread, loop.run_steps, Loader.batches

        def marked(model: Any, settings: Any) -> Any:
            waits.mark_model(model)
            return spread(model, settings)

        def watched(*given: Any) -> float:
            with waits:
                return run_steps(*given)

        def batches(self: Loader, start: int, stop: int) -> Iterator[Batch]:
            waits.step = start + 1
            for batch in plain(self, start, stop):
                assert waits.marked([batch.images]), "the marks are handed on"
                yield batch
                waits.step += 1

        patch.setattr(loop, "spread", marked)
        patch.setattr(loop, "run_steps", watched)
        patch.setattr(Loader, "batches", batches)
        how = {"steps": STEPS, "log_every": EVERY, "checkpoint_every": 100, "clip_grad": 1.0, "accum_steps": 2}
        loop.pretrain(settings_of(name, **(how | more), source=f"folder:{pictures}", out=str(out)))
    return waits.noted


@over("name", [*METHODS, "supervised, mixed"])
def test_only_logged_steps_wait(name: str, pictures: Path, tmp_path: Path) -> None:
    found = waits_of(name, pictures, tmp_path / name)
    assert {wait.step for wait in found} == LOGGED, found
    logged = [wait for wait in found if wait.step < STEPS]  # at the end weights are judged and saved too
    assert {wait.place.partition(":")[0] for wait in logged} == {"training/log.py"}, "the means of the terms"
    assert {wait.what for wait in logged} == {"_local_scalar_dense"}


def asked(how: str) -> Any:
    """A read of one number, which changes nothing."""

    def fault(tokens: Tensor) -> Tensor:
        number = tokens.detach().flatten()[0]
        _ = {".item()": number.item, "bool()": number.__bool__, "float()": number.__float__, ".cpu()": number.cpu,
             ".tolist()": number.tolist, "print": number.__repr__}[how]()  # fmt: skip
        return tokens

    return fault


@over("how", [".item()", "bool()", "float()", ".cpu()", ".tolist()", "print"])
def test_a_planted_wait_is_found(how: str, pictures: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cases.plant(patch, asked(how))
        found = waits_of("MAE", pictures, tmp_path / how, accum_steps=1)
    early = [wait for wait in found if wait.step not in LOGGED]
    assert {wait.step for wait in early} == {1, 2, 4, 5}, found
    assert {wait.place.partition(":")[0] for wait in early} == {"models/encoder.py"}


def test_a_wait_in_the_backward_pass_is_found(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases.InBackward, "fault", asked(".item()"))
    cases.plant(monkeypatch, cases.InBackward.apply)
    assert {wait.step for wait in waits_of("MAE", pictures, tmp_path)} == set(range(1, STEPS + 1))


def test_a_wait_after_the_step_is_found(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    follow = Dino.follow

    def slow(self: Dino, momentum: float) -> None:
        follow(self, momentum + 0.0 * float(self.criterion.center.mean()))

    monkeypatch.setattr(Dino, "follow", slow)
    found = waits_of("DINO", pictures, tmp_path)
    assert {wait.step for wait in found} == set(range(1, STEPS + 1))
    assert {wait.place.partition(":")[0] for wait in found if wait.step == 1} == {"training/objectives.py"}


def test_what_lies_on_the_host_may_be_read() -> None:
    waits = Waits()
    with waits:
        assert torch.ones(2).sum().item() == 2.0
        there = waits.mark(torch.ones(2))
        late = torch.empty(2).copy_(there * 2, non_blocking=True)
        assert late.tolist() == [2.0, 2.0]
        assert waits.noted == []
        assert torch.equal(there + 1, late)
    assert [wait.what for wait in waits.noted] == ["equal"]
