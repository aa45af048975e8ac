"""Two machines (network and host names of their own) with one output folder share a study and do nothing twice; a batch
of notebooks runs where no socket leads out of the machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lcmae_core.store.outputs import read_ledger
from lcmae_core.studies.trials import jobs
from tests.cli.test_study import command
from tests.studies.tiny_studies import tiny_settings


def _why_not() -> str | None:
    if not shutil.which("unshare") or not shutil.which("ip"):
        return "unshare (util-linux) and ip (iproute2) are not installed"
    tried = subprocess.run(["unshare", "-n", "-u", "ip", "link", "set", "lo", "up"], capture_output=True, text=True)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(600),
    pytest.mark.skipif(_why_not() is not None, reason=str(_why_not())),
]
APART = 'hostname "$1" && ip link set lo up && shift && exec "$@"'


def apart(host: str, *words: str) -> subprocess.Popen[str]:
    """An `lcmae` command on a machine of its own: another host name, no network but its loopback."""
    return subprocess.Popen(
        ["unshare", "-n", "-u", "sh", "-c", APART, "sh", host, sys.executable, "-m", "lcmae_core.cli", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_two_machines_share_a_study(tmp_path: Path) -> None:
    base, words = tiny_settings(tmp_path / "o"), command(tmp_path / "o", "fig6", "table1", "--seeds", "2")
    both = [apart(host, *words) for host in ("one", "two")]
    said = [process.communicate(timeout=280)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    every = jobs(["fig6", "table1"], base, "smoke", range(2))
    assert all(job.done for job in every)
    titles = [line.rpartition(":")[0] for text in said for line in text.splitlines() if " · seed " in line]
    assert len(titles) == len(set(titles)), "a job was done twice"
    assert all(" · seed " in text for text in said), "both had their share"
    trained = [line for text in said for line in text.splitlines() if line.endswith("steps ...")]
    assert len(trained) == len(set(trained)), "a run was trained twice"


def test_a_batch_needs_no_network(tmp_path: Path) -> None:
    process = apart("alone", "run", "00", "05", "--profile", "smoke", "--out", str(tmp_path / "o"))
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert {entry["status"] for entry in read_ledger(tmp_path / "o").values()} == {"ok"}
