"""The benchmark compares like with like, says what it measured, and the quick linear layers change nothing but time.

Claims: our MAE and Hugging Face's have as many weights and take as many FLOPs; the table and the JSON are whole; wrong
options end in one line; `models.linear` equals `F.linear` to rounding, value and gradients, in every route.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lcmae_core import bench, cli
from lcmae_core.bench.contestants import MODELS, Shape, _hf, _ours, draw_inputs, prepare, settings_of
from lcmae_core.config import Model
from lcmae_core.models import linear as quick
from lcmae_core.models.encoder import gather_patches
from lcmae_core.models.mae import MAE
from tests.loops import over

TINY = Shape(2, 32, True, torch.device("cpu"))


def test_the_table_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    assert cli.main(["bench", "--quick", "--image-size", "32", "--json", str(tmp_path / "out.json")]) == 0
    said, result = capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text())
    assert all(words in said for words in (*MODELS.values(), "mae/hf", "lcmae/mae-d2", "matmul ceiling", "of ceiling"))
    assert set(result["models"]) == set(MODELS)
    assert {"device", "threads", "versions", "commit", "date", "matmul_ceiling_gflops"} <= set(result)
    assert all(row["images_per_s"] > 0 and row["gflops"] > 0 for row in result["models"].values())


def test_without_transformers_ours_alone_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert bench.main(["--quick", "--image-size", "32", "--models", "mae,hf"]) == 0
    said = capsys.readouterr().out
    assert "transformers is not installed: HF not measured" in said
    assert "HF ViTMAE" not in said


def test_the_peak_memory_of_a_fresh_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--memory-of", "mae", "--quick", "--image-size", "32"]) == 0
    assert 50 < float(capsys.readouterr().out) < 20_000


def test_like_with_like() -> None:
    pytest.importorskip("transformers")
    settings, inputs = settings_of("mae", TINY), draw_inputs(TINY)
    ours, theirs = (make(settings, inputs, TINY.device)[0] for make in (_ours, _hf))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    flops = {name: prepare(name, TINY, inputs).flops for name in ("mae", "mae-plain", "hf")}
    assert flops["mae"] == flops["mae-plain"]
    assert flops["mae"] < flops["hf"] < 1.2 * flops["mae"], "HF embeds hidden patches too, which tells in tiny models"


def test_the_ratio_is_the_median_of_neighbours() -> None:
    assert bench.paired_ratio([2.0, 3.0, 8.0], [1.0, 2.0, 2.0])["time"] == 2.0


@over(
    ("words", "line"),
    [
        (["--batch", "0"], "bench: batch: got 0, expected at least 1"),
        (["--steps", "x"], "bench: argument --steps: invalid int value: 'x'"),
        (["--models", "mea"], "bench: unknown model 'mea': did you mean 'mae'?"),
        (["--image-size", "100"], "patch_size: got 16, expected a divisor of image_size (100, 100)"),
        (["--stops", "3"], "bench: unrecognized arguments: --stops 3"),
        (["--json", "gone/x.json"], "bench: json: got 'gone/x.json', expected a file in a folder that exists"),
    ],
)
def test_wrong_options(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *words]) == 2
    assert capsys.readouterr().err == f"lcmae: error: {line}\n"


@over("threads", [1, 2])
@over("shape", [(700, 48), (2, 3, 5), (16, 17, 128), (1, 40, 768)])
def test_linear_equals_torch(shape: tuple[int, ...], threads: int, generator: torch.Generator) -> None:
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
    monkeypatch.setattr(quick, "_MKL_AVOIDS_AVX512", True)
    rows = torch.randn(600, 64, generator=generator)
    weight = torch.randn(32, 64, generator=generator)
    assert torch.equal(quick.linear(rows.double(), weight.double()), F.linear(rows.double(), weight.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quick.linear(rows, weight), F.linear(rows, weight))
    assert quick.linear(rows[:0], weight).shape == (0, 32)


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
