"""The losses are Eq. 1, 5 and 6: equal to slow loops over the equations, with values worked out by hand, live gradients
only where a patch is hidden, zero without active terms, finite for zero vectors and in bf16."""

import inspect
import math

import pytest
import torch

from lcmae_core.config import LcmaeError
from lcmae_core.losses import cross_view_loss, in_view_loss, reconstruction_loss
from tests.loops import over

SHAPES = [(1, 4, 3, 2), (2, 9, 12, 5), (3, 16, 6, 8), (2, 5, 1, 7), (4, 12, 27, 3)]


def draw(shape, seed=0):
    """pred/target (B, N, P), v1/v2 (B, N, V), two masks with different counts a picture."""
    b, n, p, v = shape
    g = torch.Generator().manual_seed(seed)
    normal = [torch.randn(b, n, w, generator=g, dtype=torch.float64) for w in (p, p, v, v)]
    hidden = [torch.rand(b, n, generator=g) < 0.7 for _ in range(2)]
    return *normal, *hidden


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def slow_reconstruction(pred, target, hidden):
    return [
        (b, (pred[b, i, k].item() - target[b, i, k].item()) ** 2)
        for b in range(pred.shape[0]) for i in range(pred.shape[1]) for k in range(pred.shape[2]) if hidden[b, i]
    ]  # fmt: skip


def slow_cross(v1, v2, m1, m2):
    return [
        (b, 1 - cosine(v1[b, i].tolist(), v2[b, i].tolist()))
        for b in range(v1.shape[0]) for i in range(v1.shape[1]) if m1[b, i] and m2[b, i]
    ]  # fmt: skip


def slow_in(v, x, m):
    n = v.shape[1]
    return [
        (b, abs(cosine(v[b, i].tolist(), v[b, j].tolist()) - cosine(x[b, i].tolist(), x[b, j].tolist())))
        for b in range(v.shape[0]) for i in range(n) for j in range(n) if i != j and m[b, i] and m[b, j]
    ]  # fmt: skip


def reduced(terms, batch, reduction):
    total = math.fsum(t for _, t in terms)
    return total / max(len(terms), 1) if reduction == "mean" else total / batch


@over("reduction", ["mean", "sum"])
@over("shape", SHAPES)
def test_losses_equal_slow_loops_over_the_equations(shape, reduction):
    pred, target, v1, v2, m1, m2 = draw(shape)
    batch = shape[0]
    fast = [
        reconstruction_loss(pred, target, m1, reduction=reduction),
        cross_view_loss(v1, v2, m1, m2, reduction=reduction),
        in_view_loss(v1, target, m1, reduction=reduction),
    ]
    slow = [slow_reconstruction(pred, target, m1), slow_cross(v1, v2, m1, m2), slow_in(v1, target, m1)]
    for value, terms in zip(fast, slow):
        assert terms, "the draw must leave active terms"
        assert value.item() == pytest.approx(reduced(terms, batch, reduction), rel=1e-12, abs=1e-12)


def test_reconstruction_by_hand():
    pred, target = torch.tensor([[[1.0, 2.0], [5.0, 5.0]]]), torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    hidden = torch.tensor([[True, False]])
    assert reconstruction_loss(pred, target, hidden) == 2.5  # (1 + 4) / 2 values
    assert reconstruction_loss(pred, target, hidden, reduction="sum") == 5


def test_cross_view_by_hand():
    v1 = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [3.0, 0.0]]])
    v2 = torch.tensor([[[0.0, 2.0], [-1.0, 0.0], [1.0, 0.0]]])
    both = torch.ones(1, 3, dtype=torch.bool)
    assert cross_view_loss(v1, v2, both, both) == 1  # (1 - 0) + (1 + 1) + (1 - 1), over 3
    only = torch.tensor([[True, False, True]])
    assert cross_view_loss(v1, v2, both, only, reduction="sum") == 1


def test_in_view_by_hand():
    v = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])  # cosines 0, 1, 0
    x = torch.tensor([[[1.0], [2.0], [-3.0]]])  # cosines 1, -1, -1
    hidden = torch.ones(1, 3, dtype=torch.bool)
    assert in_view_loss(v, x, hidden, reduction="sum") == 2 * (1 + 2 + 1)  # each pair counts twice: i != j is ordered
    assert in_view_loss(v, x, hidden) == pytest.approx(4 / 3)
    two = torch.tensor([[True, True, False]])
    assert in_view_loss(v, x, two) == 1


