"""Claims: Clopper-Pearson's ends are the binomial tails they promise; the two-way interval covers about as often as it
says, widens with the spread over seeds and stays inside [0, 1]; kNN and confusion say what scikit-learn says; what
cannot be judged is one line.
"""

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom
from sklearn.neighbors import KNeighborsClassifier

from lcmae_core.analysis.accuracy import accuracy, confusion, exact_interval, share_interval
from lcmae_core.analysis.neighbours import Features, knn_predictions
from lcmae_core.config import LcmaeError
from lcmae_core.store.evaluations import Predictions
from tests.loops import over


def said(label, predicted):
    return Predictions(np.array(label), np.array(predicted), np.ones(len(label), np.float32))


@over(("right", "count"), [(7, 10), (1, 30), (141, 256)])
@over("level", [0.95, 0.8])
def test_clopper_pearson_is_its_definition(right, count, level):
    low, high = exact_interval(right, count, level)
    tail = (1 - level) / 2
    assert binom.sf(right - 1, count, low) == pytest.approx(tail, rel=1e-6)  # P(at least so many right | low)
    assert binom.cdf(right, count, high) == pytest.approx(tail, rel=1e-6)
    assert low == pytest.approx(beta.ppf(tail, right, count - right + 1), rel=1e-9)


def test_clopper_pearson_by_hand():
    assert exact_interval(0, 10) == pytest.approx((0, 1 - 0.025**0.1))  # none right: (1 - p)^10 = 0.025
    assert exact_interval(10, 10) == pytest.approx((0.025**0.1, 1))


def test_the_interval_covers_as_often_as_it_says():
    rng, true, covered = np.random.default_rng(0), 0.7, 0
    for _ in range(1000):
        low, high = share_interval(rng.random(100) < true, level=0.9)
        covered += low <= true <= high
    assert 0.87 <= covered / 1000 <= 0.93  # 0.9, three standard errors of 1000 trials either way


def test_the_interval_counts_images_and_seeds():
    rng = np.random.default_rng(0)
    right = rng.random(400) < 0.6
    low, high = share_interval(right)
    normal = 2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert high - low == pytest.approx(normal, rel=0.01)
    unlike = np.stack([np.ones(400, bool), np.zeros(400, bool)])  # two seeds that differ in everything
    assert share_interval(unlike) == (0, 1)
    alike = share_interval(np.stack([right] * 5))  # five seeds that differ in nothing
    assert alike == pytest.approx((low, high), abs=1e-6)
    five = np.stack([rng.random(400) < share for share in (0.4, 0.5, 0.6, 0.7, 0.8)])
    wide = share_interval(five)
    assert wide.high - wide.low == pytest.approx(2 * 2.776 * np.std(five.mean(1), ddof=1) / 5**0.5, rel=0.1)  # t of 4


def test_intervals_of_shares_stay_inside():
    for images in (4, 97, 3925):
        for seeds in (1, 2, 3, 5):
            for right in (np.ones((seeds, images), bool), np.zeros((seeds, images), bool)):
                assert share_interval(right) == (right[0, 0], right[0, 0])
            most = np.ones((seeds, images), bool)
            most[0, 0] = False
            low, high = share_interval(most)
            assert 0 <= low <= most.mean() <= high <= 1


def test_accuracy_of_one_and_of_several_seeds():
    one, two = said([0, 1, 1, 2], [0, 1, 2, 2]), said([0, 1, 1, 2], [1, 1, 2, 2])
    alone, both = accuracy(one), accuracy([one, two])
    assert (alone.mean, alone.exact, alone.images, alone.seeds) == (0.75, exact_interval(3, 4), 4, 1)
    assert (both.mean, both.exact, both.images, both.seeds) == (0.625, None, 4, 2)
    assert both.two_way.low <= 0.625 <= both.two_way.high


def test_confusion_by_hand():
    table = confusion(said([0, 1, 1, 2], [0, 1, 2, 2]), 4)
    assert table.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@over("k", [1, 7, 20])
def test_knn_predicts_what_scikit_learn_predicts(generator, k):
    x, q = torch.randn(300, 16, generator=generator), torch.randn(120, 16, generator=generator)
    y, z = torch.randint(5, (300,), generator=generator), torch.randint(5, (120,), generator=generator)
    found = knn_predictions(Features(x, y), Features(q, z), k)
    reference = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    reference.fit(x.double().numpy(), y.numpy())
    assert np.array_equal(found.predicted, reference.predict(q.double().numpy()))
    assert np.array_equal(found.label, z.numpy())
    assert found.confidence == pytest.approx(reference.predict_proba(q.double().numpy()).max(axis=1), abs=1e-6)


def test_errors_are_one_line():
    one, other = said([0, 1], [0, 1]), said([1, 1], [0, 1])
    with pytest.raises(LcmaeError, match="count: got 0 images, expected at least 1"):
        exact_interval(0, 0)
    with pytest.raises(LcmaeError, match="got none, expected those of at least one classifier"):
        accuracy([])
    with pytest.raises(LcmaeError, match="judged on different images, expected the same ones in order"):
        accuracy([one, other])
    with pytest.raises(LcmaeError, match="classes: got 1, expected at least 2: class 1 occurs"):
        confusion(one, 1)
    with pytest.raises(LcmaeError, match="right: got 1 seeds and 0 images"):
        share_interval(np.zeros(0, bool))
