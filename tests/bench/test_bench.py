"""The benchmark compares like with like, says what it measured, and the quick linear layers change nothing but time.

Claims: our MAE and other people's take as many tokens and FLOPs, or the difference is said; who is not there or breaks
is left out by name; intervals are those of order statistics; the table and the JSON are whole; wrong options end in one
line; `models.linear` equals `F.linear` to rounding, value and gradients, in every route.
"""

import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lcmae_core import bench, cli
from lcmae_core.bench import measuring, workers
from lcmae_core.bench.cases import CASES, MODELS, Shape
from lcmae_core.bench.contestants import prepare
from lcmae_core.bench.floors import timed
from lcmae_core.bench.ratios import PAIRS, compare, interval, same_work
from lcmae_core.bench.workers import About, fair_clock
from lcmae_core.config import Model
from lcmae_core.models import linear as quick
from lcmae_core.models.encoder import gather_patches
from lcmae_core.models.mae import MAE
from tests.loops import over

TINY = Shape(2, 32, True, torch.device("cpu"))
THERE = [name for name in MODELS if not name.endswith("-compiled")]
"""Compilation takes minutes on a busy machine, and is tried in tests/gpu."""


class Here:
    """A contestant in this process, where a test can reach it."""

    def __init__(self, name: str, shape: Shape, threads: int | None):
        found = prepare(name, shape)
        self.step, self.about = found.step, About(found.flops, found.tokens, found.parameters, False)

    def seconds(self) -> float:
        return timed(self.step, TINY.device, fair_clock)

    def peak_mib(self) -> float | None:
        return None

    def stop(self) -> None:
        pass


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "start", Here)


def test_the_table_is_whole(here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("lightly")
    words = ["--quick", "--image-size", "32", "--models", ",".join(THERE), "--json", str(tmp_path / "out.json")]
    assert cli.main(["bench", *words]) == 0
    said, result = capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text())
    for case, found in result["cases"].items():
        assert set(found["models"]) == set(THERE)
        assert set(found["ratios"]) == {p.name for p in PAIRS[case] if {p.ours, p.theirs} <= set(THERE)}
        assert all(row["images_per_s"] > 0 and row["gflops"] > 0 for row in found["models"].values())
        assert all(found["ratios"][f"mae/{peer}"]["tokens"] == [1, 1] for peer in ("hf", "lightly", "textbook"))
        assert len({row["parameters"] for n, row in found["models"].items() if n in ("mae", "hf", "loop")}) <= 2
    assert all(words in said for words in (*(MODELS[n] for n in THERE), "mae/hf", "lcmae/mae-d2", "matmul ceiling"))
    assert "FLOPs 0.8" in said, "HF embeds hidden patches too, which tells in tiny models and is said"
    assert {"device", "processor", "versions", "commit", "date", "load_before", "others_share"} <= set(result)
    assert {"transformers", "lightly"} <= set(result["versions"])


