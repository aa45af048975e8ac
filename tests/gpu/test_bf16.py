"""Under bf16 autocast on the CPU every method computes nearly what it does in float32.

Claims: of the same weights and batch, every term is within a hundredth, the gradient points the same way (cosine above
.999, each weight's above .99) and is as long within a twentieth, all finite and float32; mean cosine and spread of v
are finite and within .02, effective rank within a tenth (rounding is noise in every direction, which it counts), of
spread-out and of collapsed vectors; losses computed in bf16 themselves would not pass.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lcmae_core import losses
from lcmae_core.analysis.collapse import Collapse, collapse, hidden_vectors
from lcmae_core.models.mae import MAE
from lcmae_core.models.siamese import Siamese
from lcmae_core.training.loop import backward_pass
from lcmae_core.training.masked import view_masks
from tests.gpu.cases import METHODS, Subject, subject_of
from tests.loops import over

Found = tuple[dict[str, float], dict[str, Tensor]]


def terms_and_gradients(subject: Subject) -> Found:
    """Of one step from the first weights, before the optimiser."""
    objective, model = subject
    batch = next(iter(objective.loader(torch.device("cpu")).batches(0, 1)))
    terms = backward_pass(objective, model, model, batch, 0.5)
    return {n: float(v) for n, v in terms.items()}, {
        n: p.grad for n, p in model.named_parameters() if p.grad is not None
    }


def both(name: str) -> tuple[Found, Found]:
    """The same in float32 and in bf16."""
    fine, coarse = (
        terms_and_gradients(subject_of(name, precision=precision, batch_size=8)) for precision in ("fp32", "bf16")
    )
    return fine, coarse


def judge_terms(fine: dict[str, float], coarse: dict[str, float]) -> None:
    assert coarse != fine, "bf16 was not used"
    assert coarse == pytest.approx(fine, rel=0.01, abs=1e-4)


def judge_gradients(fine: dict[str, Tensor], coarse: dict[str, Tensor]) -> None:
    assert fine.keys() == coarse.keys()
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in coarse.values())
    one, other = (torch.cat([g.flatten() for g in gradients.values()]) for gradients in (fine, coarse))
    assert F.cosine_similarity(one, other, dim=0) > 0.999
    assert 0.95 < float(other.norm() / one.norm()) < 1.05
    for name, gradient in fine.items():
        if gradient.norm() > 1e-6 * one.norm():  # else there is none, as of the mask token of an autoencoder
            assert F.cosine_similarity(gradient.flatten(), coarse[name].flatten(), dim=0) > 0.99, name


@over("name", [*METHODS, "MAE, convolution", "MAE, average", "LC-MAE, centred, from tokens", "supervised, mixed"])
def test_terms_and_gradients_are_nearly_those_of_float32(name: str) -> None:
    (terms, gradients), (coarse_terms, coarse_gradients) = both(name)
    judge_terms(terms, coarse_terms)
    judge_gradients(gradients, coarse_gradients)


def vectors_of(subject: Subject, coarse: bool) -> Tensor:
    """v of a method (its outputs, where it has no v), at its first weights."""
    objective, model = subject
    batch = next(iter(objective.loader(torch.device("cpu")).batches(0, 1)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=coarse):
        if isinstance(model, MAE | Siamese):
            return hidden_vectors(model, batch.images, view_masks(objective.settings, batch, 1)[0])
        found: Any = model(batch.crops or batch.images)
        return torch.cat(found.teacher) if batch.crops else found


@over("name", METHODS)
def test_measures_of_collapse_are_nearly_those_of_float32(name: str) -> None:
    subject = subject_of(name, batch_size=8)
    fine, coarse = (vectors_of(subject, how) for how in (False, True))
    assert not torch.equal(fine, coarse)
    assert_near(collapse(fine), collapse(coarse))


def assert_near(fine: Collapse, coarse: Collapse) -> None:
    assert all(torch.tensor(coarse).isfinite())
    assert coarse.effective_rank == pytest.approx(fine.effective_rank, rel=0.1)
    assert coarse.mean_cosine == pytest.approx(fine.mean_cosine, abs=0.02)
    assert coarse.spread == pytest.approx(fine.spread, abs=0.02)


def test_a_collapse_is_seen_in_bf16(generator: torch.Generator) -> None:
    one = torch.randn(1, 32, generator=generator).expand(40, -1)
    for vectors in (one, one + 1e-3 * torch.randn(40, 32, generator=generator), torch.zeros(40, 32)):
        assert_near(collapse(vectors), collapse(vectors.bfloat16()))


def test_losses_in_bf16_would_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: vectors and targets are not raised to float32 before they are compared."""
    monkeypatch.setattr(losses, "at_least_float32", lambda values: values.bfloat16())
    coarse, _ = terms_and_gradients(subject_of("LC-MAE", batch_size=8))
    monkeypatch.undo()
    fine, _ = terms_and_gradients(subject_of("LC-MAE", batch_size=8))
    with pytest.raises(AssertionError):
        judge_terms(fine, coarse)
