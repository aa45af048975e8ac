"""The kinds of test that claims are made of: linear forms of cells, shares, ratios, margins that are shares of a gain.

A test about accuracy is judged only if MAE is surely better than random initialisation by the same measure after
training as long: the interval of the gain, measure(MAE) - measure(random), must lie above 0. This condition, the test's
gate, is added by the margins here (`of_gain`, `within_gain`); without it the test stays open.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lcmae_core.analysis.reductions import Reduction, over_all
from lcmae_core.studies.judge.rule import Cell, Test

Weights = Mapping[Cell, float]


def linear(
    text: str, weights: Weights, *, low: float = -np.inf, high: float = np.inf, scale: float = 1.0,
    reduce: Reduction = over_all, gates: Sequence[Test] = (), nested: bool = False,
) -> Test:  # fmt: skip
    """scale x sum of weight x mean of each cell, within bounds. `reduce`: a linear functional of layers."""
    return Test(
        text, tuple(weights), None, low, high, tuple(map(float, weights.values())), reduce, scale,
        gates=tuple(gates), nested=nested,
    )  # fmt: skip


def share(text: str, cell: Cell, *, low: float = -np.inf, high: float = np.inf, scale: float = 1.0,
          gates: Sequence[Test] = ()) -> Test:  # fmt: skip
    """A share by itself: its interval stays inside [0, scale]."""
    return Test(text, (cell,), None, low, high, (1.0,), scale=scale, gates=tuple(gates), limits=(0.0, scale))


def smooth(
    text: str, cells: Sequence[Cell], statistic: Callable[..., float], *, low: float = -np.inf, high: float = np.inf,
    scale: float = 1.0, gates: Sequence[Test] = (), nested: bool = False,
) -> Test:  # fmt: skip
    """scale x statistic(mean of each cell, in order), within bounds. The statistic must be smooth; where it is nan the
    test is open."""
    return Test(text, tuple(cells), statistic, low, high, scale=scale, gates=tuple(gates), nested=nested)


def ratio(
    text: str, numerator: Cell, denominator: Cell, *, low: float = -np.inf, high: float = np.inf,
    reduce: Reduction = over_all, gates: Sequence[Test] = (),
) -> Test:  # fmt: skip
    """Mean of one cell over mean of another, each reduced over its layers, within bounds."""

    def divided(above: np.ndarray, below: np.ndarray) -> float:
        a, b = (float(reduce(each)) if np.ndim(each) else float(each) for each in (above, below))
        return a / b if b else float("nan")

    return Test(text, (numerator, denominator), divided, low, high, gates=tuple(gates))


def shown(text: str, cell: Cell, *, scale: float = 1.0, reduce: Reduction = over_all) -> Test:
    """A control: a number with its interval and no bound, which decides nothing."""
    return linear(text, {cell: 1.0}, scale=scale, reduce=reduce)


def gain(mae: Cell, random: Cell, *, scale: float = 100.0) -> Test:
    """The gate of every test about accuracy: what MAE has above random init, same measure and horizon, is above 0."""
    return linear(f"gain, {mae.row} - {random.row}: above 0", {mae: 1.0, random: -1.0}, low=0.0, scale=scale)


def of_gain(
    text: str, weights: Weights, mae: Cell, random: Cell, part: float, *, above: bool = False, scale: float = 100.0,
    gates: Sequence[Test] = (),
) -> Test:  # fmt: skip
    """sum of weight x cell - part (MAE - random) below 0 (`above`: above 0), open unless the gain is above 0. For
    example {AE: 1, random: -1} and .25: the autoencoder gains less than a quarter of what MAE gains."""
    form = combined(weights, {mae: -part, random: part})
    low, high = (0.0, np.inf) if above else (-np.inf, 0.0)
    return linear(text, form, low=low, high=high, scale=scale, gates=(gain(mae, random, scale=scale), *gates))


def within_gain(
    text: str, row: Cell, other: Cell, mae: Cell, random: Cell, part: float, *, scale: float = 100.0
) -> Test:
    """|row - other| below part (MAE - random), open unless the gain is above 0: row - other and other - row must
    both lie below it, and the larger of the two is shown."""
    cells = combined({row: 0.0}, {other: 0.0}, {mae: 0.0}, {random: 0.0})
    margin = {mae: -part, random: part}
    test = linear(text, combined(cells, {row: 1.0}, {other: -1.0}, margin), high=0.0, scale=scale,
                  gates=(gain(mae, random, scale=scale),))  # fmt: skip
    mirror = combined(cells, {row: -1.0}, {other: 1.0}, margin)
    return Test(**vars(test) | {"mirror": tuple(mirror.values())})


def combined(*forms: Weights) -> dict[Cell, float]:
    """The sum of linear forms; a cell of several has the sum of its weights."""
    out: dict[Cell, float] = {}
    for form in forms:
        for cell, weight in form.items():
            out[cell] = out.get(cell, 0.0) + weight
    return out
