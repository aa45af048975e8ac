"""Claims: the numbers are splitmix64's, a pure function of (seed, stream, epoch, index), uniform, uncorrelated; every
epoch visits every image once; any batch size walks the same stream.
"""

import hashlib

import pytest
import torch

from lcmae_core.data.counter import counter_uniform, epoch_order, mix, positions

WORD, GAMMA = 2**64, 0x9E3779B97F4A7C15


def slow_mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def slow_uniform(seed: int, stream: str, epoch: int, index: int, j: int) -> float:
    key = int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], "little")
    key = slow_mix((key + epoch * GAMMA) % WORD)
    key = slow_mix((key + index * GAMMA) % WORD)
    return (slow_mix((key + (j + 1) * GAMMA) % WORD) >> 40) / 2**24


def draw(seed=0, stream="crop", epochs=1, images=4096, count=1):
    epoch = torch.arange(epochs).repeat_interleave(images)
    return counter_uniform(seed, stream, epoch, torch.arange(images).repeat(epochs), count)


def test_mix_gives_the_published_splitmix64_sequence():
    # First outputs of the generator started at 1234567, from its reference implementation.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    states = [(1234567 + (i + 1) * GAMMA) % WORD for i in range(4)]
    signed = torch.tensor([s - WORD if s >= WORD // 2 else s for s in states])
    assert [v % WORD for v in mix(signed).tolist()] == expected == [slow_mix(s) for s in states]


@pytest.mark.parametrize(("seed", "epoch", "index"), [(0, 0, 0), (7, 3, 12), (2**40, 399, 1_281_166), (1, -1, 5)])
def test_equals_python_integers(seed, epoch, index):
    got = counter_uniform(seed, "flip", torch.tensor([epoch]), torch.tensor([index]), 5)[0]
    assert got.dtype == torch.float32
    assert got.tolist() == [slow_uniform(seed, "flip", epoch, index, j) for j in range(5)]


def test_independent_of_the_rest_of_the_batch_and_of_count():
    epoch, index = torch.tensor([0, 5, 2]), torch.tensor([9, 9, 700])
    whole = counter_uniform(3, "crop", epoch, index, 22)
    for row in range(3):
        alone = counter_uniform(3, "crop", epoch[row : row + 1], index[row : row + 1], 4)
        assert torch.equal(alone[0], whole[row, :4])


def test_uniform_by_chi_square():
    counts = torch.histc(draw(images=50_000, count=2), bins=100, min=0, max=1)
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    assert 50 < chi2 < 160  # 99 degrees of freedom: both too uneven and too even are outside 4 sigma
    assert draw().min() >= 0
    assert draw().max() < 1


@pytest.mark.parametrize("other", ["index", "epoch", "seed", "stream", "number"])
def test_neighbours_are_uncorrelated(other):
    base = draw(epochs=2, images=20_000, count=2)
    pair = {
        "index": lambda: (base[:-1, 0], base[1:, 0]),
        "epoch": lambda: (base[:20_000, 0], base[20_000:, 0]),
        "seed": lambda: (base[:, 0], draw(seed=1, epochs=2, images=20_000, count=2)[:, 0]),
        "stream": lambda: (base[:, 0], draw(stream="mask0", epochs=2, images=20_000, count=2)[:, 0]),
        "number": lambda: (base[:, 0], base[:, 1]),
    }[other]()
    assert torch.corrcoef(torch.stack(pair))[0, 1].abs() < 4.5 / len(pair[0]) ** 0.5
    assert (pair[0] == pair[1]).float().mean() < 0.001


def test_epoch_and_index_do_not_swap():
    a = counter_uniform(0, "crop", torch.tensor([1]), torch.tensor([2]), 4)
    assert not torch.equal(a, counter_uniform(0, "crop", torch.tensor([2]), torch.tensor([1]), 4))


def test_order_is_a_permutation_that_changes_with_seed_and_epoch():
    orders = [epoch_order(s, e, 100) for s, e in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert all(torch.equal(o.sort().values, torch.arange(100)) for o in orders)
    assert all(not torch.equal(a, b) for i, a in enumerate(orders) for b in orders[:i])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 20])
def test_any_batch_size_walks_the_same_stream(batch_size):
    size = 7  # batches of 20 span up to four epochs
    steps = [positions(5, step, batch_size, size) for step in range(42 // batch_size + 1)]
    epoch, index = (torch.cat([getattr(s, name) for s in steps])[:42] for name in ("epoch", "index"))
    assert epoch.tolist() == [p // size for p in range(42)]
    assert index.tolist() == [int(epoch_order(5, p // size, size)[p % size]) for p in range(42)]


def test_no_global_generator_is_touched():
    before = torch.random.get_rng_state()
    draw()
    positions(0, 3, 8, 20)
    assert torch.equal(before, torch.random.get_rng_state())
