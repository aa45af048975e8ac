"""Single runs from the command line: settings by name, training, the list of settings, export."""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lcmae_core.config import GROUPS, LEAVES, LcmaeError, Settings, profile, replace
from lcmae_core.config.names import MARKS
from lcmae_core.config.resolve import COMMON, Asked
from lcmae_core.config.unread import refuse_unread
from lcmae_core.execute.parameters import parse_assignments
from lcmae_core.execute.plan import check_writable
from lcmae_core.execute.progress import make_console
from lcmae_core.viewer.report.results import number_text

PATIENCE = 5.0
"""Seconds for a training that is just ending to let go of its run."""
AFFECTS = {"runtime": "runtime (no effect on results)"}


def asked_of(options: Namespace) -> Asked:
    """What a command line asks for by its options and its -p."""
    return Asked({name: getattr(options, name, None) for name in COMMON}, parse_assignments(options.parameters))


def settings_from(asked: Asked, without: Collection[str] = ()) -> Settings:
    """A profile's settings with what was asked for, all checked; parameters named in `without` are no settings.

    Raises:
        LcmaeError: unknown setting or profile, a value out of range, a malformed source, or two values for one thing.
    """
    own = {name: value for name, value in asked.own.items() if name not in without}
    common = {"source": asked.data, "seed": asked.seed, "device": asked.device, "out": str(asked.out)}
    return replace(profile(asked.profile), own | {name: value for name, value in common.items() if value is not None})


def main(options: Namespace) -> int:
    """What `lcmae train` does of its options: list the settings, train, or have torchrun train by several ranks.

    Raises:
        LcmaeError: what is asked for cannot be, or not together.
    """
    asked = asked_of(options)
    if options.resume and options.fresh:
        raise LcmaeError("--fresh: got it with --resume, expected one of the two")
    settings = settings_of_run(options.resume, asked) if options.resume else settings_from(asked)
    refuse_unread(settings, asked.own)
    if options.list:
        return list_settings(settings)
    from lcmae_core.cli.ranks import check_ranks, check_work, launch, say_alone, wanted_of

    if (wanted := wanted_of(options)) is None:
        say_alone(asked.own)
        return train(settings, resume=not options.fresh)
    check_ranks(wanted, settings.optim.batch_size, settings.optim.accum_steps)
    check_work(settings)
    return launch(options.words, wanted)


def differences(before: Settings, after: Settings) -> dict[str, tuple[Any, Any]]:
    """Settings that may affect results, by name, in which two runs differ: one's value, then the other's."""
    changed = {}
    for name, group in LEAVES.items():
        if group == "runtime":
            continue
        values = tuple(getattr(getattr(one, group) if group else one, name) for one in (before, after))
        if values[0] != values[1]:
            changed[name] = values
    return changed


def settings_of_run(folder: str, asked: Asked) -> Settings:
    """The settings of a run that is to go on; of what is asked for beside it only the runtime may differ.

    Raises:
        LcmaeError: no run is there, something that may affect its results is asked to be other than it was, or its
            settings or its data are not those of its name, so that another run would begin.
    """
    from lcmae_core.data.sources import source_identity
    from lcmae_core.store.runs import load_run, run_folder

    for name in ("profile", "out"):
        if asked.given(name):
            raise LcmaeError(f"resume: got --{name} beside it, expected the run's folder alone, which says it")
    run = load_run(folder)
    common = {"source": "data", "seed": "seed", "device": "device"}
    given = {key: getattr(asked, name) for key, name in common.items() if asked.given(name)}
    wanted = replace(run.settings, asked.own | given)
    if changed := differences(run.settings, wanted):
        what = ", ".join(f"{name} {after!r} (the run has {before!r})" for name, (before, after) in changed.items())
        raise LcmaeError(f"resume: got {what}, expected the run's own: leave it out, or train without --resume")
    there = replace(wanted, {"out": str(run.path.parent.parent)})
    named = run_folder(there, source_identity(there.data.source)).name
    if named != run.name or run.path.parent.name != "runs":
        raise LcmaeError(
            f"resume: got {folder!r}, expected {Path('runs') / named!s}, by its settings and data: the folder was "
            "renamed, or settings.json or the data were changed"
        )
    return there


