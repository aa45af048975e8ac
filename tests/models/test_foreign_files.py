"""Checkpoint files as people have them.

Claims: heads that a file does not say are never guessed in silence, and never nagged about where every published model
of that width has the same; harmless values beside the weights do not cost the file, and none of their code runs; what
is refused names the way out; of the wrappers the trained weights come before their average; a model of any number of
channels loads and keeps its weights; positions of another grid are one line.
"""

import argparse
import datetime
import warnings
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.utils import ModelEmaV3

from lcmae_core.config import LcmaeError, replace
from lcmae_core.models.interop import export_hf, export_official, load_mae
from lcmae_core.models.mae import MAE, initialize
from lcmae_core.models.weights import read_tensors
from tests.errors import line_of
from tests.models.reference import SMALL, draw, gap, official_state, predict, public_forward, stirred


def saved(folder, **sizes) -> Path:
    torch.save({"model": official_state(depth=1, **sizes)}, folder / "x.pth")
    return folder / "x.pth"


def test_heads_that_a_file_does_not_say_are_never_guessed_in_silence(tmp_path):
    for width, sizes, taken in ((192, {"decoder": False}, 3), (384, {"decoder": False}, 6), (192, {}, 3)):
        file = saved(tmp_path, width=width, **sizes)
        with pytest.warns(UserWarning, match=rf"encoder heads: x.pth does not .* took {taken}, .* give encoder_heads="):
            known = load_mae(file, decoder_heads=8)
        assert known.arch.heads == taken
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_mae(file, encoder_heads=12, decoder_heads=8).arch.heads == 12
    with pytest.warns(UserWarning, match=r"decoder heads: x.pth does not say them .* took 16, .* give decoder_heads="):
        load_mae(saved(tmp_path), encoder_heads=3)


