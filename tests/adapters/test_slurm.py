"""Claims about trainings as SLURM jobs, against a real SLURM of one node where Debian's packages are."""

import os
import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.adapters.slurm_server import need_slurm, slurm_server

from bedside.adapters.slurm import Slurm
from bedside.core.errors import ResourceError, UsageError
from bedside.core.jobs import SlurmJobs

SMALL = SlurmJobs(cores=1, memory_gb=0.5, minutes=5, grace_seconds=10, partition="low")


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder of programs that stand for SLURM's; what a real one answers is tested below."""
    folder = tmp_path / "bin"
    for name in ("srun", "sbatch", "scontrol"):
        tool(folder, name, "exit 0")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_batch_file_asks_for_what_the_site_says_and_is_valid_shell(tools, tmp_path):
    wanted = SlurmJobs(partition="gpu", account="lab", qos="long", minutes=90, grace_seconds=77, cores=3, memory_gb=1.5, gpus=2)
    script = Slurm(wanted, tmp_path / "jobs").script([["train", "it's $HOME; rm -rf /"], ["train", "two"]], name="hip")
    for line in ("partition=gpu", "account=lab", "qos=long", "time=90", "cpus-per-task=3", "mem=1536MB", "gpus-per-node=2"):
        assert f"#SBATCH --{line}\n" in script
    assert "#SBATCH --signal=B:USR1@77\n" in script
    assert "#SBATCH --requeue\n" in script
    assert "#SBATCH --array=0-1\n" in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


SEVERAL = SMALL.model_copy(update={"nodes": 3, "tasks_per_node": 2, "cores": 5})


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 137), (3, 0), (3, 7)])
def test_a_training_of_several_tasks_is_one_step_whose_first_task_decides(tools, tmp_path, first, second):
    assert "srun" not in Slurm(SMALL, tmp_path / "jobs").script([["train"]], name="one")
    codes = f"$((SLURM_PROCID ? {second} : {first}))"
    said = ["sh", "-c", f'printf "%s;%s;" "$1" "$SLURM_PROCID"; exit {codes}', "sh", "a b"]
    script = Slurm(SEVERAL, tmp_path / "jobs").script([said], name="many")
    assert "#SBATCH --nodes=3\n" in script
    assert "#SBATCH --ntasks-per-node=2\n" in script
    asked = tmp_path / "asked"
    tool(
        tools,
        "srun",
        f"""while [ "${{1#--}}" != "$1" ]; do echo "$1" >> {asked}; shift; done
for task in 0 1; do SLURM_PROCID=$task "$@"; code=$?; done; exit $code""",
    )
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == ("a b;0;a b;1;", "")
    assert done.returncode == first
    assert asked.read_text().split() == ["--wait=0", "--kill-on-bad-exit=0", "--cpus-per-task=5"]


def test_the_end_of_a_sitting_is_told_to_the_tasks_of_a_step_and_not_to_srun(tools, tmp_path):
    script = Slurm(SEVERAL, tmp_path / "jobs").script([["true"]], name="many")
    told = tmp_path / "told"
    tool(tools, "scancel", f'echo "$@" >> {told}')
    tool(tools, "srun", f"trap 'echo srun >> {told}' USR1; sleep 0.5; kill -USR1 $PPID; sleep 2")
    done = subprocess.run(["bash"], input=script, text=True, check=False, env={**os.environ, "SLURM_JOB_ID": "77"})
    assert done.returncode == 0
    assert set(told.read_text().splitlines()) == {"--signal=USR1 77"}


def test_words_of_a_command_reach_the_program_as_they_are(tools, tmp_path):
    odd = 'it\'s $HOME; echo `id` "x" \\ *'
    script = Slurm(SMALL, tmp_path / "jobs").script([["printf", "%s", odd], ["printf", "%s", "second"]], name="words")
    for task, expected in (("0", odd), ("1", "second")):
        done = subprocess.run(
            ["bash"], input=script, text=True, capture_output=True, check=True, env={**os.environ, "SLURM_ARRAY_TASK_ID": task}
        )
        assert done.stdout == expected


