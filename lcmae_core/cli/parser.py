"""Command lines that say one line when they are wrong: a parser with the nearest valid name instead of its usage, and
the options that several commands have."""

import argparse
import sys
from typing import Any, NoReturn

from lcmae_core.cli.rank import ENDED, first_to_say
from lcmae_core.config.errors import nearest
from lcmae_core.config.names import printable

EXAMPLES = """examples:
  lcmae run                                      every notebook at the quick profile: minutes on two cores
  lcmae run 00 03 -p mask_ratio=0.5              two notebooks, one parameter changed
  lcmae run --profile lab --data parquet:/data/photographs --jobs 2
  lcmae run --executor slurm -s partition=gpu -s gpus_per_node=1 -s timeout_min=240
  lcmae status --watch 5                         where each notebook of a batch stands
  lcmae train --profile quick -p cross_view=1 -p in_view=1
  lcmae train --list                             every setting, its default and what it means
  lcmae study table1 --profile lab --seeds 3 --budget 25m
  lcmae study status --profile lab               what is done and missing, and the time it will take
  lcmae published mae_visualize_vit_base.pth vit_base_patch16_224.dino --data folder:/my/images
  lcmae evaluate outputs/quick/runs/NAME --by probe --data folder:/my/images
  lcmae prepare ILSVRC2012_img_train.tar --to data/imagenet-256 --size 256
  lcmae export outputs/quick/runs/NAME --to timm model.safetensors
  lcmae doctor                                   what this machine has, and what to do about what is missing

A command that was interrupted goes on where it stopped when it is given again."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says one line and the nearest valid name, instead of its usage."""

    def __init__(self, **keywords: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **keywords)

    def error(self, message: str) -> NoReturn:
        """Print the line and exit with 2."""
        if "invalid choice: " in message:
            what, _, rest = message.partition("invalid choice: ")
            given, _, choices = rest.partition(" (choose from ")
            valid = [c.strip(" ')") for c in choices.split(",")]
            what = what.removeprefix("argument ").rstrip(": ")
            message = f"unknown {what} {given}: {nearest(given.strip(chr(39)), valid)}"
        fail(message)

    def option_names(self) -> list[str]:
        """Every long and short option."""
        return list(self._option_string_actions)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line on stderr and exit; of several ranks that do, the first prints it."""
    if first_to_say(ENDED, code):
        print(f"lcmae: error: {printable(' '.join(message.split()))}", file=sys.stderr)
    raise SystemExit(code)


def add_common(parser: Parser, what: str) -> None:
    """-p and the options that every command and notebook knows."""
    parser.add_argument(
        "-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[],
        help=f"change a {what}; as often as needed (0.5, 1e-4, true, null, [1, 2], text)",
    )  # fmt: skip
    parser.add_argument(
        "--profile", metavar="NAME", help="smoke | quick | desk | lab | paper (default $LCMAE_PROFILE or quick)"
    )
    parser.add_argument(
        "--data", metavar="SOURCE",
        help="photos | folder:PATH | parquet:PATH | wds:URL | hf:NAME | torchvision:NAME "
        "(default $LCMAE_DATA or the profile's)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="seed of weights, order, crops and masks")
    add_out(parser)


def add_out(parser: Parser) -> None:
    """The output folder."""
    parser.add_argument("--out", metavar="DIR", help="output folder (default outputs/<profile>)")


def add_cluster(parser: Parser) -> None:
    """Where jobs run, and what the cluster is told of them."""
    parser.add_argument("--executor", choices=("local", "slurm"), default="local", help="where (default local)")
    parser.add_argument(
        "-s", "--slurm", metavar="NAME=VALUE", action="append", default=[],
        help="partition, timeout_min, gpus_per_node ...",
    )  # fmt: skip


def add_published(parser: Parser) -> None:
    """The models, and on how many images they are measured."""
    parser.add_argument(
        "names", nargs="+", metavar="MODEL",
        help="demo, a run's folder, a checkpoint (MAE, DINO, DeiT), owner/name of the hub, a timm ViT; "
        "MAE=, DINO= or supervised= before it says what it is, where its name does not",
    )  # fmt: skip
    add_common(parser, "setting: mask_ratio, norm_pix, heads, decoder_heads, on_unreadable")
    parser.add_argument("--images", type=int, default=256, metavar="N", help="images to measure on (default 256)")


def add_export(parser: Parser) -> None:
    """What is written where, in which layout."""
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT", help="a run's folder, or a checkpoint that lcmae reads")
    parser.add_argument("target", metavar="OUT", help="file (timm, official) or folder (hf) to write")
    parser.add_argument("--to", choices=("timm", "hf", "official"), required=True, help="layout of the weights")


def add_report(parser: Parser) -> None:
    """Of which folder."""
    parser.add_argument("--profile", metavar="NAME", help="whose outputs (default $LCMAE_PROFILE or quick)")
    add_out(parser)


def add_status(parser: Parser) -> None:
    """Of which folder, and how often."""
    parser.add_argument("--profile", metavar="NAME", help="whose outputs (default $LCMAE_PROFILE or quick)")
    add_out(parser)
    parser.add_argument("--watch", type=float, metavar="N", help="again every N seconds, until nothing runs or waits")


def add_ranks(parser: Parser) -> None:
    """By how many processes it is trained."""
    parser.add_argument("--nproc", type=int, metavar="N", help="train by N processes of torchrun on this machine")
    parser.add_argument("--nnodes", type=int, default=1, metavar="N", help="and on N machines, each told the same")
    parser.add_argument("--rendezvous", metavar="HOST:PORT", help="where these machines meet")


def add_evaluate(parser: Parser) -> None:
    """What is judged, how, and by how many processes."""
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT", help="a run's folder, a checkpoint, or: untrained")
    parser.add_argument("--by", choices=("knn", "probe", "finetune"), default="probe", help="how (default probe)")
    recipes = "fine-tuning recipe: v2 (of arXiv 2310.01994v2) | mae | scratch | anchor"
    parser.add_argument("--preset", metavar="NAME", default="v2", help=recipes)
    add_common(parser, "setting of the recipe, the data or the model")
    add_ranks(parser)
    parser.add_argument("--device", metavar="NAME", help="auto | cuda | cuda:1 | mps | cpu")


def add_doctor(parser: Parser) -> None:
    """Where it looks, and whether it tries the GPU."""
    what = "train every method for a few steps on the GPU, compare with the CPU, time, say what to report"
    parser.add_argument("--gpu", action="store_true", help=what)
    add_out(parser)


def slurm_of(options: argparse.Namespace) -> dict[str, object]:
    """The parameters of the cluster's jobs.

    Raises:
        LcmaeError: they are given for jobs of this machine, or are not such as submitit knows.
    """
    from lcmae_core.config import LcmaeError
    from lcmae_core.execute.parameters import parse_assignments

    given = [*(f"--slurm {word}" for word in options.slurm)]
    given += [f"--array {options.array}"] if getattr(options, "array", None) is not None else []
    if given and options.executor != "slurm":
        name, _, value = given[0].partition(" ")
        raise LcmaeError(f"{name}: got {value!r} with --executor local, expected --executor slurm")
    parameters = parse_assignments(options.slurm, "--slurm")
    if options.executor != "slurm":
        return {}
    from lcmae_core.execute.submission import check_parameters

    return check_parameters(parameters)
