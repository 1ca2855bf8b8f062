"""Received files to a dataset: look, assess, quarantine what is refused, store the rest, and write all of it down."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from bedside.adapters.site import executor_for
from bedside.core.config import Config, Study
from bedside.core.dataset import FORMAT, MANIFEST, Dataset, Manifest
from bedside.core.digest import canonical_json, digest_file, digest_json
from bedside.core.errors import InputRejected, UsageError, disk_errors
from bedside.core.files import Syncing, write_atomic
from bedside.core.heap import seldom_collecting
from bedside.core.identity import Identity
from bedside.core.labels import FIRST_CODE
from bedside.core.ports import Executor
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Record
from bedside.core.sealing import cipher
from bedside.formats.found import Refused
from bedside.ingest.allowance import Allowance
from bedside.ingest.assess import Accepted, Outcome, Repeated, Rules, Taken, Work, outcomes
from bedside.ingest.certified import certificate_of
from bedside.ingest.clinical import clinical_table, rows_of
from bedside.ingest.discover import Discovery, discover
from bedside.ingest.manifest import About, counts, manifest_bytes, manifest_of
from bedside.ingest.quarantine import Quarantine, received_digest
from bedside.ingest.records import Records, alone
from bedside.ingest.stats import Looks, Stats
from bedside.ingest.survey import Survey, survey
from bedside.ingest.versions import check_follows, check_stored_alike, latest

if TYPE_CHECKING:
    from bedside.formats.table import ClinicalTable

RULES_VERSION = 5
"""Counts up whenever the same files under the same study would give another dataset."""
_MAX_STRUCTURES = FIRST_CODE
_WORK = ("bedside.formats.header_pass", "bedside.ingest.convert")
"""Where the functions that workers run are."""
_MEMORY = "received"
_BYTES = 32
"""Of a digest."""


class Ingested(Record):
    """What came of an ingest, in files: received = accepted + rejected + duplicates.

    Attributes:
        dataset: digest; "" when nothing was stored.
        parent: digest of the version that it adds to; "" when it stands alone.
        cases, patients: in the dataset, those of the parent included.
        added, relabelled: cases that came with these files.
        received, accepted, duplicates: numbers of these files, images and masks alike.
        rejected: code to number of these files.
        obstacle: why it would not become a dataset all the same; only a plan has one.
    """

    dataset: str
    parent: str = ""
    cases: int
    patients: int
    added: int
    relabelled: int = 0
    received: int
    accepted: int
    rejected: dict[str, int]
    duplicates: int
    obstacle: str = ""


@dataclass(frozen=True)
class _Batch:
    """One received folder under one study, and the version that it adds to."""

    config: Config
    discovery: Discovery
    rules: Rules
    table: "ClinicalTable | None"
    clinical: str
    """Digest of the table's bytes."""
    parent: Dataset | None

    def hidden(self) -> Iterator[tuple[str, str]]:
        """Names behind which nobody without the key can look, and paths."""
        return ((self.rules.identity.hidden(name), path) for name, path in self.discovery.files.texts())

    def certificate(self, digests: bytearray, records: Records) -> str:
        """Digest of the certificate of de-identification of all images, "" without one."""
        if not records.certificates:
            return ""
        numbers = map(self.discovery.files.number, self.discovery.images.values())
        return certificate_of(self.config.workspace, records.certificates, {_digest(digests, number) for number in numbers})

    def survey(self, workers: Executor, progress: Progress) -> Survey:
        """Look at every file."""
        pixels = self.rules.source.deidentify
        return survey(self.discovery, workers, self.rules.identity, pixels=pixels, progress=progress)

    def receipt(self, digests: bytearray, certificate: str, parent: str) -> str:
        """One digest of all that decides about the dataset: bytes, names, certificate, study, parent, key of the store.

        It is that of the canonical JSON of a list, of which the many names and digests are never held as such.
        """
        study = self.config.study
        asked = [study.study, *(part.model_dump(mode="json") for part in (study.contract, study.source, study.split))]
        seal = [cipher().key_id.hex()] if self.config.site.encrypt else []
        total = sha256(canonical_json([RULES_VERSION, FORMAT, asked, self.clinical, certificate])[:-1] + b",[")
        names = (bytes.fromhex(self.rules.identity.hidden(name)) for name in self.discovery.files)
        rows = sorted(name + digests[_BYTES * n : _BYTES * (n + 1)] for n, name in enumerate(names))
        for number, row in enumerate(rows):
            digest = row[_BYTES:].hex() if any(row[_BYTES:]) else ""
            total.update(f'{"," if number else ""}["{row[:_BYTES].hex()}","{digest}"]'.encode())
        total.update(b"]," + canonical_json([parent, *seal])[1:])
        return total.hexdigest()


def _digest(digests: bytearray, number: int) -> str:
    found = digests[_BYTES * number : _BYTES * (number + 1)]
    return found.hex() if any(found) else ""


