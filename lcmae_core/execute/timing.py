"""The time that is left of a batch, from what its notebooks should take, what those that ended took, and what waits for
what."""

from collections.abc import Mapping, Sequence

TRUSTED = 5.0
"""Seconds of notebooks that took what they should, which the pace starts from: one short notebook decides little."""
LATE = 0.15
"""Share of its time so far that a notebook which should have ended is taken to need on top."""


def pace(estimates: Mapping[str, float], took: Mapping[str, float], running: Mapping[str, float]) -> float:
    """How many seconds go by for one that was estimated: of ended notebooks what they took, of running ones what they
    took so far where that is more than the pace makes of them. `took`, `running`: seconds by name."""
    spent, planned = TRUSTED + sum(took.values()), TRUSTED + sum(estimates[name] for name in took)
    factor = spent / planned
    planned += sum(estimates[name] for name in running)
    for _ in range(50):  # towards the one pace that agrees with itself
        expected = [max((1 + LATE) * passed, factor * estimates[name]) for name, passed in running.items()]
        factor = (spent + sum(expected)) / planned
    return factor


def time_left(
    estimates: Mapping[str, float],
    took: Mapping[str, float],
    running: Mapping[str, float],
    after: Mapping[str, Sequence[str]],
    parallel: int,
) -> float:
    """Seconds until all is done, at the pace so far.

    estimates: seconds of every notebook, in the order in which they start. took: of those that ended, running: of those
    that run, so far. after: names of those that a notebook waits for. parallel: how many run at once.
    """
    now = pace(estimates, took, running)
    ends = {name: max(now * estimates[name], (1 + LATE) * passed) - passed for name, passed in running.items()}
    waiting = [name for name in estimates if name not in took and name not in running]
    clock = 0.0
    while waiting or ends:
        for name in list(waiting):
            blocked = any(other in waiting or other in ends for other in after.get(name, ()))
            if len(ends) < parallel and (not blocked or not ends):
                waiting.remove(name)
                ends[name] = clock + now * estimates[name]
        first = min(ends, key=ends.__getitem__)
        clock = ends.pop(first)
    return clock
