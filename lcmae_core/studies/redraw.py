"""The paper's tables and figures from records alone: no weights, no data, no training.

A number that is not there prints as "not yet run", and one from another profile always says which.
Letters: S seeds, M images, L layers, H heads.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lcmae_core.analysis.cues import shape_bias
from lcmae_core.analysis.recovery import level_means
from lcmae_core.config import Settings, profile, replace
from lcmae_core.store.machine import REPOSITORY
from lcmae_core.store.records import Record
from lcmae_core.studies.judge import Estimate, estimated
from lcmae_core.studies.published import HLV_RATIOS, HLV_UNITS
from lcmae_core.studies.registry import STUDIES, TREE
from lcmae_core.studies.scoreboard import POOLED, all_described, collapsed, row_pool, score
from lcmae_core.studies.tables import judged_seeds
from lcmae_core.studies.trials import rows
from lcmae_core.viewer.figures import Picture, curves
from lcmae_core.viewer.figures.layers import Band, head_spread, layer_bands
from lcmae_core.viewer.figures.trees import recovery_maps
from lcmae_core.viewer.tables import Table

ABSENT = "not yet run"
_ACCURACIES = {"finetune": "fine-tuned", "probe": "linear probe", "knn": "kNN"}
Rows = Mapping[str, Sequence[Record]]


def shipped(name: str) -> Settings:
    """A profile's settings, for reading the results that the collection ships."""
    return recorded(REPOSITORY / "outputs" / name, name)


def lab() -> Settings:
    """Those of `lab`."""
    return shipped("lab")


def recorded(out: Path, name: str) -> Settings:
    """A profile's settings for reading the records below a folder, whatever data they were made on."""
    base = replace(profile(name), out=str(out))
    found = {Record(file).content["settings"]["data"]["source"] for file in (out / "results" / "runs").glob("*.json")}
    found -= {TREE}
    return replace(base, source=found.pop()) if len(found) == 1 else base


def accuracy_of(records: Sequence[Record], measure: str, table: Rows | None = None) -> Estimate | None:
    """Accuracy in percent with its interval over seeds and images, inside [0, 100]; None where nothing was measured.
    `table`: all rows of Table 1, 2 or 3, over which the spread over seeds is then pooled."""
    has = [r for r in records if "right" in r.measures.get(measure, {}).get("values", {})]
    if not has:
        return None
    seeds = [r.content["settings"].get("seed", 0) for r in has]
    alone = len(has) < 2 or any(map(collapsed, has))
    pool = None if table is None or alone else row_pool(table, measure, "right", seeds)
    return estimated(np.stack([r.array(measure, "right") for r in has]), scale=100.0, pool=pool)


def accuracy_text(estimate: Estimate | None) -> str:
    """mean [interval], and over how many seeds."""
    if estimate is None:
        return ABSENT
    seeds = f"{estimate.seeds} seed{'s' * (estimate.seeds > 1)}"
    return f"{estimate.value:.1f} [{estimate.low:.1f}, {estimate.high:.1f}], {seeds}"


def _cell(records: Sequence[Record], measure: str, table: Rows | None = None) -> str:
    left_out = any("left_out" in r.measures.get(measure, {}).get("values", {}) for r in records)
    return "no labels" if left_out else accuracy_text(accuracy_of(records, measure, table))


def accuracy_table(
    study: str,
    here: Rows,
    profile_name: str,
    published: Mapping[str, Mapping[str, str]],
    labels: Mapping[str, str] = {},
) -> Table:
    """A table of the paper: for every measure its column in the paper, at lab, and `here` (at quick: one seed, no
    judgement). `published`: measure -> row -> what the paper reports. `labels`: row -> what to call it.
    """
    far = rows(study, lab(), "lab", judged_seeds("lab"), do=False)
    columns, lines = [STUDIES[study].title], []
    shown = {m for m in _ACCURACIES if all(m in r.measures for found in here.values() for r in found)}
    measures = [m for m in _ACCURACIES if m in shown | published.keys()]
    ours = ["lab"] if profile_name == "lab" else ["lab", profile_name]
    for measure in measures:
        where = ["paper", *ours] if measure in published else ours
        columns += [f"{_ACCURACIES[measure]}, {one}" for one in where]
    for row in here:
        line = [labels.get(row, row)]
        for measure in measures:
            line += [published[measure].get(row, "")] if measure in published else []
            line += [_cell(far.get(row, []), measure, far if study in POOLED else None)]
            line += [_cell(here[row], measure)] if profile_name != "lab" else []
        lines.append(line)
    return Table(columns, lines, "top-1 accuracy in %, 95 % interval over seeds and images")


