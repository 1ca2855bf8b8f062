"""Trainings as jobs of a cluster: what `train --on slurm` submits and what `runs` says of it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from bedside.cli import show
from bedside.cli.history import RunRow
from bedside.core.record import Record
from bedside.core.workspace import Workspace

if TYPE_CHECKING:
    from bedside.core.config import Config
    from bedside.core.dataset import Dataset

FOLDER = "jobs"


class JobRow(Record):
    """How a submitted training stands.

    Attributes:
        state: "pending", "running", "done", "failed", or "gone" when SLURM has forgotten it.
        log: its newest log file, relative to the study folder; last_line: of it.
    """

    job: str
    name: str
    state: str
    tasks: int
    log: str
    last_line: str


class UnfinishedRow(Record):
    """A training with checkpoints and no end yet.

    Attributes:
        step, total: where its last checkpoint stands; minutes_left: at its speed so far, of work from there.
    """

    key: str
    step: int
    total: int
    minutes_left: float


class RunsListed(Record):
    """What `runs --json` prints."""

    runs: tuple[RunRow, ...]
    jobs: tuple[JobRow, ...]
    unfinished: tuple[UnfinishedRow, ...]


def submit(
    config: "Config", dataset: "Dataset", *, study: Path, folds: bool, seeds: int, overrides: list[str], json: bool, what_if: bool
) -> None:
    """Submit the training, or one for each fold and seed, and say where its log will be."""
    from bedside.adapters.slurm import Slurm

    commands = commands_of(config, dataset, study=study, folds=folds, seeds=seeds, overrides=overrides)
    scheduler = Slurm(config.site.slurm, (config.workspace.scratch / FOLDER).resolve())
    name = f"{config.study.study}-{dataset.digest[:8]}"
    if what_if:
        script = scheduler.script(commands, name=name)
        return show.as_json({"script": script}) if json else typer.echo(script)
    job = scheduler.submit_all(commands, name=name)
    if json:
        return show.as_json(job)
    typer.echo(f"job {job.id}: {len(commands)} training{'s' if len(commands) > 1 else ''}; bedside runs says how it stands")
    return typer.echo(f"logs: {scheduler.folder}/{job.id}{'_*' if len(commands) > 1 else ''}.log")


def commands_of(
    config: "Config", dataset: "Dataset", *, study: Path, folds: bool, seeds: int, overrides: list[str]
) -> list[tuple[str, ...]]:
    """The commands that the jobs run: this one, with names that no later ingest can change."""
    base: tuple[str, ...] = (sys.executable, "-m", "bedside", "train", str(study.resolve()), "--dataset", dataset.digest)
    base += ("--folder", str(config.workspace.folder.resolve()))
    for override in overrides:
        base += ("--set", override)
    commands = [base]
    if folds:
        commands = [(*base, "--set", f"train.fold={number}") for number in range(len(dataset.splits.folds))]
    if seeds > 1:
        first = config.study.train.seed
        commands = [(*each, "--set", f"train.seed={seed}") for each in commands for seed in range(first, first + seeds)]
    return commands


def list_jobs(config: "Config") -> list[JobRow]:
    """What was submitted from this study folder, newest first."""
    folder = (config.workspace.scratch / FOLDER).resolve()
    if not folder.is_dir():
        return []
    from bedside.adapters.slurm import Slurm

    scheduler = Slurm(config.site.slurm, folder)
    rows = []
    for job in scheduler.jobs():
        logs = scheduler.logs(job)
        newest = max(logs, key=lambda path: path.stat().st_mtime_ns) if logs else None
        rows.append(
            JobRow(
                job=job.id,
                name=job.name,
                state=scheduler.state(job.id),
                tasks=len(job.commands),
                log=f"{config.workspace.scratch.name}/{FOLDER}/{newest.name}" if newest else "",
                last_line=_last_line(newest) if newest else "",
            )
        )
    return rows


def list_unfinished(workspace: Workspace) -> list[UnfinishedRow]:
    """Trainings that have checkpoints and have not ended."""
    from bedside.train.checkpoint import newest_position

    rows = []
    for folder in sorted(workspace.scratch.glob("train-*")):
        position = newest_position(folder)
        if position is None:
            continue
        rows.append(
            UnfinishedRow(
                key=folder.name.removeprefix("train-"),
                step=position.step,
                total=position.total_steps,
                minutes_left=round(position.minutes_left, 1),
            )
        )
    return rows


def show_waiting(jobs: list[JobRow], unfinished: list[UnfinishedRow]) -> None:
    """Print jobs and unfinished trainings, where there are any."""
    if jobs:
        table = Table(title="jobs, newest first")
        for name in ("job", "name", "state", "trainings", "log", "its last line"):
            table.add_column(name)
        for job in jobs:
            table.add_row(job.job, job.name, job.state, str(job.tasks), job.log, job.last_line)
        show.console().print(table)
    if unfinished:
        table = Table(title="trainings that have not ended")
        for name in ("training", "step", "of", "minutes left"):
            table.add_column(name, justify="right")
        for row in unfinished:
            table.add_row(row.key[:12], str(row.step), str(row.total), f"{row.minutes_left:.1f}")
        show.console().print(table)


def _last_line(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:100] if lines else ""
