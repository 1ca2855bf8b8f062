"""What reading received bytes gives: volumes found, files refused, exact duplicates. The three always add up to what came in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bedside.core.case import ClinicalValue
from bedside.core.volume import Frame, Volume


@dataclass(frozen=True)
class Found:
    """One volume and where it came from.

    Attributes:
        volume: (1, I, J, K), affine to RAS+ mm; decoded on first use, from bytes that are those of the digest.
        source: SHA-256 of the received file; for a DICOM series that of its files' sorted digests, whatever their names.
        geometry: what the affine was taken from: "sform", "qform" or "dicom".
        modality: "CT" or "MR"; "" for NIfTI, which names none.
        patient_id: as received, "" when unknown; never logged, never a path.
        scanner: "Manufacturer Model" in letters, digits and spaces, "" when unknown.
        files: the received files the volume is made of, in slice order.
        decoder: which library made numbers of the bytes, with its version.
        name: SeriesInstanceUID as received, with a suffix where one series holds several volumes; "" for NIfTI. Like `patient_id`
            it is never logged and never a path.
        acquisition: facts about the picture that name nobody, by the keys of `core.dataset.ACQUISITION`; absent when unknown.
        frame: the grid in which the scanner wrote the series, where `volume` was brought to another one (a tilted gantry).
        sealed: whether `patient_id` is a pseudonym that this project's own de-identification gave, not to be replaced again.
        issuer: IssuerOfPatientID as received, "" when unknown; with it, equal `patient_id`s of two hospitals are two patients.
            Never logged, never a path.
        voxel_bytes: of one decoded voxel, as the header lets it be foreseen.
        later: the volumes that follow in the same file, where a NIfTI file holds several in time.
        notes: codes of what was put right on the way and is worth a line in the record (`TILT_CORRECTED`, `PREAMBLE_TIFF`, ...).
    """

    volume: Volume
    source: str
    geometry: str
    modality: str
    patient_id: str = field(repr=False)
    scanner: str
    files: Sequence[Path] = field(repr=False)
    decoder: str
    name: str = field(default="", repr=False)
    acquisition: Mapping[str, ClinicalValue] = field(default_factory=dict)
    frame: Frame | None = None
    notes: tuple[str, ...] = ()
    issuer: str = field(default="", repr=False)
    sealed: bool = False
    voxel_bytes: int = 2
    later: tuple["Found", ...] = ()

    @property
    def volumes(self) -> tuple["Found", ...]:
        """This volume, and those that follow in its file."""
        return (replace(self, later=()), *self.later) if self.later else (self,)


@dataclass(frozen=True)
class Refused:
    """Files that were not taken, with the name of the rule and one sentence without any value from their headers."""

    files: Sequence[Path] = field(repr=False)
    code: str
    sentence: str


@dataclass(frozen=True)
class Reading:
    """Everything that came of a folder: each received file is in exactly one of the three."""

    found: tuple[Found, ...]
    refused: tuple[Refused, ...]
    duplicates: Sequence[Path] = field(repr=False)
