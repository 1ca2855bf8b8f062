"""Versions of a dataset: which one comes next, which came before, and what differs between two."""

from collections.abc import Iterator

from bedside.core.config import Study
from bedside.core.custody import newest
from bedside.core.dataset import Dataset
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.identity import Identity
from bedside.core.workspace import Workspace
from bedside.ingest.manifest import fingerprint


def latest(workspace: Workspace) -> Dataset:
    """The newest dataset of a study folder.

    Raises:
        UsageError: there is none yet.
    """
    return Dataset(newest(workspace, "ingested", "dataset"), workspace)


def line_of(dataset: Dataset) -> Iterator[Dataset]:
    """A dataset and the versions before it, newest first, as far as they are in the store."""
    seen: set[str] = set()
    version = dataset
    while version.digest not in seen:
        seen.add(version.digest)
        yield version
        parent = version.manifest.parent
        if not parent or not (dataset.workspace.store / parent).is_dir():
            return
        version = Dataset(parent, dataset.workspace)
    raise IntegrityError("A dataset is its own ancestor; its manifest was not written by bedside.", code="NOT_A_DATASET")


def check_follows(parent: Dataset, study: Study, identity: Identity) -> None:
    """Refuse to add to a version under other rules than its own.

    Raises:
        UsageError: VERSION_CONTRACT or VERSION_KEY.
    """
    manifest = parent.manifest
    if (manifest.study, manifest.contract) != (study.study, study.contract):
        raise UsageError(
            "The study's name or contract has changed since the version to add to; ingest all batches again without --add.",
            code="VERSION_CONTRACT",
        )
    if manifest.names and manifest.names != fingerprint(identity):
        raise UsageError(
            "The version to add to was made with another key of pseudonyms, so a known patient would get a second name; set the"
            " key that made it.",
            code="VERSION_KEY",
        )
