"""`bedside train`: here, or as jobs of a SLURM cluster."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bedside.cli import options, show
from bedside.cli.app import HERE, app, mirrored
from bedside.cli.bars import bars
from bedside.cli.options import DatasetName, Folder, Json, Overrides, StudyPath, WhatIf
from bedside.core.errors import UsageError

if TYPE_CHECKING:
    from bedside.core.config import Config
    from bedside.core.dataset import Dataset
    from bedside.core.run import Run


@app.command()
def train(
    study: StudyPath = HERE,
    dataset: DatasetName = "latest",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget a finished or interrupted run, and start again.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Only go on from a checkpoint; an error where there is none.")] = False,
    or_start: Annotated[bool, typer.Option("--or-start", help="With --resume: begin where there is no checkpoint.")] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Only operations that repeat to the bit (as train.deterministic).")
    ] = False,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Train so many seeds and say how far their scores spread (slurm: a job each).")
    ] = 1,
    control: Annotated[
        bool, typer.Option("--control", help="With train.from: also train from scratch, and judge on the fold if that is better.")
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Print every number that training would use here, why, and its peak memory.")
    ] = False,
    on: Annotated[
        Literal["here", "slurm"], typer.Option("--on", help="Where to train: here, or as a SLURM job (site.yaml: slurm).")
    ] = "here",
    folds: Annotated[bool, typer.Option("--folds", help="With --on slurm: one job of an array for each fold left out.")] = False,
    processes: Annotated[
        int, typer.Option("--processes", min=0, help="So many processes share each step (0: as site.training_processes).")
    ] = 0,
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Train the study's network; goes on by itself where an interrupted run stopped."""
    _check_going_on(fresh=fresh, resume=resume, or_start=or_start, seeds=seeds)
    _check_folds(asked=folds, here=on == "here")
    overrides = _changed(overrides or [], processes=processes, deterministic=deterministic)
    config = options.load_config(study, overrides, folder)
    found = options.find_dataset(config, dataset)
    _check_control(config, asked=control, alone=on == "here" and seeds == 1)
    if on == "slurm":
        from bedside.cli.jobs import submit

        return submit(config, found, study=study, folds=folds, seeds=seeds, overrides=overrides, json=json, what_if=what_if)
    if plan_only:
        return _plan_only(config, found, json=json)
    if what_if:
        return _what_if(config, found, json=json)
    if seeds > 1:
        return _seeds(config, found, count=seeds, fresh=fresh, json=json)
    _join(config, found)
    from bedside.adapters.live import tracked
    from bedside.train.pipeline import train as step

    with bars(quiet=json) as shown, tracked(config, shown) as progress:
        run = step(config, found, progress=progress, fresh=fresh, resume=resume and not or_start)
    mirrored(config, quiet=json)
    return _control(config, run, json=json) if control else _show(run, json=json)


def _plan_only(config: "Config", dataset: "Dataset", *, json: bool) -> None:
    from bedside.train.begin import settled
    from bedside.train.planned import fresh_plan

    with bars(quiet=json) as progress:
        decided = fresh_plan(settled(config, keep=False), dataset, progress=progress)
    return show.as_json({"digest": decided.digest(), **decided.model_dump(mode="json")}) if json else show.training(decided)


def _what_if(config: "Config", dataset: "Dataset", *, json: bool) -> None:
    from bedside.train.pipeline import plan

    planned = plan(config, dataset)
    return show.as_json(planned) if json else show.plan(planned, verb="train")


def _show(run: "Run", *, json: bool) -> None:
    if json:
        return show.as_json({"run": run.digest, "model": run.model, **run.record.model_dump(mode="json")})
    return show.run(run)


def _check_control(config: "Config", *, asked: bool, alone: bool) -> None:
    if not asked:
        return
    from bedside.transfer import check_judgeable

    if not alone:
        raise UsageError("--control judges one training here; leave --on slurm and --seeds out.", code="USAGE")
    check_judgeable(config.study.train.parent or "", config.study.train.fold)


def _control(config: "Config", run: "Run", *, json: bool) -> None:
    from bedside.cli.retrain import show_transfer
    from bedside.transfer import judge_transfer

    with bars(quiet=json) as progress:
        found, digest = judge_transfer(config, run, progress=progress)
    if json:
        return show.as_json({"transfer": digest, **found.model_dump(mode="json")})
    show.run(run)
    return show_transfer(found, digest)


def _changed(overrides: list[str], *, processes: int, deterministic: bool) -> list[str]:
    """The overrides, with those that have options of their own."""
    shared = [f"site.training_processes={processes}"] if processes else []
    return [*overrides, *shared, *(["train.deterministic=true"] if deterministic else [])]


def _join(config: "Config", dataset: "Dataset") -> None:
    """In the tasks of a SLURM step other than the first, compute with that one and end."""
    from bedside.train.pipeline import join

    status = join(config, dataset)
    if status is not None:
        raise typer.Exit(status)


def _check_going_on(*, fresh: bool, resume: bool, or_start: bool, seeds: int) -> None:
    if fresh and resume:
        raise UsageError("--fresh forgets what --resume would go on with; give one of them.", code="USAGE")
    if or_start and not resume:
        raise UsageError("--or-start belongs to --resume; without either, train goes on or begins by itself.", code="USAGE")
    if seeds > 1 and resume:
        raise UsageError("--seeds goes on by itself with what is unfinished; leave --resume out.", code="USAGE")


def _check_folds(*, asked: bool, here: bool) -> None:
    if asked and here:
        raise UsageError("--folds makes an array of jobs; say --on slurm with it, or --set train.fold=0 here.", code="USAGE")


def _seeds(config: "Config", dataset: "Dataset", *, count: int, fresh: bool, json: bool) -> None:
    from bedside.adapters.live import tracked
    from bedside.cli.seeds import show_spread
    from bedside.train.seeds import train_seeds

    with bars(quiet=json) as shown, tracked(config, shown) as progress:
        found, digest = train_seeds(config, dataset, count=count, progress=progress, fresh=fresh)
    mirrored(config, quiet=json)
    return show.as_json({"spread": digest, **found.model_dump(mode="json")}) if json else show_spread(found, digest)
