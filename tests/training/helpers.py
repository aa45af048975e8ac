"""What tests of trainings compare: the weights to the last bit, and the log without its times."""

from typing import Any

from lcmae_core.store.checkpoint import sha256
from lcmae_core.store.evaluations import Evaluation
from lcmae_core.store.runs import MODEL, TIMINGS, Run


def weights(trained: Run | Evaluation) -> str:
    """Digest of the final weights: equal where every bit is."""
    return sha256(trained.path / MODEL)


def losses(run: Run) -> list[dict[str, Any]]:
    """The entries of a run's log, without what differs from machine to machine."""
    return [{name: value for name, value in entry.items() if name not in TIMINGS} for entry in run.history]
