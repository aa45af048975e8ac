"""The bootstrap over seeds and images together, on which every interval of a table, a figure or a claim rests.

Letters: S seeds, M images.
"""

from collections.abc import Iterator, Sequence

import numpy as np


def resampled_means(values: Sequence[np.ndarray], draws: int, seed: int) -> Iterator[list[np.ndarray]]:
    """The means of `values`, each (S, M, ...), over `draws` resamples of seeds and images.

    A draw takes S seeds and M images with replacement and averages the S x M numbers where they cross, the same ones
    for all of `values` (those of equal M). One draw exists at a time: draws x M would not fit for ImageNet.
    """
    rng = np.random.default_rng(seed)
    seeds, counts = len(values[0]), sorted({each.shape[1] for each in values})
    for _ in range(draws):
        rows = rng.integers(seeds, size=seeds)
        share = {count: rng.multinomial(count, np.full(count, 1 / count)) / count for count in counts}
        yield [np.tensordot(share[each.shape[1]], each[rows].mean(0), 1) for each in values]
