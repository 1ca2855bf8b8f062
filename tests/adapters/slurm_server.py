"""A SLURM of one or two nodes on loopback, from Debian's packages slurm-wlm and munge, ended by its own process ids."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.needs import need_programs

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONF = """\
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ClusterName=ci
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
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
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=8000 State=UNKNOWN"


def need_slurm() -> None:
    """Leave a test out, loudly, where SLURM's daemons are not there, or may not be started."""
    rights = ["root"] if os.geteuid() else []
    need_programs("NO REAL SLURM WAS TESTED", NEEDED, debian="slurm-wlm, munge; as root", path=_path(), besides=rights)


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
def slurm_server(place: Path, *, nodes: int = 1) -> Iterator[dict[str, str]]:
    """Start munged, slurmctld and a slurmd for each node; yields the environment in which SLURM's commands find them.

    Both nodes are this machine, under names that it answers to: jobs of two nodes are two steps of one training that know each
    other by these names only. What they keep lies in `place`, which they know by a short name: a socket's has 108 letters at most
    (unix(7)), and a job whose socket would have more is held.
    """
    with TemporaryDirectory(prefix="slurm-") as short:
        folder = Path(short) / "at"
        place.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(place)
        Path(short).chmod(0o755)
        yield from _serve(folder, nodes)


def _serve(folder: Path, nodes: int) -> Iterator[dict[str, str]]:
    host = socket.gethostname()
    names = (host, "localhost")[:nodes]
    for name in ("state", *(f"spool-{name}" for name in names)):
        (folder / name).mkdir(parents=True)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    folder.chmod(0o755)
    conf = folder / "slurm.conf"
    ports = free_ports(1 + nodes)
    rows = "\n".join(NODE.format(name=name, host=host, port=port) for name, port in zip(names, ports[1:], strict=True))
    conf.write_text(CONF.format(host=host, folder=folder, ports=ports, nodes=rows))
    environ = {**os.environ, "SLURM_CONF": str(conf), "PATH": _path()}
    munge = ["--socket", folder / "munge.socket", "--key-file", key, "--seed-file", folder / "munge.seed"]
    munge += ["--pid-file", folder / "munge.pid", "--log-file", folder / "munge.log"]
    commands = [["munged", "--force", "--foreground", *map(str, munge)], ["slurmctld", "-D", "-i"]]
    commands += [["slurmd", "-D", "-N", name] for name in names]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("ab") as out:
                started.append(subprocess.Popen(command, env=environ, stdout=out, stderr=out))
            time.sleep(0.5)
        _wait_until_idle(environ, folder, nodes)
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


def _wait_until_idle(environ: dict[str, str], folder: Path, nodes: int) -> None:
    for _ in range(60):
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-p", "low", "-o", "%T"], env=environ, capture_output=True, text=True, check=False
        )
        if done.stdout.split() == ["idle"] * nodes:
            return
        time.sleep(1)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log"))
    raise RuntimeError(f"SLURM did not start: {done.stdout} {done.stderr}\n{logs}")
