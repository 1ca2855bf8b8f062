"""Cases that passed the contract, in the store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, overload

import numpy as np
from pydantic import Field, ValidationError

from bedside.core.case import Case, ClinicalValue
from bedside.core.contract import Contract
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.record import Record
from bedside.core.volume import Array, Volume
from bedside.core.workspace import Workspace, read_json

SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
FORMAT = 1
ACQUISITION = (
    "body_part",
    "manufacturer",
    "model",
    "kernel",
    "kvp",
    "field_strength_t",
    "slice_thickness_mm",
    "plane",
    "sex",
    "age_years",
    "echo_time_ms",
    "repetition_time_ms",
    "contrast_agent",
    "institution",
    "face",
)
"""What a case's acquisition may say, each name once for readers, contracts and reports: DICOM's values in lower-case words or
numbers. `age_years` is 90 for everybody older; `institution` is a keyed pseudonym; `face` is "recognizable" or "removed"."""


class FrameRecord(Record):
    """The grid in which a scanner wrote a volume that is stored on another one; see `core.volume.Frame`."""

    affine: tuple[tuple[float, float, float, float], ...]
    shape: tuple[int, int, int]


class VolumeRecord(Record):
    """One volume of a case: `file` is an `.npy` array (C, I, J, K) in the dataset's folder.

    Attributes:
        file: name in the dataset's folder.
        affine: (4, 4), voxel to RAS+ mm, row by row.
        shape: (C, I, J, K).
        source: digest of the received bytes (of a file, or of the table of a series' files).
        geometry: where the affine came from: "sform", "qform", "dicom".
        frame: the scanner's own grid, where the volume was brought to another one.
        labels: of a mask: digest of the label map whose training ids it holds (`Contract.label_map_digest`).
        held_by: digest of the earlier dataset version in whose folder the file lies; "" when it lies in this one's.
    """

    file: str
    affine: tuple[tuple[float, float, float, float], ...]
    shape: tuple[int, int, int, int]
    source: str
    geometry: str
    frame: FrameRecord | None = None
    labels: str = ""
    held_by: str = ""


class CaseRecord(Record):
    """One case of a dataset."""

    id: SafeName
    patient: SafeName
    volumes: dict[str, VolumeRecord]
    clinical: dict[str, ClinicalValue] = Field(default_factory=dict)
    site: str = ""
    scanner: str = ""
    acquisition: dict[str, ClinicalValue] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Splits(Record):
    """Patients of the locked test split and of each fold; a patient stands in exactly one list."""

    test: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...]


class Manifest(Record):
    """`manifest.json` of a dataset."""

    format: Literal[1] = 1
    study: str
    contract: Contract
    cases: tuple[CaseRecord, ...]
    splits: Splits
    received: int
    accepted: int
    rejected: dict[str, int]
    duplicates: int
    parent: str = ""


@dataclass(frozen=True)
class Dataset:
    """A dataset of the store, known by its digest. Every byte is hashed again before the first case is read."""

    digest: str
    workspace: Workspace

    @cached_property
    def folder(self) -> Path:
        """The dataset's folder, verified on first use."""
        return self.workspace.get(self.digest)

    @cached_property
    def manifest(self) -> Manifest:
        """The table of its cases; a patient in two splits is refused here."""
        try:
            manifest = Manifest.model_validate(read_json(self.folder / "manifest.json"))
        except ValidationError as error:
            raise IntegrityError(
                f"{self.digest[:12]} is not a dataset: its manifest does not fit.", code="NOT_A_DATASET"
            ) from error
        check_splits(manifest.splits, {case.patient for case in manifest.cases})
        return manifest

    @property
    def contract(self) -> Contract:
        """What each of its cases was checked against."""
        return self.manifest.contract

    @property
    def splits(self) -> Splits:
        """Who is in which split."""
        return self.manifest.splits

    def cases(self, split: str, *, limit: int | None = None) -> "CaseSequence":
        """Return the cases of a split, in the order of the manifest, read one at a time.

        Args:
            split: "test" (locked: reading it is a ledger event with a counter), "development" (all but test), "calibrate"
                (the same, for choosing among engines), "fold0", "fold1", ... (left-out fold) or "train0", "train1", ... (all
                other folds).
            limit: at most this many cases, spread evenly.

        Raises:
            UsageError: there is no such split.
        """
        patients = self._patients(split)
        records = [case for case in self.manifest.cases if case.patient in patients]
        if limit is not None and len(records) > limit:
            records = [records[round(i)] for i in np.linspace(0, len(records) - 1, limit)]
        if split == "test":
            self._record_test_read(len(records))
        return CaseSequence(self, split, tuple(records))

    def _patients(self, split: str) -> frozenset[str]:
        folds = self.splits.folds
        everyone = frozenset(patient for fold in folds for patient in fold)
        if split == "test":
            return frozenset(self.splits.test)
        if split in {"development", "calibrate"}:
            return everyone
        for number, fold in enumerate(folds):
            if split == f"fold{number}":
                return frozenset(fold)
            if split == f"train{number}":
                return everyone - frozenset(fold)
        raise UsageError(
            f"There is no split {split!r}; there are test, development, calibrate, and fold0..fold{len(folds) - 1} with"
            f" train0..train{len(folds) - 1}.",
            code="SPLIT",
        )

    def _record_test_read(self, count: int) -> None:
        ledger = self.workspace.ledger
        before = sum(1 for e in ledger.events() if e.action == "test_split_read" and e.inputs.get("dataset") == self.digest)
        ledger.append("test_split_read", inputs={"dataset": self.digest}, facts={"cases": count, "times_read": before + 1})


class CaseSequence(Sequence[Case]):
    """Cases of one split; each volume is a memory map opened when looked at, so iterating holds one case."""

    def __init__(self, dataset: Dataset, split: str, records: tuple[CaseRecord, ...]) -> None:
        self.dataset = dataset
        self.split = split
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> "CaseSequence": ...
    def __getitem__(self, index: int | slice) -> "Case | CaseSequence":
        if isinstance(index, slice):
            return CaseSequence(self.dataset, self.split, self.records[index])
        return self._case(self.records[index])

    def __iter__(self) -> Iterator[Case]:
        return (self._case(record) for record in self.records)

    def _case(self, record: CaseRecord) -> Case:
        volumes = {role: stored_volume(self.dataset.folder, volume) for role, volume in record.volumes.items()}
        return Case(record.id, record.patient, volumes, record.clinical, record.site, record.scanner, record.acquisition)


def stored_volume(folder: Path, record: VolumeRecord) -> Volume:
    """Open a stored volume lazily, as a read-only memory map."""
    name = record.file
    if Path(name).name != name:
        raise IntegrityError("A dataset's manifest names a file outside its folder.", code="NOT_A_DATASET")

    def load() -> Array:
        return np.asarray(np.load(folder / name, mmap_mode="r", allow_pickle=False))

    return Volume(np.asarray(record.affine), record.shape, load)


def check_splits(splits: Splits, patients: set[str]) -> None:
    """Refuse a division that has a patient in two lists, or in none.

    Raises:
        IntegrityError: with code SPLIT_LEAK or SPLIT_MISSING.
    """
    seen: set[str] = set()
    for group in (splits.test, *splits.folds):
        if seen & set(group) or len(set(group)) != len(group):
            raise IntegrityError("A patient stands on both sides of a split; scores would be too good.", code="SPLIT_LEAK")
        seen |= set(group)
    if seen != patients:
        raise IntegrityError("The splits and the cases do not name the same patients.", code="SPLIT_MISSING")
