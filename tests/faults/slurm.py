"""A real SLURM of one host on loopback, for tests that run as root where Debian's packages are installed."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("slurmctld", "slurmd", "squeue", "munged")

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.sock
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPort=16827
SlurmdPort=16828
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=5
SlurmctldParameters=preempt_send_user_signal
MinJobAge=300
InactiveLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str | None:
    """Why SLURM cannot be started here; None where it can."""
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurmctld slurmd slurm-client munge)"
    return None if os.geteuid() == 0 else "SLURM's daemons are started as root"


@contextmanager
def started(home: Path) -> Iterator[None]:
    """SLURM while the context lasts; `SLURM_CONF` says where it is."""
    host = os.uname().nodename.split(".")[0]
    for name in ("state", "spool"):
        (home / name).mkdir(parents=True)
    home.chmod(0o755)
    (home / "slurm.conf").write_text(CONF.format(home=home, host=host))
    (home / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (home / "key").write_bytes(os.urandom(1024))
    (home / "key").chmod(0o600)
    munge = [f"--key-file={home}/key", f"--socket={home}/munge.sock", f"--pid-file={home}/munged.pid"]
    munge += [f"--log-file={home}/munged.log", f"--seed-file={home}/munged.seed", "--num-threads=2"]
    subprocess.run(["munged", "--force", *munge], check=True)
    before, os.environ["SLURM_CONF"] = os.environ.get("SLURM_CONF"), str(home / "slurm.conf")
    try:
        for daemon in ("slurmctld", "slurmd"):
            subprocess.run([daemon, "-f", str(home / "slurm.conf"), "-c"], check=True)
        end = time.monotonic() + 30
        while "idle" not in said("sinfo", "-h", "-o", "%T"):
            assert time.monotonic() < end, (home / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.1)
        yield
    finally:
        said("scancel", "--me")
        for daemon in ("slurmd", "slurmctld", "munged"):
            file = home / f"{daemon}.pid"
            if file.exists():
                subprocess.run(["kill", file.read_text().strip()])
        os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)


def said(*command: str) -> str:
    """What a command of SLURM's prints."""
    return subprocess.run(command, capture_output=True, text=True).stdout