def figures(base: Settings, name: str, seeds: Sequence[int] | None = None) -> Iterator[tuple[str, Picture | Table]]:
    """Every table and figure for which a profile has records, with its title."""
    for study, entry in STUDIES.items():
        found = {
            row: records
            for row, records in rows(study, base, name, seeds or judged_seeds(name), do=False).items()
            if records
        }
        for drawn in _drawn(study, found) if found else ():
            yield f"{entry.title}, profile {name}", drawn


def _drawn(study: str, found: Rows) -> Iterator[Picture | Table]:
    measures = STUDIES[study].measures
    if "knn" in measures:
        titles = {m: title for m, title in _ACCURACIES.items() if m in measures}
        table = found if study in POOLED else None
        lines = [[row, *(_cell(r, m, table) for m in titles)] for row, r in found.items()]
        yield Table(["row", *(f"{title}, %" for title in titles.values())], lines)
    if "collapse" in measures:
        yield _loss_curves(found)
    if "distance" in measures:
        panels = {"as the authors of ViT": "heads_distance", "renormalised without CLS": "heads_distance_renormalized"}
        yield head_spread({t: {row: _mean(r, "distance", k) for row, r in found.items()} for t, k in panels.items()},
                          "attention distance, px")  # fmt: skip
    if "similarity" in measures:
        yield layer_bands({"Fig. 2": {"S_attn": _band(found["MAE"], "similarity", "s_attn")}}, "S_attn")
    if "fidelity" in measures:
        yield fidelity_by_level(study, found)
        if _taken(found, "probe") and _taken(found, "knn"):
            yield reading_by_level(study, found)
    if "cka" in measures:
        yield likeness_by_layer(found)
    if "semantic" in measures:
        shown = {"S_sim": "s_sim", "above another image": "gain", "above another image, centred": "gain_centred"}
        yield layer_bands({t: {"MAE": _band(found["MAE"], "semantic", k)} for t, k in shown.items()}, "S_sim")
    if "recovery" in measures:
        yield recovery_by_level(found)


def likeness_by_layer(found: Rows) -> Picture:
    """CKA of every layer with the same layer of the networks it was compared with, a panel a row of the study."""
    panels = {}
    for row, records in found.items():
        keys = [key for key in records[0].measures["cka"]["values"] if key.startswith("cka_")]
        panels[row] = {key.removeprefix("cka_"): _band(records, "cka", key) for key in keys}
    return layer_bands(panels, "debiased linear CKA", limits=(0, 1.02))


_PUBLISHED: dict[str, Mapping[str, Mapping[str, float]]] = {
    "hlv_ratios": {
        "linear probe, %": {str(ratio): float(level.probed) for ratio, level in HLV_RATIOS.items()},
        "shape bias": {str(ratio): float(level.shape_bias or "nan") for ratio, level in HLV_RATIOS.items()},
    },
    "hlv_units": {"linear probe, %": {f"{unit}x": float(level.probed) for unit, level in HLV_UNITS.items()}},
}
_KNOB = {"hlv_ratios": "mask ratio", "hlv_units": "side of a mask cell, patches"}
_FIDELITY = {"ssim": "SSIM", "fsim": "FSIM", "psnr": "PSNR, dB", "mse": "MSE"}


def fidelity_by_level(study: str, found: Rows, lines: Mapping[str, float] | None = None) -> Picture:
    """SSIM, FSIM, PSNR and MSE of whole images over the ratios or units of an HLV study, means over images; `lines`, by
    measure, draws what another reconstruction reaches."""
    at = _knob(found)
    means = {key: [float(_mean(records, "fidelity", key).mean()) for records in found.values()] for key in _FIDELITY}
    panels = {title: {"ours": (at, means[key])} for key, title in _FIDELITY.items()}
    dashed = {_FIDELITY[key]: value for key, value in (lines or {}).items()}
    return curves(panels, _KNOB[study], "", ticks=at, lines=dashed)


