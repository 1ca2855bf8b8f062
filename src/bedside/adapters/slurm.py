"""Trainings as SLURM jobs that put themselves back into the queue: submitit writes the batch file, SLURM does the rest.

Of submitit only the batch file is used: its jobs are serialised functions whose state it asks of accounting; ours are commands,
whose state the controller knows, and which save and exit 8 when they are told to stop.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit
from pydantic import ValidationError

from bedside.core.digest import canonical_json
from bedside.core.errors import Interrupted, ResourceError, UsageError
from bedside.core.files import write_atomic
from bedside.core.jobs import Job, JobState, SlurmJobs

_JOB_ID = re.compile(r"Submitted batch job (\d+)")
_PENDING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
_RUNNING = frozenset({"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "PREEMPTED"})
_DONE = frozenset({"COMPLETED"})
_FAREWELL_SECONDS = 60

# The batch shell gets SIGUSR1 ahead of the time limit or preemption and passes it on until the command has ended: one that
# is still starting ignores it, one that works saves and says so with exit 8.
_ALONE = """\
bash -c "trap '' USR1; exec ${{commands[${{SLURM_ARRAY_TASK_ID:-0}}]}}" &
child=$!
told=
trap 'told=1' USR1 TERM
while kill -0 $child 2>/dev/null; do
  if [ -n "$told" ]; then kill -USR1 $child 2>/dev/null; sleep 1; else wait $child; fi
done
wait $child
code=$?"""

# Several tasks are one step, and its first task, which runs on the node of this shell, decides: its exit code counts, it may take
# as long as it needs after the others have left, and the others get a minute to leave after it. The signal goes to the tasks
# through SLURM: an srun that still waits for its step would take it for the end.
_TOGETHER = """\
status=$(mktemp)
srun --wait=0 --kill-on-bad-exit=0 --cpus-per-task={cores} bash -c "trap '' USR1; \
${{commands[${{SLURM_ARRAY_TASK_ID:-0}}]}}; code=\\$?; [ \\$SLURM_PROCID -ne 0 ] || echo \\$code > $status; exit \\$code" &
child=$!
told=
trap 'told=1' USR1 TERM
left={farewell}
while kill -0 $child 2>/dev/null && [ $left -gt 0 ]; do
  if [ -n "$told" ]; then scancel --signal=USR1 "$SLURM_JOB_ID" 2>/dev/null; fi
  if [ -s "$status" ]; then left=$((left - 1)); fi
  sleep 1
done
kill -KILL $child 2>/dev/null
wait $child
code=$?
if [ -s "$status" ]; then code=$(cat "$status"); fi
rm -f $status"""

_BODY = """\
commands=(
{commands}
)
{run}
if [ $code -eq {interrupted} ]; then
  echo "saved; back into the queue (restart ${{SLURM_RESTART_COUNT:-0}})"
  scontrol requeue "$SLURM_JOB_ID" && sleep 60
