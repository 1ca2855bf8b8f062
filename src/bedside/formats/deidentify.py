"""De-identification of one DICOM file: PS3.15 Annex E, Basic Profile with options, at every level of nesting.

The bounded walk looks first and pydicom second. What was written is searched for everything that is known of the patient from the
same file before anybody gets to see it; a hit refuses the file.
"""

import re
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence

from bedside import __version__
from bedside.core.deidentification import Deidentification
from bedside.core.errors import InputRejected, UsageError
from bedside.core.identity import Identity
from bedside.core.record import Record
from bedside.formats.deidentify_act import Acting
from bedside.formats.deidentify_known import Known
from bedside.formats.deidentify_rules import ISSUER, PATIENT_ID, RULES, Decision, decide, keyword, sequence_tags
from bedside.formats.deidentify_seal import already, put_seal
from bedside.formats.deidentify_table import is_classic, table
from bedside.formats.deidentify_write import part10
from bedside.formats.dicom_codes import coded
from bedside.formats.dicom_elements import PIXEL_DATA, Elements, walk
from bedside.formats.dicom_syntax import BIG_ENDIAN, IMPLICIT
from bedside.formats.dicom_values import name, text
from bedside.formats.gate import LIMITS, Limits, guarded

IMPLEMENTATION_UID = "2.25.202190384917432605712934"
METHOD = "bedside"
_REMOVED, _STUDY_UID, _SERIES_UID, _SOP_UID = 0x00120062, 0x0020000D, 0x0020000E, 0x00080018
_TOGETHER = (_STUDY_UID, _SERIES_UID, 0x00200052)
_UID = re.compile(r"[0-9.]{1,64}\Z")
_OPTION_CODES = {
    "pixels": ("113101", "Clean Pixel Data Option"),
    "descriptors": ("113105", "Clean Descriptors Option"),
    "keep": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "shift": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient_characteristics": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "safe_private": ("113111", "Retain Safe Private Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
}
_TEMPORAL_TAG = 0x00280303
_TEMPORAL = {"shift": "MODIFIED", "remove": "REMOVED", "keep": "UNMODIFIED"}
_DICOMDIR = "1.2.840.10008.1.3.10"
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.104."


class Done(Record):
    """What was done to one attribute, wherever it stood; never a value.

    Attributes:
        tag: eight hexadecimal digits; of private elements the group only.
        keyword: the standard's name of it.
        what: removed, emptied, replaced, mapped, shifted, capped, cleaned or pseudonym.
        because: name of the rule.
        count: how often.
    """

    tag: str
    keyword: str
    what: str
    because: str
    count: int = 1


class Explanation(Record):
    """One rule, in the words of the documentation."""

    rule: str
    says: str


@dataclass(frozen=True, repr=False)
class Deidentified:
    """A file without identity.

    Attributes:
        data: the Part 10 bytes.
        patient: pseudonym.
        study_uid, series_uid, sop_uid: as written.
        actions: what was done, sorted by tag.
        codes: of the profile and its options, as written (CID 7050).
        searched: how many strings of the received file were looked for in the written bytes.
        again: whether the file bore our seal already, so that pseudonym, UIDs and dates were left.
    """

    data: bytes
    patient: str
    study_uid: str
    series_uid: str
    sop_uid: str
    actions: tuple[Done, ...]
    codes: tuple[str, ...]
    searched: int
    again: bool


def codes_of(options: Deidentification, *, pixels: bool = False) -> tuple[tuple[str, str], ...]:
    """Code and meaning of the profile and of the options in use (PS3.16 CID 7050)."""
    used = {one for one in _OPTION_CODES if getattr(options, one, False)} | {options.dates} | ({"pixels"} if pixels else set())
    chosen = sorted(_OPTION_CODES[one] for one in used if one in _OPTION_CODES)
    return (("113100", "Basic Application Confidentiality Profile"), *chosen)


