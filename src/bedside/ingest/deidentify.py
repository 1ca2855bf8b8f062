"""A received folder to a folder without identity: every file is written under hashes, waits in quarantine, or is a duplicate."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pydantic import JsonValue

from bedside import __version__
from bedside.core.config import Config
from bedside.core.deidentification import Deidentification
from bedside.core.digest import digest_bytes, digest_json
from bedside.core.errors import InputRejected, UsageError, disk_errors
from bedside.core.files import is_plain, write_atomic
from bedside.core.identity import Identity
from bedside.core.ledger import Ledger
from bedside.core.ports import Executor, InlineExecutor, Lost
from bedside.core.progress import SILENT, Progress
from bedside.formats.burned_in import examine
from bedside.formats.deidentify import Deidentified, Deidentifier, Done, edition
from bedside.formats.dicom_elements import Elements, walk
from bedside.formats.face import recognizable
from bedside.formats.found import Refused
from bedside.formats.gate import receive
from bedside.ingest.certificate import Actions, Certificate, Plan, store
from bedside.ingest.quarantine import Quarantine
from bedside.ingest.records import Records, alone

_NAME_DIGITS = 32
_UID_CONFLICT = "SERIES_UID_CONFLICT"


@dataclass(frozen=True)
class Answer:
    """What became of one received file.

    Attributes:
        received: SHA-256 of its bytes, "" when they could not be read.
        problem: why it is refused; None when it was written.
        written: SHA-256 of the written bytes.
        place: patient, study, series and instance, as hashes; the written file's relative name.
        actions, codes, searched: as `formats.deidentify.Deidentified` says.
        masked: whether boxes were blanked.
        face: whether a face can be recognised in it, which was waived.
        preamble: what its preamble began (`formats.dicom_preamble`), which is not in what was written.
    """

    received: str
    problem: InputRejected | None = None
    written: str = ""
    place: tuple[str, ...] = ()
    actions: tuple[Done, ...] = ()
    codes: tuple[str, ...] = ()
    searched: int = 0
    masked: bool = False
    face: bool = False
    preamble: str = ""


@dataclass(frozen=True)
class _Work:
    """One file's treatment, as a value that travels to a worker; the key is in it and nothing is logged."""

    identity: Identity = field(repr=False)
    options: Deidentification
    target: Path | None = field(repr=False)

    def __call__(self, path: Path) -> Answer:
        """Nothing is raised for a file that is refused: a refusal is part of the answer."""
        received = ""
        try:
            data = receive(path)
            received = digest_bytes(data)
            return self._answer(data, received)
        except InputRejected as problem:
            return Answer(received, problem=problem)

    def _answer(self, data: bytes, received: str) -> Answer:
        elements = Elements()
        walk(data, elements)
        examined = examine(data, elements, self.options)
        if examined.refusal is not None:
            return Answer(received, problem=examined.refusal)
        face = recognizable(elements)
        if face and self.options.faces == "refuse":
            raise InputRejected(
                "A face can be recognised in a head CT or MR; remove it, or waive it with source.deidentify.faces and a reason.",
                code="RECOGNIZABLE_FACE",
            )
        done = _engine(self.identity, self.options).file(
            examined.data, pixels_cleaned=bool(examined.masked), burned_in=examined.burned_in
        )
        place = _place(done)
        if self.target is not None:
            _write(self.target.joinpath(*place[:-1]) / f"{place[-1]}.dcm", done.data)
        return Answer(
            received,
            written=digest_bytes(done.data),
            place=place,
            actions=done.actions,
            codes=done.codes,
            searched=done.searched,
            masked=bool(examined.masked),
            face=face,
            preamble=elements.preamble,
        )


@lru_cache(maxsize=4)
def _engine(identity: Identity, options: Deidentification) -> Deidentifier:
    """One engine per worker, so that what the rules say of an attribute is asked once."""
    return Deidentifier(identity, options)


