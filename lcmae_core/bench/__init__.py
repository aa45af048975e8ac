"""The training step against other people's, and LC-MAE against MAE, in one run on one machine.

Steps (forward, backward, fused AdamW) of all models alternate, so that whatever else the machine does meets all alike.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from lcmae_core.bench.cases import CASES, GPU_BATCH, MODELS, QUICK, Shape
from lcmae_core.bench.company import Company
from lcmae_core.bench.table import render
from lcmae_core.config import LcmaeError, nearest
from lcmae_core.config.resolve import check_device

RESULTS = "benchmarks/results"


class Options(NamedTuple):
    """A checked command line: what is measured of whom, how often, and where it is written or compared."""

    shapes: tuple[Shape, ...]
    models: tuple[str, ...] | None
    rounds: int
    json: Path | None
    record: Path | None
    check: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """`lcmae bench`: print the table, and write it as JSON if asked. 0, 1 where a ratio fell, or 2 with one line for
    wrong options."""
    try:
        options = parse(argv)
        return compare_with_record(options) if options.check else compare(options)
    except LcmaeError as error:
        print(f"lcmae: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"lcmae: error: bench: json: {error.filename!r} cannot be written ({error.strerror})", file=sys.stderr)
        return 2


def compare(options: Options) -> int:
    """Measure, print and write."""
    result = everything(options)
    print(render(result))
    text = json.dumps(result, indent=1) + "\n"
    if options.json:
        options.json.write_text(text, encoding="utf-8")
    if options.record:
        from lcmae_core.bench.check import record_of

        record_of(options.record, result["processor"]).write_text(text, encoding="utf-8")
    return 0


def compare_with_record(options: Options) -> int:
    """Measure again what is recorded for this kind of processor, and compare ratios with ratios."""
    from lcmae_core.bench.check import judge, kind_of_processor, models_to_check, recorded

    assert options.check is not None
    kind = kind_of_processor()
    committed = recorded(options.check, kind)
    if committed is None:
        print(f"bench-check: nothing is recorded for a processor of kind {kind}, so nothing was compared; "
              "`lcmae bench --record benchmarks/results` records it")  # fmt: skip
        return 0
    wanted = {shape.case: models_to_check(committed, shape) for shape in options.shapes}
    result = everything(options, wanted)
    comparison = judge(result, committed)
    for line in comparison.lines:
        print(line)
    for line in comparison.fallen:
        print(line, file=sys.stderr)
    return 1 if comparison.fallen else 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        what, _, words = message.partition("unrecognized arguments: ")
        if not what and words.startswith("-"):
            name = words.split()[0].partition("=")[0]
            message = f"unknown option {name!r}: {nearest(name, self._option_string_actions)}"
        raise LcmaeError(f"bench: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lcmae bench", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--cases", metavar="A,B", help=f"of {', '.join(CASES)} (default both; vit-b on a GPU)")
    parser.add_argument("--batch", type=int, metavar="B", help="images a step (default 8, desk 32; 256 on CUDA)")
    parser.add_argument("--steps", type=int, metavar="N", help="rounds, in each a step of every model (default 15)")
    parser.add_argument("--image-size", type=int, metavar="PX", help="side of the images (default 224, desk 64)")
    parser.add_argument("--device", default="auto", help="auto | cuda | mps | cpu")
    parser.add_argument("--models", metavar="A,B", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers to this file")
    parser.add_argument("--record", metavar="DIR", help="also write them as the record of this kind of processor")
    parser.add_argument("--check", nargs="?", const=RESULTS, metavar="DIR",
                        help="measure the desk model; fail where a ratio is below 0.9 of the recorded one")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="tiny models, a few seconds: a smoke test, no measurement")
    return parser


def parse(argv: Sequence[str] | None) -> Options:
    """Options of a command line.

    Raises:
        LcmaeError: an unknown option, case, model or device, or a number out of its range.
    """
    options = _parser().parse_args(argv)
    asked = None if options.cases is None else _names(options.cases, CASES, "case")
    models = None if options.models is None else _names(options.models, MODELS, "model")
    rounds = (2 if options.quick else 15) if options.steps is None else options.steps
    for name, value in (("batch", options.batch), ("steps", rounds), ("image-size", options.image_size)):
        if value is not None and value < 1:
            raise LcmaeError(f"bench: {name}: got {value}, expected at least 1")
    if options.json and not options.json.parent.is_dir():
        raise LcmaeError(f"bench: json: got {str(options.json)!r}, expected a file in a folder that exists")
    check_device(options.device)
    from lcmae_core.store.machine import pick_device  # this loads torch, what follows timm too

    device = pick_device(options.device)
    usual = ("desk",) if options.check else ("vit-b",) if device.type == "cuda" else tuple(CASES)
    from lcmae_core.bench.contestants import settings_of

    cases = asked or usual
    shapes = tuple(_shape(case, options, device) for case in cases)
    for shape in shapes:
        settings_of("mae", shape)  # refuses sizes that no model can have
    folders = [None if name is None else _folder(option, name)
               for option, name in (("record", options.record), ("check", options.check))]  # fmt: skip
    return Options(shapes, models, rounds, options.json, *folders)


def _names(text: str, known: dict[str, Any], what: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in known:
            raise LcmaeError(f"bench: unknown {what} {name!r}: {nearest(name, known)}")
    return names


def _folder(option: str, name: str) -> Path:
    from lcmae_core.store.machine import absolute_folder

    folder = absolute_folder(name)
    if not folder.is_dir():
        raise LcmaeError(f"bench: {option}: got {name!r}, expected a folder that exists")
    return folder


def _shape(name: str, options: argparse.Namespace, device: Any) -> Shape:
    case = CASES[name]
    batch = options.batch or (2 if options.quick else GPU_BATCH if device.type == "cuda" else case.batch)
    size = options.image_size or (QUICK["image_size"] if options.quick else case.image_size)
    return Shape(batch, size, options.quick, device, name)


def everything(options: Options, models: dict[str, tuple[str, ...]] | None = None) -> dict[str, Any]:
    """All cases as plain data, with device, versions, commit, and the machine's load before and after."""
    from lcmae_core.bench.check import kind_of_processor
    from lcmae_core.bench.measuring import measure, package_versions
    from lcmae_core.store.machine import provenance

    company, device = Company(), options.shapes[0].device
    cases = {
        shape.case: measure(shape, (models or {}).get(shape.case) or options.models or CASES[shape.case].models,
                            options.rounds, lambda line: print(line, file=sys.stderr, flush=True))
        for shape in options.shapes
    }  # fmt: skip
    about: dict[str, Any] = provenance(device)
    about["versions"] = about["versions"] | package_versions()
    return about | {
        "device_type": device.type, "processor": kind_of_processor(), "quick": options.shapes[0].quick,
        "cases": cases,
    } | company.record()  # fmt: skip
