"""The `lcmae` command: parses, then imports what the command needs; --help imports neither torch nor Jupyter.

Exit codes: 0 done, 1 work failed, 2 the user's error (one line); stopped by a signal, with what there was kept: 130
(SIGINT), 143 (SIGTERM), 75 (SIGUSR2)."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from lcmae_core.cli.parser import (
    EXAMPLES,
    Parser,
    add_cluster,
    add_common,
    add_doctor,
    add_evaluate,
    add_export,
    add_published,
    add_ranks,
    add_report,
    add_status,
    fail,
    slurm_of,
)  # fmt: skip
from lcmae_core.cli.prepare import add_prepare, prepare
from lcmae_core.cli.rank import STOPPED, as_rank, first_to_say
from lcmae_core.config.errors import nearest
from lcmae_core.store.leaving import left_after
from lcmae_core.store.stopping import Stopped


def build_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser and its sub-parsers by command."""
    parser = Parser(
        prog="lcmae",
        description="Masked autoencoders from a local contrastive perspective: notebooks, training, reports.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="command", title="commands")
    made: dict[str, Parser] = {}
    for name, (add, _, text) in COMMANDS.items():
        made[name] = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add(made[name])
    return parser, made


def _add_run(parser: Parser) -> None:
    parser.add_argument("names", nargs="*", metavar="NOTEBOOK", help="00, 03_lcmae, ...; none means all")
    add_common(parser, "notebook parameter")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="notebooks at once on this machine (default 1)"
    )
    add_cluster(parser)
    parser.add_argument("--timeout", metavar="TIME", help="end a notebook that takes longer: 90s, 25m, 1.5h")
    parser.add_argument("--force", action="store_true", help="execute even what is up to date")
    parser.add_argument("--store", action="store_true", help="write the executed notebooks back where they came from")
    parser.add_argument("--notebooks", metavar="DIR", help="folder of the notebooks (default: the collection)")


def _run(options: argparse.Namespace) -> int:
    from lcmae_core.cli.budget import seconds_of
    from lcmae_core.config import LcmaeError
    from lcmae_core.execute import Request, make_plan, run_notebooks
    from lcmae_core.execute.parameters import parse_assignments

    if options.jobs < 1:
        raise LcmaeError(f"--jobs: got {options.jobs}, expected at least 1")
    slurm, timeout = slurm_of(options), seconds_of(options.timeout, "--timeout")
    plan = make_plan(
        Request(
            names=tuple(options.names),
            parameters=parse_assignments(options.parameters),
            profile=options.profile,
            data=options.data,
            seed=options.seed,
            out=options.out,
            notebooks=options.notebooks,
        )
    )
    return run_notebooks(
        plan,
        jobs=options.jobs,
        executor=options.executor,
        slurm=slurm,
        force=options.force,
        store=options.store,
        timeout=timeout,
    )


def _add_train(parser: Parser) -> None:
    add_common(parser, "setting")
    parser.add_argument("--device", metavar="NAME", help="auto | cuda | cuda:1 | mps | cpu")
    parser.add_argument("--fresh", action="store_true", help="train again from the start, not from the last checkpoint")
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, by its own settings")
    add_ranks(parser)
    parser.add_argument("--list", action="store_true", help="show every setting and stop")


def _train(options: argparse.Namespace) -> int:
    from lcmae_core.cli.train import main as train

    return train(options)


def _add_study(parser: Parser) -> None:
    parser.add_argument("names", nargs="*", metavar="STUDY", help="table1, fig6, ... or status; none means all")
    add_common(parser, "setting")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds of every run (default: those of the profile)")
    parser.add_argument("--budget", metavar="TIME", help="stop cleanly after 90s, 25m, 1.5h")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that share the work (default 1)")
    parser.add_argument("--array", type=int, metavar="N", help="tasks of one array job that share it (default: seeds)")
    add_cluster(parser)
    parser.add_argument("--device", metavar="NAME", help="auto | cuda | cuda:1 | mps | cpu")


def _study(options: argparse.Namespace) -> int:
    from lcmae_core.cli.asked_studies import main as study

    return study(options)


def _published(options: argparse.Namespace) -> int:
    from lcmae_core.cli.published import published

    return published(options)


def _evaluate(options: argparse.Namespace) -> int:
    from lcmae_core.cli.evaluate import main as evaluate

    return evaluate(options)


def _export(options: argparse.Namespace) -> int:
    from lcmae_core.cli.train import export

    return export(options.source, options.target, options.to)


def _doctor(options: argparse.Namespace) -> int:
    from lcmae_core.cli.doctor import main as doctor

    return doctor(options.out, options.gpu)