def ingest(
    config: Config, source: str | Path, *, add: bool = False, executor: Executor | None = None, progress: Progress = SILENT
) -> Dataset:
    """Check every file below `source`, and store those that keep the study's contract as one dataset.

    The same files under the same study give the same digest, in whatever order the folder lists them, whatever executor did the
    work and however often a kill cut the step short; what was ingested before is recognised and not assessed again.

    Args:
        config: the study; `config.study.source` says where images and masks lie and how patients are called.
        source: the folder that was received.
        add: make a version of the newest dataset: its cases and the new ones, its patients where they are. Without it the
            dataset stands alone.
        executor: where files are read; None: as the site says.
        progress: advances by one per file, then by one per image.

    Raises:
        UsageError: a folder or the key of the pseudonyms is missing, there are too few patients for the split, too many
            structures, or `add` and nothing that could be added to.
        InputRejected: NO_CASES: every file was refused; the bytes and reasons are in quarantine.
        IntegrityError: the dataset was stored before and its manifest has changed since.
        ResourceError: the disk is full.
    """
    workspace = config.workspace
    batch = _batch(config, Path(source), add=add)
    with alone(workspace), seldom_collecting(), ExitStack() as stack:
        if add:  # again, because another process may have made a version while this one waited
            batch = replace(batch, parent=_followed(config, batch.rules, before=batch.parent))
        records = Records(workspace)
        records.freeze(config.promote)
        stats = Stats(workspace.scratch / _MEMORY / f"seen-{batch.rules.identity.hidden(str(Path(source).absolute()))[:16]}.txt")
        known = _known(batch, records, stats.recall(batch.hidden()))
        if known is not None:
            _remember_own(known)
            return known
        workers = executor or stack.enter_context(executor_for(config, modules=_WORK))
        looks = Looks(batch.hidden())
        seen = batch.survey(workers, progress)
        known = _known(batch, records, seen.digests)
        if known is None:
            known = _stored(batch, seen, workers, records, progress)
        stats.remember(looks, seen.digests)
        _remember_own(known)
    return known


def _stored(batch: _Batch, seen: Survey, workers: Executor, records: Records, progress: Progress) -> Dataset:
    """Assess what was seen, put the arrays into the store, and write down what became of every file."""
    workspace = batch.config.workspace
    certificate = batch.certificate(seen.digests, records)
    quarantine = Quarantine(workspace.quarantine, seal=batch.config.site.encrypt)
    quarantine.tidy()
    with workspace.staging() as folder, Syncing() as syncing:
        work = Work(workers, folder, _taken(batch), batch.config.site.encrypt, Allowance.of(batch.config.site), syncing)
        settled = tuple(outcomes(seen, batch.discovery, batch.rules, work, progress=progress))
        refused = tuple(one for one in settled if isinstance(one, Refused))
        records.refused(*quarantine.admit_all(refused))
        for one in settled:
            if isinstance(one, Repeated):
                records.repeated(received_digest(tuple(seen.digest(path) for path in one.files)), len(one.files))
        clinical = rows_of(batch.table, {one.received_patient for one in _accepted(settled)})
        about = About(batch.rules.identity, clinical, certificate)
        manifest = manifest_of(batch.config.study, settled, about, parent=batch.parent)
        with disk_errors("writing a case"):
            syncing.finish(())  # of what is tidied away nothing is open then, which some disks show as a file
        own = _tidied(folder, manifest)
        data = manifest_bytes(manifest, batch.parent)
        write_atomic(folder / MANIFEST, data, doing="writing a dataset", wait=False)  # `put` waits for all of them
        digest = workspace.put(folder, known=own, syncing=syncing)
    parent = batch.parent.digest if batch.parent else ""
    records.ingested(digest, batch.receipt(seen.digests, certificate, parent), _accepted(settled), manifest)
    return Dataset.just_stored(digest, workspace, manifest)


def _tidied(folder: Path, manifest: Manifest) -> dict[str, str]:
    """Remove arrays of pairs that became no case, and return name to digest of the others."""
    own = {volume.file for case in manifest.cases for volume in case.volumes.values() if not volume.held_by}
    for path in folder.iterdir():
        if path.name not in own:
            path.unlink()
    return {name: name.partition(".")[0] for name in own}


def plan(
    config: Config, source: str | Path, *, add: bool = False, executor: Executor | None = None, progress: Progress = SILENT
) -> Ingested:
    """Say what `ingest` would do, writing nothing; `dataset` names the one it would recognise, or is ""."""
    batch = _batch(config, Path(source), add=add)
    with ExitStack() as stack:
        workers = executor or stack.enter_context(executor_for(config, modules=_WORK))
        seen = batch.survey(workers, progress)
        known = _known(batch, Records(config.workspace), seen.digests)
        if known is not None:
            return summary(known)
        work = Work(workers, None, _taken(batch), config.site.encrypt, Allowance.of(config.site))
        settled = tuple(outcomes(seen, batch.discovery, batch.rules, work, progress=progress))
    before = batch.parent.manifest.cases if batch.parent else ()
    new = [one for one in _accepted(settled) if not one.relabelled]
    accepted, rejected, duplicates = counts(settled)
    return Ingested(
        dataset="",
        parent=batch.parent.digest if batch.parent else "",
        cases=len(before) + len(new),
        patients=len({case.patient for case in before} | {one.record.patient for one in new}),
        added=len(new),
        relabelled=len(_accepted(settled)) - len(new),
        received=batch.discovery.received,
        accepted=accepted,
        rejected=rejected,
        duplicates=duplicates,
        obstacle=_obstacle(batch, settled),
    )


