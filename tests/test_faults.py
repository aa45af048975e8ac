"""A planted sign, axis, index or reduction fault in a loss turns the tests of test_losses.py red."""

import importlib.util
import inspect
import itertools
import sys
from pathlib import Path

import pytest

import tests.test_losses as suite

SOURCE = Path(__file__).parents[1] / "lcmae_core" / "losses.py"
FAULTS = {
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
    "mean over all places": ("terms.sum() / count.clamp(min=1)", "terms.mean()"),
    "no guard without terms": ("count.clamp(min=1)", "count"),
    "no guard for zero vectors": ("torch.where(has_direction, square, 1)", "square"),
}  # fmt: skip


def mutated(old: str, new: str):
    text = SOURCE.read_text()
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in losses.py"
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("faulty_losses", loader=None))
    sys.modules["faulty_losses"] = module
    exec(compile(text.replace(old, new), "faulty_losses.py", "exec"), module.__dict__)
    return module


def cases():
    """Every test of the suite with every combination of its parameters."""
    for name, test in vars(suite).items():
        if name.startswith("test_"):
            marks = [mark.args for mark in getattr(test, "pytestmark", [])]
            names = [part for arg, _ in marks for part in arg.split(",")]
            for values in itertools.product(*(options for _, options in marks)):
                yield test, dict(zip(names, values))


def goes_red() -> bool:
    for test, values in cases():
        try:
            test(**values)
        except (AssertionError, ZeroDivisionError, RuntimeError, pytest.fail.Exception):
            return True
    return False


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_turns_the_suite_red(fault, monkeypatch):
    faulty = mutated(*FAULTS[fault])
    for name in ("reconstruction_loss", "cross_view_loss", "in_view_loss"):
        assert inspect.isfunction(getattr(suite, name))
        monkeypatch.setattr(suite, name, getattr(faulty, name))
    assert goes_red(), f"no test noticed: {fault}"


def test_without_a_fault_the_suite_is_green():
    assert not goes_red()