def test_cosine_losses_ignore_scale_and_sign_of_views_matters():
    _, x, v1, v2, m1, m2 = draw((2, 9, 12, 5))
    assert cross_view_loss(7 * v1, v2 / 3, m1, m2) == pytest.approx(cross_view_loss(v1, v2, m1, m2).item())
    assert in_view_loss(7 * v1, x / 3, m1) == pytest.approx(in_view_loss(v1, x, m1).item())
    assert cross_view_loss(v1, v1, m1, m2) == pytest.approx(0, abs=1e-12)
    assert cross_view_loss(v1, -v1, m1, m2) == pytest.approx(2)


def test_a_collapsed_v_costs_the_mean_gap_of_the_pictures():
    _, x, _, _, hidden, _ = draw((2, 9, 12, 5))
    constant = torch.ones(2, 9, 5, dtype=torch.float64)
    cosines = torch.nn.functional.cosine_similarity(x[:, :, None], x[:, None], dim=-1)
    pairs = hidden[:, :, None] & hidden[:, None] & ~torch.eye(9, dtype=torch.bool)
    assert in_view_loss(constant, x, hidden) == pytest.approx((1 - cosines[pairs]).mean().item())


def test_gradient_lives_on_hidden_patches_only():
    pred, target, v1, v2, m1, m2 = (t.requires_grad_() if t.is_floating_point() else t for t in draw((2, 9, 12, 5)))
    for loss, leaf, live in [
        (reconstruction_loss(pred, target.detach(), m1), pred, m1),
        (cross_view_loss(v1, v2, m1, m2), v1, m1 & m2),
        (cross_view_loss(v1, v2, m1, m2), v2, m1 & m2),
        (in_view_loss(v1, target.detach(), m1), v1, m1),
    ]:
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert torch.equal(gradient.abs().sum(-1) > 0, live)


def test_in_view_gradient_equals_finite_differences():
    _, x, v, _, hidden, _ = draw((1, 5, 6, 4))
    assert torch.autograd.gradcheck(lambda u: in_view_loss(u, x, hidden), v.requires_grad_(), atol=1e-6)


def test_no_active_term_gives_a_zero_that_keeps_the_graph():
    pred, target, v1, v2, m1, _ = (t.requires_grad_() if t.is_floating_point() else t for t in draw((2, 9, 12, 5)))
    none, one = torch.zeros_like(m1), torch.zeros_like(m1).index_fill(1, torch.tensor([0]), True)
    for loss, leaf in [
        (reconstruction_loss(pred, target.detach(), none), pred),
        (cross_view_loss(v1, v2, m1, ~m1), v1),
        (in_view_loss(v1, target.detach(), one), v1),  # a single hidden patch has no pair
    ]:
        assert loss == 0
        assert torch.equal(torch.autograd.grad(loss, leaf)[0], torch.zeros_like(leaf))


@over("scale", [0.0, 1e-30])
def test_vectors_without_direction_are_stable(scale):
    v = torch.randn(1, 4, 3)
    v[0, 1] = scale
    v.requires_grad_()
    hidden = torch.ones(1, 4, dtype=torch.bool)
    total = cross_view_loss(v, v.detach(), hidden, hidden) + in_view_loss(v, torch.randn(1, 4, 6), hidden)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(v.grad).all()
    assert (v.grad[0, 1] == 0).all()
    assert cross_view_loss(v, v, hidden, hidden, reduction="sum").item() == pytest.approx(1, abs=1e-5)  # cos(0, 0) is 0


def test_bf16_inputs_give_float32_losses_and_finite_gradients():
    pred, target, v1, v2, m1, m2 = draw((2, 9, 12, 5))
    half = [t.bfloat16().requires_grad_() for t in (pred, v1, v2)]
    with torch.autocast("cpu", torch.bfloat16):
        total = (
            reconstruction_loss(half[0], target.float(), m1)
            + cross_view_loss(half[1], half[2], m1, m2)
            + in_view_loss(half[1], target.float(), m1)
        )
    total.backward()
    assert total.dtype == torch.float32
    assert all(torch.isfinite(t.grad).all() for t in half)
    exact = in_view_loss(half[1].detach().double(), target, m1)
    with torch.autocast("cpu", torch.bfloat16):
        assert in_view_loss(half[1].detach(), target, m1).item() == pytest.approx(exact.item(), abs=1e-6)


def test_unknown_reduction_is_named():
    pred, target, *_, hidden, _ = draw((1, 4, 3, 2))
    with pytest.raises(LcmaeError, match="reduction: got 'average', expected one of: mean, sum"):
        inspect.unwrap(reconstruction_loss)(pred, target, hidden, reduction="average")  # without the tests' type checks