def _report(options: argparse.Namespace) -> int:
    from lcmae_core.cli.report import report

    return report(options.profile, options.out)


def _status(options: argparse.Namespace) -> int:
    from lcmae_core.cli.status import status

    return status(options.profile, options.out, options.watch)


def _add_bench(parser: Parser) -> None:
    known = "--cases, --models, --batch, --steps, --image-size, --device, --json, --record, --check, --quick"
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help=known)


def _bench(options: argparse.Namespace) -> int:
    from importlib import import_module

    from lcmae_core.config import LcmaeError

    try:
        module = import_module("lcmae_core.bench")
    except ModuleNotFoundError as error:
        raise LcmaeError(f"bench: {error.name} is not installed, expected a version with the benchmark") from None
    return int(module.main(options.rest) or 0)


def _add_notebooks(parser: Parser) -> None:
    parser.add_argument("folder", metavar="DIR", help="new folder, or one that has them unchanged")


def _notebooks(options: argparse.Namespace) -> int:
    from lcmae_core.execute.discover import copy_notebooks

    copies = copy_notebooks(options.folder)
    first, last = copies[0].name, copies[-1].name
    print(f"{len(copies)} notebooks written to {copies[0].parent.absolute()}: {first} to {last}")
    print(f"execute them with: lcmae run --notebooks {options.folder}")
    return 0


Command = tuple[Callable[[Parser], None], Callable[[argparse.Namespace], int], str]
COMMANDS: dict[str, Command] = {
    "run": (_add_run, _run, "execute notebooks headless and build the report"),
    "status": (add_status, _status, "say where each notebook of a batch stands"),
    "train": (_add_train, _train, "pre-train one model, or resume it"),
    "study": (_add_study, _study, "do the runs of the paper's tables and figures, or say where they stand"),
    "published": (add_published, _published, "measure published checkpoints or runs as they are, and judge claims"),
    "evaluate": (add_evaluate, _evaluate, "judge an encoder by kNN, a linear probe or fine-tuning"),
    "prepare": (add_prepare, prepare, "turn an image folder or tar into resized shards, once"),
    "export": (add_export, _export, "write a run's or checkpoint's weights for timm, Hugging Face or the MAE code"),
    "report": (add_report, _report, "rebuild the HTML report of an output folder"),
    "notebooks": (_add_notebooks, _notebooks, "copy the notebooks into a folder of yours"),
    "bench": (_add_bench, _bench, "time training steps against other implementations, or check recorded ratios"),
    "doctor": (add_doctor, _doctor, "say what this machine has and what to do about what is missing"),
}
"""Command -> its options, what it does, and its line of help."""


MANY = ("run", "study", "published")
"""Commands whose names may stand between options."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Options of a command line; names of notebooks, studies and models may stand between options."""
    parser, commands = build_parser()
    options, extra = parser.parse_known_args(argv)
    options.words = list(argv)
    if options.command == "bench":  # its own parser reads the rest, options included
        options.rest, extra = [*extra, *options.rest], []
    if options.version:
        from lcmae_core import __version__

        print(f"lcmae {__version__}")
        raise SystemExit(0)
    if options.command is None and not extra:
        parser.print_help()
        raise SystemExit(2)
    wrong = [word for word in extra if word.startswith("-") or options.command not in MANY]
    if wrong:
        known = commands[options.command].option_names() if options.command else parser.option_names()
        name = wrong[0].partition("=")[0]
        if name.startswith("-"):
            fail(f"unknown option {name!r} of lcmae {options.command or ''}".rstrip() + f": {nearest(name, known)}")
        fail(f"unexpected {name!r} after lcmae {options.command}: see lcmae {options.command} --help")
    if extra:
        options.names = [*options.names, *extra]
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        return COMMANDS[options.command][1](options)
    except Stopped as asked:
        if first_to_say(STOPPED, asked.exit_code):
            print(f"lcmae: {asked}", file=sys.stderr)
        return asked.exit_code
    except KeyboardInterrupt:
        print("lcmae: interrupted; the same command resumes where it stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ValueError as error:
        from lcmae_core.config import LcmaeError

        if not isinstance(error, LcmaeError):
            raise
        fail(str(error), getattr(error, "exit_code", 2))
    except OSError as error:
        fail(str(error), 1)
    except (MemoryError, RuntimeError) as error:
        if not re.search(r"allocate memory|out of memory|^$", str(error)):
            raise
        fail(f"memory: {str(error)[:200] or 'no more'}; expected a smaller batch_size, width or image_size", 1)


def command() -> NoReturn:
    """`lcmae` as a process of its own."""
    left_after(lambda: as_rank(main))
