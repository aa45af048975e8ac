"""`lcmae report`: the HTML report of an output folder, with what its records are redrawn to."""

from typing import Any

from lcmae_core.config import LcmaeError
from lcmae_core.config.resolve import Asked


def report(profile_name: str | None, folder: str | None) -> int:
    """Redraw what is recorded, write the claims for readers, build the report, and print where all of it is.

    Raises:
        LcmaeError: the folder is not there, or nothing to report is in it.
    """
    asked = Asked({"profile": profile_name, "out": folder})
    profile, out = asked.profile, asked.out
    if not out.is_dir():
        raise LcmaeError(f"out: got {str(out)!r}, which is not there, expected a folder that lcmae run has written")
    if not any(any(out.glob(kind)) for kind in ("[0-9][0-9]_*.ipynb", "results/**/*.json", "ledger.json")):
        raise LcmaeError(f"out: got {str(out)!r}, which holds no notebook or result, expected a folder of lcmae run")
    from lcmae_core.studies.front import checkpoint_numbers, checkpoint_pictures, scoreboard
    from lcmae_core.viewer.report import build_report

    drawn: list[tuple[str, Any]] = []
    if any((out / "results" / "runs").glob("*.json")):
        from lcmae_core.studies.readers import export
        from lcmae_core.studies.redraw import everything, recorded
        from lcmae_core.studies.scoreboard import score

        drawn = list(everything(out, profile))
        print(*export(out, {profile: score(recorded(out, profile), profile, make=False)}), sep="\n")
    if measured := checkpoint_numbers(out):
        drawn += [("Checkpoints: numbers side by side", measured), *checkpoint_pictures(out)]
    print(build_report(out, drawn, scoreboard(out, profile)))
    return 0
