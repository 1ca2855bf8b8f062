"""The versions of a study's dataset as a list, and what differs between two of them."""

from collections import defaultdict
from collections.abc import Mapping

from pydantic import Field

from bedside.core.dataset import CaseRecord, Dataset, Manifest
from bedside.core.ledger import Event
from bedside.core.record import Record
from bedside.core.workspace import Workspace


class VersionRow(Record):
    """One version, in the order of the ledger. Counts of files are those of its own batch.

    Attributes:
        here: whether its folder is in the store; what only a manifest tells is empty otherwise.
        cases, patients, locked: in the whole version; locked are the patients of the test split.
        revision: MD5 by which DVC knows the folder's content, as in `store/DIGEST.dvc`; "" when it was not mirrored.
        certificate: digest of the certificate of de-identification; "" when there is none.
    """

    digest: str
    time: str
    here: bool
    parent: str = ""
    cases: int = 0
    patients: int = 0
    locked: int = 0
    added: int = 0
    relabelled: int = 0
    dropped: int = 0
    received: int
    accepted: int
    rejected: dict[str, int]
    duplicates: int
    reasons: dict[str, str] = Field(default_factory=dict)
    revision: str = ""
    certificate: str = ""


class Changes(Record):
    """Names of cases. `changed`: another image, patient, site, scanner, clinical value or fact about the picture."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    relabelled: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


class DatasetDiff(Record):
    """What differs between two versions.

    Attributes:
        all: every difference.
        by_site, by_scanner: the same by the site and scanner of the newer record ("" when unknown).
        moved: patients who are in another split; none in versions of one line.
    """

    before: str
    after: str
    all: Changes
    by_site: dict[str, Changes]
    by_scanner: dict[str, Changes]
    moved: tuple[str, ...]


def versions(workspace: Workspace) -> tuple[VersionRow, ...]:
    """Every dataset that the ledger knows, newest first."""
    made: dict[str, Event] = {}
    revisions: dict[str, str] = {}
    for event in workspace.ledger.events():
        if event.action == "ingested":
            made[event.outputs.get("dataset", "")] = event
        elif event.action == "versioned":
            revisions[event.inputs.get("dataset", "")] = str(event.facts.get("revision", ""))
    return tuple(_row(workspace, digest, event, revisions.get(digest, "")) for digest, event in reversed(made.items()))


def _row(workspace: Workspace, digest: str, event: Event, revision: str) -> VersionRow:
    facts = event.facts
    rejected = facts.get("rejected")
    counts = {name: found if isinstance(found := facts.get(name), int) else 0 for name in ("received", "accepted", "duplicates")}
    row = VersionRow(
        digest=digest,
        time=event.time,
        here=(workspace.store / digest).is_dir(),
        revision=revision,
        rejected={code: n for code, n in rejected.items() if isinstance(n, int)} if isinstance(rejected, dict) else {},
        **counts,
    )
    return row.model_copy(update=_of_manifest(Dataset(digest, workspace).manifest)) if row.here else row


def _of_manifest(manifest: Manifest) -> dict[str, object]:
    own = manifest.batch
    return {
        "parent": manifest.parent,
        "cases": len(manifest.cases),
        "patients": len({case.patient for case in manifest.cases}),
        "locked": len(manifest.splits.test),
        "added": own.added if own else len(manifest.cases),
        "relabelled": own.relabelled if own else 0,
        "dropped": own.dropped if own else 0,
        "reasons": manifest.reasons,
        "certificate": manifest.certificate,
    }


def diff(before: Dataset, after: Dataset) -> DatasetDiff:
    """Compare two datasets case by case; only their manifests are read."""
    old, new = ({case.id: case for case in dataset.manifest.cases} for dataset in (before, after))
    kinds = {name: kind for name in sorted(old.keys() | new.keys()) if (kind := _kind(old.get(name), new.get(name)))}
    known = {**old, **new}
    homes, homes_after = _homes(before.manifest), _homes(after.manifest)
    return DatasetDiff(
        before=before.digest,
        after=after.digest,
        all=_changes(kinds),
        by_site=_grouped(kinds, {name: case.site for name, case in known.items()}),
        by_scanner=_grouped(kinds, {name: case.scanner for name, case in known.items()}),
        moved=tuple(sorted(name for name, home in homes.items() if homes_after.get(name, home) != home)),
    )


def _kind(old: CaseRecord | None, new: CaseRecord | None) -> str:
    if old is None or new is None:
        return "added" if old is None else "removed"
    if _without_masks(old) != _without_masks(new):
        return "changed"
    return "relabelled" if _masks(old) != _masks(new) else ""


def _without_masks(case: CaseRecord) -> object:
    """Everything but the masks and the folders that hold the arrays."""
    image = case.volumes["image"].model_copy(update={"held_by": ""})
    return case.model_copy(update={"volumes": {"image": image}})


def _masks(case: CaseRecord) -> dict[str, tuple[str, str]]:
    return {role: (volume.file, volume.labels) for role, volume in case.volumes.items() if role != "image"}


def _changes(kinds: Mapping[str, str]) -> Changes:
    names = {kind: tuple(name for name, found in kinds.items() if found == kind) for kind in Changes.model_fields}
    return Changes(**names)


def _grouped(kinds: Mapping[str, str], group: Mapping[str, str]) -> dict[str, Changes]:
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for name, kind in kinds.items():
        groups[group[name]][name] = kind
    return {name: _changes(found) for name, found in sorted(groups.items())}


def _homes(manifest: Manifest) -> dict[str, int]:
    """Patient to the number of the group that holds them; the test split is -1."""
    groups = [manifest.splits.test, *manifest.splits.folds]
    return {name: number for number, group in enumerate(groups, start=-1) for name in group}
