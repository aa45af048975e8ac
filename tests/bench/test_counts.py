"""FLOPs and bytes of a step by formulas are those that are counted while it runs.

Claims: for every method, decoder and loss, at square and other sizes, the formulas give exactly the FLOPs of torch's
counter and, within a hundredth, the bytes that the operands and results of all products take; a cost an image does not
depend on the batch but for the optimiser's share; a term that is left out is seen; published sizes cost what is known.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lcmae_core.bench import counts
from lcmae_core.bench.counts import FLOAT32, Attention, Product, cost, items, weights
from lcmae_core.config import profile, replace
from lcmae_core.training.loop import backward_pass
from tests.gpu.cases import BOTH, METHODS, Subject, settings_of, subject_of
from tests.loops import over

CLASSES = 10
"""Of the photographs."""
SIZES: dict[str, dict[str, Any]] = {
    "as they are": {},
    "other": {"image_size": (32, 48), "width": 24, "depth": 3, "mlp_ratio": 3.0, "batch_size": 6, "mask_ratio": 0.6},
}
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward")
WAYS = [
    *METHODS, "MAE, mask cells", "MAE, erased", "MAE, grey", "MAE, average", "MAE, convolution",
    "LC-MAE, centred, from tokens", "DINO, plain colours", "Siamese, by place",
]  # fmt: skip


class Moved(TorchDispatchMode):
    """Bytes of the matrices in and out of every product; what is spread out without being stored counts once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.").partition(".")[0]
        if name in PRODUCTS:
            self.bytes += sum(map(stored, tree_leaves((args, out))))
        elif "scaled_dot_product" in name:
            self.bytes += sum(stored(t) for t in tree_leaves((args, out)) if isinstance(t, Tensor) and t.ndim == 4)
        return out


def stored(value: Any) -> int:
    """Bytes of a matrix, 0 of vectors and what is no tensor."""
    if not isinstance(value, Tensor) or value.ndim < 2:
        return 0
    sides = [n for n, stride in zip(value.shape, value.stride()) if stride]
    return torch.Size(sides).numel() * value.element_size()


def counted(subject: Subject) -> tuple[int, int]:
    """FLOPs and bytes of products in one step."""
    objective, model = subject
    batch = next(iter(objective.loader(torch.device("cpu")).batches(0, 1)))
    with FlopCounterMode(display=False) as flops, Moved() as moved:
        backward_pass(objective, model, model, batch, 0.5)
    return flops.get_total_flops(), moved.bytes


@over("name", WAYS)
@over("size", SIZES)
def test_formulas_give_what_is_counted(name: str, size: str) -> None:
    subject = subject_of(name, **SIZES[size])
    flops, moved = counted(subject)
    found = [*items(subject.objective.settings, CLASSES)]
    assert sum(item.flops for item in found) == flops
    assert sum(item.moved(FLOAT32) for item in found) == pytest.approx(moved, rel=0.01)


@over("name", METHODS)
def test_weights_are_the_models_but_for_vectors(name: str) -> None:
    subject = subject_of(name, width=64)
    matrices = sum(
        p.numel() for p in subject.model.parameters() if p.requires_grad and p.ndim > 1 and max(p.shape[1:]) > 1
    )
    tokens = 64 * 2 + 16  # CLS and mask tokens, which have two dimensions more
    assert abs(weights(items(subject.objective.settings, CLASSES)) - matrices) <= tokens


def test_a_term_left_out_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the similarities of Eq. 6 are forgotten."""
    subject = subject_of("LC-MAE")
    monkeypatch.setattr(counts, "in_view_items", lambda *_: iter(()))
    assert sum(item.flops for item in items(subject.objective.settings)) < counted(subject)[0]


def test_an_image_costs_the_same_in_any_batch() -> None:
    one, four = (settings_of("LC-MAE", batch_size=n) for n in (4, 16))
    assert cost(one).flops == cost(four).flops
    share = 7 * FLOAT32 * weights(items(one))
    assert cost(one).bytes - cost(four).bytes > share / 4 - share / 16, "weights are read once a step"


def test_bf16_halves_what_products_move() -> None:
    assert Product("p", 2, 3, 5, 7).moved(2) * 2 == Product("p", 2, 3, 5, 7).moved(4)
    assert Product("p", 2, 3, 5, 7, exact=True).moved(2) == Product("p", 2, 3, 5, 7).moved(4)
    assert Product("p", 2, 3, 5, 7).moved(4) == 4 * 2 * (15 + 35 + 21) * 3, "by hand"
    assert Product("p", 2, 3, 5, 7, left=False, fixed=True).moved(4) == 4 * (15 + 2 * (35 + 21)) * 2
    assert Attention("a", 2, 5, 8).flops == 7 * 2 * 2 * 25 * 8


def test_published_sizes() -> None:
    """ViT-B/16 takes 35.1 GFLOPs forward at 224 px, and a step three times that, less the gradient of the pixels."""
    vit_b = replace(profile("paper"), {"method": "supervised"})
    assert cost(vit_b).flops == pytest.approx(3 * 35.1e9, rel=0.02)
    mae = replace(profile("paper"), decoder_depth=8)
    lcmae = replace(mae, BOTH)
    assert 1.9 < cost(lcmae).flops / cost(mae).flops < 2.2