def unfinished_beside(settings: Settings) -> list[str]:
    """A line on each unfinished run of the same kind and seed in the output folder that has other settings: whoever
    meant to go on with it sees why another one begins."""
    from lcmae_core.store.runs import RESULTS, load_run, run_label

    lines = []
    for file in sorted(Path(settings.runtime.out).glob(f"runs/{run_label(settings)}-s{settings.seed}-*/settings.json")):
        if (file.parent / RESULTS).exists() or not any((file.parent / "checkpoints").glob("step-*")):
            continue
        try:
            changed = differences(load_run(file.parent).settings, settings)
        except LcmaeError:  # of another version
            continue
        if changed:
            what = ", ".join(f"{name} {before!r}, now {after!r}" for name, (before, after) in changed.items())
            lines.append(f"another run than the unfinished {file.parent.name}, which has {what}")
    return lines


def list_settings(settings: Settings) -> int:
    """Print every setting: name, the value it would have, what it means, and its group; below, what the marks mean."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for column in ("setting", "value", "meaning", "group"):
        table.add_column(column, overflow="fold")
    for leaf, group in LEAVES.items():
        owner = getattr(settings, group) if group else settings
        fields = GROUPS[group].model_fields if group else type(settings).model_fields
        cells = (leaf, str(getattr(owner, leaf)), fields[leaf].description or "", AFFECTS.get(group, group))
        table.add_row(*(escape(cell) for cell in cells))
    make_console().print(table)
    print(MARKS)
    return 0


def train(settings: Settings, *, resume: bool = True) -> int:
    """Pre-train, then print the final numbers and the run's folder."""
    from lcmae_core.store.machine import pick_device  # this loads torch, what follows timm too

    pick_device(settings.runtime.device)
    check_writable(Path(settings.runtime.out))
    from lcmae_core.data.sources import open_source
    from lcmae_core.training.loop import pretrain

    if not int(os.environ.get("RANK", "0")) and (lines := unfinished_beside(settings)):
        open_source(settings.data)  # whose error, if any, is all that is to be said
        print(*lines, sep="\n", file=sys.stderr)
    # a job of SLURM waits: it may be the successor of one that is writing its last checkpoint
    run = pretrain(settings, resume=resume, patience=-1 if "SLURM_JOB_ID" in os.environ else PATIENCE)
    if int(os.environ.get("RANK", "0")):
        return 0
    for name, value in sorted(run.results.items()):
        if isinstance(value, int | float | str):
            print(f"{name:>24}  {number_text(value)}")
    print(f"run: {run.path}")
    return 0


def export(source: str, target: str, layout: str) -> int:
    """Write a run's or checkpoint's weights for timm, Hugging Face or the public MAE code, and say how to load them.

    Raises:
        LcmaeError: nothing is there, it is no run or checkpoint, or the target cannot be written.
    """
    elsewhere = source.startswith("timm:") or re.fullmatch(r"\w[\w.-]*/[\w.-]+", source)
    if not Path(source).expanduser().exists() and not elsewhere:
        raise LcmaeError(f"export: got {source!r}, which is not there, expected a run's folder or a checkpoint")
    check_writable(Path(target).expanduser().absolute().parent)
    from lcmae_core.models import interop
    from lcmae_core.store.runs import load_run

    model, path = interop.load_mae(source), Path(target).expanduser().absolute()
    if layout == "timm":
        file, name, kwargs = interop.export_timm(model, path)
        arguments = "".join(f", {key}={value!r}" for key, value in kwargs.items())
        print(f"load it with: timm.create_model({name!r}, checkpoint_path={file!r}{arguments})")
    elif layout == "official":
        reader = "facebookresearch/mae" + (" (encoder alone, as for fine-tuning)" if model.decoder is None else "")
        print(f"{reader} reads: {interop.export_official(model, path)}")
    else:
        known: dict[str, Any] = {}
        if (Path(source) / "settings.json").exists():
            settings = load_run(source).settings
            known = {"mask_ratio": settings.masking.mask_ratio, "norm_pix": settings.loss.norm_pix}
        folder = str(interop.export_hf(model, path, **known))
        kind = "ViTMAEModel" if model.decoder is None else "ViTMAEForPreTraining"
        print(f"load it with: transformers.{kind}.from_pretrained({folder!r})")
    return 0