def reading_by_level(study: str, found: Rows) -> Picture:
    """What can be read off the features over the ratios or units of an HLV study, beside what HLV reports: probe, kNN,
    shape bias (dashed: answers at random), and the probe under corruptions where they could be made."""
    ours = {"linear probe, %": [_percent(records, "probe", "right") for records in found.values()],
            "kNN, %": [_percent(records, "knn", "right") for records in found.values()]}  # fmt: skip
    if _taken(found, "cues"):
        ours["shape bias"] = [_bias(records) for records in found.values()]
    if _taken(found, "corruptions"):
        ours["probe under corruptions, %"] = [_percent(r, "corruptions", "share") for r in found.values()]
    at = _knob(found)
    panels = {title: {"ours": (at, values)} for title, values in ours.items()}
    for title in panels.keys() & _PUBLISHED[study].keys():
        theirs = [_PUBLISHED[study][title][row] for row in found]
        panels[title]["published (HLV, ViT-B on ImageNet)"] = (at, theirs)
    return curves(panels, _KNOB[study], "", ticks=at, lines={"shape bias": 0.5})


def _taken(found: Rows, measure: str) -> bool:
    """Whether a measure was taken of every record, and not left out."""
    every = [record.measures.get(measure, {"values": {"left_out": ""}}) for r in found.values() for record in r]
    return all("left_out" not in entry["values"] for entry in every)


def _knob(found: Rows) -> list[float]:
    return [float(row.removesuffix("x")) for row in found]


def _percent(records: Sequence[Record], measure: str, key: str) -> float:
    return 100 * float(_mean(records, measure, key).mean())


def _bias(records: Sequence[Record]) -> float:
    return shape_bias(*(float(_mean(records, "cues", cue).mean()) for cue in ("shape", "texture")))


RECOVERY = {"predicted": "predicted by the graph", "trained": "trained encoder", "untrained": "untrained encoder",
            "shuffled": "shuffled latents"}  # fmt: skip
"""What is shown of the recovery of latents, with its title."""


def recovered(found: Rows, quantity: str) -> np.ndarray:
    """A number of the recovery of latents, its mean over seeds, masks and the latents of a level: (rows, levels)."""
    levels = next(iter(found.values()))[0].array("recovery", "levels")[0]
    return level_means(np.stack([_mean(records, "recovery", quantity).mean(0) for records in found.values()]), levels)


def recovery_by_level(found: Rows) -> Picture:
    """Share of the latents that a mask identifies, and how much of them encoders hold: rows of the study by levels."""
    panels = {title: recovered(found, quantity) for quantity, title in RECOVERY.items()}
    columns = ["root", *map(str, range(1, panels[RECOVERY["predicted"]].shape[1]))]
    return recovery_maps(panels, [*found], columns, "share, or held-out $R^2$")


def _mean(records: Sequence[Record], measure: str, key: str) -> np.ndarray:
    return np.mean([record.array(measure, key) for record in records], axis=0)


def _band(records: Sequence[Record], measure: str, key: str) -> Band:
    """Mean per layer with its interval over seeds and images."""
    values = np.stack([record.array(measure, key) for record in records])  # (S, M, L)
    per_layer = [estimated(values[..., layer]) for layer in range(values.shape[-1])]
    return Band(*(np.array([getattr(e, end) for e in per_layer]) for end in ("value", "low", "high")))


def _loss_curves(found: Rows) -> Picture:
    kept = {row: records[0].content["training"]["curves"]["loss"] for row, records in found.items()}
    return curves(
        {"one seed each": {row: (curve[0], curve[1]) for row, curve in kept.items()}}, "step", "training loss"
    )


def scores(base: Settings, name: str, seeds: Sequence[int] | None = None) -> Table:
    """The scoreboard of a profile in words: claim, verdict, why, and every test with our number."""
    lines = []
    for found in score(base, name, seeds, do=False):
        claim = found.claim
        lines.append([claim.name, claim.statement, claim.published, found.verdict, found.why, all_described(found)])
    return Table(["claim", "statement", "published", "verdict", "why", "tests and our values"], lines)


def everything(out: Path, name: str) -> Iterator[tuple[str, Picture | Table]]:
    """What a report shows of a folder's records: the scoreboard, then every table and figure."""
    base = recorded(out, name)
    yield f"Scoreboard, profile {name}", scores(base, name)
    yield from figures(base, name)
