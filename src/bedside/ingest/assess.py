"""What becomes of each received file: part of a case, a repetition, or a refusal with a name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from bedside.core.case import ClinicalValue
from bedside.core.config import Source
from bedside.core.contract import Contract
from bedside.core.dataset import ACQUISITION, CaseRecord, VolumeRecord
from bedside.core.errors import disk_errors
from bedside.core.files import Syncing
from bedside.core.identity import Identity
from bedside.core.ports import Executor, Lost
from bedside.core.progress import SILENT, Progress
from bedside.formats.found import Found, Refused
from bedside.ingest.allowance import Allowance, held_bytes
from bedside.ingest.convert import Conversion, Converted, convert
from bedside.ingest.discover import Discovery
from bedside.ingest.looks import whole
from bedside.ingest.pairing import Pair, pairs
from bedside.ingest.survey import Survey


@dataclass(frozen=True)
class Rules:
    """What is asked of received files.

    Attributes:
        contract: limits of every case.
        identity: how its patient and itself are called.
        source: whether images need masks, may be resampled or be reformats, and from which hospital they are.
        clinical: patient as received to the values of the clinical table.
    """

    contract: Contract
    identity: Identity
    source: Source
    clinical: Mapping[str, Mapping[str, ClinicalValue]] = field(default_factory=dict, repr=False)

    def lacks_values(self, pair: Pair) -> bool:
        """Whether the contract requires clinical values of a patient who has no row."""
        return any(column.required for column in self.contract.clinical.values()) and patient_of(pair) not in self.clinical


@dataclass(frozen=True)
class Accepted:
    """A case that keeps the contract; its arrays are in the folder.

    Attributes:
        record: as it stands in the manifest.
        files: the received files it is made of; one multi-frame file may be part of several cases.
        label_apart_mm: how far the mask's grid was from the image's before it was laid on it; 0 without a mask.
        received_patient: the patient as received, for the rows of the clinical table; never written down.
        relabelled: it takes the place of a case of the version before, whose image it shares and whose mask it does not.
    """

    record: CaseRecord
    files: Sequence[Path] = field(repr=False)
    label_apart_mm: float
    received_patient: str = field(default="", repr=False)
    relabelled: bool = False


@dataclass(frozen=True)
class Repeated:
    """Files whose content was received before."""

    files: Sequence[Path]


Outcome = Accepted | Repeated | Refused
_Content = tuple[str, bytes]


@dataclass
class Taken:
    """What was accepted so far, the version before included: to recognise repetitions by.

    Attributes:
        contents: (image file, affine) to case.
        names: of cases, to the digests of what they were received as.
        before: names of the cases of the version before that still stand.
        dropped: what that version or one before it left out, as `Manifest.dropped`.
    """

    contents: dict[_Content, CaseRecord] = field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    before: set[str] = field(default_factory=set)
    dropped: frozenset[str] = frozenset()

    @classmethod
    def of(cls, cases: Sequence[CaseRecord], dropped: Iterable[str] = ()) -> "Taken":
        """Begin with the cases of the version before."""
        contents = {_content(case.volumes["image"]): case for case in cases}
        return cls(contents, {case.id: _sources(case) for case in cases}, {case.id for case in cases}, frozenset(dropped))


@dataclass(frozen=True)
class Work:
    """Where conversion happens.

    Attributes:
        executor: runs it.
        folder: takes the arrays; None when nothing is to be written.
        taken: what was accepted before; grows.
        seal: encrypt the arrays.
        allowance: memory for all conversions together.
        syncing: forces what was written to disk meanwhile; None: somebody else does.
    """

    executor: Executor
    folder: Path | None
    taken: Taken = field(default_factory=Taken)
    seal: bool = False
    allowance: Allowance = field(default_factory=Allowance)
    syncing: Syncing | None = None

    def written(self, answer: Converted | tuple[Refused, ...] | Lost) -> None:
        """Let the arrays of a conversion go to the disk."""
        if self.folder is not None and self.syncing is not None and isinstance(answer, Converted):
            for volume in (answer.image, answer.label):
                if volume is not None:
                    with disk_errors("writing a case"):
                        self.syncing.begin(self.folder / volume.file)


def outcomes(survey: Survey, discovery: Discovery, rules: Rules, work: Work, *, progress: Progress = SILENT) -> Iterator[Outcome]:
    """Say what becomes of every file; only small records are held here, and a worker holds one case at a time.

    Files in the outcomes are `Paths`, so that they can be counted by their numbers.

    Args:
        survey: what the header pass saw.
        discovery: the received files; each of them is in exactly one outcome.
        rules: what is asked of them.
        work: where conversion happens, and what was accepted before.
        progress: advances by one per image.
    """
    for one in _outcomes(survey, discovery, rules, work, progress):
        yield replace(one, files=survey.files.all_of(one.files))


def _outcomes(survey: Survey, discovery: Discovery, rules: Rules, work: Work, progress: Progress) -> Iterator[Outcome]:
    yield from discovery.refused
    masks = _mask_files(discovery)
    yield from (one for path, one in survey.niftis.items() if isinstance(one, Refused) and path not in masks)
    source = rules.source
    reading = survey.looks.reading(resample=source.resample, keep_reformats=source.keep_reformats)
    yield from reading.refused
    if reading.duplicates:
        yield Repeated(reading.duplicates)
    jobs: list[Pair] = []
    for pair in pairs(discovery, survey, reading, masks_needed=source.labels is not None):
        if isinstance(pair, Refused):
            yield pair
        elif rules.lacks_values(pair):
            sentence = "The clinical table has no sound row of this patient, and the contract requires one."
            yield Refused(pair.files, "CLINICAL_MISSING", sentence)
        elif not isinstance(pair.mask, Refused) and work.taken.names.get(rules.identity.case(pair.key)) == _received_as(pair):
            yield Repeated(pair.files)
        elif (left_out := _left_out(pair, rules, work.taken.dropped)) is not None:
            yield left_out
        elif (too_large := work.allowance.refusal(pair)) is not None:
            yield too_large
        else:
            jobs.append(pair)
    progress.start("reading cases", len(jobs))
    function = partial(convert, Conversion(rules.contract, work.folder, work.seal))
    # When the largest comes last, all other workers wait for it.
    largest_first = sorted(range(len(jobs)), key=lambda number: held_bytes(jobs[number]), reverse=True)
    answers: dict[int, Converted | tuple[Refused, ...] | Lost] = {}
    room = work.allowance.room(jobs)
    converted = work.executor.map(function, (_whole(jobs[n]) for n in largest_first), room=room)
    for number, answer in zip(largest_first, converted, strict=True):
        answers[number] = answer
        work.written(answer)
        progress.advance(len(answers))
    for number, pair in enumerate(jobs):
        yield from _settled(pair, answers[number], rules, work.taken)


def _whole(pair: Pair) -> Pair:
    """A pair with all that a worker needs."""
    image = whole(pair.image)
    return replace(pair, image=replace(pair.image, volume=image.volume, files=image.files), files=tuple(pair.files))


def _left_out(pair: Pair, rules: Rules, dropped: frozenset[str]) -> Repeated | Refused | None:
    """What a pair becomes that an earlier version left out: bytes of then are not kept again, others are refused; else None."""
    if pair.image.source in dropped:
        return Repeated(pair.files)
    if {rules.identity.case(pair.key), _patient_name(pair, rules)} & dropped:
        sentence = "An earlier version left this case or patient out; to bring it back, ingest all batches again without --add."
        return Refused(pair.files, "DROPPED", sentence)
    return None


def _mask_files(discovery: Discovery) -> frozenset[Path]:
    return frozenset(path for paths in discovery.masks.values() for path in paths)


def patient_of(pair: Pair) -> str:
    """The patient as received: what the header says, else what the names of folders and files say."""
    return pair.image.patient_id or pair.patient


def _patient_name(pair: Pair, rules: Rules) -> str:
    """The patient as the dataset calls them; a file that was de-identified here has the name already."""
    image = pair.image
    if image.sealed:
        return image.patient_id
    return rules.identity.patient(patient_of(pair), image.issuer if image.patient_id else "")


def _received_as(pair: Pair) -> tuple[str, ...]:
    return (pair.image.source, *([pair.mask.source] if isinstance(pair.mask, Found) else []))


def _sources(case: CaseRecord) -> tuple[str, ...]:
    return tuple(case.volumes[role].source for role in ("image", "label") if role in case.volumes)


def _content(image: VolumeRecord) -> _Content:
    return image.file, np.asarray(image.affine).tobytes()


def _settled(pair: Pair, answer: Converted | tuple[Refused, ...] | Lost, rules: Rules, taken: Taken) -> Iterator[Outcome]:
    if isinstance(answer, Lost):
        problem = answer.refusal
        yield Refused(pair.files, problem.code, problem.sentence)
    elif isinstance(answer, Converted):
        yield _entered(pair, answer, rules, taken)
    else:
        yield from answer


def _entered(pair: Pair, found: Converted, rules: Rules, taken: Taken) -> Outcome:
    """Name the case, unless the same image, or another of the same name, was accepted before."""
    content = _content(found.image)
    before = taken.contents.get(content)
    if before is not None:
        known = before.volumes.get("label")
        if found.label is None or (known is not None and known.file == found.label.file):
            return Repeated(pair.files)
        if before.id not in taken.before:
            return Refused(pair.files, "LABEL_CONFLICT", "The same image was received before, with another mask.")
        taken.before.discard(before.id)
        record = before.model_copy(update={"volumes": {**before.volumes, "label": found.label}})
        taken.contents[content] = record
        return Accepted(record, pair.files, found.label_apart_mm, patient_of(pair), relabelled=True)
    record = _record(pair, found, rules)
    if record.id in taken.names:
        sentence = (
            "Another case has the same name: its received name differs only in what is unsafe in a name, so rename one of the"
            " two; or the version before took this very series under other mask rules, so ingest all batches again without --add."
        )
        return Refused(pair.files, "CASE_ID", sentence)
    taken.contents[content] = record
    taken.names[record.id] = _sources(record)
    return Accepted(record, pair.files, found.label_apart_mm, patient_of(pair))


def _record(pair: Pair, found: Converted, rules: Rules) -> CaseRecord:
    image = pair.image
    return CaseRecord(
        id=rules.identity.case(pair.key),
        patient=_patient_name(pair, rules),
        volumes={"image": found.image} if found.label is None else {"image": found.image, "label": found.label},
        clinical=dict(rules.clinical.get(patient_of(pair), {})),
        site=rules.source.site,
        scanner=image.scanner,
        acquisition=_acquisition(image),
        notes=tuple(note for note in found.notes if note != "PREAMBLE_TIFF" or not rules.source.tiff_preambles),
    )


def _acquisition(image: Found) -> dict[str, ClinicalValue]:
    """The facts about the picture that a case may say."""
    return {key: image.acquisition[key] for key in ACQUISITION if image.acquisition.get(key) is not None}
