"""Ratios against recorded ratios: times belong to a machine, ratios to a kind of processor.

Who is the quicker of two implementations hangs on which library multiplies best there, so every kind has a record.
"""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lcmae_core.bench.cases import Shape
from lcmae_core.bench.ratios import PAIRS
from lcmae_core.config import LcmaeError
from lcmae_core.store.cores import processor

LEAST = 0.9
"""Share of the recorded ratio below which one has fallen."""


class Comparison(NamedTuple):
    """A line for every ratio that holds or is left out, and one for every ratio that fell."""

    lines: list[str]
    fallen: list[str]


def kind_of_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Maker, family and widest vectors, such as 'amd-19h-avx512' (Zen 4), 'amd-1ah-avx512' (Zen 5)."""
    known = processor(cpuinfo)
    middle = f"-{known.family:02x}h" if known.family else ""
    return f"{known.maker or platform.machine() or 'unknown'}{middle}-{torch.backends.cpu.get_cpu_capability().lower()}"


def record_of(folder: Path, kind: str) -> Path:
    """Where the ratios of a kind of processor lie."""
    return folder / f"peers-{kind}.json"


def recorded(folder: Path, kind: str) -> dict[str, Any] | None:
    """The record of a kind of processor, None if there is none.

    Raises:
        LcmaeError: it cannot be read.
    """
    path = record_of(folder, kind)
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record if record["cases"] else None
    except (ValueError, KeyError, TypeError):
        raise LcmaeError(f"bench: check: {path} is no record, expected one that --record wrote") from None


def models_to_check(committed: Mapping[str, Any], shape: Shape) -> tuple[str, ...]:
    """Who takes part: those of the record, without compilation, which takes longer than all the rest.

    Raises:
        LcmaeError: the record does not have the case, or has it in another shape.
    """
    case = committed["cases"].get(shape.case)
    if case is None:
        raise LcmaeError(f"bench: check: got case {shape.case!r}, expected one that is recorded: "
                         f"{', '.join(committed['cases'])}")  # fmt: skip
    for name, got in (("batch", shape.batch), ("image_size", shape.image_size)):
        if case[name] != got:
            raise LcmaeError(f"bench: check: {name}: got {got}, expected {case[name]} as recorded")
    if committed["quick"] != shape.quick:
        raise LcmaeError("bench: check: got tiny models on one side alone, expected --quick in both or in neither")
    return tuple(name for name in case["models"] if not name.endswith("-compiled"))


def judge(measured: Mapping[str, Any], committed: Mapping[str, Any]) -> Comparison:
    """Every ratio of the record against what was found now."""
    comparison = Comparison([], [])
    for case, now in measured["cases"].items():
        before = committed["cases"][case]
        for name in (pair.name for pair in PAIRS[case] if pair.name in before["ratios"]):
            expected = before["ratios"][name]["speed"]
            got = now["ratios"].get(name)
            if got is None:
                away = [f"{model} {why}" for model, why in now["left_out"].items() if model in name.split("/")]
                comparison.lines.append(f"bench-check: {case}: {name}: left out: {'; '.join(away) or 'compiled'}")
                continue
            line = (f"bench-check: {case}: {name}: got {got['speed']:.3f} [{got['low']:.3f}, {got['high']:.3f}], "
                    f"expected at least {LEAST * expected:.3f}, {LEAST} of the recorded {expected:.3f}")  # fmt: skip
            (comparison.fallen if got["speed"] < LEAST * expected else comparison.lines).append(line)
    return comparison