class Deidentifier:
    """Takes identity out of files; equal files give equal bytes.

    Args:
        identity: with the project's key.
        options: of the profile.
        limits: the gate's.
    """

    def __init__(self, identity: Identity, options: Deidentification | None = None, *, limits: Limits = LIMITS) -> None:
        if identity.mode != "pseudonym":
            raise UsageError("De-identification needs pseudonyms; set source.identity: pseudonym and a key.", code="NO_KEY")
        self.identity, self.options, self.limits = identity, options or Deidentification(), limits
        self._decisions: dict[tuple[int, str, bool], Decision] = {}

    def explain(self) -> tuple[Explanation, ...]:
        """Every rule, in the order in which they are asked."""
        return tuple(Explanation(rule=rule.name, says=rule.says) for rule in RULES)

    def file(self, data: bytes, *, pixels_cleaned: bool = False, burned_in: Literal["", "NO"] = "") -> Deidentified:
        """De-identify one Part 10 file.

        Args:
            data: the received bytes, masked already where masks apply.
            pixels_cleaned: whether masks were applied, which is written down (113101).
            burned_in: what BurnedInAnnotation is to say now, "" to leave it.

        Raises:
            InputRejected: the gate's codes; PHI_DOCUMENT (a document or directory, which cannot be cleaned), PHI_PATIENT (nothing
                says whose file it is) or PHI_RESIDUAL (something known of the patient would be left).
        """
        elements = Elements()
        walk(data, elements, limits=self.limits, sequences=sequence_tags())
        _check_kind(elements)
        again = already(elements, self.identity)
        dates = self._dates(elements, again=again)
        patient = self._patient(elements, again=again)
        with guarded("DCM_STRUCTURE", "The file cannot be de-identified: its elements contradict the standard; fetch it again."):
            dataset = dcmread(BytesIO(data))
            acting = Acting(
                identity=self.identity,
                decide=self._decide,
                classic=is_classic(elements.sop_class),
                patient=patient,
                days=0 if again and text(elements, _TEMPORAL_TAG) != _TEMPORAL["keep"] else self.identity.days(patient),
                again=again,
                keeps_dates=self.options.dates == "keep",
                max_depth=self.limits.max_depth,
                names_types=elements.syntax not in {IMPLICIT, BIG_ENDIAN},
                received=name(elements, PATIENT_ID),
            )
            acting.learn(dataset)
            acting.clean(dataset)
            codes = codes_of(self.options.model_copy(update={"dates": dates}), pixels=pixels_cleaned)
            dataset.LongitudinalTemporalInformationModified = _TEMPORAL[dates]
            if not dataset.get("SOPInstanceUID") and elements.sop_uid:
                dataset.SOPInstanceUID = elements.sop_uid if again else self.identity.uid(elements.sop_uid)
            self._mark(dataset, patient, codes)
            if burned_in:
                dataset.BurnedInAnnotation = burned_in
            written = _written(dataset, elements)
        known = acting.known()
        self._check_residue(written, known)
        return Deidentified(
            data=written,
            patient=patient,
            study_uid=str(dataset.get("StudyInstanceUID", "")),
            series_uid=str(dataset.get("SeriesInstanceUID", "")),
            sop_uid=str(dataset.SOPInstanceUID),
            actions=_listed(acting.done),
            codes=tuple(code for code, _ in codes),
            searched=len(known),
            again=again,
        )

    def _decide(self, tag: int, vr: str, classic: bool) -> Decision:
        key = (tag, vr, classic)
        found = self._decisions.get(key)
        if found is None:
            found = self._decisions[key] = decide(tag, vr, classic=classic, options=self.options)
        return found

    def _dates(self, elements: Elements, *, again: bool) -> Literal["shift", "remove", "keep"]:
        """What is true of the dates afterwards: what was moved or removed once does not come back."""
        before = text(elements, _TEMPORAL_TAG) if again else ""
        if before == _TEMPORAL["remove"]:
            return "remove"
        return "shift" if before == _TEMPORAL["shift"] and self.options.dates == "keep" else self.options.dates

    def _patient(self, elements: Elements, *, again: bool) -> str:
        """The pseudonym; without a PatientID that of the study, so that nameless patients do not become one."""
        if again:
            return text(elements, PATIENT_ID)
        received = name(elements, PATIENT_ID)
        if received:
            return self.identity.patient(received, name(elements, ISSUER))
        together = next((uid for uid in (text(elements, tag) for tag in _TOGETHER) if uid), "")
        if not together:
            raise InputRejected("The file names no patient, study or series; nothing says whose it is.", code="PHI_PATIENT")
        return self.identity.patient(f"study\0{together}")

    def _mark(self, dataset: Dataset, patient: str, codes: tuple[tuple[str, str], ...]) -> None:
        """Write what PS3.15 E.1.1 asks for, and the seal."""
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientID = dataset.PatientName = patient
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = f"{METHOD} {__version__} {self.identity.key_id}"
        dataset.DeidentificationMethodCodeSequence = Sequence(coded(value, "DCM", meaning) for value, meaning in codes)
        seal = self.identity.seal(patient, str(dataset.get("StudyInstanceUID", "")), str(dataset.get("SOPInstanceUID", "")))
        put_seal(dataset, seal, tool=METHOD, version=__version__)

    def _check_residue(self, written: bytes, known: Known) -> None:
        """Search what was written, behind the same gate, for what is known of the patient."""
        elements = Elements()
        walk(written, elements, limits=self.limits)
        place = elements.table.get(PIXEL_DATA)
        start, end = (place.start, place.end) if place else (len(elements.data), len(elements.data))
        header = written[:_META_ROOM] + elements.data[:start] + elements.data[end:]
        if known.in_bytes(header, memoryview(elements.data)[start:end]):
            raise InputRejected(
                "Something known of the patient would still stand in the written file, so it was not; look at it by hand.",
                code="PHI_RESIDUAL",
            )


_META_ROOM = 1024


def _check_kind(elements: Elements) -> None:
    sop_class = text(elements, 0x00080016) or elements.sop_class
    if sop_class.startswith(_DOCUMENTS) or sop_class == _DICOMDIR or 0x00041220 in elements.table:
        raise InputRejected(
            "This is a document or a directory, whose content cannot be cleaned; it waits for a person.", code="PHI_DOCUMENT"
        )


def _written(dataset: FileDataset, elements: Elements) -> bytes:
    """The Part 10 bytes: zero preamble, and nothing of the received file meta information but the transfer syntax."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = elements.syntax
    if not dataset.get("SOPClassUID"):
        dataset.SOPClassUID = elements.sop_class
    if not dataset.get("SOPInstanceUID") or not _UID.match(str(dataset.SOPClassUID)):
        raise InputRejected("The file has no SOPInstanceUID or SOPClassUID that is one; nothing says what it is.", code="DCM_UID")
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = f"BEDSIDE_{__version__}"[:16]
    return part10(dataset, meta)


def _listed(done: Counter[tuple[int, str, str]]) -> tuple[Done, ...]:
    """Counts by attribute, private elements by their group."""
    merged = Counter[tuple[str, str, str, str]]()
    for (tag, what, because), count in done.items():
        place = f"{tag >> 16:04X}xxxx" if (tag >> 16) % 2 else f"{tag:08X}"
        merged[place, keyword(tag), what, because] += count
    return tuple(
        Done(tag=tag, keyword=known_as, what=what, because=because, count=count)
        for (tag, known_as, what, because), count in sorted(merged.items())
    )


def edition() -> str:
    """Which edition of the profile is applied."""
    return table().edition
