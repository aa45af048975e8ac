"""A planted sign, axis, index or reduction fault in masks, patches, losses, metrics, the identities of v2 section 3.2,
CKA or the rule of the verdicts turns its tests red."""

import importlib.util
import inspect
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

import tests.analysis.test_cka as cka_suite
import tests.analysis.test_decomposition as decomposition_suite
import tests.analysis.test_metrics as metrics_suite
import tests.models.test_masking as masking_suite
import tests.models.test_patches as patches_suite
import tests.studies.test_judge as judge_suite
import tests.test_losses as losses_suite
from tests.loops import over

PACKAGE = Path(__file__).parents[1] / "lcmae_core"
LOSSES = {
    "sum instead of difference": ("(pred) - at_least_float32", "(pred) + at_least_float32"),
    "mean over values where the equation sums": (".square().sum(dim=-1)  # (B, N)", ".square().mean(dim=-1)  # (B, N)"),
    "absolute instead of squared error": (".square().sum(dim=-1)  # (B, N)", ".abs().sum(dim=-1)  # (B, N)"),
    "visible patches count in Eq. 1": ("error * hidden,", "error,"),
    "values are not counted": ("hidden.sum() * pred.shape[-1]", "hidden.sum()"),
    "sign of the cosine": ("(1 - cos) * both", "(1 + cos) * both"),
    "either view instead of both": ("hidden1 & hidden2", "hidden1 | hidden2"),
    "only the first view's mask": ("hidden1 & hidden2", "hidden1"),
    "no unit length in Eq. 5": ("(unit(v1) * unit(v2))", "(v1 * v2)"),
    "similarity over dimensions": ("units @ units.mT", "units.mT @ units"),
    "diagonal counts": (".masked_fill(i_is_j, 0)", ""),
    "unordered pairs": ("gap.abs().masked_fill(i_is_j, 0)", "gap.abs().triu(1)"),
    "squared instead of absolute gap": ("gap.abs()", "gap.square()"),
    "sum of similarities": ("similarity(unit(v) * m) - similarity", "similarity(unit(v) * m) + similarity"),
    "visible patches count in Eq. 6": ("    m = hidden[:, :, None]", "    m = torch.ones_like(hidden)[:, :, None]"),
    "k^2 pairs": ("(count * (count - 1))", "(count * count)"),
    "sum is not averaged over images": ("terms.sum() / len(terms)", "terms.sum()"),
    "mean over all places": ("terms.sum() / torch.where(divisor > 0, divisor, 1)", "terms.mean()"),
    "no guard without terms": ("torch.where(divisor > 0, divisor, 1)", "divisor"),
    "no guard for zero vectors": ("torch.where(has_direction, square, 1)", "square"),
}  # fmt: skip


METRICS = {
    "distance in patches, not pixels": ("rows.flatten() * height", "rows.flatten()"),
    "the width of a patch is its height": ("cols.flatten() * width", "cols.flatten() * height"),
    "squared distance": ("places[None]).norm(dim=-1)", "places[None]).square().sum(-1)"),
    "the prefix comes last": ("(prefix_tokens, 0, prefix_tokens, 0)", "(0, prefix_tokens, 0, prefix_tokens)"),
    "mean over tokens, not patches": ("), len(distances)\n", "), attn.shape[-1]\n"),
    "renormalised over the prefix too": ("/ maps.sum(-1)).mean(-1), rows", "/ 1.0).mean(-1), rows"),
    "keys and queries swapped": ('"mij,ij->mi", maps, t', '"mji,ij->mi", maps, t'),
    "strictly within": ("<= radius + 1e-9).to(attn)", "< radius).to(attn)"),
    "mass of the first patch": ("rows[..., :prefix_tokens].sum(-1)", "rows[..., 1 : prefix_tokens + 1].sum(-1)"),
    "the prefix is a query": ("attn[..., prefix_tokens:, :] if attn", "attn if attn"),
    "entropy over queries": ("entr(maps).sum(-1).mean(-1), attn", "entr(maps).sum(-2).mean(-1), attn"),
    "marginal over keys": ("given.mean(-2)).sum(-1)", "given.mean(-1)).sum(-1)"),
    "information added": ("of_keys - torch.special", "of_keys + torch.special"),
    "no normalisation by the queries": ("of_keys * math.log(maps.shape[-2])", "of_keys * of_keys"),
    "maps are not of unit length": ('"bl,blf->lf", 1 / norms, flat', '"bl,blf->lf", norms * 0 + 1, flat'),
    "an image is a pair with itself": ("(self._sum.square().sum(-1) - n) /", "self._sum.square().sum(-1) /"),
    "mean over all images": ("/ (n * (n - 1))", "/ (n * n)"),
    "float32 sum": (".to(home, torch.float64)", ".to(home, torch.float32)"),
    "the image is one of the others": (".to(self._sum) - 1)", ".to(self._sum))"),
    "diagonal of W counts": ("    if not diagonal:", "    if diagonal:"),
    "centred over dimensions": ("features.mean(-2, keepdim", "features.mean(-1, keepdim"),
    "similarity over dimensions": ("unit @ unit.mT", "unit.mT @ unit"),
    "no unit length of features": ("F.normalize(features, dim=-1)", "features"),
}  # fmt: skip

