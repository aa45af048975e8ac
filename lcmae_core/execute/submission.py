"""What a SLURM cluster is told of a job: parameters checked by name and kind before anything is submitted, and a line
for what SLURM then refuses."""

import re
import shutil
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Any

from lcmae_core.config.errors import LcmaeError, nearest

ALIASES = ("mem_gb", "timeout_min", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name")
"""Names that submitit understands on any cluster; the others go to SLURM alone."""
OWN = {"max_num_timeout": 1000}
"""What we tell submitit ourselves: how often a job may run into its time limit. Each time it has trained further, so
there is no reason to stop at submitit's three; 1000 is only there to end a job that never gets anywhere."""
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list", dict: "a dict"}
SILENT = r"contact slurm controller|timed out|connection refused|configuration source|communication"
"""What sbatch says where SLURM does not answer: nothing that the user's words could mend."""


class ClusterError(LcmaeError):
    """SLURM does not answer: failed work, not a user's mistake."""

    exit_code = 1


def check_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as submitit and SLURM take them: text where text is meant, even if it reads as a number.

    Raises:
        LcmaeError: submitit is not there, does not know a name, or expects another kind of value.
    """
    kinds = _kinds()
    checked = {}
    for name, value in parameters.items():
        if name not in kinds:
            raise LcmaeError(f"unknown SLURM parameter {name!r} (= {value!r}): {nearest(name, kinds)}")
        checked[name] = _fitting(name, value, kinds[name])
    return checked


def _kinds() -> dict[str, tuple[type, ...]]:
    """Name -> the types that a value may have, as submitit's own signatures say."""
    try:
        from submitit.auto.auto import AutoExecutor
        from submitit.slurm import slurm
    except ImportError:
        raise LcmaeError("executor: got 'slurm', expected submitit: pip install 'lcmae-core[cluster]'") from None
    hints = typing.get_type_hints(slurm._make_sbatch_string)
    names = slurm.SlurmExecutor._valid_parameters()
    kinds = {name: _types(hints.get(name, object)) for name in sorted(names)}
    typed = AutoExecutor._typed_parameters()
    aliases = {name: _types(typed[name]) for name in ALIASES if name in typed}
    return aliases | dict.fromkeys(OWN, (int,)) | {name: kind for name, kind in kinds.items() if name not in aliases}


def _types(hint: Any) -> tuple[type, ...]:
    parts = typing.get_args(hint) if typing.get_origin(hint) is typing.Union else (hint,)
    origins = [typing.get_origin(part) or part for part in parts]
    return tuple(list if not isinstance(one, type) or one.__module__ == "collections.abc" else one for one in origins)


def _fitting(name: str, value: Any, kinds: tuple[type, ...]) -> Any:
    if object in kinds or (type(value) in kinds):
        return _not_negative(name, value)
    if float in kinds and type(value) is int:
        return _not_negative(name, float(value))
    if str in kinds and type(value) in (int, float):
        return str(value)  # an account may be called 4711
    expected = " or ".join(KINDS[kind] for kind in kinds if kind in KINDS)
    raise LcmaeError(f"--slurm {name}: got {value!r}, expected {expected}")


def _not_negative(name: str, value: Any) -> Any:
    if type(value) in (int, float) and not value >= 0:
        raise LcmaeError(f"--slurm {name}: got {value!r}, expected at least 0")
    return value


@contextmanager
def submitting() -> Iterator[None]:
    """Around a submission: what SLURM refuses is one line, with what it said.

    Raises:
        LcmaeError: sbatch is not there, or refuses the job.
        ClusterError: SLURM does not answer.
    """
    from submitit.core.utils import FailedJobError

    try:
        with redirect_stderr(StringIO()):  # submitit prints there what its error says again
            yield
    except FileNotFoundError as error:
        if error.filename != "sbatch":
            raise
        raise LcmaeError("executor: got 'slurm', expected sbatch on the PATH; try --executor local") from None
    except FailedJobError as error:
        lines = [re.sub(r"^sbatch: (error|fatal): ", "", line) for line in str(error).splitlines()]
        answer = "; ".join(dict.fromkeys(filter(None, lines))) or "nothing"
        if re.search(SILENT, answer, re.IGNORECASE):
            raise ClusterError(f"executor: SLURM does not answer; sbatch said: {answer}") from None
        raise LcmaeError(f"--slurm: SLURM refused the job, expected what it takes; sbatch said: {answer}") from None


def sbatch_is_there(cluster: str) -> None:
    """See that jobs can be submitted from this machine.

    Raises:
        LcmaeError: they cannot.
    """
    if cluster == "slurm" and not shutil.which("sbatch"):
        raise LcmaeError("executor: got 'slurm', expected a cluster (no sbatch on the PATH); try --executor local")
