"""A time on the command line, read before anything heavy is loaded."""

import re

from lcmae_core.config.errors import LcmaeError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(budget: str | None, option: str = "--budget") -> float | None:
    """ "90s", "25m", "1.5h" in seconds.

    Raises:
        LcmaeError: another form, or no time at all.
    """
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    if not match or not float(match[1]):
        raise LcmaeError(f"{option}: got {budget!r}, expected a time such as 90s, 25m or 1.5h")
    return float(match[1]) * UNITS[match[2]]