fi
exit $code"""


@dataclass(frozen=True)
class Slurm:
    """A `Scheduler` of a SLURM cluster.

    Attributes:
        settings: what each job asks for; folder: where batch files, records of jobs and their logs lie, seen by every node.
    """

    settings: SlurmJobs
    folder: Path

    def submit(self, command: Sequence[str], *, name: str) -> str:
        """Submit one command; returns the number of its job.

        Raises:
            ResourceError: SLURM refuses the job or does not answer.
            UsageError: SLURM is not installed here.
        """
        return self.submit_all([command], name=name).id

    def submit_all(self, commands: Sequence[Sequence[str]], *, name: str) -> Job:
        """Submit commands as one job, or as an array of them, and keep a record of it.

        Raises:
            ResourceError: SLURM refuses the job or does not answer.
            UsageError: SLURM is not installed here.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        script = self.script(commands, name=name)
        file = self.folder / f"{name}.sbatch"
        write_atomic(file, script.encode(), doing="writing a batch file")
        found = _JOB_ID.search(_ask("sbatch", str(file)))
        if found is None:
            raise ResourceError("SLURM took the job and did not say its number; see squeue.", code="SLURM")
        job = Job(id=found[1], name=name, commands=tuple(tuple(command) for command in commands))
        data = canonical_json(job.model_dump(mode="json"))
        write_atomic(self.folder / f"job-{job.id}.json", data, doing="keeping the record of a job")
        return job

    def script(self, commands: Sequence[Sequence[str]], *, name: str) -> str:
        """The batch file of the commands."""
        _check_there("sbatch")
        wanted = self.settings
        executor = submitit.SlurmExecutor(folder=self.folder)
        extra = {key: value for key, value in (("account", wanted.account), ("qos", wanted.qos)) if value}
        executor.update_parameters(
            job_name=name,
            time=wanted.minutes,
            nodes=wanted.nodes,
            ntasks_per_node=wanted.tasks_per_node,
            cpus_per_task=wanted.cores,
            mem=f"{round(1024 * wanted.memory_gb)}MB",
            use_srun=False,
            stderr_to_stdout=True,
            additional_parameters={
                "requeue": True,
                "signal": f"B:USR1@{wanted.grace_seconds}",
                "output": str(self.folder / ("%A_%a.log" if len(commands) > 1 else "%j.log")),
                **({"array": f"0-{len(commands) - 1}"} if len(commands) > 1 else {}),
                **extra,
            },
            **({"partition": wanted.partition} if wanted.partition else {}),
            **({"gpus_per_node": wanted.gpus} if wanted.gpus else {}),
        )
        lines = "\n".join(f"  {shlex.quote(shlex.join(command))}" for command in commands)
        run = _TOGETHER if wanted.nodes * wanted.tasks_per_node > 1 else _ALONE
        run = run.format(cores=wanted.cores, farewell=_FAREWELL_SECONDS)
        body = _BODY.format(commands=lines, interrupted=Interrupted.exit_code, run=run)
        return str(executor._make_submission_file_text(body, name)) + "\n"  # noqa: SLF001 - its seam for other schedulers

    def state(self, job: str) -> JobState:
        """Say how a job stands; one that SLURM no longer knows ended long ago, and how is in its log.

        Raises:
            ResourceError: SLURM does not answer.
        """
        _check_there("scontrol")
        done = _run("scontrol", "--oneliner", "show", "job", job)
        if done.returncode:
            if "Invalid job id" in done.stderr:
                return "gone"
            raise _refused("scontrol", done.stderr)
        found = set(re.findall(r"\bJobState=([A-Z_]+)", done.stdout))
        for name, states in (("running", _RUNNING), ("pending", _PENDING)):
            if found & states:
                return "running" if name == "running" else "pending"
        return "done" if found <= _DONE else "failed"

    def jobs(self) -> list[Job]:
        """The jobs that were submitted from here, newest first."""
        found = []
        for file in self.folder.glob("job-*.json"):
            try:
                found.append(Job.model_validate(json.loads(file.read_bytes())))
            except (ValidationError, ValueError):
                continue  # not written by us, and nothing is decided by it
        return sorted(found, key=lambda job: -int(job.id))

    def logs(self, job: Job) -> list[Path]:
        """The log files of a job that are there."""
        return sorted([*self.folder.glob(f"{job.id}.log"), *self.folder.glob(f"{job.id}_*.log")])

    def cancel(self, job: str) -> None:
        """End a job.

        Raises:
            ResourceError: SLURM does not answer.
        """
        _ask("scancel", job)


def _check_there(tool: str) -> None:
    if shutil.which(tool) is None:
        raise UsageError(f"There is no {tool} here; submit from a machine of the SLURM cluster.", code="NO_SLURM")


def _ask(*command: str) -> str:
    _check_there(command[0])
    done = _run(*command)
    if done.returncode:
        raise _refused(command[0], done.stderr)
    return done.stdout


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - no shell
    except subprocess.TimeoutExpired as error:
        raise ResourceError(f"SLURM's {command[0]} did not answer within a minute.", code="SLURM") from error


def _refused(tool: str, said: str) -> ResourceError:
    first = next((line for line in said.splitlines() if line.strip()), "no reason given")
    return ResourceError(f"SLURM's {tool} refused: {first.strip()[:200]}.", code="SLURM")
