"""`lcmae study` up to where anything is done: what can be wrong with its words, before anything heavy is loaded."""

from argparse import Namespace

from lcmae_core.cli.budget import seconds_of
from lcmae_core.cli.parser import slurm_of
from lcmae_core.cli.train import asked_of, settings_from
from lcmae_core.cli.words import chosen_studies
from lcmae_core.config import LcmaeError

MOST = {"seeds": 1000, "jobs": 1024, "array": 10_000}
"""Above these a number is a slip: every seed of every row is a run."""


def main(options: Namespace) -> int:
    """What `lcmae study` does of its options: do studies here, submit them to a cluster, or say where they stand.

    Raises:
        LcmaeError: what is asked for cannot be, or not together.
    """
    for name, most in MOST.items():
        value = getattr(options, name)
        if value is not None and not 1 <= value <= most:
            raise LcmaeError(f"--{name}: got {value}, expected {'at least 1' if value < 1 else f'at most {most}'}")
    slurm = slurm_of(options)
    asked, budget = [name for name in options.names if name != "status"], seconds_of(options.budget)
    chosen_studies(asked)
    common, status = asked_of(options), "status" in options.names
    base, profile = settings_from(common), common.profile
    if not status and options.executor == "local":
        from lcmae_core.store.machine import pick_device  # this loads torch, what follows timm and scikit-learn

        pick_device(base.runtime.device)
    if status and common.out.exists() and not common.out.is_dir():
        raise LcmaeError(f"out: got {str(common.out)!r}, which is no folder, expected that of studies")
    from lcmae_core.cli.study import print_status, run_studies
    from lcmae_core.cli.unread import say_unread
    from lcmae_core.studies.tables import judged_seeds

    say_unread(asked, base, profile, common.own)
    seeds = options.seeds or len(judged_seeds(profile))
    if status:
        return print_status(asked, base, profile, seeds=seeds, data_asked=common.data is not None)
    if options.executor == "slurm":
        from lcmae_core.cli.array import submit_studies

        tasks = options.array or seeds
        return submit_studies(asked, base, profile, seeds=seeds, tasks=tasks, slurm=slurm, words=options.words)
    return run_studies(asked, base, profile, seeds=seeds, budget=budget, workers=options.jobs, words=options.words)
