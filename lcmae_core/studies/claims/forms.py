"""The tests that claims have in common: collapse, attention over layers and mask ratios, accuracies of rows.

Letters (CONTRIBUTING.md): L layers.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lcmae_core.analysis.collapse import ALIKE as COLLAPSED
from lcmae_core.analysis.collapse import TIMES_CHANCE as ABOVE_CHANCE
from lcmae_core.analysis.reductions import Reduction, slope_weights
from lcmae_core.analysis.specific import specific_distance
from lcmae_core.studies.judge import Cell, Test, gain, linear, shown, smooth
from lcmae_core.studies.tables import RATIOS

CONVENTIONS = {"as the authors of ViT": "distance", "renormalised": "distance_renormalized"}
"""What an attention distance is called -> its key in the records."""


class Claim(NamedTuple):
    """A claim of the paper. tests: they decide. controls: shown beside the tests, they decide nothing."""

    name: str
    statement: str
    where: str
    published: str
    tests: tuple[Test, ...]
    controls: tuple[Test, ...] = ()


# ---- accuracies

READ_BY_LABELS = frozenset({"finetune", "finetune_scratch", "probe", "knn", "cues"})
"""Measures of what a classifier says: a profile as small as quick cannot judge them."""


def reads_labels(test: Test) -> bool:
    """Whether a test is about answers of a classifier."""
    return any(cell.measure in READ_BY_LABELS for cell in test.cells)


def fine_tuned(study: str, row: str) -> Cell:
    """Right answers after fine-tuning, by the recipe that all rows share."""
    return Cell(study, row, "finetune", "right")


def probed(study: str, row: str) -> Cell:
    """Right answers of the linear probe, on the mean patch token."""
    return Cell(study, row, "probe", "right")


def above(text: str, more: Cell, less: Cell, mae: Cell, random: Cell) -> Test:
    """One accuracy above another, open unless MAE gains anything."""
    return linear(f"{text}: above 0", {more: 1, less: -1}, low=0, scale=100, gates=(gain(mae, random),))


# ---- collapse


def collapsing(row: str, key: str, study: str = "collapse") -> Cell:
    """A number of the measure `collapse`."""
    return Cell(study, row, "collapse", key)


def not_collapsed(row: str, kind: str = "", study: str = "collapse", across: str = "two masks") -> tuple[Test, Test]:
    """v (or, with kind "encoder", its tokens) is neither a constant nor a function of position or mask alone."""
    of, name = f"{kind + ' tokens' if kind else 'v'} in ({row})", f"{kind}_" if kind else ""
    retrieved, chance = collapsing(row, f"{name}found", study), collapsing(row, "chance", study)
    return (
        linear(f"cosine of {of} at the same place of other images: below {COLLAPSED}",
               {collapsing(row, f"{name}same_place", study): 1}, high=COLLAPSED),
        linear(f"image found by {of} across {across} - {ABOVE_CHANCE:g} x chance: above 0",
               {retrieved: 1, chance: -ABOVE_CHANCE}, low=0),
    )  # fmt: skip


COLLAPSE_CONTROLS = {
    "variance_position": "share of v's variance that is position",
    "variance_mask": "share that is mask",
    "variance_image": "share that is image",
    "variance_interaction": "share that is interaction",
    "encoder_rank": "effective rank of encoder tokens",
    "encoder_same_place": "cosine of encoder tokens at the same place of other images",
    "untrained_same_place": "untrained: cosine of v at the same place of other images",
    "untrained_found": "untrained: image found by v across two masks",
    "untrained_encoder_rank": "untrained: effective rank of encoder tokens",
    "untrained_encoder_same_place": "untrained: cosine of encoder tokens at the same place of other images",
    "untrained_encoder_found": "untrained: image found by encoder tokens across two masks",
}
"""Controls of a claim about collapse: key -> what it is."""


def collapse_controls(row: str, study: str = "collapse") -> tuple[Test, ...]:
    """What v varies with, the encoder apart from it, and the same of the untrained model."""
    return tuple(shown(f"({row}) {text}", collapsing(row, key, study)) for key, text in COLLAPSE_CONTROLS.items())


# ---- attention


def distance_of(study: str, row: str, key: str = "distance") -> Cell:
    """A number of the measure `distance`, layer by layer."""
    return Cell(study, row, "distance", key)


def between(first: int, second: int) -> Reduction:
    """One layer less another, counted from 0; nan where a model has not that many."""

    def apart(values: Float[np.ndarray, "*rest L"]) -> Float[np.ndarray, "*rest"]:
        if max(first, second) >= values.shape[-1]:
            return np.full(values.shape[:-1], np.nan)
        return values[..., first] - values[..., second]

    return apart


def first_less_others(values: Float[np.ndarray, "*rest L"]) -> Float[np.ndarray, "*rest"]:
    """The first layer less the mean of the others."""
    return values[..., 0] - values[..., 1:].mean(-1)


def shorter_distance(study: str, other: str) -> tuple[Test, ...]:
    """MAE's distance below another model's, in both conventions."""
    return tuple(
        linear(
            f"MAE - {other}, px, {name}: below 0",
            {distance_of(study, "MAE", key): 1, distance_of(study, other, key): -1},
            high=0,
        )
        for name, key in CONVENTIONS.items()
    )


def growth(text: str, key: str, reduce: Reduction) -> Test:
    """Change from .3 to .9 of a line fitted through all five mask ratios."""
    cells = [distance_of("fig6", str(ratio), key) for ratio in RATIOS]
    return linear(text, dict(zip(cells, slope_weights(len(cells)))), low=0, reduce=reduce)


def specific_growth(text: str, measure: str, reduce: Reduction) -> Test:
    """The same of the query-specific distance; open where a layer has none."""
    cells = [Cell("fig6", str(ratio), measure, f"specific_{key}") for ratio in RATIOS for key in ("far", "mass")]

    def slope(*means: np.ndarray) -> float:
        layers = [specific_distance(distance, mass) for distance, mass in zip(means[::2], means[1::2])]
        return float(np.dot(slope_weights(len(layers)), [reduce(each) for each in layers]))

    return smooth(text, cells, slope, low=0)


def specific(study: str, row: str) -> Test:
    """Control: the query-specific distance, mean over layers; not defined where a layer has none."""
    cells = tuple(distance_of(study, row, f"specific_{key}") for key in ("far", "mass"))
    return smooth(
        f"{row} ({study}): query-specific distance, px", cells, lambda *means: float(specific_distance(*means).mean())
    )


def profile_above(text: str, cell: Cell, other: Cell, statistic: Callable[[np.ndarray], float]) -> Test:
    """A smooth number of a mean profile over layers above that of another."""
    return smooth(text, (cell, other), lambda one, two: statistic(one) - statistic(two), low=0)


def attention_controls(study: str, rows: Sequence[str], *keys: str) -> tuple[Test, ...]:
    """Controls: numbers of the attention of some rows, means over layers."""
    return tuple(
        shown(f"{row} ({study}): {key.replace('_', ' ')}", distance_of(study, row, key)) for row in rows for key in keys
    )