def test_published_widths_do_not_nag(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for width, heads in ((768, 12), (1024, 16)):
            model = load_mae(saved(tmp_path, width=width, decoder=False))
            assert model.arch.heads == heads
        full = load_mae(saved(tmp_path, width=768))
        assert (full.arch.heads, full.arch.decoder_heads) == (12, 16)


def test_the_heads_given_are_the_heads_used(tmp_path):
    weights = official_state(depth=1)
    weights["blocks.0.attn.qkv.weight"] *= 6  # attention far from uniform, whatever the heads
    torch.save(weights, tmp_path / "x.pth")
    outputs = []
    for heads in (3, 12):
        model = load_mae(tmp_path / "x.pth", encoder_heads=heads, decoder_heads=8)
        images, noise = draw(model)
        outputs.append(predict(model, images, noise, 0.5))
        assert gap(outputs[-1], public_forward(weights, images, noise, 0.5, heads, 8)[0]) < 1e-5
    assert gap(*outputs) > 1e-3


class Tracked(defaultdict):
    """A mapping whose own class is not harmless."""


BESIDE = {
    "numpy number": lambda: {"max_accuracy": np.float64(71.5), "best": np.int32(3), "flag": np.bool_(True)},
    "numpy array": lambda: {"history": np.arange(3.0), "names": np.array(["a", "b"]), "objects": np.array([None, {}])},
    "numpy dtypes": lambda: {"kind": np.dtype("f2"), "record": np.zeros(2, [("a", "i4"), ("b", "f8")])},
    "namespace": lambda: {"args": argparse.Namespace(lr=np.float32(0.1), out=Path("/somewhere"), steps=[1, 2])},
    "mappings": lambda: {"a": OrderedDict(x=1), "b": defaultdict(list, x=[1]), "c": Counter("ab"), "d": {1, 2}},
    "torch": lambda: {"size": torch.Size([1, 2]), "kind": torch.float16, "device": torch.device("cpu")},
    "optimizer": lambda: {"optimizer": torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict()},
    "dates": lambda: {"when": datetime.datetime(2024, 1, 1), "took": datetime.timedelta(hours=1), "z": 1j},
}


def test_harmless_values_beside_the_weights_do_not_cost_the_file(tmp_path):
    weights, allowed = official_state(depth=1, width=768, decoder=False), set(torch.serialization.get_safe_globals())
    for name, beside in BESIDE.items():
        for zipped in (True, False):
            file = tmp_path / f"{name}.pth"
            torch.save({"model": weights} | beside(), file, _use_new_zipfile_serialization=zipped)
            found = read_tensors(file)
            assert set(found) == set(weights), name
            assert all(torch.equal(found[k], weights[k]) for k in weights)
    assert load_mae(file).arch.heads == 12
    assert set(torch.serialization.get_safe_globals()) == allowed, "nothing stays allowed"


def test_old_numpy_names_are_known(tmp_path):
    """Files written with numpy 1 name another module."""
    file = tmp_path / "x.pth"
    content = {"model": official_state(depth=1, width=768, decoder=False), "best": np.float64(1.0), "all": np.ones(2)}
    torch.save(content, file, _use_new_zipfile_serialization=False)
    data = file.read_bytes()
    assert b"cnumpy._core.multiarray" in data
    file.write_bytes(data.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"))
    assert len(read_tensors(file)) == len(content["model"])


def test_no_code_of_what_stands_beside_the_weights_runs(tmp_path, monkeypatch):
    torch.save({"model": official_state(depth=1, decoder=False), "best": np.float64(1.0)}, tmp_path / "x.pth")
    monkeypatch.setattr("numpy._core.multiarray.scalar", None)
    assert read_tensors(tmp_path / "x.pth")


def test_what_is_refused_names_the_way_out(tmp_path):
    torch.save(
        {"model": official_state(depth=1, decoder=False), "log": Tracked(list), "b": np.ones(1)}, tmp_path / "x.pth"
    )
    line = line_of(load_mae, tmp_path / "x.pth")
    assert "it holds tests.models.test_foreign_files.Tracked, which is not run" in line
    assert "save its weights alone, torch.save(model.state_dict(), file)" in line


def test_wrappers_and_averages(tmp_path):
    trained, average = (official_state(depth=1, width=768, decoder=False, seed=s) for s in (1, 2))
    ema = ModelEmaV3(torch.nn.Linear(2, 2))
    prefixed = {f"module.{k}": v for k, v in average.items()}
    assert all(name.startswith("module.") for name in ema.state_dict())
    for content, expected in (
        ({"model": trained, "model_ema": average}, trained),
        ({"state_dict": trained, "state_dict_ema": average}, trained),
        ({"model_ema": average, "epoch": 3}, average),
        ({"state_dict_ema": prefixed}, average),
        ({"module": trained}, trained),
        ({"epoch": 3, "model": {"state_dict": trained}}, trained),
        (OrderedDict(trained), trained),
    ):
        torch.save(content, tmp_path / "x.pth")
        assert torch.equal(read_tensors(tmp_path / "x.pth")["cls_token"], expected["cls_token"]), list(content)[:2]


def test_any_number_of_channels_loads_and_comes_back(tmp_path):
    for channels in (1, 2, 3, 4, 6):
        empty = MAE(replace(SMALL, depth=1).model, (32, 32), channels)
        model = stirred(initialize(empty, torch.Generator().manual_seed(0)))
        export_official(model, tmp_path / "c.pth")
        back = load_mae(tmp_path / "c.pth", encoder_heads=4, decoder_heads=model.arch.decoder_heads)
        images, noise = draw(model)
        assert back.channels == channels
        assert torch.equal(predict(back, images, noise), predict(model, images, noise))
        other = load_mae(export_hf(model, tmp_path / f"hf{channels}"))
        assert gap(predict(other, images, noise), predict(model, images, noise)) < 1e-6
        with pytest.raises(LcmaeError, match=rf"^images: got shape .*, expected \(B, {channels}, 32, 32\)$"):
            back.encoder(torch.zeros(1, channels + 1, 32, 32))


def test_positions_of_another_grid_are_one_line(tmp_path):
    weights = official_state(depth=1, narrow=64)
    for key, count, line in (
        ("pos_embed", 1 + 15, "pos_embed: got 15 positions"),
        ("pos_embed", 1 + 9, "decoder_pos_embed: got shape (1, 17, 64)"),
        ("decoder_pos_embed", 1 + 9, "decoder_pos_embed: got shape (1, 10, 64)"),
    ):
        torch.save(weights | {key: torch.zeros(1, count, weights[key].shape[2])}, tmp_path / "x.pth")
        assert line_of(load_mae, tmp_path / "x.pth", encoder_heads=3, decoder_heads=4).startswith(line)
