"""Versions of a dataset: which one a batch is added to, and a version without some cases."""

from collections.abc import Collection

from bedside.core.config import Config, Study
from bedside.core.custody import newest
from bedside.core.dataset import FORMAT, MANIFEST, Counts, Dataset, Manifest
from bedside.core.digest import digest_json
from bedside.core.errors import UsageError
from bedside.core.files import write_atomic
from bedside.core.identity import Identity
from bedside.core.sealing import is_sealed, unsealed
from bedside.core.workspace import Workspace
from bedside.data.split import extend_splits
from bedside.ingest.manifest import fingerprint, held_by, manifest_bytes
from bedside.ingest.records import Records, alone


def latest(workspace: Workspace) -> Dataset:
    """The newest dataset of a study folder.

    Raises:
        UsageError: there is none yet.
    """
    return Dataset(newest(workspace, "ingested", "dataset"), workspace)


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


def check_stored_alike(parent: Dataset, *, encrypt: bool) -> None:
    """Refuse to add to a version whose arrays are not stored as the site asks: equal scans would have two names.

    Raises:
        UsageError: VERSION_SEAL: one is encrypted and the other is not.
        UnsafeArtefact: WRONG_STORE_KEY: it was encrypted with another key.
    """
    store = parent.workspace.store
    names = {(v.held_by or parent.digest, v.file) for case in parent.manifest.cases for v in case.volumes.values()}
    if any(is_sealed(name) is not encrypt for _, name in names):
        raise UsageError(
            "The version to add to is encrypted and the site asks for none, or the other way round; set site.encrypt as it was,"
            " or ingest all batches again without --add.",
            code="VERSION_SEAL",
        )
    if not encrypt:
        return
    here = [path for path in (store / digest / name for digest, name in names) if path.is_file()]
    if here:
        unsealed(min(here, key=lambda path: (path.stat().st_size, path)))


def without(parent: Dataset, study: Study, names: Collection[str]) -> Manifest:
    """The manifest of a version without some cases; who is left stays where they are.

    Args:
        parent: the version before.
        study: its split settings.
        names: of cases, or of patients, all of whose cases go.

    Raises:
        UsageError: CASE_ID (a name that is no case and no patient), or TOO_FEW_PATIENTS.
    """
    before = parent.manifest
    known = {name for case in before.cases for name in (case.id, case.patient)}
    if not names or set(names) - known:
        raise UsageError(
            f"Of {len(set(names))} names to drop, {len(set(names) - known)} are neither a case nor a patient of"
            f" {parent.digest[:12]}; give the names that the dataset uses.",
            code="CASE_ID",
        )
    kept = tuple(held_by(parent, case) for case in before.cases if not {case.id, case.patient} & set(names))
    gone = [case for case in before.cases if {case.id, case.patient} & set(names)]
    left_out = {*before.dropped, *names, *(name for case in gone for name in (case.id, case.volumes["image"].source))}
    splits = extend_splits(before.splits, {case.patient for case in kept}, **study.split.model_dump())
    own = Counts(received=0, accepted=0, rejected={}, duplicates=0, dropped=len(gone))
    changes = {"format": FORMAT, "cases": kept, "splits": splits, "parent": parent.digest, "batch": own, "clinical": None}
    changes["dropped"] = tuple(sorted(left_out))
    return before.model_copy(update=changes)


def drop(config: Config, names: Collection[str]) -> Dataset:
    """Make a version of the newest dataset without some cases, for example of people who withdrew their consent.

    A batch that is added later does not bring them back. The older versions keep their bytes, because models were made of them;
    delete their folders where the law asks for it.

    Raises:
        UsageError: see `latest` and `without`.
        ResourceError: the disk is full.
    """
    workspace = config.workspace
    with alone(workspace):
        parent = latest(workspace)
        manifest = without(parent, config.study, names)
        with workspace.staging() as folder:
            write_atomic(folder / MANIFEST, manifest_bytes(manifest, parent), doing="writing a dataset")
            digest = workspace.put(folder)
        Records(workspace).ingested(digest, digest_json(["drop", parent.digest, sorted(set(names))]), (), manifest)
    return Dataset(digest, workspace)
