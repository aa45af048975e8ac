"""`lcmae status`: where each notebook of a batch stands, once or again and again."""

import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from lcmae_core.config import LcmaeError
from lcmae_core.config.resolve import Asked
from lcmae_core.execute.progress import make_console, training_now
from lcmae_core.execute.standing import STATES, NotebookState, rows
from lcmae_core.store.progress import in_words


def status(profile: str | None, folder: str | None, every: float | None) -> int:
    """Print the table; with `every`, so many seconds after the last one again, until nothing runs or waits any more or
    somebody interrupts. What is wrong with a notebook is no error of this command.

    Raises:
        LcmaeError: no time between two tables.
    """
    if every is not None and not every > 0:
        raise LcmaeError(f"--watch: got {every:g}, expected seconds above 0")
    out, console = Asked({"profile": profile, "out": folder}).out, make_console()
    notebooks = rows(out)
    if not notebooks:
        print(f"no batch of notebooks in {out}: lcmae run executes one")
        return 0
    if every is None or not _going(notebooks):
        console.print(_shown(notebooks, out))
        return 0
    try:
        if not console.is_terminal:
            _in_turn(notebooks, out, every, console.print)
            return 0
        with Live(_shown(notebooks, out), console=console, auto_refresh=False) as live:
            _in_turn(notebooks, out, every, partial(live.update, refresh=True))
    except KeyboardInterrupt:  # the ordinary end of looking on
        pass
    return 0


def _in_turn(notebooks: list[NotebookState], out: Path, every: float, show: Callable[[Group], None]) -> None:
    show(_shown(notebooks, out))
    while _going(notebooks):
        time.sleep(every)
        notebooks = rows(out)
        show(_shown(notebooks, out))


def _going(notebooks: list[NotebookState]) -> bool:
    return any(row.state in ("running", "waiting") for row in notebooks)


def _shown(notebooks: list[NotebookState], out: Path) -> Group:
    table = Table(show_edge=False, pad_edge=False)
    for column in ("notebook", "state", "since", "for", "where", ""):
        table.add_column(column, overflow="fold", no_wrap=column in ("notebook", "state", "since", "for"))
    for row in notebooks:
        lasted = "" if row.seconds is None else in_words(row.seconds)
        cells = (row.name, row.state, _moment(row.since), lasted, row.where, row.note[:200])
        table.add_row(*map(escape, cells))
    counts = {state: sum(row.state == state for row in notebooks) for state in STATES}
    lines = [", ".join(f"{count} {state}" for state, count in counts.items() if count)]
    lines += [training_now(out)] if counts["running"] else []
    return Group(table, escape("; ".join(filter(None, lines))))


def _moment(since: float | None) -> str:
    """A time of today, or a date."""
    if since is None:
        return ""
    when = datetime.fromtimestamp(since)
    return f"{when:%H:%M}" if when.date() == datetime.now().date() else f"{when:%Y-%m-%d %H:%M}"
