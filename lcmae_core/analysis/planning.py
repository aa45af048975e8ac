"""How many seeds or images would decide a test that is open.

Letters (CONTRIBUTING.md): S seeds, M images.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from lcmae_core.analysis.intervals import Parts, interval, judged_df

MOST = 1000
"""More seeds, or times as many images, are not looked for."""


def needed_seeds(value: float, parts: Parts, seeds: int, bound: float) -> int | None:
    """Fewest seeds, on the same images, with which a number that stays where it is has an interval clear of `bound`.

    An approximation: components of variance are taken as estimated, so it is as rough as they are (with five seeds the
    seed part is known to a factor of about three). None: no number up to `MOST` would do, the images' part alone is too
    wide; or one seed, which says nothing about seeds.
    """
    if seeds < 2:
        return None
    return _first(range(2, MOST + 1), lambda count: _clear(value, _with_seeds(parts, seeds, count), bound, count))


def needed_images(value: float, parts: Parts, seeds: int, images: int, bound: float) -> int | None:
    """Fewest images, with the same seeds, likewise; looked for in steps of a tenth."""
    counts = [int(images * 1.1**step) for step in range(int(np.log(MOST) / np.log(1.1)))]
    return _first(counts, lambda count: _clear(value, _with_images(parts, images, count), bound, seeds))


def _first(counts: Sequence[int], clear: Callable[[int], bool]) -> int | None:
    """The first of rising counts that will do, where more never do worse."""
    place = bisect_left(counts, True, key=clear)
    return counts[place] if place < len(counts) else None


def _with_seeds(parts: Parts, seeds: int, count: int) -> Parts:
    """Seed and cell parts fall as 1 / S; of the images' part only what belongs to cells does."""
    times, image = seeds / count, max(parts.image - parts.cell, 0.0)
    free = parts.seed_df * (count - 1) / (seeds - 1)
    cell_free = parts.cell_df * (count - 1) / (seeds - 1)
    return Parts(parts.seed * times, image + parts.cell * times, parts.cell * times, free, parts.image_df, cell_free)


def _with_images(parts: Parts, images: int, count: int) -> Parts:
    times, seed = images / count, max(parts.seed - parts.cell, 0.0)
    more = (count - 1) / max(images - 1, 1)
    return Parts(
        seed + parts.cell * times, parts.image * times, parts.cell * times,
        parts.seed_df, parts.image_df * more, parts.cell_df * more,
    )  # fmt: skip


def _clear(value: float, parts: Parts, bound: float, seeds: int) -> bool:
    low, high = interval(value, parts, df=judged_df(parts, seeds))
    return bool(low > bound or high < bound)
