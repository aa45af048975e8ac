"""Records that were never files: for every number that a claim cites one near the published one (side 0), and one that
says the opposite (side 1).

Letters: L layers.
"""

from functools import cache
from pathlib import Path

import numpy as np

from lcmae_core.store.records import Record, packed
from lcmae_core.studies.claims import CLAIMS
from lcmae_core.studies.latents import SETTINGS
from lcmae_core.studies.scoreboard import judged

IMAGES, SEEDS = 8000, (1, 2, 3)
INSIDE = ("0.1", "0.25", "0.5", "0.75", "0.9")
FIG6 = ("0.3", "0.45", "0.6", "0.75", "0.9")
GROWING = [30 + 20 * (float(ratio) - 0.3) * np.array([0.5, 1.0, 2.0, 3.0]) for ratio in FIG6]  # (L,) each


def rows_of(*names):
    return lambda *values: dict(zip(names, values))


_T1, _T3 = rows_of("a", "b", "d", "e", "f", "g"), rows_of("random init", "AE1", "AE3", "AE5", "AE7", "MAE")
PERCENT = {
    ("table1", "finetune"): (_T1(83.0, 82.9, 82.2, 83.1, 82.8, 82.5), _T1(79.0, 82.9, 80.5, 85.0, 79.8, 80.0)),
    ("table2", "finetune"): ({"transformer": 82.9, "average": 82.5, "convolution": 82.9},
                             {"transformer": 82.9, "average": 80.0, "convolution": 80.0}),
    ("table3", "finetune"): (_T3(78.6, 78.7, 81.2, 81.5, 81.8, 82.9), _T3(78.6, 82.0, 81.2, 80.5, 79.0, 82.9)),
    ("table3", "finetune_scratch"): ({"random init": 80.0},) * 2,
    ("table_a1", "finetune"): ({"one image": 81.8, "full": 82.9}, {"one image": 79.0, "full": 82.9}),
    ("erasing_tuned", "finetune"): ({"MAE": 82.9, "erased": 80.0}, {"MAE": 82.9, "erased": 84.0}),
    ("depth", "finetune"): ({"1": 82.0, "2": 82.0, "8": 82.0},) * 2,
    ("random", "probe"): ({"random init": 5.0},) * 2,
    ("fig_a1", "probe"): ({"AE1": 5.7, "AE3": 5.7, "AE5": 5.6, "AE7": 5.6, "MAE": 55.4},
                          {"AE1": 40.0, "AE3": 30.0, "AE5": 50.0, "AE7": 25.0, "MAE": 55.4}),
    ("erasing", "probe"): ({"MAE": 55.0, "erased": 40.0}, {"MAE": 55.0, "erased": 60.0}),
    ("depth", "probe"): ({"1": 50.0, "2": 55.0, "8": 60.0}, {"1": 60.0, "2": 55.0, "8": 50.0}),
    ("siamese", "probe"): ({"Siamese": 30.0}, {"Siamese": 3.0}),
    ("hlv_ratios", "probe"): (dict(zip(INSIDE, (47.45, 53.58, 60.07, 67.41, 62.97))),
                              dict(zip(INSIDE, (62.97, 60.07, 53.58, 47.45, 67.41)))),
    ("hlv_units", "probe"): ({"1x": 62.57, "2x": 68.96, "4x": 73.31}, {"1x": 73.31, "2x": 68.96, "4x": 62.57}),
}  # fmt: skip
"""Study and measure -> right answers in percent, by row."""
BIAS = (dict(zip(INSIDE, (0.135, 0.255, 0.246, 0.256, 0.201))), dict(zip(INSIDE, (0.256, 0.201, 0.135, 0.201, 0.255))))
KEPT = (
    {"ssim": [0.5, 0.6, 0.7, 0.8, 0.6], "fsim": [0.6, 0.7, 0.8, 0.9, 0.7], "psnr": [30, 27, 24, 22, 20],
     "mse": [0.001, 0.002, 0.004, 0.006, 0.01]},
    {"ssim": [0.8, 0.6, 0.5, 0.6, 0.7], "fsim": [0.9, 0.7, 0.6, 0.7, 0.8], "psnr": [20, 22, 24, 27, 30],
     "mse": [0.01, 0.006, 0.004, 0.002, 0.001]},
)  # fmt: skip
FAR = {
    "fig6": (dict(zip(FIG6, GROWING)), dict(zip(FIG6, GROWING[::-1]))),
    "fig5": ({"MAE": [30.0] * 4, "DINO": [40.0] * 4}, {"MAE": [50.0] * 4, "DINO": [40.0] * 4}),
    "fig5_supervised": ({"MAE": [30.0] * 4, "supervised": [42.0] * 4}, {"MAE": [50.0] * 4, "supervised": [42.0] * 4}),
    "fig_a1": ({"MAE": [40.0, 41, 40, 39], "AE1": [12.0, 10, 5, 5], "AE3": [14.0, 12, 8, 8], "AE5": [18.0, 16, 12, 12],
                "AE7": [20.0, 18, 14, 14]},
               {"MAE": [30.0, 28, 8, 6], "AE1": [40.0, 40, 41, 42], "AE3": [36.0, 36, 37, 38],
                "AE5": [33.0, 33, 34, 35], "AE7": [30.0, 30, 31, 32]}),
}  # fmt: skip
MASS = 0.2
"""Share of attention that is query-specific, in every layer."""
DECODER = {
    "s_attn": ([0.9, 0.7, 0.2, 0.3, 0.35, 0.4, 0.4, 0.4], [0.1, 0.2, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6]),
    "near": ([3.0] * 8, [1.0] * 8),
    "s_sim": ([0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6], [0.6, 0.5, 0.45, 0.4, 0.35, 0.3, 0.2, 0.1]),
    "gain": ([0.0, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.3], [0.3, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.0]),
}
COLLAPSE = {
    "same_place": (0.4, 0.99), "found": (0.5, 0.02), "encoder_same_place": (0.5, 0.97), "encoder_found": (0.9, 0.02),
    "mean_cosine": (0.999, 0.5), "chance": (1 / 64, 1 / 64),
}  # fmt: skip
TERMS = {
    "in_view_own_trained": (0.4, 0.9), "in_view_own_untrained": (0.8, 0.5), "cross_view_trained": (0.3, 0.9),
    "cross_view_other_trained": (0.9, 0.8), "cross_view_untrained": (0.003, 0.003),
    "cross_view_other_untrained": (0.004, 0.004), "found": (0.8, 0.2), "found_untrained": (0.5, 0.5),
    "found_colour": (0.4, 0.4), "cka_MAE": ([0.9, 0.8, 0.7, 0.6], [0.9, 0.7, 0.5, 0.4]),
    "cka_DINO": ([0.9, 0.7, 0.5, 0.4], [0.9, 0.8, 0.7, 0.6]),
}  # fmt: skip
LOSS = {"AE1": ((0.3, 0.301), (0.3, 0.9)), "MAE": ((0.5, 0.9), (0.5, 0.9))}
"""Row of Fig. A.1 -> by side: the loss, and the loss of a decoder whose tokens attend to themselves alone."""
NO_LABELS = "the source has no labels"
LEVELS = np.array([0, 1, 1, 2, 2, 2, 2])


