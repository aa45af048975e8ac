"""Each table and figure of the paper as a study: its rows, and what is measured of each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lcmae_core.config import Data, Loss, Masking, Settings, replace
from lcmae_core.config.profiles import profile_of
from lcmae_core.studies.latents import SETTINGS, recipe
from lcmae_core.studies.tables import (
    ABLATION,
    RATIOS,
    beside,
    block_pixels,
    controls,
    decoder_depths,
    deep_decoder,
    erasing,
    mask_levels,
    mask_ratios,
    mask_units,
    references,
    short,
    siamese,
    table1,
    table2,
    table3,
    table_a1,
)

__all__ = [
    "ACCURACY", "LEVEL", "RANDOM", "RATIOS", "STUDIES", "Case", "Study", "beside", "block_pixels", "controls",
    "decoder_depths", "deep_decoder", "erasing", "latents", "leaves", "mask_levels", "mask_ratios", "mask_units",
    "references", "siamese", "table1", "table2", "table3", "table_a1",
]  # fmt: skip


class Case(NamedTuple):
    """What a row of a study is made of: a run, or (trained False) what needs no run, such as the untrained encoder of
    these settings. label: what the records of the latter are called."""

    settings: Settings
    trained: bool = True
    label: str = "untrained"


class Study(NamedTuple):
    """title: where in the papers. rows: its runs, by the names used there. measures: what is taken of each. most: a
    limit on the number of seeds."""

    title: str
    rows: Callable[[Settings, str], dict[str, Case]]
    measures: tuple[str, ...]
    most: int | None = None


RANDOM = "random init"
"""Row of an encoder that was never pre-trained."""
ACCURACY = ("finetune", "finetune_scratch", "probe", "knn")
LEVEL = ("fidelity", "probe", "knn", "cues", "corruptions")
"""How high the features of an encoder are: what its reconstructions keep, and what can be read off it."""
UNTRAINED_ONLY = frozenset({"finetune_scratch"})
"""Measures of an encoder that was never pre-trained: fine-tuning by the recipe for training from scratch, beside the
one that all rows share."""

Runs = Callable[[Settings, str], Mapping[Any, Settings]]


def _cases(runs: Runs, *, random: bool = False) -> Callable[[Settings, str], dict[str, Case]]:
    def rows(base: Settings, profile: str) -> dict[str, Case]:
        cases = {str(name): Case(settings) for name, settings in runs(base, profile).items()}
        return (untrained(base, profile) if random else {}) | cases

    return rows


def untrained(base: Settings, profile: str) -> dict[str, Case]:
    """The encoder of a profile before any training: one for every study, whatever their horizons."""
    return {RANDOM: Case(replace(base, ABLATION[profile]), trained=False)}


def _collapsing(base: Settings, profile: str) -> dict[str, Settings]:
    """The rows of Table 1 whose collapse is judged, at the shorter horizon."""
    rows = table1(short(base, profile), profile)
    return {name: rows[name] for name in "cdeg"}


def _compared(base: Settings, profile: str) -> dict[str, Settings]:
    """MAE and DINO at the shorter horizon; where a profile has one, the supervised ViT too."""
    base = short(base, profile)
    others = references(base, profile)
    return {"MAE": base} | ({"DINO": others["DINO"]} if profile_of(profile).short_horizon else others)


def _anchored(base: Settings, profile: str) -> dict[str, Settings]:
    """The rows of Table 3 that are fine-tuned on all labels too, where the profile's recipe has few of them."""
    return {row: settings for row, settings in table3(base, profile).items() if row in ("MAE", "AE1", "AE7")}


def _supervised(base: Settings, profile: str) -> dict[str, Settings]:
    return {"MAE": base, "supervised": references(base, profile)["supervised"]}


def _deep(base: Settings, profile: str) -> dict[str, Settings]:
    return {"MAE": deep_decoder(base, profile)}


TREE = "tree"
"""Data source of what is drawn from a model with known latents: no data of the user's."""


