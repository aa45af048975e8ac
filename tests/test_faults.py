"""A planted sign, axis, index or reduction fault in a loss or a metric turns its tests red."""

import importlib.util
import inspect
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch

import tests.analysis.test_metrics as metrics_suite
import tests.test_losses as losses_suite
from tests.loops import over

PACKAGE = Path(__file__).parents[1] / "lcmae_core"
LOSSES = {
    "sum instead of difference": ("_exact(pred) - _exact(target)", "_exact(pred) + _exact(target)"),
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


class Planted(NamedTuple):
    """Where faults are planted, and what must notice."""

    source: Path
    suite: ModuleType
    faults: dict[str, tuple[str, str]]

    def names(self) -> list[str]:
        """What the suite imports from the module."""
        module = ".".join(self.source.relative_to(PACKAGE.parent).with_suffix("").parts)
        return [n for n, v in vars(self.suite).items() if getattr(v, "__module__", "") == module]


GROUND = {
    "losses": Planted(PACKAGE / "losses.py", losses_suite, LOSSES),
    "metrics": Planted(PACKAGE / "analysis" / "metrics.py", metrics_suite, METRICS),
}


def mutated(source: Path, old: str, new: str):
    text = source.read_text()
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {source.name}"
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("faulty", loader=None))
    sys.modules["faulty"] = module
    exec(compile(text.replace(old, new), "faulty.py", "exec"), module.__dict__)
    return module


def cases(suite):
    """Every test of the suite with every combination of its parameters; a generator where one is asked for."""
    for name, test in vars(suite).items():
        if name.startswith("test_"):
            marks = [mark.args for mark in getattr(test, "pytestmark", [])]
            names = [arg.split(",") if isinstance(arg, str) else list(arg) for arg, _ in marks]
            for values in itertools.product(*(options for _, options in marks)):
                given = {}
                for keys, value in zip(names, values):
                    given |= dict(zip(keys, value if len(keys) > 1 else [value]))
                if "generator" in inspect.signature(test).parameters:
                    given["generator"] = torch.Generator().manual_seed(0)
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