MASKING = {
    "rounded, not truncated": ("kept = int(cells * (1 - ratio))", "kept = round(cells * (1 - ratio))"),
    "the ratio is kept": ("kept = int(cells * (1 - ratio))", "kept = int(cells * ratio)"),
    "most noise stays": ("argsort(dim=1, stable=True)  # (B, cells)", "argsort(dim=1, descending=True)  # (B, cells)"),
    "order over images": ("argsort(dim=1, stable=True)  # (B, cells)", "argsort(dim=0)  # (B, cells)"),
    "cells by columns": ("patches.permute(0, 2, 1, 3)", "patches.permute(2, 0, 1, 3)"),
    "columns first within a cell": ("patches.permute(0, 2, 1, 3)", "patches.permute(0, 2, 3, 1)"),
    "rows and columns swapped": ("rows // unit, unit, cols // unit, unit", "cols // unit, unit, rows // unit, unit"),
    "restore does not invert": ("restore = order.argsort(dim=1)", "restore = order"),
    "one visible too many": ("restore >= kept", "restore > kept"),
    "hidden is visible": ("restore >= kept", "restore < kept"),
    "drawn patches stay": ("hidden.long().argsort", "(~hidden).long().argsort"),
    "views alternate": ("torch.cat(parts) for", "torch.stack(parts, 1).flatten(0, 1) for"),
}  # fmt: skip
PATCHES = {
    "channel first": ("permute(0, 2, 4, 3, 5, 1)", "permute(0, 2, 4, 1, 3, 5)"),
    "column by column": ("permute(0, 2, 4, 3, 5, 1)", "permute(0, 4, 2, 3, 5, 1)"),
    "a patch is transposed": ("permute(0, 2, 4, 3, 5, 1)", "permute(0, 2, 4, 5, 3, 1)"),
    "put back transposed": ("permute(0, 5, 1, 3, 2, 4)", "permute(0, 5, 1, 4, 2, 3)"),
    "biased variance in the target": ("share = (values - 1) / values", "share = 1.0"),
    "biased variance in the statistics": ("unbiased=True", "unbiased=False"),
    "mean over patches": ("patches.mean(dim=-1, keepdim=True)", "patches.mean(dim=-2, keepdim=True)"),
    "no epsilon": ("unbiased=True) + EPS)", "unbiased=True))"),
    "epsilon beside the root": ("unbiased=True) + EPS).sqrt()", "unbiased=True)).sqrt() + EPS"),
}  # fmt: skip
DECOMPOSITION = {
    "the error of the first mask": ("pred_a - pred_b, pred_b - target", "pred_a - pred_b, pred_a - target"),
    "sign of the contrast": ("pred_a - pred_b, pred_b", "pred_b - pred_a, pred_b"),
    "targets are added": ("(target - target_j)", "(target + target_j)"),
    "a patch is its own partner": ("pred.gather(1, index), target.gather(1, index)", "pred, target.gather(1, index)"),
    "one inner product": ("2 * (contrast * error)", "(contrast * error)"),
    "mean over values": ("total.square().sum(-1)", "total.square().mean(-1)"),
    "no error": ("error.square().sum(-1)", "0 * error.square().sum(-1)"),
}  # fmt: skip
CKA = {
    "the diagonal counts": (".fill_diagonal_(0)", ""),
    "over dimensions": ("centred @ centred.T", "centred.T @ centred"),
    "one crossed sum": ("- 2 * crossed", "- crossed"),
    "the biased divisor": ("(m * (m - 3))", "(m * m)"),
    "pairs with themselves": ("((m - 1) * (m - 2))", "(m * m)"),
    "no root": ("second.clamp(min=0)).sqrt()", "second.clamp(min=0))"),
    "sign of the jackknife": ("whole - (len(first) - 1)", "whole + (len(first) - 1)"),
    "terms without their mean": ("(without - without.mean())", "without"),
    "an example is taken away once": ("- 2 * own\n", "- own\n"),
    "an example is taken away twice": ("- second @ rows + own", "- second @ rows"),
    "mean over features": ("layer.mean(dim=1)", "layer.mean(dim=2)"),
}  # fmt: skip
JUDGE = {
    "one end is enough": ("test.low < interval.low and interval.high", "test.low < interval.low or interval.high"),
    "the value decides": ("interval.low and interval.high < test", "interval.value and interval.value < test"),
    "one side of a margin is enough": ("holds = False if False in both", "holds = True if True in both"),
    "the better side is shown": ("measured = max(measured, other", "measured = min(measured, other"),
    "an open gate opens": ("if gate.holds is not True", "if gate.holds is False"),
    "what is not defined is judged": ("if np.isnan([measured.value, measured.low, measured.high]).any()", "if False"),
    "a variance scales as a value": ("scale**2 * float(getattr", "scale * float(getattr"),
    "all weights 1": ("reduced = weight * _reduced", "reduced = _reduced"),
    "images of one seed count as everyone's": ("if test.nested and seeds > 1", "if False"),
    "missing numbers hold": ("[None] * missing", "[True] * missing"),
    "one failure is enough for all": ("all(h is False for h in held)", "any(h is False for h in held)"),
    "one success is enough for all": ("    if all(held)", "    if any(held)"),
    "partly without a failure": ("True in held and False in held", "True in held"),
    "one sign is enough": ('"sign right" if all(right)', '"sign right" if any(right)'),
    "the farthest bound": ("float(min(bounds", "float(max(bounds"),
    "beyond what can be": ("(np.clip(end, *test.limits) for end in ends)", "ends"),
    "no pooling": ("if pool is not None and seeds > 1 else parts", "if False else parts"),
}  # fmt: skip


