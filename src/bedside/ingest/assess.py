"""What becomes of each received file: part of a case, a repetition, or a refusal with a name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bedside.core.contract import CORNER_TOLERANCE_MM, Contract
from bedside.core.dataset import CaseRecord, VolumeRecord
from bedside.core.errors import InputRejected, IntegrityError
from bedside.core.identity import Identity
from bedside.core.progress import SILENT, Progress
from bedside.core.volume import Affine, Array, Reorientation, Volume, farthest_corner_mm
from bedside.formats.dicom import read_folder
from bedside.formats.found import Found, Reading, Refused
from bedside.formats.nifti import read_nifti
from bedside.ingest.arrays import content_name, stored_form
from bedside.ingest.discover import Candidate, Discovery

Keep = Callable[[str, Array], None]


@dataclass(frozen=True)
class Rules:
    """What is asked of received files.

    Attributes:
        contract: limits of every case.
        identity: how its patient and itself are called.
        masks: whether every image needs a mask.
    """

    contract: Contract
    identity: Identity
    masks: bool


@dataclass(frozen=True)
class Accepted:
    """A case that keeps the contract; its arrays have been handed over.

    Attributes:
        record: as it stands in the manifest.
        files: how many received files it is made of.
        label_apart_mm: how far the mask's grid was from the image's before it was laid on it; 0 without a mask.
    """

    record: CaseRecord
    files: int
    label_apart_mm: float


@dataclass(frozen=True)
class Repeated:
    """Files whose content was received before."""

    files: tuple[Path, ...]


Outcome = Accepted | Repeated | Refused


@dataclass(frozen=True)
class _Pair:
    """One image and its mask under one name from outside."""

    key: str
    found: Found
    mask: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        return self.found.files if self.mask is None else (*self.found.files, self.mask)


@dataclass(frozen=True)
class _Taken:
    """What was accepted so far: (image file, affine) to case, and the names in use."""

    contents: dict[tuple[str, bytes], CaseRecord] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Stored:
    """One checked array in stored form, with its record."""

    array: Array
    record: VolumeRecord
    apart_mm: float = 0.0


def outcomes(discovery: Discovery, rules: Rules, keep: Keep, *, progress: Progress = SILENT) -> Iterator[Outcome]:
    """Say what becomes of every file, holding one case in memory at a time.

    Args:
        discovery: the received files; each of them is in exactly one outcome.
        rules: what is asked of them.
        keep: takes (file name, array) of every accepted volume.
        progress: advances by one per candidate.
    """
    yield from discovery.refused
    taken = _Taken()
    progress.start("reading cases", len(discovery.candidates))
    for number, candidate in enumerate(discovery.candidates, start=1):
        reading = _read(candidate)
        yield from reading.refused
        if reading.duplicates:
            yield Repeated(reading.duplicates)
        for pair in _paired(candidate, reading.found, rules.masks):
            if isinstance(pair, Refused):
                yield pair
            else:
                yield from _assess(pair, rules, taken, keep)
        progress.advance(number)


def _read(candidate: Candidate) -> Reading:
    """Everything that the files of one name hold."""
    parts = [_read_one(path) for path in candidate.niftis]
    if candidate.series:
        parts.append(read_folder(candidate.series))
    return Reading(
        tuple(found for part in parts for found in part.found),
        tuple(refused for part in parts for refused in part.refused),
        tuple(path for part in parts for path in part.duplicates),
    )


def _read_one(path: Path) -> Reading:
    try:
        return Reading((read_nifti(path),), (), ())
    except InputRejected as error:
        return Reading((), (_refusal((path,), error),), ())


def _paired(candidate: Candidate, found: tuple[Found, ...], masks_needed: bool) -> Iterator[_Pair | Refused]:
    """Match images and masks of one name; what cannot be matched is refused."""
    masks = candidate.masks
    everything = (*(path for one in found for path in one.files), *masks)
    if not found:
        if masks:
            yield _orphaned(masks)
    elif masks_needed and not masks:
        yield Refused(everything, "LABEL_MISSING", "There is no mask of the image's name, and the study needs one.")
    elif masks_needed and (len(found) > 1 or len(masks) > 1):
        sentence = (
            f"{len(found)} images and {len(masks)} masks share one name; exactly one of each is needed to know which mask"
            " belongs to which image."
        )
        yield Refused(everything, "LABEL_AMBIGUOUS", sentence)
    elif len(found) == 1:
        yield _Pair(candidate.key, found[0], masks[0] if masks else None)
    else:
        for one in sorted(found, key=lambda one: one.source):
            yield _Pair(f"{candidate.key}/{one.source}", one, None)


def _orphaned(masks: tuple[Path, ...]) -> Refused:
    return Refused(masks, "LABEL_ORPHAN", "The image of this mask was refused.")


def _assess(pair: _Pair, rules: Rules, taken: _Taken, keep: Keep) -> Iterator[Outcome]:
    """Check one image with its mask; hand its arrays over, or say why not.

    An `IntegrityError` here is a file that is still being written: it is refused, and the rest of the batch goes on.
    """
    try:
        image = _image(pair.found, rules.contract)
    except (InputRejected, IntegrityError) as error:
        yield _refusal(pair.found.files, error)
        if pair.mask is not None:
            yield _orphaned((pair.mask,))
        return
    mask = None if pair.mask is None else _read_one(pair.mask)
    if mask is not None and mask.refused:
        yield from mask.refused
        yield Refused(pair.found.files, "LABEL_MISSING", "The mask of this image was refused.")
        return
    try:
        label = None if mask is None else _label(mask.found[0], pair.found, rules.contract)
    except (InputRejected, IntegrityError) as error:
        yield _refusal(pair.files, error)
        return
    outcome = _entered(pair, image, label, rules.identity, taken)
    if isinstance(outcome, Accepted):
        for stored in (image, label):
            if stored is not None:
                keep(stored.record.file, stored.array)
    yield outcome


def _refusal(files: tuple[Path, ...], error: InputRejected | IntegrityError) -> Refused:
    return Refused(files, error.code, error.sentence)


def _image(found: Found, contract: Contract) -> _Stored:
    if found.modality not in {"", contract.modality}:
        raise InputRejected(f"The image is no {contract.modality} but of another modality.", code="MODALITY")
    contract.check_image(found.volume)
    return _stored(found.volume.array, found.volume.affine, found)


def _label(mask: Found, image: Found, contract: Contract) -> _Stored:
    """The mask in training ids on the image's own grid."""
    volume = _turned(mask.volume, image.volume)
    apart_mm = contract.check_label(image.volume, volume)
    codes = volume.array.astype(np.uint16)
    table = np.zeros(max(contract.labels.values()) + 1, dtype=np.uint8)
    table[list(contract.labels.values())] = range(len(contract.labels))
    stored = _stored(table[codes], image.volume.affine, mask)
    return _Stored(stored.array, stored.record, apart_mm)


