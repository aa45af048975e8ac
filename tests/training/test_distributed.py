"""Claims: for any number of ranks every method has the losses of one process, to 1e-9 in float64 and 1e-4 in float32,
with micro-batches too, and with weights spread over them (FSDP2); a stop that one rank is asked for stops all at one
step, and others of another number go on; a share of a batch is what one process has there; one that does not divide is
one line."""

import json
from pathlib import Path

import pytest
import torch

from lcmae_core.config import LcmaeError, replace
from lcmae_core.config.profiles import PUBLISHED_AUGMENTATION
from lcmae_core.data.counter import Share, positions
from lcmae_core.losses import cross_view_loss
from lcmae_core.store.runs import load_run
from lcmae_core.store.stopping import StopRequest
from lcmae_core.training import distributed as D
from tests.data.made_pictures import write_folder
from tests.loops import over
from tests.started import completed

LCMAE = {"cross_view": 1.0, "in_view": 1.0}
METHODS = {
    "mae": {},
    "lcmae": LCMAE,
    "cross view": {"reconstruction": 0.0, "cross_view": 1.0},
    "lcmae sum": LCMAE | {"reduction": "sum"},
    "ae": {"method": "ae", "block": 3},
    "dino": {"method": "dino"},
    "siamese": {"method": "siamese"},
    "supervised": {"method": "supervised"},
    "augmented": {"method": "supervised"} | PUBLISHED_AUGMENTATION | {"drop_path": 0.0},
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    write_folder(folder, [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "ab" for i in "01234567"])
    return f"folder:{folder}"


def losses(cases, out: Path) -> dict[str, list[float]]:
    """The losses of every step by case: settings (a second one trains on), numbers of ranks (the last trains on),
    float64, where to stop."""
    plain = lambda s: [each.model_dump(mode="json") for each in (s if isinstance(s, list) else [s])]  # noqa: E731
    said = {name: (plain(s), worlds, double, stop) for name, (s, worlds, double, stop) in cases.items()}
    ended = completed("-m", "tests.training.rank_cases", json.dumps(said), str(out), timeout=280)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture
def settings_of(tiny, pictures):
    def make(**more):
        small = {"source": pictures, "steps": 10, "batch_size": 8, "warmup": 0.0, "workers": 0, "snapshots": 0}
        return replace(tiny, small | {"log_every": 1, "checkpoint_every": 100, "cache_gb": 0.0} | more)

    return make


RANKS = [
    pytest.param([1, 2], True, 1e-9, id="2 ranks, float64"),
    pytest.param([1, 2, 4], True, 1e-9, id="2 and 4 ranks, float64", marks=pytest.mark.fault),
    pytest.param([1, 2, 4], False, 1e-4, id="2 and 4 ranks, float32", marks=pytest.mark.fault),
]


@pytest.mark.parametrize(("worlds", "double", "tolerance"), RANKS)
def test_any_number_of_ranks_has_the_losses_of_one_process(worlds, double, tolerance, settings_of, tmp_path):
    cases = {f"{name} {n}": (settings_of(**METHODS[name]), [n], double, None) for name in METHODS for n in worlds}
    found = losses(cases, tmp_path)
    for name in METHODS:
        for ranks in worlds[1:]:
            assert len(found[f"{name} {ranks}"]) == 10
            same(found[f"{name} {ranks}"], found[f"{name} 1"], tolerance, f"{name}, {ranks} ranks")


@pytest.mark.parametrize(
    ("names", "worlds", "double", "tolerance"),
    [
        pytest.param(["lcmae", "siamese"], [1, 2], True, 1e-9, id="2 ranks, float64"),
        pytest.param([*METHODS], [1, 2, 4], True, 1e-9, id="all, 2 and 4 ranks, float64", marks=pytest.mark.fault),
        pytest.param([*METHODS], [1, 2, 4], False, 1e-4, id="all, 2 and 4 ranks, float32", marks=pytest.mark.fault),
    ],
)
def test_weights_spread_over_ranks_have_the_losses_of_one_process(
    names, worlds, double, tolerance, settings_of, tmp_path
):
    cases = {
        f"{name} {n}": (settings_of(**METHODS[name], fsdp=n > 1), [n], double, None) for name in names for n in worlds
    }
    found = losses(cases, tmp_path)
    for name in names:
        for ranks in worlds[1:]:
            same(found[f"{name} {ranks}"], found[f"{name} 1"], tolerance, f"{name}, {ranks} ranks")


def test_what_ranks_saved_together_is_read_by_any_number(settings_of, tmp_path):
    """Sharded on 2 and read on 1 and on 4; whole of DDP and read by shards; weights in the end are those of DDP."""
    lcmae, spread = settings_of(**LCMAE, snapshots=2), settings_of(**LCMAE, snapshots=2, fsdp=True)
    cases = {
        "whole": ([lcmae], [1], None),
        "2 then 1": ([spread, lcmae], [2, 1], 4),
        "2 then 4": ([spread], [2, 4], 4),
        "DDP then sharded": ([lcmae, spread], [2, 2], 4),
    }
    found = losses({name: (s, worlds, True, stop) for name, (s, worlds, stop) in cases.items()}, tmp_path)
    for name in cases:
        assert len(found[name]) == 10
        same(found[name], found["whole"], 1e-9, name)
    ends = {name: load_run(next((tmp_path / name.replace(" ", "_") / "runs").iterdir())) for name in cases}
    for name, run in ends.items():
        for key, value in ends["whole"].weights().items():
            torch.testing.assert_close(run.weights()[key], value, rtol=1e-6, atol=1e-9, msg=f"{name}: {key}")


def same(found: list[float], expected: list[float], tolerance: float, what: str) -> None:
    """Equal to a relative tolerance, and no accident of losses that do not move."""
    found_, expected_ = (torch.tensor(values, dtype=torch.float64) for values in (found, expected))
    torch.testing.assert_close(found_, expected_, rtol=tolerance, atol=0, msg=lambda said: f"{what}: {said}")
    assert len(set(expected)) == len(expected)


def test_micro_batches_hold_the_same_images(settings_of, tmp_path):
    lcmae = LCMAE | {"accum_steps": 2}
    cases = {f"{world}": (settings_of(**lcmae), [world], True, None) for world in (1, 2, 4)}
    found = losses(cases, tmp_path)
    for world in (2, 4):
        same(found[f"{world}"], found["1"], 1e-9, f"{world} ranks")


def test_one_rank_is_told_to_stop_and_another_number_goes_on(settings_of, tmp_path):
    cases = {
        "whole": (settings_of(**LCMAE), [1], True, None),
        "2 then 4": (settings_of(**LCMAE), [2, 4], True, 4),
        "4 then 1": (settings_of(**LCMAE), [4, 1], True, 7),
    }
    found = losses(cases, tmp_path)
    for name in ("2 then 4", "4 then 1"):
        assert len(found[name]) == 10
        same(found[name], found["whole"], 1e-9, name)


def test_shares_of_a_batch_are_the_batch_micro_batch_by_micro_batch():
    whole = positions(seed=3, step=2, batch_size=24, size=10)
    for of in (2, 3):
        for parts in (1, 2, 4):
            shares = [positions(3, 2, 24, 10, Share(number, of, parts)) for number in range(of)]
            for kind in ("epoch", "index"):
                chunks = [getattr(share, kind).chunk(parts) for share in shares]
                together = torch.cat([chunk for part in zip(*chunks) for chunk in part])
                assert torch.equal(together, getattr(whole, kind))


def test_the_mean_of_the_losses_of_shares_is_the_loss_of_the_batch():
    v1, v2 = torch.randn(2, 6, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hidden = torch.rand(6, 5, generator=torch.Generator().manual_seed(1)) < 0.4
    whole = cross_view_loss(v1, v2, hidden, hidden)
    mean = hidden.sum() / 2
    shares = [cross_view_loss(*(t[s] for t in (v1, v2, hidden, hidden)), pool=lambda _: mean)
              for s in (slice(0, 3), slice(3, 6))]  # fmt: skip
    assert hidden[:3].sum() != hidden[3:].sum()
    torch.testing.assert_close(torch.stack(shares).mean(), whole)
    alone = [cross_view_loss(*(t[s] for t in (v1, v2, hidden, hidden))) for s in (slice(0, 3), slice(3, 6))]
    assert not torch.isclose(torch.stack(alone).mean(), whole), "without the pool it is another number"


def test_one_process_is_the_first_of_one_and_waits_for_nobody(tiny):
    assert D.ranks() == D.Ranks(0, 1)
    assert D.ranks().first
    model, rows = torch.nn.Linear(2, 2), torch.ones(3, 2)
    assert D.spread(model, tiny) is model
    assert D.rows_of_all(rows) is rows
    assert D.mean_over_ranks(rows) is rows
    stop = StopRequest()
    assert not D.agree(stop)
    stop.set("SIGUSR2")
    assert D.agree(stop)
    assert stop.exit_code == 75
    D.wait_for_all()
    with D.joined("cpu") as group:
        assert group == D.Ranks(0, 1)


def test_a_signal_that_comes_while_ranks_agree_counts_at_the_next_step(monkeypatch):
    """Else this rank would stop alone: it saves while the others train, and their collectives no longer match."""
    stop = StopRequest()
    monkeypatch.setattr(D, "ranks", lambda: D.Ranks(0, 2))
    monkeypatch.setattr(D.dist, "all_reduce", lambda *_: stop.set("SIGTERM"))
    assert not D.agree(stop)
    assert D.agree(stop)
    assert stop.signal == "SIGTERM"


@over(("batch", "accum_steps", "expected"), [(10, 1, 4), (12, 2, 8), (6, 3, 12)])
def test_a_batch_that_does_not_divide_is_one_line(batch, accum_steps, expected, tiny, monkeypatch):
    monkeypatch.setattr(D, "ranks", lambda: D.Ranks(1, 4))
    line = f"batch_size: got {batch} on 4 ranks with accum_steps {accum_steps}, expected a multiple of {expected}"
    with pytest.raises(LcmaeError, match=line):
        D.share_of(batch, accum_steps)
