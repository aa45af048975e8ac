"""`lcmae doctor --gpu`: the first thing to type on a GPU. One table within three minutes, and what to report of it."""

import shutil
from collections.abc import Sequence
from typing import Any

from lcmae_core.bench.checkup import BUDGET, Checkup, MethodRow, bench_of, check
from lcmae_core.store.machine import pick_device, provenance

NO_GPU = (
    "no GPU: torch finds neither CUDA nor MPS; what follows is the CPU against itself, with tiny models: it tries the "
    "checks and says nothing of a GPU"
)
OLD_DRIVER = "; nvidia-smi is there: the driver is older than torch's CUDA, or torch is a CPU build"
COLUMNS = ("method", "fp32 to CPU", "bf16 to fp32", "compiled to eager", "graphs", "waits", "ms/step", "images/s",
           "of floor", "what to report")  # fmt: skip


def main() -> int:
    """Check, print the table; 1 if there is something to report, else 0."""
    from lcmae_core.execute.progress import make_console

    device, console = pick_device(), make_console()
    if device.type == "cpu":
        console.print(NO_GPU + (OLD_DRIVER if shutil.which("nvidia-smi") else ""), soft_wrap=True)
    with console.status("starting") as status:
        checkup = check(bench_of(device), say=status.update)
    show(console, checkup, provenance(device))
    return 1 if any(row.problems for row in checkup.rows) else 0


def show(console: Any, checkup: Checkup, about: dict[str, Any]) -> None:
    """The table, then what to report and the lines that a report needs beside it."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    problems: list[str] = []
    for row in checkup.rows:
        problems += [f"{len(problems) + number}. {row.method}: {line}" for number, line in enumerate(row.problems, 1)]
        table.add_row(*map(escape, [*cells(row), report_of(row, len(problems))]))
    console.print(table)
    for line in [*problems, *words(checkup, about)]:
        console.print(escape(line), soft_wrap=True)


def cells(row: MethodRow) -> list[str]:
    """A row's numbers as text; what was not measured is a dash."""
    away = [f"{row.away[kind]:.1e}" if kind in row.away else "-" for kind in ("fp32", "bf16", "compiled")]
    graphs = "-" if row.graphs is None else f"{row.graphs[0]} + {row.graphs[1] - row.graphs[0]}"
    numbers = [
        ("{}", row.waits), ("{:.1f}", row.milliseconds), ("{:,.0f}", row.images_per_s), ("{:.1%}", row.share)
    ]  # fmt: skip
    return [row.method, *away, graphs, *("-" if value is None else form.format(value) for form, value in numbers)]


def report_of(row: MethodRow, last: int) -> str:
    """Numbers of the lines below that are this row's, up to `last`, and what there was no time for."""
    count = len(row.problems)
    lines = [", ".join(str(number) for number in range(last - count + 1, last + 1))] if count else []
    return "; ".join([*lines, *(f"no time: {what}" for what in row.left_out)]) or "nothing"


def words(checkup: Checkup, about: dict[str, Any]) -> Sequence[str]:
    """Device, versions, rates, and what to do next."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [f"{about['device']}, commit {about['commit']}, {about['date']}, {versions}"]
    if checkup.floors:
        rate, memory = checkup.floors.flops / 1e12, checkup.floors.bytes / 1e9
        lines.append(f"measured here: large products {rate:.2f} TFLOP/s, memory {memory:,.0f} GB/s")
    lines.append(
        f"{checkup.seconds:.0f} s in all; graphs: compiled in the first steps + later; waits: after the first steps"
    )
    if any(row.left_out for row in checkup.rows):
        lines.append(f"not all fitted into {BUDGET:.0f} s: run it again, what was compiled is kept")
    count = sum(len(row.problems) for row in checkup.rows)
    lines.append(f"{count} to report: file all that is printed here as an issue" if count else "nothing to report")
    return lines