def deidentify(
    config: Config, source: Path, target: Path, *, executor: Executor | None = None, progress: Progress = SILENT
) -> tuple[str, Certificate]:
    """Write every file below `source` without identity below `target`, and a certificate of it into the study.

    Names below `target` are hashes: pseudonym, study, series, instance. The same files, options and key give the same bytes, so
    a step that a kill cut short is run again; files that are there already are left.

    Args:
        config: the study; `source.deidentify` says which options are used.
        source: the folder that was received; nothing in it is changed.
        target: made when absent.
        executor: where files are worked on; None: here.
        progress: advances by one per file.

    Returns:
        The certificate's digest in the store, and the certificate.

    Raises:
        UsageError: a folder or the key is missing, or one folder lies in the other.
        InputRejected: NO_FILES: there are none; NOTHING_WRITTEN: all were refused, and wait in quarantine.
        ResourceError: the disk is full.
    """
    identity = Identity.of("pseudonym")
    paths = _paths(source, target)
    options, workspace = config.study.source.deidentify, config.workspace
    work = _Work(identity, options, target)
    with alone(workspace):
        records = Records(workspace)
        quarantine = Quarantine(workspace.quarantine, seal=config.site.encrypt)
        quarantine.tidy()
        tally = _Tally()
        for path, answer in _answers(paths, work, executor or InlineExecutor(), progress):
            if answer.problem is not None:
                refused = Refused((path,), answer.problem.code, answer.problem.sentence)
                records.refused(quarantine.admit(refused))
            tally.add(answer)
        if not tally.files:
            raise _nothing_written(tally.rejected)
        certificate = tally.certificate(identity, options)
        digest = store(workspace, certificate, tally.files)
        _record(workspace.ledger, digest, certificate, tally)
    return digest, certificate


def _nothing_written(rejected: Counter[str]) -> InputRejected:
    listed = ", ".join(f"{count} {code}" for code, count in sorted(rejected.items()))
    return InputRejected(
        f"No file was written: all {sum(rejected.values())} received files were refused ({listed}); their bytes and the reasons"
        " are in quarantine.",
        code="NOTHING_WRITTEN",
    )


def plan(config: Config, source: Path, *, executor: Executor | None = None, progress: Progress = SILENT) -> Plan:
    """Say what `deidentify` would do, writing nothing anywhere."""
    work = _Work(Identity.of("pseudonym"), config.study.source.deidentify, None)
    tally = _Tally()
    for _, answer in _answers(_paths(source, None), work, executor or InlineExecutor(), progress):
        tally.add(answer)
    return Plan(
        received=len(tally.received),
        would_write=len(tally.files),
        would_reject=dict(sorted(tally.rejected.items())),
        duplicates=tally.duplicates,
        actions=tally.actions.listed(),
    )


def _record(ledger: Ledger, digest: str, certificate: Certificate, tally: "_Tally") -> None:
    """One line in the chain of custody, unless the last one says the same."""
    facts: dict[str, JsonValue] = {
        "received": certificate.received,
        "written": certificate.written,
        "rejected": sum(certificate.rejected.values()),
        "duplicates": certificate.duplicates,
        "inputs": digest_json(sorted(tally.received)),
        "files": certificate.files,
        "key_id": certificate.key_id,
    }
    if tally.preambles:
        facts["preambles"] = dict(sorted(tally.preambles.items()))
    last = ledger.last("deidentified")
    if last is None or last.outputs.get("certificate") != digest or last.facts != facts:
        ledger.append("deidentified", outputs={"certificate": digest}, facts=facts)


def _paths(source: Path, target: Path | None) -> list[Path]:
    """Every received file, sorted; links are listed so that they are refused, not followed."""
    if not source.is_dir():
        raise UsageError("There is no such folder to de-identify; give the folder that was received.", code="NO_SOURCE")
    if target is not None:
        here, there = source.resolve(), target.resolve()
        if here == there or here in there.parents or there in here.parents:
            raise UsageError("The source and the target lie in each other; write to a folder of its own.", code="NO_TARGET")
    paths = sorted(path for path in source.rglob("*") if path.is_symlink() or not path.is_dir())
    if not paths:
        raise InputRejected("The folder to de-identify holds no files; give the folder that was received.", code="NO_FILES")
    return paths


