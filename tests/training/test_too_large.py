"""What cannot fit into memory is refused before anything is read or allocated, in one line with what would fit; what
can be trained is not."""

import pytest
import torch

from lcmae_core.config import LcmaeError, profile, replace
from lcmae_core.models.build import build_model
from lcmae_core.store import machine
from lcmae_core.training import guards
from lcmae_core.training.guards import refuse_too_large
from tests.loops import over

CPU = torch.device("cpu")
VIT_L = {"width": 1024, "depth": 24, "heads": 16, "image_size": 224, "patch_size": 16}


@pytest.fixture(autouse=True)
def of_25_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "device_memory", lambda device: 25e9)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@over(
    ("changes", "line"),
    [
        ({"batch_size": 10**9}, r"^batch_size: got 1000000000, whose pictures alone take [\d,]+ GB, expected at "),
        ({**VIT_L, "batch_size": 4096}, r"^batch_size: got 4096, whose gradients alone need [\d,]+ GB, expected at "),
        ({"width": 65536, "depth": 1000, "heads": 1, "batch_size": 1, "image_size": 16},
         r"^width, depth: got 65536 and 1000, whose weights, gradients and AdamW's means take 824,634 GB"),
    ],
)  # fmt: skip
def test_it_is_one_line(changes, line):
    with pytest.raises(LcmaeError, match=line + ".*has 25 GB$") as refused:
        refuse_too_large(replace(profile("smoke"), changes), CPU)
    assert "\n" not in str(refused.value)


def test_what_the_line_expects_is_taken():
    settings = replace(profile("smoke"), {**VIT_L, "batch_size": 4096})
    with pytest.raises(LcmaeError, match="expected at most") as refused:
        refuse_too_large(settings, CPU)
    most = int(str(refused.value).partition("at most ")[2].partition(":")[0])
    refuse_too_large(replace(settings, batch_size=most), CPU)
    with pytest.raises(LcmaeError):
        refuse_too_large(replace(settings, batch_size=most + 1), CPU)


@over("share", [{"accum_steps": 64}, {"ranks": "64"}])
def test_micro_batches_and_ranks_share_it(share, monkeypatch):
    share = dict(share)
    with monkeypatch.context() as patched:
        if "ranks" in share:
            patched.setenv("WORLD_SIZE", share.pop("ranks"))
        refuse_too_large(replace(profile("smoke"), {**VIT_L, "batch_size": 4096, **share}), CPU)


def test_nothing_that_profiles_do_is_refused():
    for name in ("smoke", "quick", "desk", "lab"):
        refuse_too_large(profile(name), CPU)


def test_weights_are_counted_as_less_than_they_are():
    settings = profile("quick")
    counted = guards.weight_bytes(settings) / 16
    blocks = build_model(settings).encoder.blocks
    held = sum(p.numel() for p in blocks.parameters())
    assert 0.9 * held < counted < held


@over("changes", [{}, {"mask_ratio": 0.5, "cross_view": 1.0}, {"precision": "bf16"}, {"method": "supervised"}])
def test_what_a_step_keeps_is_counted_as_less_than_it_is(changes):
    """The bytes of all that autograd saves in the blocks of the encoder, each tensor once."""
    changes = {"depth": 2, "width": 64, "heads": 2} | changes
    settings = replace(profile("smoke"), changes)
    encoder, batch = (
        build_model(replace(profile("smoke"), {k: changes[k] for k in ("depth", "width", "heads")})).encoder,
        2,
    )
    views = batch * (settings.loss.num_views if settings.method == "mae" else 1)
    ratio = settings.masking.mask_ratio if settings.method == "mae" else 0
    tokens = torch.randn(views, int(settings.num_patches * (1 - ratio)) + 1, 64, requires_grad=True)
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        held.append(tensor)
        return tensor

    held: list[torch.Tensor] = []
    weights = {p.data_ptr() for p in encoder.parameters()}
    auto = torch.autocast("cpu", torch.bfloat16, enabled=settings.optim.precision == "bf16")
    with auto, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for block in encoder.blocks:
            tokens = block(tokens)
    kept = sum(size for place, size in saved.items() if place not in weights)
    assert guards.kept_bytes(settings) * batch < kept


def test_this_machine_is_asked_for_its_memory():
    assert machine.device_memory(CPU) is None or machine.device_memory(CPU) > 1e9
