"""`bedside ensemble`: the models of all folds as one."""

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bedside.cli import options, show
from bedside.cli.app import HERE, app, mirrored
from bedside.cli.options import DatasetName, Folder, Json, Overrides, StudyPath, WhatIf
from bedside.core.errors import UsageError

if TYPE_CHECKING:
    from bedside.core.config import Config
    from bedside.core.dataset import Dataset
    from bedside.core.model import Model


@app.command()
def ensemble(
    study: StudyPath = HERE,
    dataset: DatasetName = "latest",
    member: Annotated[
        Optional[list[str]],  # noqa: UP045 - typer reads it at run time
        typer.Option("--member", help="Digest (or its beginning) of a model; may be repeated. Default: the run of every fold."),
    ] = None,
    overrides: Overrides = None,
    folder: Folder = None,
    json: Json = False,
    what_if: WhatIf = False,
) -> None:
    """Make one model of several, which answers with the mean of what they say: of all folds, or of those that are named."""
    config = options.load_config(study, overrides, folder)
    members = _named(config, member) if member else _of_folds(config, options.find_dataset(config, dataset))
    short = ", ".join(one.digest[:12] for one in members)
    if what_if:
        return show.nothing(f"ensemble would make one model of {len(members)}: {short}", json=json)
    from bedside.engines.ensemble import make_ensemble

    made = make_ensemble(config.workspace, members, study_digest=config.study.digest())
    mirrored(config, quiet=json)
    if json:
        return show.as_json({"model": made.digest, "members": list(made.spec.members)})
    return typer.echo(f"model {made.digest[:12]} is the mean of {len(members)}: {short}")


def _named(config: "Config", names: list[str]) -> "list[Model]":
    return [options.find_model(config, name) for name in names]


def _of_folds(config: "Config", dataset: "Dataset") -> "list[Model]":
    from bedside.train.begin import settled
    from bedside.train.pipeline import finished

    study = settled(config, keep=False).study
    found, missing = [], []
    for fold in range(study.split.folds):
        asked = study.model_copy(update={"train": study.train.model_copy(update={"fold": fold})})
        run = finished(config.workspace, asked, dataset)
        if run is None:
            missing.append(fold)
        else:
            found.append(run.best())
    if missing:
        folds = ", ".join(map(str, missing))
        raise UsageError(
            f"Fold {folds} of this study and dataset was not trained; run bedside train with --set train.fold={missing[0]}, or"
            " name models with --member.",
            code="NOT_YET",
        )
    return found
