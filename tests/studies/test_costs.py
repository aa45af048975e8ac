"""The time to go is that of runs of the same kind; where none is finished it is worked out and said to be."""

import json

import pytest

from lcmae_core.config import profile, replace
from lcmae_core.studies import RATIOS
from lcmae_core.studies.costs import RELATIVE, Time, epoch_of, kind_of, measured_speed, to_go, trained_images
from lcmae_core.studies.trials import jobs

EPOCH = 9469
WHERE = {"device": "CPU", "commit": "abc"}


@pytest.fixture
def base(tmp_path):
    return replace(profile("desk"), out=str(tmp_path), source="photos")


def finish(job, rate, seconds=10.0):
    """A record of the job as a finished run leaves it."""
    job.record.begin(None, job.case.settings)
    content = job.record.content | {"training": {"images_per_s": rate, "steps": 300, "curves": {}}}
    job.record.path.write_text(json.dumps(content))
    for name in job.measures:
        job.record.note(name, {}, seconds, WHERE | {"recipe": job.recipe(name)})


def test_kinds_differ_in_what_a_step_costs(base):
    kinds = {
        "mae": base,
        "mae, 2 views": replace(base, cross_view=1.0),
        "mae, deep decoder": replace(base, decoder_depth=8),
        "mae, ratio 0.3": replace(base, mask_ratio=0.3),
        "mae, all tokens": replace(base, erased=True),
        "ae, block 5": replace(base, method="ae", block=5),
        "dino": replace(base, method="dino"),
    }
    assert {kind: kind_of(settings) for kind, settings in kinds.items()} == {kind: kind for kind in kinds}
    assert kind_of(replace(base, seed=3, base_lr=0.5)) == "mae"


def test_the_measured_kind_counts_and_what_is_shared_counts_once(base):
    every = jobs(["fig6"], base, "desk", (1, 2))
    by = {(job.row, job.case.settings.seed): job for job in every}
    finish(by["0.75", 1], 200.0, 7.0)
    finish(by["0.3", 1], 50.0, 7.0)
    speed = measured_speed(every)
    assert speed["train mae"] == pytest.approx(1 / 200)
    assert speed["train mae, ratio 0.3"] == pytest.approx(1 / 50)
    images, measures = trained_images(by["0.75", 2], EPOCH), len(by["0.75", 2].measures)
    assert images == 10 * 9469
    seen = set()
    assert to_go([by["0.75", 2]], seen, speed, EPOCH) == Time(pytest.approx(images / 200 + 7 * measures))
    assert to_go([by["0.3", 2]], set(), speed, EPOCH).seconds == pytest.approx(images / 50 + 7 * measures)
    assert to_go([by["0.75", 2]], seen, speed, EPOCH) == Time(0.0)
    assert to_go([by["0.9", 2]], set(), speed, EPOCH).unknown, f"of {RATIOS} this one was never run and has no factor"


def test_without_a_run_of_its_kind_it_is_about(base):
    job = next(j for j in jobs(["fig_a1"], base, "desk", (1,)) if j.row == "AE7")
    speed = {"train mae": 0.01, **dict.fromkeys(job.missing, 1.0)}
    found = to_go([job], set(), speed, EPOCH)
    assert found.about
    assert not found.unknown
    assert found.seconds == pytest.approx(
        trained_images(job, EPOCH) * 0.01 * RELATIVE["ae, block 7"] + len(job.missing)
    )


def test_words():
    assert str(Time(0.0)) == "counted above"
    assert str(Time(0.0, unknown=True)) == "?"
    assert str(Time(90.0)) == "90 s"
    assert str(Time(7200.0, about=True)) == "about 2.00 h"
    assert str(Time(7200.0, about=True, unknown=True)) == "over 2.00 h"


def test_an_epoch_is_that_of_the_data_where_a_run_says_it(base):
    every = jobs(["fig6"], base, "desk", (1, 2))
    assert epoch_of(every, "desk") == epoch_of([], "desk") == EPOCH
    finish(every[0], 200.0)
    assert epoch_of(every, "desk") == 300 * 32 / 10, "300 steps of 32 images were 10 epochs"
    assert trained_images(every[1], 960) == 10 * 960
