"""The rate follows warm-up and half a cosine per iteration; decay spares 1-D parameters."""

import pytest

from lcmae_core.config import Optim
from lcmae_core.models.build import build_model
from lcmae_core.training.optim import build_optimizer, learning_rate


def test_rate_by_hand():
    optim = Optim(steps=100, warmup=0.2, base_lr=1.0, batch_size=256)
    rates = {step: learning_rate(step, 100, optim) for step in (0, 10, 20, 60, 100)}
    assert rates == pytest.approx({0: 0, 10: 0.5, 20: 1.0, 60: 0.5, 100: 0.0})


def test_rate_scales_with_the_batch():
    assert Optim(base_lr=1.5e-4, batch_size=4096).lr == pytest.approx(2.4e-3)


def test_no_warmup_starts_at_the_peak():
    assert learning_rate(0, 10, Optim(steps=10, warmup=0.0, base_lr=1.0, batch_size=256)) == 1.0


def test_decay_on_matrices_only(tiny):
    model = build_model(tiny)
    decayed, spared = build_optimizer(model, tiny.optim).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    assert decayed["betas"] == (0.9, 0.95)
    assert {p.ndim for p in spared["params"]} == {1}
    assert min(p.ndim for p in decayed["params"]) == 2
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(p.numel() for g in (decayed, spared) for p in g["params"]) == trained
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert fixed == {"encoder.pos_embed", "decoder.pos_embed"}