def test_a_peer_that_is_not_there_or_breaks_is_left_out_by_name(
    here: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(name: str, shape: Shape, threads: int | None) -> Here:
        if name == "textbook":
            raise workers.BrokenError("bench: textbook failed: ZeroDivisionError: division by zero")
        return Here(name, shape, threads)

    monkeypatch.setattr(measuring, "find_spec", lambda name: None)
    monkeypatch.setattr(workers, "start", start)
    words = ["--quick", "--image-size", "32", "--cases", "vit-b", "--models", "mae,hf,lightly,textbook"]
    assert bench.main(words) == 0
    said = capsys.readouterr().out
    assert "HF ViTMAE: left out, transformers is not installed" in said
    assert "lightly's MAE: left out, lightly is not installed" in said
    assert "textbook MAE: left out, failed: ZeroDivisionError: division by zero" in said
    assert "mae/hf" not in said


def test_only_who_is_compared_is_there_at_the_same_time() -> None:
    assert measuring.heats("vit-b", CASES["vit-b"].models) == [
        ["mae", "hf", "hf-compiled", "lightly", "textbook"], ["mae-d2", "lcmae"],
    ]  # fmt: skip
    assert measuring.heats("desk", ("loop", "mae", "lightly", "textbook-loop", "mae-d2")) == [
        ["loop", "textbook-loop"], ["mae", "lightly"], ["mae-d2"],
    ]  # fmt: skip


def test_a_contestant_in_a_process_of_its_own() -> None:
    worker = workers.start("textbook", TINY, 1)
    try:
        assert worker.about.tokens == (2 * 2, 2 * 5), "CLS with 1 of 4 patches, and all of them"
        assert 0 < worker.seconds() < 60
        assert 50 < (worker.peak_mib() or 0) < 20_000
    finally:
        worker.stop()
    with pytest.raises(workers.BrokenError, match="bench: nobody failed: KeyError"):
        workers.start("nobody", TINY._replace(case="gone"), 1)


def test_like_with_like() -> None:
    pytest.importorskip("transformers")
    ours, plain, theirs = (prepare(name, TINY) for name in ("mae", "mae-plain", "hf"))
    assert ours.parameters == theirs.parameters
    assert ours.tokens == theirs.tokens
    assert ours.flops == plain.flops
    assert ours.flops < theirs.flops < 1.2 * ours.flops, "HF embeds hidden patches too, which tells in tiny models"


def test_work_that_differs_is_said() -> None:
    alike = {"tokens": [1.0, 1.0], "flops": 1.019, "work": 1}
    assert same_work(alike) is None
    assert same_work(alike | {"flops": 0.97}) == "FLOPs 0.970 times theirs"
    assert same_work(alike | {"flops": 3.0, "work": 2}) == "FLOPs 3.000 times theirs (of 2 times the work)"
    assert "tokens of encoder and decoder 1.000 and 0.500" in (same_work(alike | {"tokens": [1.0, 0.5]}) or "")


def test_the_ratio_is_the_median_of_neighbours() -> None:
    about = {name: About(10, (3, 4), 5, False) for name in ("mae", "hf")}
    found = compare("vit-b", {"mae": [1.0, 2.0, 2.0], "hf": [2.0, 3.0, 8.0]}, about)
    assert found["mae/hf"]["speed"] == 2.0


@over(("count", "place"), [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (15, 4), (25, 8)])
def test_the_interval_is_that_of_order_statistics(count: int, place: int) -> None:
    """Places by the published table for 95 % (of 1 and 5 values none reaches that; the widest is taken and said)."""
    found = interval([float(i) for i in range(count, 0, -1)])
    assert (found.low, found.high) == (place, count + 1 - place)
    assert (found.level >= 0.95) == (count >= 6)


def test_who_sleeps_is_not_spared_and_who_is_kept_waiting_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    if not workers.QUEUE.exists():
        pytest.skip("the system does not say how long a thread waited for a core")
    assert timed(lambda: time.sleep(0.1), TINY.device, fair_clock) > 0.09
    kept = iter([0.0, 0.0, 1000.0, 1000.0])
    monkeypatch.setattr(workers, "waited", lambda: next(kept))
    assert timed(lambda: None, TINY.device, fair_clock) < -900


@over(
    ("words", "line"),
    [
        (["--batch", "0"], "bench: batch: got 0, expected at least 1"),
        (["--steps", "x"], "bench: argument --steps: invalid int value: 'x'"),
        (["--models", "mea"], "bench: unknown model 'mea': did you mean 'mae'?"),
        (["--image-size", "100"], "patch_size: got 16, expected a divisor of image_size (100, 100)"),
        (["--cases", "dask"], "bench: unknown case 'dask': did you mean 'desk'?"),
        (["--stops", "3"], "bench: unknown option '--stops': did you mean '--steps'?"),
        (["--record", "gone"], "bench: record: got 'gone', expected a folder that exists"),
        (["--json", "gone/x.json"], "bench: json: got 'gone/x.json', expected a file in a folder that exists"),
    ],
)
def test_wrong_options(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words]) == 2
    assert capsys.readouterr().err == f"lcmae: error: {line}\n"


@over("threads", [1, 2])
@over("shape", [(700, 48), (2, 3, 5), (16, 17, 128), (1, 40, 768)])
def test_linear_equals_torch(
    shape: tuple[int, ...], threads: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "MKL_AVOIDS_AVX512", True)
    monkeypatch.setattr(quick, "LEAST", quick.Least(1, 0))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        tensors = [torch.randn(s, generator=generator) for s in (shape, (96, shape[-1]), (96,))]
        found, expected = (_value_and_gradients(layer, tensors) for layer in (quick.linear, F.linear))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


def _value_and_gradients(layer, tensors: list[torch.Tensor]) -> list[torch.Tensor]:  # type: ignore[no-untyped-def]
    leaves = [t.clone().requires_grad_() for t in tensors]
    value = layer(*leaves)
    return [value.detach(), *torch.autograd.grad(value.square().sum(), leaves)]


def test_other_types_take_torchs_own_way(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "MKL_AVOIDS_AVX512", True)
    rows = torch.randn(600, 64, generator=generator)
    weight = torch.randn(32, 64, generator=generator)
    assert torch.equal(quick.linear(rows.double(), weight.double()), F.linear(rows.double(), weight.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quick.linear(rows, weight), F.linear(rows, weight))
    assert quick.linear(rows[:0], weight).shape == (0, 32)


def test_small_products_are_left_to_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "MKL_AVOIDS_AVX512", True)
    rows, weight = torch.zeros(8, 100, 768), torch.zeros(3072, 768)
    for least, few, many in ((quick.WHOLE, True, True), (quick.HALVED, False, True)):
        monkeypatch.setattr(quick, "LEAST", least)
        assert (quick.onednn_is_quicker(rows[:1], weight), quick.onednn_is_quicker(rows, weight)) == (few, many)


def test_every_linear_layer_of_the_model_is_a_quick_one_and_keeps_its_names() -> None:
    model = MAE(Model(), (32, 32), projector=True)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert layers
    assert all(type(m) is quick.Linear for m in layers)
    names = set(model.state_dict())
    assert {"encoder.blocks.0.attn.qkv.weight", "decoder.pred.bias", "projector.weight"} <= names


def test_gathered_rows_equal_an_index_for_every_value(generator: torch.Generator) -> None:
    values = torch.randn(3, 7, 5, generator=generator)
    keep = torch.rand(3, 7, generator=generator).argsort(dim=1)[:, :4]
    expected = values.gather(1, keep[:, :, None].expand(-1, -1, 5))
    assert torch.equal(gather_patches(values, keep), expected)
    assert torch.equal(
        gather_patches(values[:, 1:], keep % 6), values[:, 1:].gather(1, (keep % 6)[:, :, None].expand(-1, -1, 5))
    )
