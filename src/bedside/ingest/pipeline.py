"""Received files to a dataset: discover, assess, quarantine what is refused, store the rest, and write all of it down."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bedside.core.config import Config, Study
from bedside.core.dataset import FORMAT, Dataset, Manifest
from bedside.core.digest import canonical_json, digest_file, digest_json
from bedside.core.errors import InputRejected, UsageError
from bedside.core.files import write_atomic
from bedside.core.identity import Identity
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Record
from bedside.core.volume import Array
from bedside.data.split import split_patients
from bedside.formats.found import Refused
from bedside.ingest.arrays import write_array
from bedside.ingest.assess import Accepted, Outcome, Repeated, Rules, outcomes
from bedside.ingest.discover import Discovery, discover, is_plain
from bedside.ingest.quarantine import Quarantine, received_digest
from bedside.ingest.records import Records, alone

RULES_VERSION = 1
"""Counts up whenever the same files under the same study would give another dataset."""
_MANIFEST = "manifest.json"
_MAX_STRUCTURES = 256


class Ingested(Record):
    """What came of an ingest, in files: received = accepted + rejected + duplicates.

    Attributes:
        dataset: digest; "" when nothing was stored.
        cases, patients: in the dataset.
        received, accepted, duplicates: numbers of files, images and masks alike.
        rejected: code to number of files.
    """

    dataset: str
    cases: int
    patients: int
    received: int
    accepted: int
    rejected: dict[str, int]
    duplicates: int


def ingest(config: Config, source: str | Path, *, progress: Progress = SILENT) -> Dataset:
    """Check every file below `source`, and store those that keep the study's contract as one dataset.

    The same files under the same study give the same digest, in whatever order the folder lists them and however often a kill
    cut the step short; what was ingested before is recognised by its bytes and not assessed again.

    Args:
        config: the study; `config.study.source` says where images and masks lie and how patients are called.
        source: the folder that was received.
        progress: advances by one per image.

    Raises:
        UsageError: a folder or the key of the pseudonyms is missing, there are too few patients for the split, or too many
            structures.
        InputRejected: NO_CASES: every file was refused; the bytes and reasons are in quarantine.
        IntegrityError: the dataset was stored before and its bytes have changed since.
        ResourceError: the disk is full.
    """
    study, workspace = config.study, config.workspace
    rules = _rules(study)
    discovery = discover(Path(source), study.source)
    with alone(workspace):
        records = Records(workspace)
        records.freeze(config.promote)
        receipt = _receipt(study, discovery, rules.identity)
        known = records.dataset(receipt)
        if known and (workspace.store / known).is_dir():
            workspace.get(known)
            return Dataset(known, workspace)
        quarantine = Quarantine(workspace.quarantine)
        quarantine.tidy()
        seen: list[Outcome] = []
        with workspace.staging() as folder:
            for outcome in outcomes(discovery, rules, partial(write_array, folder), progress=progress):
                _settle(outcome, quarantine, records)
                seen.append(outcome)
            manifest = _manifest(study, seen)
            write_atomic(folder / _MANIFEST, canonical_json(manifest.model_dump(mode="json")), doing="writing a dataset")
            digest = workspace.put(folder)
        records.ingested(digest, receipt, _accepted(seen), manifest)
    return Dataset(digest, workspace)


def plan(config: Config, source: str | Path, *, progress: Progress = SILENT) -> Ingested:
    """Say what `ingest` would do, writing nothing; `dataset` names the one it would recognise, or is ""."""
    rules = _rules(config.study)
    discovery = discover(Path(source), config.study.source)
    known = Records(config.workspace).dataset(_receipt(config.study, discovery, rules.identity))
    seen = list(outcomes(discovery, rules, _forget, progress=progress))
    patients = {one.record.patient for one in _accepted(seen)}
    accepted, rejected, duplicates = _counts(seen)
    return Ingested(
        dataset=known,
        cases=len(_accepted(seen)),
        patients=len(patients),
        received=discovery.received,
        accepted=accepted,
        rejected=rejected,
        duplicates=duplicates,
    )


def summary(dataset: Dataset) -> Ingested:
    """What came of the ingest that made a dataset."""
    manifest = dataset.manifest
    return Ingested(
        dataset=dataset.digest,
        cases=len(manifest.cases),
        patients=len({case.patient for case in manifest.cases}),
        received=manifest.received,
        accepted=manifest.accepted,
        rejected=manifest.rejected,
        duplicates=manifest.duplicates,
    )


def _rules(study: Study) -> Rules:
    if len(study.contract.labels) > _MAX_STRUCTURES:
        raise UsageError(
            f"The contract names {len(study.contract.labels)} structures; masks are stored in one byte, so at most"
            f" {_MAX_STRUCTURES} are possible.",
            code="TOO_MANY_STRUCTURES",
        )
    return Rules(study.contract, Identity.of(study.source.identity), masks=study.source.labels is not None)


def _receipt(study: Study, discovery: Discovery, identity: Identity) -> str:
    """One digest of all that decides about the dataset: bytes, names, and the part of the study that ingest reads."""
    files = sorted((identity.hidden(name), _digest(path)) for name, path in discovery.files)
    asked = [study.study, *(part.model_dump(mode="json") for part in (study.contract, study.source, study.split))]
    return digest_json([RULES_VERSION, FORMAT, asked, files])


def _digest(path: Path) -> str:
    """The digest of a file, "" for what cannot be read: that is refused later, by name."""
    try:
        return digest_file(path) if is_plain(path) else ""
    except OSError:
        return ""


def _settle(outcome: Outcome, quarantine: Quarantine, records: Records) -> None:
    """Keep what is refused, and write down what is no case."""
    if isinstance(outcome, Refused):
        records.refused(quarantine.admit(outcome))
    elif isinstance(outcome, Repeated):
        records.repeated(received_digest(tuple(_digest(path) for path in outcome.files)), len(outcome.files))


def _manifest(study: Study, seen: Sequence[Outcome]) -> Manifest:
    accepted, rejected, duplicates = _counts(seen)
    received = accepted + sum(rejected.values()) + duplicates
    cases = sorted((one.record for one in _accepted(seen)), key=lambda case: case.id)
    if not cases:
        listed = ", ".join(f"{count} {code}" for code, count in rejected.items())
        raise InputRejected(
            f"No case was accepted: of {received} received files {sum(rejected.values())} were refused"
            + (f" ({listed}); their bytes and the reasons are in quarantine." if rejected else "; the images folder is empty."),
            code="NO_CASES",
        )
    split = study.split
    return Manifest(
        study=study.study,
        contract=study.contract,
        cases=tuple(cases),
        splits=split_patients((case.patient for case in cases), **split.model_dump()),
        received=received,
        accepted=accepted,
        rejected=rejected,
        duplicates=duplicates,
    )


def _accepted(seen: Sequence[Outcome]) -> tuple[Accepted, ...]:
    return tuple(one for one in seen if isinstance(one, Accepted))


def _counts(seen: Sequence[Outcome]) -> tuple[int, dict[str, int], int]:
    """Files accepted, refused by code, and repeated."""
    rejected = Counter[str]()
    for one in seen:
        if isinstance(one, Refused):
            rejected[one.code] += len(one.files)
    repeated = sum(len(one.files) for one in seen if isinstance(one, Repeated))
    return sum(one.files for one in _accepted(seen)), dict(sorted(rejected.items())), repeated


def _forget(name: str, array: Array) -> None:
    """Keep nothing."""
