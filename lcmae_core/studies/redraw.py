"""The paper's tables and figures from records alone: no weights, no data, no training.

A number that is not there prints as "not yet run", and one from another profile always says which.
Letters (CONTRIBUTING.md): S seeds, M images, L layers, H heads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lcmae_core.analysis.recovery import level_means
from lcmae_core.config import Settings, profile, replace
from lcmae_core.config.profiles import SHIPPED
from lcmae_core.store.machine import REPOSITORY
from lcmae_core.store.records import Record, recorded_sources
from lcmae_core.studies.judge import Estimate, estimated
from lcmae_core.studies.redraw_levels import fidelity_by_level, mean_over_seeds, reading_by_level, was_taken
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
    base, sources = replace(profile(name), out=str(out)), recorded_sources(out) - {TREE}
    return replace(base, source=sources.pop()) if len(sources) == 1 else base


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
    """A table of the paper: for every measure its column in the paper, at desk, at lab, and `here` (at quick: one seed,
    no judgement). `published`: measure -> row -> what the paper reports. `labels`: row -> what to call it.
    """
    columns, lines = [STUDIES[study].title], []
    shown = {m for m in _ACCURACIES if all(m in r.measures for of_row in here.values() for r in of_row)}
    measures = [m for m in _ACCURACIES if m in shown | published.keys()]
    ours = [*dict.fromkeys([*SHIPPED, profile_name])]
    for measure in measures:
        where = ["paper", *ours] if measure in published else ours
        columns += [f"{_ACCURACIES[measure]}, {one}" for one in where]
    far = {(name, m): taken(study, shipped(name), name, m) for name in SHIPPED for m in measures}
    for row in here:
        line = [labels.get(row, row)]
        for measure in measures:
            line += [published[measure].get(row, "")] if measure in published else []
            for name in SHIPPED:
                of_profile = far[name, measure]
                line.append(_cell(of_profile.get(row, []), measure, of_profile if study in POOLED else None))
            line += [_cell(here[row], measure)] if profile_name not in SHIPPED else []
        lines.append(line)
    return Table(columns, lines, "top-1 accuracy in %, 95 % interval over seeds and images")


def taken(
    study: str, base: Settings, name: str, measure: str, seeds: Sequence[int] | None = None
) -> dict[str, list[Record]]:
    """The records of a study by row of which a measure was taken; rows without any are left out."""
    complete = rows(study, base, name, seeds or judged_seeds(name), (measure,), make=False)
    chosen = {row: [r for r in records if measure in r.measures] for row, records in complete.items()}
    return {row: records for row, records in chosen.items() if records}


def figures(base: Settings, name: str, seeds: Sequence[int] | None = None) -> Iterator[tuple[str, Picture | Table]]:
    """Every table and figure for which a profile has records, with its title; rows that are missing are left out."""
    for study, entry in STUDIES.items():
        for drawn in drawn_of(study, {m: taken(study, base, name, m, seeds) for m in entry.measures}):
            yield f"{entry.title}, profile {name}", drawn


def drawn_of(study: str, records_of: Mapping[str, Rows]) -> Iterator[Picture | Table]:
    """Tables and figures of a study; `records_of`: measure -> the rows that have it."""
    has = {measure for measure, of_rows in records_of.items() if of_rows}
    accuracies = {m: title for m, title in _ACCURACIES.items() if m in has}
    if accuracies:
        every = dict.fromkeys(row for measure in accuracies for row in records_of[measure])
        pooled = study in POOLED
        lines = [[row, *(_cell(records_of[m].get(row, []), m, records_of[m] if pooled else None) for m in accuracies)]
                 for row in every]  # fmt: skip
        yield Table(["row", *(f"{title}, %" for title in accuracies.values())], lines)
    for measure, draw in _PICTURES.items():
        if measure in has and any(not _out(r, measure) for r in records_of[measure].values()):
            yield from draw({row: r for row, r in records_of[measure].items() if not _out(r, measure)})
    if "fidelity" in has:
        yield fidelity_by_level(study, records_of["fidelity"])
        levels = [records_of[m] for m in ("probe", "knn")]
        if all(levels) and all(was_taken(f, m) for f, m in zip(levels, ("probe", "knn"))):
            yield reading_by_level(study, {row: r for row, r in levels[0].items() if row in levels[1]})


def _out(records: Sequence[Record], measure: str) -> bool:
    return any("left_out" in record.measures[measure]["values"] for record in records)


def _distances(by_row: Rows) -> Iterator[Picture]:
    keys = {"as the authors of ViT": "distance", "renormalised without CLS": "distance_renormalized"}
    keys = {_of_one(title, by_row): key for title, key in keys.items()}
    lines = _uniform_distance(by_row, [*keys])
    yield layer_bands({t: {row: _band(r, "distance", k) for row, r in by_row.items()} for t, k in keys.items()},
                      "attention distance, px", lines=lines)  # fmt: skip
    heads = {
        t: {row: mean_over_seeds(r, "distance", f"heads_{k}") for row, r in by_row.items()} for t, k in keys.items()
    }
    yield head_spread(heads, "attention distance, px", lines=lines)


def _uniform_distance(by_row: Rows, titles: Sequence[str]) -> dict[str, dict[str, float]]:
    """What uniform attention gives in both conventions: the first loses what goes to CLS."""
    record = next(iter(by_row.values()))[0]
    even = record.measures["distance"]["values"].get("uniform")
    if even is None:
        return {}
    count = Settings.model_validate(record.content["settings"]).num_patches
    return {titles[0]: {"uniform": even * count / (count + 1)}, titles[1]: {"uniform": even}}


def _of_one(title: str, by_row: Rows) -> str:
    """A panel's title with the name of its row, where it is the only one and so no legend says it."""
    return f"{next(iter(by_row))}, {title}" if len(by_row) == 1 else title