class Planted(NamedTuple):
    """Where faults are planted, and what must notice."""

    source: Path
    suite: ModuleType
    faults: dict[str, tuple[str, str]]

    def names(self) -> list[str]:
        """What the suite imports from the module."""
        module = ".".join(self.source.relative_to(PACKAGE.parent).with_suffix("").parts)
        mine = lambda v: inspect.isroutine(v) or inspect.isclass(v)  # noqa: E731
        return [n for n, v in vars(self.suite).items() if mine(v) and getattr(v, "__module__", "") == module]


GROUND = {
    "losses": Planted(PACKAGE / "losses.py", losses_suite, LOSSES),
    "metrics": Planted(PACKAGE / "analysis" / "metrics.py", metrics_suite, METRICS),
    "masking": Planted(PACKAGE / "models" / "masking.py", masking_suite, MASKING),
    "patches": Planted(PACKAGE / "models" / "patches.py", patches_suite, PATCHES),
    "decomposition": Planted(PACKAGE / "analysis" / "decomposition.py", decomposition_suite, DECOMPOSITION),
    "cka": Planted(PACKAGE / "analysis" / "cka.py", cka_suite, CKA),
    "judge": Planted(PACKAGE / "studies" / "judge" / "rule.py", judge_suite, JUDGE),
}


def mutated(source: Path, old: str, new: str):
    text = source.read_text()
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {source.name}"
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("faulty", loader=None))
    sys.modules["faulty"] = module
    exec(compile(text.replace(old, new), "faulty.py", "exec"), module.__dict__)
    return module


def cases(suite):
    """Every test of the suite with every combination of its parameters; a generator where one is asked for. Those that
    want another fixture are left out."""
    for name, test in vars(suite).items():
        if name.startswith("test_"):
            marks = [mark.args for mark in getattr(test, "pytestmark", [])]
            names = [arg.split(",") if isinstance(arg, str) else list(arg) for arg, _ in marks]
            for values in itertools.product(*(options for _, options in marks)):
                given = {}
                for keys, value in zip(names, values):
                    given |= dict(zip(keys, value if len(keys) > 1 else [value]))
                if "generator" in (wanted := inspect.signature(test).parameters):
                    given["generator"] = torch.Generator().manual_seed(0)
                if set(wanted) <= set(given):
                    yield test, given


def goes_red(suite) -> bool:
    for test, values in cases(suite):
        try:
            test(**values)
        except (AssertionError, ZeroDivisionError, RuntimeError, ValueError, pytest.fail.Exception):
            return True
    return False


@pytest.mark.parametrize(("ground", "fault"), [(g, f) for g, planted in GROUND.items() for f in planted.faults])
def test_planted_fault_turns_the_suite_red(ground, fault, monkeypatch):
    planted = GROUND[ground]
    faulty = mutated(planted.source, *planted.faults[fault])
    assert planted.names()
    for name in planted.names():
        monkeypatch.setattr(planted.suite, name, getattr(faulty, name))
    assert goes_red(planted.suite), f"no test noticed: {fault}"


@over("ground", GROUND)
def test_without_a_fault_the_suite_is_green(ground):
    assert not goes_red(GROUND[ground].suite)
