"""A SLURM of one node on loopback, from Debian's packages slurm-wlm and munge, ended by its own process ids."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONF = """\
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
MinJobAge=300
SlurmctldParameters=preempt_send_user_signal
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
"""


def missing() -> list[str]:
    """Programs that are not there; none of them can be replaced."""
    gone = [tool for tool in NEEDED if shutil.which(tool, path=_path()) is None]
    return gone if os.geteuid() == 0 else ["root"]


def _path() -> str:
    return os.environ["PATH"] + ":/usr/sbin:/sbin"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def slurm_server(folder: Path) -> Iterator[dict[str, str]]:
    """Start munged, slurmctld and slurmd; yields the environment in which SLURM's commands find them."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    folder.chmod(0o755)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname(), folder=folder, ports=free_ports(2)))
    environ = {**os.environ, "SLURM_CONF": str(conf), "PATH": _path()}
    munge = ["--socket", folder / "munge.socket", "--key-file", key, "--seed-file", folder / "munge.seed"]
    munge += ["--pid-file", folder / "munge.pid", "--log-file", folder / "munge.log"]
    commands = (["munged", "--force", "--foreground", *map(str, munge)], ["slurmctld", "-D", "-i"], ["slurmd", "-D"])
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as out:
                started.append(subprocess.Popen(command, env=environ, stdout=out, stderr=out))
            time.sleep(0.5)
        _wait_until_idle(environ, folder)
        yield environ
    finally:
        _end_jobs(environ)
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end_jobs(environ: dict[str, str]) -> None:
    """A daemon that stops leaves its jobs running: none may outlive the test."""
    for _ in range(40):
        ask = ["squeue", "--noheader", "--format=%A"]
        jobs = subprocess.run(ask, env=environ, capture_output=True, text=True, check=False).stdout.split()
        if not jobs:
            return
        subprocess.run(["scancel", *jobs], env=environ, capture_output=True, check=False)
        time.sleep(0.5)


def _wait_until_idle(environ: dict[str, str], folder: Path) -> None:
    for _ in range(60):
        done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environ, capture_output=True, text=True, check=False)
        if "idle" in done.stdout:
            return
        time.sleep(1)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
    raise RuntimeError(f"SLURM did not start: {done.stdout} {done.stderr}\n{logs}")
