"""What a dataset says of itself: its cases, who is in which split, and what became of every received file."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bedside.core.config import Study
from bedside.core.dataset import CaseRecord, ClinicalRows, Counts, Dataset, Manifest, Splits
from bedside.core.digest import canonical_json
from bedside.core.errors import InputRejected
from bedside.core.identity import Identity
from bedside.data.split import extend_splits, split_patients
from bedside.formats.found import Refused
from bedside.ingest.assess import Accepted, Outcome, Repeated
from bedside.ingest.names import Paths


@dataclass(frozen=True)
class About:
    """What a manifest says beside cases and counts.

    Attributes:
        identity: under which names are hidden.
        clinical: rows of the clinical table.
        certificate: digest of the certificate of de-identification.
    """

    identity: Identity
    clinical: ClinicalRows | None = None
    certificate: str = ""


def manifest_of(study: Study, settled: Sequence[Outcome], about: About, *, parent: Dataset | None) -> Manifest:
    """Put together what was settled, and the version before if there is one.

    Raises:
        InputRejected: NO_CASES: nothing was accepted, and nothing was known.
        UsageError: there are too few patients for the split.
    """
    accepted, rejected, duplicates = counts(settled)
    cases = [one for one in settled if isinstance(one, Accepted)]
    relabelled = [one for one in cases if one.relabelled]
    if not cases and not (parent and duplicates):
        raise _no_cases(accepted + sum(rejected.values()) + duplicates, rejected)
    batch = Counts(
        received=accepted + sum(rejected.values()) + duplicates,
        accepted=accepted,
        rejected=rejected,
        duplicates=duplicates,
        added=len(cases) - len(relabelled),
        relabelled=len(relabelled),
    )
    before = parent.manifest if parent else None
    records = _joined(parent, [one.record for one in cases])
    total = before or Counts(received=0, accepted=0, rejected={}, duplicates=0)
    reasons = {one.code: one.sentence for one in sorted(_refusals(settled), key=lambda one: one.sentence, reverse=True)}
    return Manifest(
        study=study.study,
        contract=study.contract,
        cases=records,
        splits=_splits(study, records, before.splits if before else None),
        received=total.received + batch.received,
        accepted=total.accepted + batch.accepted,
        rejected=dict(sorted((Counter(total.rejected) + Counter(rejected)).items())),
        duplicates=total.duplicates + batch.duplicates,
        parent=parent.digest if parent else "",
        batch=batch,
        reasons=dict(sorted({**(before.reasons if before else {}), **reasons}.items())),
        clinical=about.clinical,
        certificate=about.certificate,
        names=fingerprint(about.identity),
        dropped=before.dropped if before else (),
    )


def fingerprint(identity: Identity) -> str:
    """Tells one key of pseudonyms from another without telling the key."""
    return identity.hidden("fingerprint of the key")[:16]


def counts(settled: Sequence[Outcome]) -> tuple[int, dict[str, int], int]:
    """Files accepted, refused by code, and repeated; each counts once, however many volumes it holds.

    A multi-frame file of which one volume was accepted is an accepted file, and one that is refused twice has the first reason.
    """
    accepted = {key for one in settled if isinstance(one, Accepted) for key in _keys(one.files)}
    rejected: dict[Path | int, str] = {}
    for refused in _refusals(settled):
        for key in _keys(refused.files):
            if key not in accepted:
                rejected.setdefault(key, refused.code)
    repeated = {key for one in settled if isinstance(one, Repeated) for key in _keys(one.files)} - accepted - rejected.keys()
    return len(accepted), dict(sorted(Counter(rejected.values()).items())), len(repeated)


def _keys(files: Sequence[Path]) -> Iterable[Path | int]:
    """What tells files apart: their numbers where they have some."""
    return files.numbers if isinstance(files, Paths) else files


def held_by(parent: Dataset, case: CaseRecord) -> CaseRecord:
    """A case of the version before, as the next version names it: the arrays stay in the folder that holds them."""
    if all(volume.held_by for volume in case.volumes.values()):
        return case
    volumes = {
        role: volume.model_copy(update={"held_by": volume.held_by or parent.digest}) for role, volume in case.volumes.items()
    }
    return case.model_copy(update={"volumes": volumes})


def manifest_bytes(manifest: Manifest, parent: Dataset | None) -> bytes:
    """The canonical JSON of a manifest; cases that stand in the version before as they are here are not encoded again."""
    before = dict(parent.encoded_cases()) if parent else {}
    cases = [before.get(id(case)) or canonical_json(case.model_dump(mode="json")) for case in manifest.cases]
    rest = manifest.model_dump(mode="json", exclude={"cases"})
    first, second = ({name: rest[name] for name in rest if (name < "cases") is early} for early in (True, False))
    return canonical_json(first)[:-1] + b',"cases":[' + b",".join(cases) + b"]," + canonical_json(second)[1:]


def _joined(parent: Dataset | None, new: Sequence[CaseRecord]) -> tuple[CaseRecord, ...]:
    """Cases of both, by name; arrays that the version before holds already are not stored twice."""
    before = {} if parent is None else {case.id: held_by(parent, case) for case in parent.manifest.cases}
    held = {volume.file: volume.held_by for case in before.values() for volume in case.volumes.values()}
    records = dict(before)
    for case in new:
        if not held:
            records[case.id] = case
            continue
        volumes = {
            role: volume.model_copy(update={"held_by": held.get(volume.file, "")}) for role, volume in case.volumes.items()
        }
        records[case.id] = case.model_copy(update={"volumes": volumes})
    return tuple(records[name] for name in sorted(records))


def _splits(study: Study, cases: Sequence[CaseRecord], before: Splits | None) -> Splits:
    patients = {case.patient for case in cases}
    settings = study.split.model_dump()
    return split_patients(patients, **settings) if before is None else extend_splits(before, patients, **settings)


def _refusals(settled: Sequence[Outcome]) -> list[Refused]:
    return [one for one in settled if isinstance(one, Refused)]


def _no_cases(received: int, rejected: dict[str, int]) -> InputRejected:
    listed = ", ".join(f"{count} {code}" for code, count in rejected.items())
    return InputRejected(
        f"No case was accepted: of {received} received files {sum(rejected.values())} were refused"
        + (f" ({listed}); their bytes and the reasons are in quarantine." if rejected else "; the images folder is empty."),
        code="NO_CASES",
    )