def latents(base: Settings, profile: str) -> dict[str, Case]:
    """The small MAEs of claim C19, one for each way to draw masks. Of `base` only seed and runtime count; their measure
    trains them (on the CPU), because nothing is to be kept of them but numbers."""
    plan, runtime = recipe(profile), base.runtime.model_copy(update={"device": "cpu"})
    rows, cols = plan.hierarchy.grid
    side = plan.hierarchy.patch_size
    data, loss = Data(source=TREE, image_size=(rows * side, cols * side), channels=1), Loss(norm_pix=False)
    settings_of = {}
    for one in SETTINGS:
        masks = Masking(mask_ratio=one.ratio, mask_unit=one.unit)
        what = Settings(seed=base.seed, data=data, model=plan.arch, masking=masks, loss=loss, optim=plan.optim,
                        runtime=runtime)  # fmt: skip
        settings_of[one.title] = Case(what, trained=False, label="latents")
    return settings_of


STUDIES: dict[str, Study] = {
    "section32": Study("section 3.2", _cases(lambda base, _: {"MAE": base}), ("terms", "invariance")),
    "random": Study("random init", untrained, ("probe", "knn")),
    "collapse": Study("Table 1, collapse", _cases(_collapsing), ("collapse",)),
    "fig6": Study("Fig. 6", _cases(lambda base, p: mask_ratios(short(base, p), p)), ("distance", "reach")),
    "fig_a1": Study("Fig. A.1", _cases(table3), ("distance", "receptive", "reach", "probe")),
    "erasing": Study("masking and erasing", _cases(erasing), ("probe", "knn")),
    "fig2": Study("Fig. 2 and C13", _cases(_deep), ("similarity",)),
    "fig5": Study("Fig. 5", _cases(_compared), ("distance",)),
    "fig5_supervised": Study("Fig. 5, supervised", _cases(_supervised), ("distance",)),
    "fig3": Study("Fig. 3", _cases(_deep), ("semantic",)),
    "table3": Study("Table 3", _cases(table3, random=True), ACCURACY),
    "erasing_tuned": Study("masking and erasing, fine-tuned", _cases(erasing), ("finetune",)),
    "table_a1": Study("Table A.1", _cases(table_a1, random=True), ACCURACY),
    "anchor": Study("Table 3, all labels", _cases(_anchored, random=True), ("finetune_anchor",), most=2),
    "table1": Study("Table 1", _cases(table1), ("collapse", *ACCURACY)),
    "table2": Study("Table 2", _cases(table2), ACCURACY),
    "hlv_ratios": Study("HLV, mask ratio", _cases(mask_levels), LEVEL),
    "hlv_units": Study("HLV, mask unit", _cases(mask_units), LEVEL),
    "shape": Study("HLV, shape bias of a supervised ViT", _cases(_supervised), ("cues", "probe")),
    "siamese": Study("v1", _cases(siamese), ("collapse", "cka", "distance", "probe", "knn")),
    "beside": Study("v1, beside it", _cases(beside), ("distance", "probe", "knn")),
    "depth": Study("decoder depth", _cases(decoder_depths), ("probe", "finetune")),
    "controls": Study("controls of Table 1", _cases(controls), ACCURACY),
    "latents": Study("HLV, theory", latents, ("recovery",)),
}
"""Every study, in the order in which their runs are wanted: first what judges most claims for least training."""

_ENCODER = ("collapse", "invariance", "distance", "receptive", "probe", "knn")
_MASKED = ("terms", "fidelity", "cues")
_DECODER = ("similarity", "reach")


def leaves(settings: Settings) -> tuple[str, ...]:
    """Measures that a run is given at once where its profile says so, whatever study asked for it, so that no later
    question needs it to be trained again."""
    attends = settings.model.decoder == "transformer"
    if settings.method == "mae" and not settings.masking.erased:
        return (*_ENCODER, *_MASKED, *(_DECODER if attends else ()))
    more = {"ae": ("reach",), "supervised": ("cues",)}
    return (*_ENCODER, *more.get(settings.method, ()))
