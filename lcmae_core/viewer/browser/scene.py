"""What the browser shows of one image: its maps as bytes, its pictures, and the words that name them.

Letters (CONTRIBUTING.md): h x w pixels, N patches, K visible patches, T tokens, L layers, H heads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lcmae_core.config import LcmaeError
from lcmae_core.viewer.browser.maps import Rows


@dataclass(frozen=True)
class Choice:
    """What the kernel computes: the part and mask, layers and heads (None: all, counted from 0), painted patches."""

    image: int = 0
    part: str = "encoder"
    masked: bool = False
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    ratio: float = 0.75
    seed: int = 0
    hidden: tuple[bool, ...] | None = None


class Drawn(NamedTuple):
    """A picture (h, w, 3), its title, and two lines under it."""

    pixels: NDArray[np.uint8]
    title: str
    notes: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Scene:
    """One image's maps and all that is needed to draw and describe them.

    keys: the patch of each of the K columns. hidden: (N,) or None where no mask exists. blind: whether hidden patches
    are missing among the tokens. words: sentences that do not depend on the query. rollout: attention rollout to each
    of the layers as (L, 1, T, ...) rows, None where the maps of all layers are above the budget. distance: attention
    distance of each head (L, H) in pixels. alike: S_attn of each head over several images, None until it is asked for.
    """

    rows: Rows
    grid: tuple[int, int]
    prefix: tuple[str, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    keys: NDArray[np.int64]
    hidden: NDArray[np.bool_] | None
    blind: bool
    pictures: tuple[Drawn, ...]
    words: dict[str, str]
    rollout: Rows | None = None
    distance: NDArray[np.float64] | None = None
    alike: NDArray[np.float64] | None = None

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.prefix) + len(self.keys)

    def measured(self, order: str) -> NDArray[np.float64]:
        """The number of each head (L, H) that an overview in this order shows: S_attn, else the attention distance."""
        numbers = self.alike if order == "similarity" else self.distance
        assert numbers is not None, order
        return numbers

    def token(self, query: int) -> int:
        """Row of the maps for a query: patch 0 to N - 1, or -1, -2, ... for the first, second, ... prefix token.

        Raises:
            LcmaeError: no such patch or prefix token, or a hidden patch of a masked encoder.
        """
        rows, cols = self.grid
        if not -len(self.prefix) <= query < rows * cols:
            prefix = f", or {-len(self.prefix)} to -1 for {', '.join(self.prefix)}" if self.prefix else ""
            raise LcmaeError(f"query: got {query}, expected a patch from 0 to {rows * cols - 1}{prefix}")
        if query < 0:
            return -query - 1
        positions = np.flatnonzero(self.keys == query)
        if not len(positions):
            row, col = divmod(query, cols)
            raise LcmaeError(
                f"query: got patch {query} (row {row}, column {col}), which is hidden from the masked encoder, "
                f"expected one of its {len(self.keys)} visible patches"
            )
        return len(self.prefix) + int(positions[0])

    def patch(self, query: int | tuple[int, int] | str) -> int:
        """A query (a patch, its row and column, or a prefix token by name) as a number: prefix tokens from -1 down.

        Raises:
            LcmaeError: there is none such, or it is hidden from a masked encoder.
        """
        if isinstance(query, str):
            if query not in self.prefix:
                valid = ", ".join(self.prefix) or "none: this model has patch tokens only"
                raise LcmaeError(f"query: got {query!r}, expected a patch, (row, column), or a prefix token ({valid})")
            return -1 - self.prefix.index(query)
        if not isinstance(query, int):
            row, col = query
            if not (0 <= row < self.grid[0] and 0 <= col < self.grid[1]):
                raise LcmaeError(
                    f"query: got row {row}, column {col}, expected rows 0 to {self.grid[0] - 1} "
                    f"and columns 0 to {self.grid[1] - 1}"
                )
            query = row * self.grid[1] + col
        self.token(query)
        return query

    def nearest_query(self, query: int | None) -> int:
        """The same query where it can be one, else the nearest patch that can; None means the centre."""
        rows, cols = self.grid
        if query is not None and (-len(self.prefix) <= query < 0 or query in self.keys):
            return query
        patch = query if query is not None and query >= 0 else (rows // 2) * cols + cols // 2
        apart = np.stack(np.divmod(self.keys, cols)) - np.array(divmod(patch, cols))[:, None]
        return int(self.keys[np.square(apart).sum(axis=0).argmin()])


def counted_from_one(what: str, indices: Sequence[int]) -> str:
    """Indices from 0 as words that count from 1, runs joined: (0, 1, 2, 4) -> "layers 1-3, 5" with an en dash."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    numbers = ", ".join(str(r[0] + 1) if len(r) == 1 else f"{r[0] + 1}–{r[-1] + 1}" for r in runs)
    return f"{what}{'s' if len(indices) > 1 else ''} {numbers}"
