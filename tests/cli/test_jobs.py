"""Claims about what `bedside runs` says of jobs and of trainings that have not ended."""

import json
import os
import signal
import sys
import time

import pytest

from bedside import cli
from bedside.cli.jobs import list_jobs, list_unfinished
from bedside.core.config import load
from bedside.core.jobs import Job
from bedside.train.checkpoint import newest_position

from ..adapters.test_slurm import tool  # noqa: TID252 - the programs that stand for SLURM's
from ..train.conftest import put_dataset, write_study  # noqa: TID252 - the study that trains in a second

STATES = {"7": "COMPLETED", "8": "FAILED", "9": "PENDING", "10": "RUNNING"}
SCONTROL = """
for job; do :; done
case $job in
{cases}
*) echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1;;
esac"""


@pytest.fixture
def study(tmp_path):
    folder = write_study(tmp_path / "balls", steps=40)
    config = load(folder)
    put_dataset(config.workspace, config.study.contract)
    return folder


@pytest.fixture
def jobs(study, tmp_path, monkeypatch):
    """Records of jobs in every state beside a SLURM that knows some of them; the folder of their logs."""
    cases = "\n".join(f"{job}) echo JobId={job} JobState={state};;" for job, state in STATES.items())
    tool(tmp_path / "bin", "scontrol", SCONTROL.format(cases=cases))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    folder = study / "scratch" / "jobs"
    folder.mkdir(parents=True)
    for job in (*STATES, "3"):
        commands = (("train",),) * (2 if job == "10" else 1)
        record = Job(id=job, name=f"balls-{job}", commands=commands)
        (folder / f"job-{job}.json").write_text(record.model_dump_json())
    (folder / "job-99.json").write_text("not ours")
    return folder


@pytest.fixture
def runs(study, monkeypatch, capsys):
    """Run the verb here; returns exit code, stdout and stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setattr(sys, "argv", ["bedside", "runs", str(study), *words])
        code = cli.run()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


def stop_after(steps: int, study, monkeypatch, capsys) -> None:
    """Begin the study's training and end it by a signal, as SLURM does."""
    from bedside.train import sitting

    plain = sitting.Learner.step

    def step(self, number, total, batch=None):
        if number == steps - 1:
            signal.raise_signal(signal.SIGUSR1)
        return plain(self, number, total, batch)

    with monkeypatch.context() as patch:
        patch.setattr(sitting.Learner, "step", step)
        patch.setattr(sys, "argv", ["bedside", "train", str(study), "--json"])
        assert cli.run() == 8
    capsys.readouterr()


def test_jobs_are_listed_newest_first_with_their_states_and_the_last_line_of_their_newest_log(study, jobs):
    (jobs / "10_0.log").write_text("first\ntraining: 10 of 40\n\n")
    (jobs / "10_1.log").write_text("an older one\n")
    past = time.time() - 60
    os.utime(jobs / "10_1.log", (past, past))
    (jobs / "7.log").write_bytes(b"\xff" + b"x" * 10_000)
    found = list_jobs(load(study))
    assert [(row.job, row.state) for row in found] == [
        ("10", "running"),
        ("9", "pending"),
        ("8", "failed"),
        ("7", "done"),
        ("3", "gone"),
    ]
    assert (found[0].tasks, found[0].log, found[0].last_line) == (2, "scratch/jobs/10_0.log", "training: 10 of 40")
    assert (found[1].tasks, found[1].log, found[1].last_line) == (1, "", "")
    assert len(found[3].last_line) == 100


def test_without_jobs_nobody_asks_slurm(study, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert list_jobs(load(study)) == []


def test_a_training_that_was_stopped_says_where_it_stands_and_how_long_it_still_takes(study, monkeypatch, capsys):
    workspace = load(study).workspace
    assert list_unfinished(workspace) == []
    stop_after(10, study, monkeypatch, capsys)
    (folder,) = workspace.scratch.glob("train-*")
    position = newest_position(folder)
    (row,) = list_unfinished(workspace)
    assert (row.key, row.step, row.total) == (folder.name.removeprefix("train-"), 10, 40)
    assert position.minutes_left == pytest.approx(30 * position.seconds / 10 / 60)
    assert row.minutes_left == round(position.minutes_left, 1)
    slow = position.model_copy(update={"seconds": 600.0})
    assert slow.minutes_left == pytest.approx(30.0)


def test_a_folder_without_a_checkpoint_and_a_training_that_ended_are_not_unfinished(study, monkeypatch, capsys):
    workspace = load(study).workspace
    (workspace.scratch / "train-empty").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["bedside", "train", str(study), "--json"])
    assert cli.run() == 0
    capsys.readouterr()
    assert list_unfinished(workspace) == []


def test_runs_prints_jobs_and_unfinished_trainings_where_nothing_has_ended_yet(study, jobs, runs, monkeypatch, capsys):
    (jobs / "10_0.log").write_text("training: 10 of 40 [note]\n")
    stop_after(10, study, monkeypatch, capsys)
    code, out, err = runs()
    assert (code, err) == (0, "")
    for said in ("jobs, newest first", "running", "pending", "failed", "gone", "training: 10 of 40 [note]", "10_0.log"):
        assert said in out
    key = list_unfinished(load(study).workspace)[0].key
    assert "trainings that have not ended" in out
    assert key[:12] in out
    assert "Nothing was trained" not in out


def test_runs_as_json_has_runs_jobs_and_unfinished_trainings(study, jobs, runs, monkeypatch, capsys):
    stop_after(10, study, monkeypatch, capsys)
    code, out, _ = runs("--json")
    found = json.loads(out)
    assert code == 0
    assert found["runs"] == []
    assert [(row["job"], row["state"], row["tasks"]) for row in found["jobs"]][:2] == [("10", "running", 2), ("9", "pending", 1)]
    assert [(row["step"], row["total"]) for row in found["unfinished"]] == [(10, 40)]


def test_where_nothing_was_trained_or_submitted_runs_says_so(runs):
    code, _, err = runs()
    assert code == 2
    assert "run bedside train" in err
