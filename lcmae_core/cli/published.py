"""`lcmae published`: published checkpoints and own runs measured as they are, and the claims that they can be asked."""

import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lcmae_core.cli.train import asked_of, settings_from
from lcmae_core.config import LcmaeError, nearest, replace
from lcmae_core.config.resolve import Asked
from lcmae_core.execute.progress import in_words, make_console
from lcmae_core.models.named import ON_THE_HUB, Named, at_hand, named, refuse_unknown

READS = ("mask_ratio", "norm_pix", "heads", "decoder_heads", "on_unreadable")
"""What -p may say: of masks, of what a decoder predicts, heads that a file does not say, and unreadable images."""
LEAST = 2
"""Images that S_attn, a mean over pairs, needs."""


def published(options: Namespace) -> int:
    """Look for every model, say what will be done and how long it takes, do what is missing, show the verdicts.

    Raises:
        LcmaeError: a model, setting or source that cannot be used.
    """
    asked = asked_of(options)
    for name in asked.own:
        if name not in READS:
            raise LcmaeError(f"-p {name}: got it for lcmae published, which does not read it, {nearest(name, READS)}")
    if asked.device not in (None, "auto", "cpu"):
        raise LcmaeError(f"-p device: got {asked.device!r} for lcmae published, expected 'cpu', where it always runs")
    if options.images < LEAST:
        raise LcmaeError(f"--images: got {options.images}, expected at least {LEAST}")
    base = replace(settings_from(asked, without={"heads", "decoder_heads"}), {"device": "cpu"})
    models = [_early(model) for model in _named(options.names)]
    return _measure(models, base, asked, options.images)


def _named(words: Sequence[str]) -> list[Named]:
    models = [named(word) for word in words]
    twice = [name for name, count in Counter(model.name for model in models).items() if count > 1]
    if twice:
        raise LcmaeError(f"model: got {twice[0]!r} twice, expected models of different names")
    return models


def _early(model: Named) -> Named:
    """A model of the hub is asked for before torch is loaded, where its repository is known without timm."""
    known = model.kind == "hub" or model.given.partition("@")[0] in ON_THE_HUB
    return at_hand(model) if known else model


def _measure(models: Sequence[Named], base: Any, asked: Asked, count: int) -> int:
    from lcmae_core.execute.plan import check_writable
    from lcmae_core.store.stopping import stop_requests
    from lcmae_core.studies.checkpoints import pictures
    from lcmae_core.studies.checkpoints.lane import Lane, plan
    from lcmae_core.studies.checkpoints.opened import opened

    for model in models:
        refuse_unknown(model)
    checkpoints = [opened(at_hand(model), base, asked.own) for model in models]
    images = pictures.count(base, count)
    check_writable(asked.out)
    lane = Lane(checkpoints, images, asked.out, asked.profile)
    _say_what_is_there(lane, count)
    with stop_requests() as stop:
        plans = [plan(lane, checkpoint) for checkpoint in checkpoints if not stop.is_set()]
        _say_what_is_left_out(lane)
        _work(lane, plans, stop)
    show(lane)
    return 0


def _say_what_is_there(lane: Any, asked: int) -> None:
    images = lane.images
    few = f", fewer than the {asked} asked for" if images.total < asked else ""
    parts = f"{images.held_out} held out" + (f", {images.training} of its training split" if images.training else "")
    source = lane.checkpoints[0].settings.data.source
    _say(f"{images.total} images of {source} ({parts}){few}; inference only, on the CPU")
    for checkpoint in lane.checkpoints:
        _say(f"  {checkpoint}")


def _say_what_is_left_out(lane: Any) -> None:
    from lcmae_core.studies.checkpoints.work import EVERY

    for checkpoint in lane.checkpoints:
        reasons: dict[str, list[str]] = {}
        for measure in EVERY:
            if reason := lane.left_out(checkpoint, measure):
                reasons.setdefault(reason, []).append(measure)
        for reason, left in reasons.items():
            _say(f"left out of {checkpoint.name}: {', '.join(left)} ({reason})")
        if checkpoint.role == "other":
            _say(f"{checkpoint.name} takes part in no claim: say MAE=, DINO= or supervised={checkpoint.named.given}")


def _work(lane: Any, plans: Sequence[Any], stop: Any) -> None:
    from lcmae_core.store.progress import progress_bar
    from lcmae_core.studies.checkpoints.lane import carry_out
    from lcmae_core.studies.checkpoints.meter import Meter

    for plan in plans:
        if not plan.work:
            _say(f"{plan.checkpoint.name}: already measured with these settings")
    todo = [plan for plan in plans if plan.work]
    seconds, passes = sum(plan.seconds for plan in todo), sum(plan.passes for plan in todo)
    if not todo:
        return
    each = ", ".join(f"{plan.checkpoint.name} {in_words(plan.seconds)}" for plan in todo)
    _say(f"about {in_words(seconds)}: {passes} passes of an image forward or backward, timed on a batch ({each})")
    watched, left, began = sys.stderr.isatty(), seconds, time.monotonic()
    with progress_bar("measuring", passes, "pass", wanted=watched, leave=True) as bar:
        meter = Meter(bar, passes / seconds)
        for plan in todo:
            bar.set_postfix_str(plan.checkpoint.name)
            started, done = time.monotonic(), 0
            for measure, took in carry_out(lane, plan, meter, stop):
                done += 1
                left -= plan.work[measure].seconds
                if not watched:
                    gone = time.monotonic() - began
                    rest = left * gone / max(seconds - left, 1e-9)
                    _say(f"{plan.checkpoint.name}: {measure}, {took:.1f} s; about {in_words(max(0.0, rest))} left")
            if not done:
                _say(f"{plan.checkpoint.name}: another process is measuring it")
            elif not watched:
                _say(f"{plan.checkpoint.name}: done, {time.monotonic() - started:.1f} s")


def show(lane: Any) -> None:
    """Print the numbers of these checkpoints, the claims of every MAE among them, and where all of it is."""
    from functools import partial
    from pathlib import Path

    from lcmae_core.store.files import write_atomic
    from lcmae_core.studies.checkpoints.numbers import table
    from lcmae_core.studies.checkpoints.verdicts import COLUMNS, judge, lines_of
    from lcmae_core.studies.readers import as_csv

    records = [lane.record(checkpoint) for checkpoint in lane.checkpoints]
    _print("numbers [95 % interval over images]", *table(records))
    verdicts = judge(records)
    for judged in verdicts:
        beside = f" beside {' and '.join(judged.beside)}" if judged.beside else ""
        _print(f"{judged.name}{beside}", COLUMNS, lines_of(judged))
    if not verdicts:
        _say("no claim is judged: there is no MAE among the models")
    _say("not judged here, because they are about training: every claim but C1, C2, C7, C13, C14 and C20")
    path = lane.out / "published.csv"
    text = as_csv({judged.name: judged.verdicts for judged in verdicts})
    write_atomic(path, partial(Path.write_text, data=text, encoding="utf-8"))
    _say(f"every test with its number: {path}")
    for record in records:
        _say(f"record: {record.path}")


def _print(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=escape(title), title_justify="left", show_edge=False, pad_edge=False)
    for column in header:
        shown.add_column(escape(column), overflow="fold")
    for line in lines:
        shown.add_row(*map(escape, line))
    make_console().print(shown)


def _say(line: str) -> None:
    print(line, flush=True)
