"""What the user sees while notebooks run: a bar that names them and the time left, or plain lines; then ten numbers."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lcmae_core.execute.timing import time_left
from lcmae_core.store.outputs import read_results
from lcmae_core.store.progress import HEARTBEAT, in_words
from lcmae_core.viewer.report.results import chosen_rows


def make_console() -> Console:
    """The terminal, or 120 columns without colours where there is none."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=120)


class Board:
    """Keeps count of what was estimated, what runs and what is done, and shows it.

    estimates: seconds of each notebook, in the order of their start. after: names of those that one waits for.
    """

    def __init__(
        self,
        console: Console,
        estimates: Mapping[str, float],
        parallel: int,
        after: Mapping[str, Sequence[str]] | None = None,
    ):
        self._console, self._estimates, self._parallel = console, dict(estimates), max(1, parallel)
        self._after = after or {}
        self._running: dict[str, float] = {}
        self._last_line = time.monotonic()
        self._done: dict[str, float] = {}
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        total = sum(estimates.values()) or 1.0
        self._task = self._progress.add_task("starting", total=total, count="", left="")

    def __enter__(self) -> "Board":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line above the bar, as it is."""
        self._last_line = time.monotonic()
        self._console.print(escape(text), soft_wrap=True)

    def start(self, name: str) -> None:
        """A notebook has begun."""
        if not self._console.is_terminal and not self._running and not self._done:
            count = len(self._estimates)
            self.say(f"{count} notebook{'s' * (count > 1)}, {self._left()}")
        self._running[name] = time.monotonic()

    def finish(self, name: str, word: str, seconds: float | None = None) -> None:
        """A notebook has ended: ok, incomplete, failed, or up to date."""
        self._running.pop(name, None)
        self._done[name] = 0.0 if seconds is None else seconds
        if word != "ok":  # it was not gone through to its end, and says nothing of how fast this machine is
            self._estimates[name] = self._done[name] = 0.0
        took = "" if seconds is None else f", {in_words(seconds)}"
        more = not self._console.is_terminal and seconds is not None and len(self._done) < len(self._estimates)
        self.say(f"{self._count()} {name}: {word}{took}" + (f"; {self._left()}" if more else ""))

    def tick(self, training: Callable[[], str] = str) -> None:
        """Redraw the bar; where there is none, say once a minute what runs, what `training` says of it, and the time
        left."""
        now = time.monotonic()
        if self._running and not self._console.is_terminal and now - self._last_line >= HEARTBEAT:
            runs = ", ".join(f"{name} for {in_words(now - t)}" for name, t in self._running.items())
            state = "; ".join(part for part in (runs, training(), self._left()) if part)
            self.say(f"{self._count()} running: {state}")
        done = sum(self._estimates[name] for name in self._done)
        done += sum(min(now - t, 0.95 * self._estimates[name]) for name, t in self._running.items())
        self._progress.update(
            self._task,
            description=", ".join(self._running) or "waiting",
            completed=done,
            total=sum(self._estimates.values()) or 1.0,
            count=f"{len(self._done)}/{len(self._estimates)}",
            left=self._left(),
        )

    def _count(self) -> str:
        return f"[{len(self._done)}/{len(self._estimates)}]"

    def _left(self) -> str:
        now = time.monotonic()
        running = {name: now - began for name, began in self._running.items()}
        left = time_left(self._estimates, self._done, running, self._after, self._parallel)
        return f"about {in_words(left)} left"


def training_now(out: Path, within: float = 2 * HEARTBEAT) -> str:
    """The run below a folder that logged last, by its step and images a second; nothing if none did of late."""
    logs = [(path.stat().st_mtime, path) for path in out.glob("*/*/history.jsonl")]
    when, path = max(logs, default=(0.0, out))
    if time.time() - when > within:
        return ""
    try:
        last = json.loads(path.read_text().splitlines()[-1])
        return f"{path.parent.name} at step {last['step']}, {last['images_per_s']:.0f} images/s"
    except (OSError, ValueError, LookupError):  # a line that is just being written
        return ""


def numbers_table(out: Path, numbers: set[str]) -> Table | None:
    """The numbers that matter of what these notebooks recorded, beside the paper's; None if there are none."""
    table = Table(show_header=False, show_edge=False, pad_edge=False, box=None)
    for _ in range(4):
        table.add_column(overflow="fold")
    for number, words, value, paper in chosen_rows([r for r in read_results(out) if r.get("notebook") in numbers]):
        table.add_row(*map(escape, (number, words, value, f"paper: {paper}" if paper else "")))
    return table if table.row_count else None