def _obstacle(batch: _Batch, settled: tuple[Outcome, ...]) -> str:
    """What `ingest` would end with although files were accepted: too few patients for the split, or no case at all."""
    try:
        manifest_of(batch.config.study, settled, About(batch.rules.identity), parent=batch.parent)
    except InputRejected:
        return "No case would be accepted."
    except UsageError as error:
        return error.sentence
    return ""


def summary(dataset: Dataset) -> Ingested:
    """What came of the ingest that made a dataset."""
    manifest = dataset.manifest
    own = manifest.batch or manifest
    return Ingested(
        dataset=dataset.digest,
        parent=manifest.parent,
        cases=len(manifest.cases),
        patients=len({case.patient for case in manifest.cases}),
        added=manifest.batch.added if manifest.batch else len(manifest.cases),
        relabelled=manifest.batch.relabelled if manifest.batch else 0,
        received=own.received,
        accepted=own.accepted,
        rejected=own.rejected,
        duplicates=own.duplicates,
    )


def _batch(config: Config, source: Path, *, add: bool) -> _Batch:
    study = config.study
    if config.site.encrypt:
        cipher()  # a missing key is said before anything is read
    discovery = discover(source, study.source)
    table = clinical_table(source, study)
    clinical = "" if study.source.clinical is None else digest_file(source / study.source.clinical)
    rules = _rules(study, table)
    parent = _followed(config, rules) if add else None
    return _Batch(config, discovery, rules, table, clinical, parent)


def _followed(config: Config, rules: Rules, *, before: Dataset | None = None) -> Dataset:
    """The newest version, if a batch under these rules can be added to it; `before` was seen to be such a one."""
    parent = latest(config.workspace)
    if before is not None and parent.digest == before.digest:
        return before
    check_follows(parent, config.study, rules.identity)
    check_stored_alike(parent, encrypt=config.site.encrypt)
    return parent


def _rules(study: Study, table: "ClinicalTable | None") -> Rules:
    if len(study.contract.labels) > _MAX_STRUCTURES:
        raise UsageError(
            f"The contract names {len(study.contract.labels)} structures; masks are stored in one byte, so at most"
            f" {_MAX_STRUCTURES} are possible.",
            code="TOO_MANY_STRUCTURES",
        )
    source = study.source
    values = {} if table is None else table.rows
    return Rules(study.contract, Identity.of(source.identity), source, values)


def _known(batch: _Batch, records: Records, digests: bytearray | None) -> Dataset | None:
    """The dataset that these files gave before, if it is still in the store; to a line that holds them they add nothing."""
    if digests is None:
        return None
    workspace = batch.config.workspace
    certificate = batch.certificate(digests, records)
    if batch.parent is None:
        found = records.dataset(batch.receipt(digests, certificate, ""))
        return _here(Dataset(found, workspace)) if found else None
    for version, before in records.line(batch.parent.digest):
        if not (workspace.store / version).is_dir():
            break
        if records.dataset(batch.receipt(digests, certificate, before)) == version:
            return _here(batch.parent)
    return None


def _here(dataset: Dataset) -> Dataset | None:
    """The dataset, if its folder is there; a file in it that does not look as it did when it was stored is hashed again."""
    if not (dataset.workspace.store / dataset.digest).is_dir():
        return None
    if _stats_of(dataset).recall(_own(dataset)) is None:
        _ = dataset.folder
    return dataset


def _stats_of(dataset: Dataset) -> Stats:
    return Stats(dataset.workspace.scratch / _MEMORY / f"held-{dataset.digest[:16]}.txt")


def _remember_own(dataset: Dataset) -> None:
    own = _own(dataset)
    _stats_of(dataset).remember(Looks(own, ours=True), bytearray(_BYTES * len(own)))


def _own(dataset: Dataset) -> list[tuple[str, Path]]:
    """The files of a version's own folder, under digests of their names."""
    names = {v.file for case in dataset.manifest.cases for v in case.volumes.values() if not v.held_by}
    return [(digest_json(name), dataset.workspace.store / dataset.digest / name) for name in (MANIFEST, *sorted(names))]


def _taken(batch: _Batch) -> Taken:
    return Taken.of(batch.parent.manifest.cases, batch.parent.manifest.dropped) if batch.parent else Taken()


def _accepted(settled: tuple[Outcome, ...]) -> tuple[Accepted, ...]:
    return tuple(one for one in settled if isinstance(one, Accepted))