def _similar(by_row: Rows) -> Iterator[Picture]:
    yield layer_bands(
        {_of_one("Fig. 2", by_row): {row: _band(r, "similarity", "s_attn") for row, r in by_row.items()}}, "S_attn"
    )


def _semantic(by_row: Rows) -> Iterator[Picture]:
    shown = {"S_sim": "s_sim", "above another image": "gain", "above another image, centred": "gain_centred"}
    panels = {_of_one(t, by_row): {row: _band(r, "semantic", k) for row, r in by_row.items()} for t, k in shown.items()}
    yield layer_bands(panels, "S_sim")


def likeness_by_layer(by_row: Rows) -> Picture:
    """CKA of every layer with the same layer of the networks it was compared with, a panel a row of the study."""
    panels = {}
    for row, records in by_row.items():
        keys = [key for key in records[0].measures["cka"]["values"] if key.startswith("cka_")]
        panels[row] = {key.removeprefix("cka_"): _band(records, "cka", key) for key in keys}
    return layer_bands(panels, "debiased linear CKA", limits=(0, 1.02))


RECOVERY = {"predicted": "predicted by the graph", "trained": "trained encoder", "untrained": "untrained encoder",
            "shuffled": "shuffled latents"}  # fmt: skip
"""What is shown of the recovery of latents, with its title."""


def recovered(by_row: Rows, quantity: str) -> np.ndarray:
    """A number of the recovery of latents, its mean over seeds, masks and the latents of a level: (rows, levels)."""
    levels = next(iter(by_row.values()))[0].array("recovery", "levels")[0]
    return level_means(
        np.stack([mean_over_seeds(records, "recovery", quantity).mean(0) for records in by_row.values()]), levels
    )


def recovery_by_level(by_row: Rows) -> Picture:
    """Share of the latents that a mask identifies, and how much of them encoders hold: rows of the study by levels."""
    panels = {title: recovered(by_row, quantity) for quantity, title in RECOVERY.items()}
    columns = ["root", *map(str, range(1, panels[RECOVERY["predicted"]].shape[1]))]
    return recovery_maps(panels, [*by_row], columns, "share, or held-out $R^2$")


def _band(records: Sequence[Record], measure: str, key: str) -> Band:
    """Mean per layer with its interval over seeds and images."""
    values = np.stack([record.array(measure, key) for record in records])  # (S, M, L)
    per_layer = [estimated(values[..., layer]) for layer in range(values.shape[-1])]
    return Band(*(np.array([getattr(e, end) for e in per_layer]) for end in ("value", "low", "high")))


def _loss_curves(by_row: Rows) -> Picture:
    kept = {row: records[0].content["training"]["curves"]["loss"] for row, records in by_row.items()}
    return curves(
        {"one seed each": {row: (curve[0], curve[1]) for row, curve in kept.items()}}, "step", "training loss"
    )


_PICTURES: dict[str, Callable[[Rows], Iterator[Picture]]] = {
    "collapse": lambda rows: iter([_loss_curves(rows)]),
    "distance": _distances,
    "similarity": _similar,
    "cka": lambda rows: iter([likeness_by_layer(rows)]),
    "semantic": _semantic,
    "recovery": lambda rows: iter([recovery_by_level(rows)]),
}
"""Measure -> the pictures of the rows that have it."""


def scores(base: Settings, name: str, seeds: Sequence[int] | None = None) -> Table:
    """The scoreboard of a profile in words: claim, verdict, why, and every test with our number."""
    lines = []
    for judged in score(base, name, seeds, make=False):
        claim = judged.claim
        lines.append([claim.name, claim.statement, claim.published, judged.verdict, judged.why, all_described(judged)])
    return Table(["claim", "statement", "published", "verdict", "why", "tests and our values"], lines)


def everything(out: Path, name: str) -> Iterator[tuple[str, Picture | Table]]:
    """What a report shows of a folder's records: the scoreboard, then every table and figure."""
    base = recorded(out, name)
    yield f"Scoreboard, profile {name}", scores(base, name)
    yield from figures(base, name)
