"""Single runs from the command line: settings by name, training, the list of settings, export."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lcmae_core.config import GROUPS, LEAVES, LcmaeError, Settings, profile, replace
from lcmae_core.execute.parameters import parse_assignments
from lcmae_core.execute.plan import check_profile, check_source, check_writable, output_folder
from lcmae_core.execute.progress import make_console
from lcmae_core.viewer.report import number_text

AFFECTS = {"runtime": "runtime (no effect on results)"}


def settings_from(assignments: Sequence[str], name: str | None, **options: Any) -> Settings:
    """A profile's settings with leaves changed by name=value texts and by options, all checked.

    Raises:
        LcmaeError: unknown setting or profile, a value out of range, a malformed source.
    """
    name = check_profile(name)
    given = parse_assignments(assignments)
    data = options.pop("data", None) or given.get("source") or os.environ.get("LCMAE_DATA")
    out = output_folder(options.pop("out", None) or given.get("out"), name)
    said = {key: value for key, value in options.items() if value is not None}
    settings = replace(profile(name), given | said | {"out": str(out)})
    return replace(settings, source=check_source(data)) if data else settings


def list_settings(settings: Settings) -> int:
    """Print every setting: name, the value it would have, what it means, and its group."""
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
    return 0


def train(settings: Settings, *, resume: bool = True) -> int:
    """Pre-train, then print the final numbers and the run's folder."""
    check_writable(Path(settings.runtime.out))
    from lcmae_core.training.loop import pretrain

    run = pretrain(settings, resume=resume)
    for name, value in sorted(run.results.items()):
        if isinstance(value, int | float | str):
            print(f"{name:>24}  {number_text(value)}")
    print(f"run: {run.path}")
    return 0


def export(source: str, target: str, layout: str) -> int:
    """Write the weights of a run's folder, or of a checkpoint, in timm's or Hugging Face's layout.

    Raises:
        LcmaeError: nothing is there, it is no run or checkpoint, or the target cannot be written.
    """
    path = Path(source).expanduser()
    if not path.exists():
        raise LcmaeError(f"export: got {source!r}, which is not there, expected a run's folder or a checkpoint")
    check_writable(Path(target).expanduser().absolute().parent)
    from lcmae_core.models import interop

    if (path / "settings.json").exists():
        from lcmae_core.store.runs import load_run

        model: Any = load_run(path).load_model()  # type: ignore[attr-defined, unused-ignore]
    else:
        model = interop.load_mae(str(path))
    write = interop.export_timm if layout == "timm" else interop.export_hf
    write(model, Path(target).expanduser())
    print(f"{layout}: {target}")
    return 0