def test_without_slurm_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="There is no sbatch here") as caught:
        Slurm(SMALL, tmp_path / "jobs").submit(["true"], name="x")
    assert caught.value.code == "NO_SLURM"


def test_what_slurm_refuses_is_said_in_its_words(tools, tmp_path):
    tool(tools, "sbatch", "echo 'sbatch: error: invalid partition specified: low' >&2; exit 1")
    with pytest.raises(ResourceError, match="invalid partition specified") as caught:
        Slurm(SMALL, tmp_path / "jobs").submit(["true"], name="x")
    assert caught.value.exit_code == 6
    assert not list((tmp_path / "jobs").glob("job-*"))


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("JobState=PENDING", "pending"),
        ("JobState=RUNNING", "running"),
        ("JobState=COMPLETED", "done"),
        ("JobState=FAILED", "failed"),
        ("JobState=TIMEOUT", "failed"),
        ("JobState=COMPLETED x\nJobId=2 JobState=RUNNING", "running"),
        ("JobState=COMPLETED x\nJobId=2 JobState=OUT_OF_MEMORY", "failed"),
    ],
)
def test_the_state_of_an_array_is_that_of_its_least_finished_task(tools, tmp_path, said, state):
    tool(tools, "scontrol", f"printf %s {shlex.quote('JobId=1 ' + said)}")
    assert Slurm(SMALL, tmp_path).state("1") == state


def test_a_job_that_slurm_forgot_is_gone_and_other_troubles_are_errors(tools, tmp_path):
    tool(tools, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert Slurm(SMALL, tmp_path).state("1") == "gone"
    tool(tools, "scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ResourceError, match="Unable to contact"):
        Slurm(SMALL, tmp_path).state("1")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    need_slurm()
    with slurm_server(tmp_path_factory.mktemp("slurm")) as environ:
        before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
        os.environ.update({name: environ[name] for name in before})
        yield
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def wait(scheduler: Slurm, job: str, *, until: set[str], seconds: float = 90) -> str:
    end = time.monotonic() + seconds
    while (state := scheduler.state(job)) not in until:
        assert time.monotonic() < end, state
        time.sleep(0.3)
    return state


def test_a_real_array_runs_each_command_and_keeps_each_log(cluster, tmp_path):
    scheduler = Slurm(SMALL, tmp_path / "jobs")
    job = scheduler.submit_all([["echo", "first fold"], ["echo", "second fold"]], name="folds")
    assert wait(scheduler, job.id, until={"done", "failed"}) == "done"
    assert [log.read_text() for log in scheduler.logs(job)] == ["first fold\n", "second fold\n"]
    assert scheduler.jobs() == [job]


def test_a_real_job_that_fails_is_failed_and_is_not_put_back(cluster, tmp_path):
    scheduler = Slurm(SMALL, tmp_path / "jobs")
    assert wait(scheduler, scheduler.submit(["sh", "-c", "exit 3"], name="bad"), until={"done", "failed"}) == "failed"


SAVES = """
import os, signal, sys, time
if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
    print("went on")
    sys.exit(0)
time.sleep(3)  # still starting when it is told: the signal comes again
def save(*_):
    print("saved", flush=True)
    os._exit(8)
signal.signal(signal.SIGUSR1, save)
time.sleep(600)
"""


def test_a_real_job_that_is_told_to_save_goes_back_into_the_queue_and_goes_on(cluster, tmp_path):
    scheduler = Slurm(SMALL, tmp_path / "jobs")
    job = scheduler.submit_all([[sys.executable, "-c", SAVES]], name="saves")
    wait(scheduler, job.id, until={"running"})
    time.sleep(1)
    subprocess.run(["scancel", "--batch", "--signal=USR1", job.id], check=True)
    assert wait(scheduler, job.id, until={"done", "failed"}) == "done"
    (log,) = scheduler.logs(job)
    assert [line for line in log.read_text().splitlines() if line in {"saved", "went on"}] == ["saved", "went on"]
