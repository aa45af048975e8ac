"""Claims: a training's history says what share of the time it waited for pictures and how many it took a second and
core; a training that decodes as it goes and waits for more than a twentieth is told so once, with what helps; one whose
pictures are held is not, and neither is one that hardly waits.
"""

import time

import numpy as np
import pytest
from PIL import Image

from lcmae_core.config import replace
from lcmae_core.data import splits
from lcmae_core.training import waiting
from lcmae_core.training.loop import pretrain
from lcmae_core.training.waiting import Advice, Waiting, cores


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return f"folder:{folder}"


@pytest.fixture
def slow(monkeypatch):
    """Decoding takes a while."""
    plain = splits.Reader.__call__

    def call(self, i):
        time.sleep(0.02)
        return plain(self, i)

    monkeypatch.setattr(splits.Reader, "__call__", call)


def trained(tiny, pictures, **more):
    how = {"steps": 28, "log_every": 4, "checkpoint_every": 100, "snapshots": 0, "workers": 0} | more
    return pretrain(replace(tiny, source=pictures, validation_fraction=0.2, **how))


def test_time_is_that_of_the_iterator_alone():
    def batches():
        for i in range(3):
            time.sleep(0.05)
            yield i

    waited = Waiting(batches())
    for _ in waited:
        time.sleep(0.01)
    assert 0.15 <= waited.take() < 0.4
    assert waited.take() == 0
    waited.close()


def test_the_iterator_behind_it_is_closed():
    closed = []

    def batches():
        try:
            yield 1
        finally:
            closed.append(True)

    waited = Waiting(batches())
    next(waited)
    waited.close()
    assert closed == [True]


def test_a_training_that_waits_is_told_once_what_helps(tiny, pictures, slow, capsys):
    run = trained(tiny, pictures, device_cache_gb=0)
    assert all(entry["data_wait"] > 0.2 for entry in run.history)
    for entry in run.history:
        assert entry["images_per_core_s"] == pytest.approx(entry["images_per_s"] / cores(), abs=0.1)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("data: ")]
    assert len(said) == 1
    assert "of the time goes into waiting for pictures (" in said[0]
    assert f"more `workers` (now 0, for {cores()} cores), " in said[0]
    assert "lcmae prepare --size 64" in said[0]


def test_one_whose_pictures_are_held_is_told_nothing(tiny, pictures, slow, capsys):
    run = trained(tiny, pictures)
    assert all(0 <= entry["data_wait"] < 1 for entry in run.history)
    assert "data: " not in capsys.readouterr().err


def test_one_that_hardly_waits_or_for_a_step_alone_is_told_nothing(tiny, capsys):
    for steps, waited in ((1000, 4.9), (19, 90)):
        Advice(tiny)(steps, waited, 100)
    advise = Advice(tiny)
    for _ in range(3):
        advise(10, 0, 100)
    advise(1, 14, 20)  # a slow batch among 31
    assert capsys.readouterr().err == ""
    advise(10, 10, 100)
    assert capsys.readouterr().err.startswith("data: 6% of the time goes into waiting for pictures (")


def test_cores_are_counted_over_machines(monkeypatch):
    here = cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(waiting, "ranks", lambda: type("Ranks", (), {"of": 8}))
    assert cores() == 2 * here
