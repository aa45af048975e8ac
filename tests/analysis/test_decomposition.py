"""Eq. 2 and Eq. 4 of v2 are identities, and each of their terms is what it says."""

import pytest
import torch

from lcmae_core.analysis.decomposition import cross_view_form, in_view_form


def test_eq_2_is_an_identity_and_its_parts_are_what_they_say(generator):
    a, b, x = (torch.randn(2, 5, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    parts = cross_view_form(a, b, x)
    assert parts.residual < 1e-12
    for i in range(5):
        assert parts.loss[1, i] == pytest.approx(sum((p - q) ** 2 for p, q in zip(a[1, i].tolist(), x[1, i].tolist())))
        assert parts.contrast[1, i] == pytest.approx((a[1, i] - b[1, i]).square().sum().item())
        assert parts.error[1, i] == pytest.approx((b[1, i] - x[1, i]).square().sum().item())
    assert cross_view_form(a, a, x).contrast.abs().max() == 0


def test_eq_4_is_an_identity_for_any_partner(generator):
    h, x = (torch.randn(2, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    partner = torch.tensor([[1, 2, 3, 4, 0], [4, 0, 1, 2, 3]])
    parts = in_view_form(h, x, partner)
    assert parts.residual < 1e-12
    i, j = 2, 1
    assert parts.contrast[1, i] == pytest.approx(((h[1, i] - h[1, j]) - (x[1, i] - x[1, j])).square().sum().item())
    assert parts.error[1, i] == pytest.approx((h[1, j] - x[1, j]).square().sum().item())
    assert in_view_form(x + 3, x, partner).contrast.abs().max() < 1e-12  # a constant error is no contrast
