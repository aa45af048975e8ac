"""Accelerators are asked by one file, by name.

Claims: no other file of the package names `torch.cuda` or MPS, and the check sees one that does; with a stand-in for
`torch.cuda` the device is chosen and described, made the rank's own, waited for, watched for waits and memory, and a
loss is read late, one event a step; without a device nothing of it is asked.
"""

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lcmae_core.cli import doctor
from lcmae_core.store import accelerator, machine
from lcmae_core.training.guards import LossGuard, NonFiniteLossError, refuse_too_large
from tests.gpu.cases import settings_of
from tests.gpu.standin import stand_in
from tests.test_layering import MODULES

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
HOME = "lcmae_core.store.accelerator"
NAMED = ("torch.cuda", "torch.mps", "torch.backends.mps", "torch.backends.cuda")


def names(source: str) -> Iterator[str]:
    """What a source names of torch's accelerators: attributes, imports, and strings that are code paths."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            yield from (name for name in NAMED if ast.unparse(node) == name)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(NAMED))
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            yield from (name for name in found if name.startswith(NAMED))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and len(node.args) > 1:
            yield from ["torch by a variable name"] * (ast.unparse(node.args[0]) == "torch")


def test_one_file_names_the_accelerators() -> None:
    found = {module: [*names(path.read_text(encoding="utf-8"))] for module, path in MODULES.items()}
    assert {module for module, said in found.items() if said} == {HOME}


@pytest.mark.parametrize(
    "source",
    ["import torch\ntorch.cuda.synchronize()", "from torch import cuda", "import torch.cuda.amp as a",
     "from torch.cuda import Event", "torch.backends.mps.is_available()", "getattr(torch, kind).synchronize()"],
)  # fmt: skip
def test_the_check_sees_one_that_does(source: str) -> None:
    assert [*names(source)]


def test_what_a_device_is_asked() -> None:
    with stand_in() as cuda:
        assert accelerator.kinds()[0] == "cuda"
        assert accelerator.cards() == [("NVIDIA Stand-in", 80 * 10**9)]
        assert machine.device_name(CUDA) == "NVIDIA Stand-in"
        assert machine.device_memory(CUDA) == 80 * 10**9
        accelerator.use(CUDA)
        accelerator.wait_for(CUDA)
        accelerator.watch_peak(CUDA)
        assert accelerator.peak(CUDA) == 3.0
        assert cuda.asked == ["use cuda:0", "wait for cuda:0", "watch cuda:0"]
        doctors = {finding.name: finding for finding in doctor.check_device()}
        assert doctors["cuda:0"].detail == "NVIDIA Stand-in, 80 GB"
        assert "CUDA" not in doctors
        with pytest.raises(ValueError, match=r"batch_size: got 9000000, .* NVIDIA Stand-in has 80 GB"):
            refuse_too_large(settings_of("MAE", batch_size=9_000_000), CUDA)


def test_a_cpu_asks_nothing() -> None:
    with stand_in(there=False) as cuda:
        accelerator.use(CPU)
        accelerator.wait_for(CPU)
        assert accelerator.cards() == []
        assert machine.pick_device().type == ("mps" if "mps" in accelerator.kinds() else "cpu")
        with accelerator.waits_said(CPU) as said:
            torch.ones(1).item()
        assert said == []
        assert cuda.asked == []


def test_waits_are_said_by_their_place() -> None:
    with stand_in() as cuda, accelerator.waits_said(CUDA) as said:
        assert cuda.debug == "warn"
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert cuda.debug == "default"
    assert [Path(place.rpartition(":")[0]).name for place in said] == ["test_accelerator.py"]


class OnCuda(torch.Tensor):
    """A number that says it lies on the device."""

    device = CUDA


@pytest.fixture
def _unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned memory needs the driver: here a copy is made in ordinary memory."""
    plain = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory=False, **k: plain(*shape, **k))


def loss(value: float) -> torch.Tensor:
    return torch.tensor(value).as_subclass(OnCuda)


@pytest.mark.usefixtures("_unpinned")
def test_a_loss_is_read_one_step_late() -> None:
    batch = type("Rows", (), {"index": torch.arange(3), "epoch": torch.zeros(3).long()})
    with stand_in() as cuda:
        guard = LossGuard()
        guard.check(0, batch, loss(1.0), 0.1)  # type: ignore[arg-type]
        assert cuda.asked == ["record 0 on stream of cuda:0"], "nothing waits for the step just made"
        guard.check(1, batch, loss(float("nan")), 0.1)  # type: ignore[arg-type]
        assert cuda.asked[1:] == ["wait for 0", "record 1 on stream of cuda:0"]
        with pytest.raises(NonFiniteLossError, match="got nan at step 1"):
            guard.settle()
        guard.settle()  # nothing is outstanding
        assert cuda.asked[3:] == ["wait for 1"]
