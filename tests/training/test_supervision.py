"""Claims: the supervised reference augments by fine-tuning's code; with everything on it is a function of the seed,
goes on bit-equal after being stopped, whoever makes its pictures; each setting changes the weights and none is on by
default; paths are dropped as published, in training alone; targets are soft by hand.
"""

import pytest
import torch
from torch.nn import functional as F

from lcmae_core.config import Supervision, replace
from lcmae_core.config.profiles import PUBLISHED_AUGMENTATION
from lcmae_core.data.loader import Loader
from lcmae_core.data.randaugment import AugmentedLoader
from lcmae_core.data.sources import open_source
from lcmae_core.models.reference import build_supervised
from lcmae_core.training.downstream import Origin
from lcmae_core.training.finetune import RECIPES, training_batches
from lcmae_core.training.held_out import evaluation_loader
from lcmae_core.training.loop import pretrain
from lcmae_core.training.mixing import mix_batch
from lcmae_core.training.objectives import SupervisedObjective
from tests.config.test_settings import OTHER
from tests.data.made_pictures import write_folder
from tests.training.helpers import weights


@pytest.fixture
def small(tiny, tmp_path):
    write_folder(
        tmp_path / "pictures", [f"{split}/{c}/{i}.png" for split in ("train", "val") for c in "ab" for i in "0123"]
    )
    changes = {"source": f"folder:{tmp_path / 'pictures'}", "steps": 5, "depth": 2, "workers": 0, "warmup": 0.0}
    return replace(tiny, changes, method="supervised")


def objective_of(settings):
    return SupervisedObjective(settings, open_source(settings.data))


def test_an_interrupted_run_goes_on_bit_equal(small, tmp_path):
    settings = replace(small, PUBLISHED_AUGMENTATION, accum_steps=2, checkpoint_every=2)
    whole = pretrain(replace(settings, out=str(tmp_path / "whole"), workers=2))
    streamed = pretrain(replace(settings, out=str(tmp_path / "streamed"), device_cache_gb=0.0))

    class TornAwayError(BaseException):
        pass

    def stop(moment):
        if moment.step == 3:
            raise TornAwayError

    with pytest.raises(TornAwayError):
        pretrain(settings, callbacks=[stop])
    torch.rand(3)  # whatever else the process draws
    assert weights(pretrain(settings)) == weights(whole) == weights(streamed)
    assert pretrain(settings).name == whole.name


def test_every_setting_has_an_effect_and_none_is_on_by_default(small):
    plain = weights(pretrain(small))
    found = {leaf: weights(pretrain(replace(small, {leaf: OTHER[leaf]}))) for leaf in Supervision.model_fields}
    assert len({plain, *found.values()}) == len(found) + 1, found
    assert isinstance(objective_of(small).loader(torch.device("cpu")), Loader)


def test_pictures_are_those_of_fine_tuning(small):
    """One code serves both: the same crops, policy and erasing give the same batches."""
    settings = replace(small, PUBLISHED_AUGMENTATION, crop_scale=(0.08, 1.0))
    loader = objective_of(settings).loader(torch.device("cpu"))
    assert isinstance(loader, AugmentedLoader)
    recipe = RECIPES["scratch"].model_copy(update={"batch_size": settings.optim.batch_size})
    theirs = training_batches(settings, recipe, open_source(settings.data))
    for mine, other in zip(loader.batches(0, 3), theirs(0, 3), strict=True):
        assert torch.equal(mine.images, other.images)
        assert torch.equal(mine.labels, other.labels)


def test_paths_are_dropped_in_training_alone(small):
    settings = replace(small, drop_path=0.3, depth=4)
    model = build_supervised(settings, 2)
    rates = [[part.drop_prob for part in (b.drop_path1, b.drop_path2)] for b in model.encoder.blocks]
    assert rates == [[pytest.approx(0.1 * b)] * 2 for b in range(4)]
    plain = build_supervised(replace(settings, drop_path=0.0), 2)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True))
    loader = evaluation_loader(settings)
    objective = objective_of(settings)
    assert objective.held_out(model, loader) == objective.held_out(plain, loader)
    assert model.training  # it may go on being trained
    batch = objective.loader(torch.device("cpu")).batch(0)
    dropped = objective.terms(model, model, batch, 0.0)["total"]
    assert dropped == objective.terms(model, model, batch, 0.5)["total"]  # the batch alone says what is dropped
    assert dropped != objective.terms(plain, plain, batch, 0.0)["total"]


def test_the_loss_is_that_of_soft_targets(small):
    settings = replace(small, smoothing=0.2, mixup=0.8)
    objective, model = objective_of(settings), build_supervised(settings, 2)
    batch = objective.loader(torch.device("cpu")).batch(1)
    place = (int(batch.epoch[0]), int(batch.index[0]))
    images, targets = mix_batch(batch, settings.supervision, 2, settings.seed, *place)
    assert not torch.equal(images, batch.images)
    expected = -(targets * F.log_softmax(model(images), dim=1)).sum(dim=1).mean()
    terms = objective.terms(model, model, batch, 0.0)
    assert terms["total"].item() == pytest.approx(expected.item(), abs=1e-6)
    assert targets.sum(dim=1).tolist() == [pytest.approx(1)] * len(targets)
    smooth = replace(small, smoothing=0.2)
    alone = objective_of(smooth).terms(model, model, batch, 0.0)["total"]
    logs = F.log_softmax(model(batch.images), dim=1)
    by_hand = -(
        0.9 * logs.gather(1, batch.labels[:, None])[:, 0] + 0.1 * logs.gather(1, 1 - batch.labels[:, None])[:, 0]
    )
    assert alone.item() == pytest.approx(by_hand.mean().item(), abs=1e-6)
    halves = [objective.terms(model, model, part, 0.0) for part in batch.chunks(2)]
    assert len({part["total"].item() for part in halves}) == 2


def test_an_untrained_supervised_row_is_the_untrained_encoder(small):
    """Stochastic depth holds no weights: what is measured without training does not depend on it."""
    one, two = (Origin.untrained(replace(small, drop_path=rate)).load().state_dict() for rate in (0.0, 0.5))
    assert all(torch.equal(one[key], two[key]) for key in one)
