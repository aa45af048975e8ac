"""Pictures of the studies of HLV's levels: fidelity, and what can be read off features, over mask ratios and units.

Letters (CONTRIBUTING.md): S seeds, M images.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lcmae_core.analysis.cues import shape_bias
from lcmae_core.store.records import Record
from lcmae_core.studies.judge import Estimate, Test, estimate, estimated
from lcmae_core.studies.published import HLV_RATIOS, HLV_UNITS
from lcmae_core.viewer.figures import Picture, curves

Rows = Mapping[str, Sequence[Record]]


_PUBLISHED: dict[str, Mapping[str, Mapping[str, float]]] = {
    "hlv_ratios": {
        "linear probe, %": {str(ratio): float(level.probed) for ratio, level in HLV_RATIOS.items()},
        "shape bias": {str(ratio): float(level.shape_bias or "nan") for ratio, level in HLV_RATIOS.items()},
    },
    "hlv_units": {"linear probe, %": {f"{unit}x": float(level.probed) for unit, level in HLV_UNITS.items()}},
}
_KNOB = {"hlv_ratios": "mask ratio", "hlv_units": "side of a mask cell, patches"}
_BIAS = Test("shape bias", (), lambda *cues: shape_bias(*map(float, cues)), limits=(0.0, 1.0))
_FIDELITY = {"ssim": "SSIM", "fsim": "FSIM", "psnr": "PSNR, dB", "mse": "MSE"}


def fidelity_by_level(study: str, by_row: Rows, lines: Mapping[str, float] | None = None) -> Picture:
    """SSIM, FSIM, PSNR and MSE of whole images over the ratios or units of an HLV study, means over images with their
    intervals; `lines`, by measure, draws what another reconstruction reaches."""
    ours = {title: [_estimate(r, "fidelity", key) for r in by_row.values()] for key, title in _FIDELITY.items()}
    panels, bands = _drawn(_knob(by_row), ours)
    dashed = {_FIDELITY[key]: value for key, value in (lines or {}).items()}
    return curves(panels, _KNOB[study], "", ticks=_knob(by_row), lines=dashed, bands=bands)


def reading_by_level(study: str, by_row: Rows) -> Picture:
    """What can be read off the features over the ratios or units of an HLV study, with intervals, beside what HLV
    reports: probe, kNN, shape bias (dashed: answers at random), and the probe under corruptions where they could be
    made."""
    every, at = list(by_row.values()), _knob(by_row)
    ours = {
        "linear probe, %": [_estimate(records, "probe", "right", 100) for records in every],
        "kNN, %": [_estimate(records, "knn", "right", 100) for records in every],
    }
    if was_taken(by_row, "cues"):
        ours["shape bias"] = [shape_bias_of(records) for records in every]
    if was_taken(by_row, "corruptions"):
        ours["probe under corruptions, %"] = [_estimate(r, "corruptions", "share", 100) for r in every]
    panels, bands = _drawn(at, ours)
    for title in panels.keys() & _PUBLISHED[study].keys():
        theirs = [_PUBLISHED[study][title][row] for row in by_row]
        panels[title]["published (HLV, ViT-B on ImageNet)"] = (at, theirs)
    return curves(panels, _KNOB[study], "", ticks=at, lines={"shape bias": 0.5}, bands=bands)


def was_taken(by_row: Rows, measure: str) -> bool:
    """Whether a measure was taken of every record, and not left out."""
    every = [record.measures.get(measure, {"values": {"left_out": ""}}) for r in by_row.values() for record in r]
    return all("left_out" not in entry["values"] for entry in every)


def _knob(by_row: Rows) -> list[float]:
    return [float(row.removesuffix("x")) for row in by_row]


Panels = dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]]


def _drawn(at: Sequence[float], ours: Mapping[str, Sequence[Estimate]]) -> tuple[Panels, Panels]:
    """The curves of our numbers, and their intervals where they have them."""
    panels: Panels = {title: {"ours": (at, [e.value for e in estimates])} for title, estimates in ours.items()}
    ends = {title: ([e.low for e in estimates], [e.high for e in estimates]) for title, estimates in ours.items()}
    return panels, {title: {"ours": both} for title, both in ends.items() if np.isfinite(both).any()}


def _estimate(records: Sequence[Record], measure: str, key: str, scale: float = 1.0) -> Estimate:
    """Mean over seeds and images with its interval."""
    return estimated(np.stack([record.array(measure, key) for record in records]), scale=scale)


def shape_bias_of(records: Sequence[Record]) -> Estimate:
    """Shape bias with the jackknife's interval over seeds and images, as claim C18 is judged; without one where nobody
    names one of the cues, for nothing is known then of how rare that is."""
    cues = [np.stack([record.array("cues", cue) for record in records]) for cue in ("shape", "texture")]  # (S, M) each
    bias = estimate(_BIAS, [cue.astype(np.float64) for cue in cues])
    return bias if all(cue.any() for cue in cues) else bias._replace(low=np.nan, high=np.nan)


def mean_over_seeds(records: Sequence[Record], measure: str, key: str) -> np.ndarray:
    """A number of every image, its mean over the records."""
    return np.mean([record.array(measure, key) for record in records], axis=0)
