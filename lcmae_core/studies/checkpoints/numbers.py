"""The numbers of checkpoints side by side: each a mean with its interval over images, a column a checkpoint.

Letters (CONTRIBUTING.md): M images, L layers.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lcmae_core.analysis.reductions import Reduction, layer
from lcmae_core.store.records import Record
from lcmae_core.studies.judge import Estimate, estimated
from lcmae_core.viewer.figures.layers import Band


def _all(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).mean(1)


class Quantity(NamedTuple):
    """A number of a record: in words, where it is, and what is taken of (M, L)."""

    words: str
    measure: str
    key: str
    reduce: Reduction = _all


QUANTITIES = (
    Quantity("attention distance, px", "distance", "distance"),
    Quantity("the same renormalised without CLS, px", "distance", "distance_renormalized"),
    Quantity("attention within 1 patch of the query", "distance", "near_1"),
    Quantity("attention within 2 patches", "distance", "near_2"),
    Quantity("attention on CLS and registers", "distance", "prefix_mass"),
    Quantity("mutual information of query and key, normalised", "distance", "nmi"),
    Quantity("attention distance under a mask, px", "distance", "masked_distance"),
    Quantity("receptive field: gradient within 1 patch", "receptive", "within", layer(1)),
    Quantity("image found under a mask without a common patch", "invariance", "found"),
    Quantity("the same, untrained encoder", "invariance", "found_untrained"),
    Quantity("the same, mean colour", "invariance", "found_colour"),
    Quantity("kNN of the mean token, every image by all others", "knn", "right"),
    Quantity("S_attn (Eq. 7), decoder layer 1", "similarity", "s_attn", layer(0)),
    Quantity("S_attn, mean over layers", "similarity", "s_attn"),
    Quantity("decoder: attention within 2 patches, x uniform", "similarity", "near"),
    Quantity("S_sim (Eq. 8) to DINO, decoder layer 1", "semantic", "s_sim", layer(0)),
    Quantity("S_sim to DINO, last layer", "semantic", "s_sim", layer(-1)),
    Quantity("Eq. 5 between two masks, unoptimised", "terms", "cross_view_trained"),
    Quantity("Eq. 5, untrained", "terms", "cross_view_untrained"),
    Quantity("Eq. 6, unoptimised", "terms", "in_view_trained"),
    Quantity("Eq. 6, untrained", "terms", "in_view_untrained"),
    Quantity("PSNR of what is hidden, model, dB", "reconstruction", "psnr_norm_pix"),
    Quantity("PSNR of what is hidden, model, dB", "reconstruction", "psnr_pixel"),
    Quantity("PSNR, colours of neighbours, dB", "reconstruction", "psnr_neighbours"),
    Quantity("PSNR, mean colour, dB", "reconstruction", "psnr_mean_colour"),
)  # fmt: skip
"""What is shown of a checkpoint; means over layers unless said otherwise."""


def number(record: Record, of: Quantity) -> Estimate | None:
    """A quantity of a record with its interval over images; None where it was left out or not measured."""
    values = record.measures.get(of.measure, {}).get("values", {})
    if of.key not in values:
        return None
    array = record.array(of.measure, of.key)
    if array.dtype == bool:  # right answers, whose share lies between 0 and 1
        return estimated(array[None])
    return estimated(np.atleast_1d(of.reduce(array))[None].astype(np.float64))


def band(record: Record, measure: str, key: str) -> Band | None:
    """A quantity of every layer with its interval over images; None where it was left out or not measured."""
    if key not in record.measures.get(measure, {}).get("values", {}):
        return None
    values = record.array(measure, key).astype(np.float64)  # (M, L)
    estimates = [estimated(values[None, :, layer]) for layer in range(values.shape[1])]
    return Band(*(np.array([getattr(one, end) for one in estimates]) for end in ("value", "low", "high")))


def bands(records: Sequence[Record], panels: Mapping[str, tuple[str, str]]) -> dict[str, dict[str, Band]]:
    """For every panel, said by measure and key, the checkpoints that have it; panels that none has are left out. With
    one checkpoint, which no legend names, the titles do."""
    panel_of = {
        title: {_name(record): one for record in records if (one := band(record, *where)) is not None}
        for title, where in panels.items()
    }
    alone = f"{_name(records[0])}: " if len(records) == 1 else ""
    return {alone + title: panel for title, panel in panel_of.items() if panel}


def _name(record: Record) -> str:
    return str(record.content["checkpoint"]["name"])


def table(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: value and interval over images of every quantity that one of the records has."""
    lines: dict[str, list[str]] = {}
    for of in QUANTITIES:
        estimates = [number(record, of) for record in records]
        if any(estimates):
            before = lines.get(of.words, [""] * len(records))
            lines[of.words] = [_with_interval(one) or old for one, old in zip(estimates, before)]
    return ["", *map(_name, records)], [[words, *cells] for words, cells in lines.items()]


def _with_interval(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    interval = f" [{estimate.low:.3g}, {estimate.high:.3g}]" if np.isfinite([estimate.low, estimate.high]).all() else ""
    return f"{estimate.value:.3g}{interval}"
