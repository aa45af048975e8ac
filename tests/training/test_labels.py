"""Claims: a share of the labels is the same share of every class, a function of the seed alone, and grows by adding;
the held fifth lies inside the training images that are used, so that no validation image chooses a rate.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lcmae_core.config import LcmaeError, replace
from lcmae_core.config.downstream import FineTune, LinearProbe, vary
from lcmae_core.data.sources import open_source
from lcmae_core.data.splits import Source, Split
from lcmae_core.store.evaluations import load_evaluation
from lcmae_core.training import choose
from lcmae_core.training.choose import choose_rate
from lcmae_core.training.downstream import Origin
from lcmae_core.training.labels import drawn_by_class, labelled_part
from tests.data.made_pictures import names, write_folder

LABELS = np.repeat([0, 1, 2, 3], [100, 50, 7, 1])
FEW = [f"{part}/{name}/{i}.png" for part in ("train", "val") for name in "abc" for i in range(10)]


def source(labels=LABELS):
    split = Split("train", len(labels), labels, None, str)
    return Source("made", "made", tuple("abcd"), split, Split("validation", 4, np.arange(4), None, "val{}".format))


def test_a_share_of_every_class():
    chosen = drawn_by_class(LABELS, 0.1, 3, "labels", least=1)
    assert np.bincount(LABELS[chosen]).tolist() == [10, 5, 1, 1]
    assert np.array_equal(chosen, drawn_by_class(LABELS, 0.1, 3, "labels", least=1))
    assert not np.array_equal(chosen, drawn_by_class(LABELS, 0.1, 4, "labels", least=1))
    assert (drawn_by_class(LABELS, 0.3, 3, "labels", least=1) | ~chosen).all()  # more of them, not others
    imagenette = np.repeat(np.arange(10), [963, 955, 993, 858, 941, 956, 961, 931, 951, 960])
    assert drawn_by_class(imagenette, 0.1, 0, "labels", least=1).sum() == pytest.approx(947, abs=3)


def test_what_a_recipe_trains_on_and_is_judged_on():
    whole = source()
    assert labelled_part(whole, FineTune(), 0) is whole
    assert labelled_part(whole, LinearProbe(), 0) is whole
    few = labelled_part(whole, FineTune(label_share=0.5), 0)
    assert (len(few.train), few.validation) == (50 + 25 + 4 + 1, whole.validation)
    inner = labelled_part(whole, FineTune(label_share=0.5, held_fifth=True), 0)
    assert np.bincount(inner.validation.labels).tolist() == [10, 5, 1]  # of a class with one image none is held
    assert set(names(inner.train)).isdisjoint(names(inner.validation))
    assert {*names(inner.train), *names(inner.validation)} == {*names(few.train)}
    assert set(names(inner.validation)).isdisjoint(names(whole.validation))
    assert [LABELS[int(inner.train.file_name(i))] for i in range(len(inner.train))] == inner.train.labels.tolist()


@pytest.fixture
def pictures(tiny, tmp_path):
    return replace(tiny, source=f"folder:{write_folder(tmp_path / 'pictures', FEW)}", workers=0, depth=1)


def test_a_rate_is_chosen_without_the_validation_images(pictures, monkeypatch):
    """Every validation picture is made unreadable for the choice: nobody opens one."""
    read = []
    opened = open_source(pictures.data)
    spy = Split("validation", 30, opened.validation.labels, read.append, opened.validation.names)
    blind = Source(opened.spec, opened.identity, opened.classes, opened.train, spy)
    monkeypatch.setattr("lcmae_core.training.downstream.open_source", lambda data: blind)
    recipe = FineTune(batch_size=4, steps=2, epochs=None, rand_augment=None, erase=0.0, label_share=0.5)
    found = choose_rate(Origin.untrained(pictures), recipe, (0.1, 1e-3))
    assert read == []
    assert list(found.accuracy) == [1e-3, 0.1]
    made = [load_evaluation(path) for path in (Path(pictures.runtime.out) / "evaluations").iterdir()]
    assert {e.recipe.base_lr for e in made} == {0.1, 1e-3}
    assert {e.results["images"] for e in made} == {3}  # a fifth of 5 of each class
    assert found.accuracy == {e.recipe.base_lr: e.accuracy for e in made}
    with pytest.raises(LcmaeError, match="rates: got none"):
        choose_rate(Origin.untrained(pictures), recipe, ())


def test_the_best_rate_wins_and_of_equals_the_smallest(pictures, monkeypatch):
    said = {1.0: 0.2, 2.0: 0.7, 3.0: 0.7, 4.0: 0.1}
    judged = []

    def known(origin, recipe, *, settings):
        judged.append(recipe)
        return SimpleNamespace(accuracy=said[recipe.base_lr])

    monkeypatch.setattr(choose, "fine_tune", known)
    assert choose_rate(None, FineTune(), (4.0, 3.0, 2.0, 1.0)) == (said, 2.0)
    assert judged == [vary(FineTune(), held_fifth=True, base_lr=rate) for rate in (1.0, 2.0, 3.0, 4.0)]