def _turned(label: Volume, image: Volume) -> Volume:
    """Permute and flip a mask's axes to the image's where both lie in space alike; nothing is interpolated.

    Converters of DICOM series commonly store rows the other way round and say so in the affine.
    """
    if label.shape == image.shape and farthest_corner_mm(label, image) <= CORNER_TOLERANCE_MM:
        return label
    back, upright = Reorientation.of(image), label.canonical()
    if upright.shape[1:] != back.shape(image):
        return label
    turned = Volume.of(back.undo(upright.array), _undone(back, image, upright.affine))
    near = turned.shape == image.shape and farthest_corner_mm(turned, image) <= CORNER_TOLERANCE_MM
    return turned if near else label


def _undone(back: Reorientation, image: Volume, upright: Affine) -> Affine:
    """The affine of an array in canonical axes after its axes were turned back into the image's."""
    turn = np.linalg.inv(image.affine) @ back.affine(image)
    return np.asarray(upright @ np.linalg.inv(turn))


def _stored(array: Array, affine: Affine, found: Found) -> _Stored:
    form = stored_form(array)
    a, b, c, d = (tuple(float(value) + 0.0 for value in row) for row in affine)
    record = VolumeRecord.model_validate(
        {
            "file": content_name(form),
            "affine": (a, b, c, d),
            "shape": form.shape,
            "source": found.source,
            "geometry": found.geometry,
        }
    )
    return _Stored(form, record)


def _entered(pair: _Pair, image: _Stored, label: _Stored | None, identity: Identity, taken: _Taken) -> Outcome:
    """Name the case, unless the same image, or another of the same name, was accepted before."""
    content = (image.record.file, np.asarray(image.record.affine).tobytes())
    volumes = {"image": image.record} if label is None else {"image": image.record, "label": label.record}
    if content in taken.contents:
        before = taken.contents[content].volumes.get("label")
        if (before.file if before else "") == (label.record.file if label else ""):
            return Repeated(pair.files)
        return Refused(pair.files, "LABEL_CONFLICT", "The same image was received before, with another mask.")
    record = CaseRecord(
        id=identity.case(pair.key),
        patient=identity.patient(pair.found.patient_id or pair.key),
        volumes=volumes,
        scanner=pair.found.scanner,
    )
    if record.id in taken.names:
        return Refused(pair.files, "CASE_ID", "Another case has the same name after unsafe names were replaced; rename one.")
    taken.contents[content] = record
    taken.names.add(record.id)
    return Accepted(record, len(pair.files), label.apart_mm if label else 0.0)