class Made(Record):
    """A record that was never a file."""

    content = None


def made(row, seed, measure, values):
    record = Made(Path(f"{row}-s{seed}"))
    vars(record)["content"] = {"settings": {"seed": seed}, "measures": {measure: {"values": values}}}
    return record


def right(percent, images=IMAGES):
    """This share of right answers, the first photographs being the easy ones for every row."""
    return packed(np.arange(images) < round(images * percent / 100))


def answers(bias, either):
    """Shape or texture named for this share of the images, never both, the shape with this bias."""
    shape, texture = round(IMAGES * either * bias), round(IMAGES * either * (1 - bias))
    return {"shape": packed(np.arange(IMAGES) < shape), "texture": packed(np.arange(IMAGES) >= IMAGES - texture)}


def around(mean, seed):
    """Photographs around a mean, easier or harder ones alike for every row."""
    noise = np.random.default_rng(seed).normal(0, 0.01, (16, *([1] * np.ndim(mean))))
    return (np.asarray(mean) * (1 + noise)).tolist()


@cache
def recovery(row, side, seed):
    """Two masks of seven latents, more of them identified the lower the ratio and the unit; what is identified is held,
    and nothing else; the other way round, only what is not identified is held."""
    rng, order = np.random.default_rng(seed), [setting.title for setting in SETTINGS].index(row)
    known = np.stack([np.arange(7) < 6 - order // 2, np.arange(7) < 6 - (order + 1) // 2]).astype(float)
    noise = rng.normal(0, 0.01, known.shape)
    held = 0.9 * known + noise if side == 0 else 0.9 * (1 - known) + noise
    seen = np.stack([np.arange(7) < 5, np.arange(7) < 6]).astype(float)
    found = {"predicted": known, "visible": seen, "trained": held, "untrained": 0.5 + noise, "shuffled": -held}
    chosen = {"kept": known, "dropped": 1 - known}
    products = {f"{q}_{name}": found[q] * one for name, one in chosen.items() for q in ("trained", "untrained")}
    return {name: v.tolist() for name, v in (found | chosen | products | {"levels": LEVELS[None]}).items()}


def number(cell, side, seed):
    """What a cell is, on one of the two sides; of a control that has no side, photographs around .5."""
    study, row, measure, key = cell
    if key == "right":
        return right(PERCENT[study, measure][side][row])
    if key == "classes":
        return 10
    if measure == "cues":
        return (answers(0.5, 0.6) if row == "supervised" else answers(BIAS[side][row], 0.4))[key]
    if measure == "recovery":
        return recovery(row, side, seed)[key]
    if measure == "reach" and key.startswith("loss"):
        return around(LOSS[row][side][key == "loss_self"], seed)
    if key in ("distance", "distance_renormalized", "specific_far", "specific_mass"):
        far = np.array(FAR[study][side][row])
        return around({"specific_far": far * MASS, "specific_mass": far * 0 + MASS}.get(key, far), seed)
    if measure == "fidelity":
        return around(KEPT[side][key][INSIDE.index(row)] if key in KEPT[side] else 0.5, seed)
    known = {"collapse": COLLAPSE}.get(measure, DECODER | TERMS)
    mean = known.get(key, (0.5, 0.5))[side]
    return mean if key == "chance" else around(mean, seed)


def cited(claim):
    """Every cell of a claim: of its tests, their gates, and its controls."""
    return {cell for test in (*claim.tests, *claim.controls) for cell in _cells(test)}


def _cells(test):
    return {*test.cells, *(cell for gate in test.gates for cell in _cells(gate))}


EVERY = {cell for claim in CLAIMS for cell in cited(claim)}


def records(side=0, *, seeds=SEEDS, change=None, only=None, lacking=None, left_out=()):
    """study, measure -> row -> a record a seed. change: cell and seed -> a number in the place of ours, or None. only:
    cells that are there at all. lacking: cells and seeds that are not. left_out: measures that need labels where there
    are none."""

    def found(study, measure):
        rows = {}
        for cell in sorted(cell for cell in EVERY if (cell.study, cell.measure) == (study, measure)):
            if only is None or only(cell):
                rows.setdefault(cell.row, []).append(cell)
        return {row: [one(row, seed, measure, cells) for seed in seeds if not (lacking and lacking(cells[0], seed))]
                for row, cells in rows.items()}  # fmt: skip

    def one(row, seed, measure, cells):
        values = {cell.key: said(cell, seed) for cell in cells}
        return made(row, seed, measure, {"left_out": NO_LABELS} if measure in left_out else values)

    def said(cell, seed):
        other = change(cell, seed) if change else None
        return number(cell, side, seed) if other is None else other

    return cache(found)


def named(name):
    return next(claim for claim in CLAIMS if claim.name == name)


def judge_by(claim, side=0, *, profile="desk", **more):
    """A claim judged by records of one side."""
    return judged(claim, records(side, **more), profile)


def holds(said):
    """Of every test whether it holds, by its text."""
    return {outcome.test.text: outcome.holds for outcome in said.outcomes}