def _answers(
    paths: list[Path], work: Callable[[Path], Answer], executor: Executor, progress: Progress
) -> Iterator[tuple[Path, Answer]]:
    """Each path with its answer, in order; a lost worker refuses its own file only."""
    progress.start("de-identifying", len(paths))
    for number, (path, answer) in enumerate(zip(paths, executor.map(work, paths), strict=True), start=1):
        yield path, Answer(_digest(path), problem=answer.refusal) if isinstance(answer, Lost) else answer
        progress.advance(number)


def _digest(path: Path) -> str:
    return digest_bytes(path.read_bytes()) if is_plain(path) else ""


def _place(done: Deidentified) -> tuple[str, ...]:
    """Hashes only: nothing from outside is in a name."""
    uids = (done.study_uid, done.series_uid, done.sop_uid)
    return (done.patient, *(digest_bytes(uid.encode())[:_NAME_DIGITS] for uid in uids))


def _write(path: Path, data: bytes) -> None:
    """Write, unless the same bytes are there.

    Raises:
        InputRejected: SERIES_UID_CONFLICT: other bytes are there under the same SOPInstanceUID.
    """
    if path.exists():
        if path.read_bytes() == data:
            return
        raise InputRejected(
            "Another file with this SOPInstanceUID was written before, or other options were; choose an empty target folder.",
            code=_UID_CONFLICT,
        )
    with disk_errors("writing a de-identified file"):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data, doing="writing a de-identified file")


@dataclass
class _Tally:
    """What became of all files, in memory that does not grow with what was done to each.

    Attributes:
        received: SHA-256 of every file, repeated ones too.
        files: received to written SHA-256.
        homes: place below the target to the SHA-256 of what is there.
        preambles: of written files, what the received ones' began, to how many.
    """

    received: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    homes: dict[tuple[str, ...], str] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    actions: Actions = field(default_factory=Actions)
    places: tuple[set[str], set[str], set[str]] = field(default_factory=lambda: (set(), set(), set()))
    codes: set[str] = field(default_factory=set)
    sums: Counter[str] = field(default_factory=Counter)
    preambles: Counter[str] = field(default_factory=Counter)

    def add(self, answer: Answer) -> None:
        """Count one file; of equal contents the first is written and the others are duplicates."""
        self.received.append(answer.received)
        if answer.problem is not None:
            self.rejected[answer.problem.code] += 1
            return
        if answer.received in self.files:
            self.duplicates += 1
            return
        if self.homes.setdefault(answer.place, answer.written) != answer.written:
            self.rejected[_UID_CONFLICT] += 1  # only in a plan: a written second one is a problem
            return
        self.files[answer.received] = answer.written
        self.actions.add(answer.actions)
        for names, one in zip(self.places, answer.place, strict=False):
            names.add(one)
        self.codes.update(answer.codes)
        self.preambles.update([answer.preamble] if answer.preamble else [])
        self.sums.update(searched=answer.searched, masked=answer.masked, face=answer.face)

    def certificate(self, identity: Identity, options: Deidentification) -> Certificate:
        """The record of it."""
        patients, studies, series = map(len, self.places)
        return Certificate(
            tool=f"bedside {__version__}",
            profile=edition(),
            options=options,
            codes=tuple(sorted(self.codes)),
            key_id=identity.key_id,
            received=len(self.received),
            written=len(self.files),
            rejected=dict(sorted(self.rejected.items())),
            duplicates=self.duplicates,
            patients=patients,
            studies=studies,
            series=series,
            masked=self.sums["masked"],
            faces_waived=self.sums["face"],
            searched=self.sums["searched"],
            actions=self.actions.listed(),
            files=digest_json(self.files),
        )
