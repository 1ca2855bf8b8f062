"""The options that verbs share, and how a verb finds what it works on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bedside.core.errors import UsageError

if TYPE_CHECKING:
    from bedside.core.config import Config
    from bedside.core.dataset import Dataset
    from bedside.core.model import Model

StudyPath = Annotated[
    Path, typer.Argument(metavar="STUDY", help="study.yaml, another study file, or a study folder.", show_default=True)
]
Folder = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads it at run time
    typer.Option("--folder", help="Study folder to work in. Default: beside study.yaml, or ./<study name>/."),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting, as in train.minutes=3; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
WhatIf = Annotated[bool, typer.Option("--what-if", help="Say what would be done, and do nothing.")]
ModelName = Annotated[
    str, typer.Option("--model", help="Digest (or its beginning), latest (trained), fast (accelerated) or production.")
]
DatasetName = Annotated[str, typer.Option("--dataset", help="Digest (or its beginning) or latest.")]


def load_config(study: Path, overrides: list[str] | None, folder: Path | None) -> "Config":
    """Read the study and the site."""
    from bedside.core.config import load

    return load(study, overrides=overrides or (), folder=folder)


def find_dataset(config: "Config", name: str) -> "Dataset":
    """Return the dataset that `--dataset` names."""
    from bedside.core.custody import newest
    from bedside.core.dataset import Dataset

    workspace = config.workspace
    return Dataset(newest(workspace, "ingested", "dataset") if name == "latest" else workspace.find(name), workspace)


def find_model(config: "Config", name: str) -> "Model":
    """Return the model that `--model` names."""
    from bedside.core.custody import newest
    from bedside.core.model import Model
    from bedside.promote.release import production_now

    workspace = config.workspace
    if name == "production":
        release = production_now(workspace)
        if release is None:
            raise UsageError("No model is in production yet; run bedside promote first.", code="NOT_YET")
        return Model(release.model, workspace)
    if name == "fast":
        event = workspace.ledger.last("accelerated", chosen=True)
        if event is None:
            raise UsageError("No stage was accepted yet; run bedside accelerate first.", code="NOT_YET")
        return Model(event.outputs["model"], workspace)
    return Model(newest(workspace, "trained", "model") if name == "latest" else workspace.find(name), workspace)
