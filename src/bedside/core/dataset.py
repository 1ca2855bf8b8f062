"""Cases that passed the contract, in the store; a version may hold what an earlier version's folder stores."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Annotated, Literal, overload

import numpy as np
from pydantic import Field, ValidationError

from bedside.core.case import Case, ClinicalValue
from bedside.core.contract import Contract
from bedside.core.digest import canonical_json, digest_bytes, digest_json
from bedside.core.errors import IntegrityError, UsageError
from bedside.core.record import Record
from bedside.core.sealing import is_sealed, unsealed
from bedside.core.volume import Array, Volume
from bedside.core.workspace import Workspace, read_json

SafeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
FORMAT = 2
MANIFEST = "manifest.json"
_CONTENT_NAME = re.compile(r"([0-9a-f]{64})\.npy(?:\.sealed)?\Z")
_CASE = b'{"acquisition":'
_CASES, _BETWEEN_CASES, _AFTER_CASES = b'"cases":[' + _CASE, b"}," + _CASE, b'}],"certificate":'
"""What stands around the cases in a manifest's canonical JSON, and nowhere in a text, where a quotation mark has a backslash."""
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


class Counts(Record):
    """What one ingest received, in files: received = accepted + rejected + duplicates.

    Attributes:
        rejected: code to number of files.
        added, relabelled, dropped: what it changed, in cases.
    """

    received: int
    accepted: int
    rejected: dict[str, int]
    duplicates: int
    added: int = 0
    relabelled: int = 0
    dropped: int = 0


class ClinicalRows(Record):
    """What became of the rows of the clinical table: received = accepted + refused + repeated.

    Attributes:
        reasons: code of a refusal to number of problems.
        unmatched: accepted rows of patients of whom no image was accepted.
    """

    received: int
    accepted: int
    refused: int
    repeated: int
    reasons: dict[str, int]
    unmatched: int


class Manifest(Record):
    """`manifest.json` of a dataset.

    Attributes:
        format: 2; manifests of format 1 know neither parents nor what follows `parent`.
        received, accepted, rejected, duplicates: in files, of this version and all before it.
        parent: digest of the version that this one was made from; "" when it stands alone.
        batch: of that, what came with this version; None in format 1.
        reasons: code of a rejection to the first sentence that said it.
        certificate: digest of the certificate of de-identification of the received bytes; "" when there is none.
        clinical: rows of the clinical table that came with this version; None without a table.
        names: fingerprint of the key behind the pseudonyms; versions of one line share it, or one patient had two names.
        dropped: what versions of this line left out and no batch brings back: ids of cases, digests of their received bytes, and
            patients where they were named.
    """

    format: Literal[1, 2] = 2
    study: str
    contract: Contract
    cases: tuple[CaseRecord, ...]
    splits: Splits
    received: int
    accepted: int
    rejected: dict[str, int]
    duplicates: int
    parent: str = ""
    batch: Counts | None = None
    reasons: dict[str, str] = Field(default_factory=dict)
    certificate: str = ""
    clinical: ClinicalRows | None = None
    names: str = ""
    dropped: tuple[SafeName, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A dataset of the store, known by its digest.

    The manifest is proved by its own bytes; every byte of every folder that holds a case is hashed again before the first case is
    read, each folder once.
    """

    digest: str
    workspace: Workspace

    @cached_property
    def folder(self) -> Path:
        """The dataset's folder, verified on first use."""
        return self.workspace.get(self.digest)

    @cached_property
    def folders(self) -> Mapping[str, Path]:
        """The folders that hold its arrays, by the digest of the version each belongs to ("": this one), all verified."""
        held = {volume.held_by for case in self.manifest.cases for volume in case.volumes.values()}
        return {"": self.folder, **{digest: self.workspace.get(digest) for digest in sorted(held - {""})}}

    @cached_property
    def manifest(self) -> Manifest:
        """The table of its cases; a patient in two splits is refused here.

        Arrays are named by their content, so the manifest's bytes alone give the digest: nothing else has to be read to trust it.
        """
        path = self.workspace.store / self.digest / MANIFEST
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        manifest = _parsed(data)
        if manifest is None or _proved(data, manifest) != self.digest:
            manifest = self._manifest_of_a_folder_hashed_whole()
        check_splits(manifest.splits, {case.patient for case in manifest.cases})
        return manifest

    def _manifest_of_a_folder_hashed_whole(self) -> Manifest:
        try:
            return Manifest.model_validate(read_json(self.folder / MANIFEST))
        except ValidationError as error:
            raise IntegrityError(
                f"{self.digest[:12]} is not a dataset: its manifest does not fit.", code="NOT_A_DATASET"
            ) from error

    @classmethod
    def just_stored(cls, digest: str, workspace: Workspace, manifest: Manifest) -> "Dataset":
        """A dataset whose manifest this process has just written: it is not read again."""
        check_splits(manifest.splits, {case.patient for case in manifest.cases})
        made = cls(digest, workspace)
        made.__dict__["manifest"] = manifest
        return made

    def encoded_cases(self) -> Iterator[tuple[int, bytes]]:
        """Identity (`id`) of each of the manifest's cases, and its canonical JSON where it stands in the file as such."""
        data, cases = (self.workspace.store / self.digest / MANIFEST).read_bytes(), self.manifest.cases
        start, end = data.find(_CASES), data.find(_AFTER_CASES)
        parts = data[start + len(_CASES) : end].split(_BETWEEN_CASES)
        encoded = [_CASE + part + b"}" for part in parts]
        as_now = [canonical_json(case.model_dump(mode="json")) for case in cases[:1] + cases[-1:]]
        if start >= 0 and len(parts) == len(cases) and encoded[:1] + encoded[-1:] == as_now:
            yield from zip(map(id, cases), encoded, strict=True)

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
            IntegrityError: stored bytes are missing or have changed.
        """
        patients = self._patients(split)
        _ = self.folders
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
        folders = self.dataset.folders
        volumes = {role: stored_volume(folders[volume.held_by], volume) for role, volume in record.volumes.items()}
        return Case(record.id, record.patient, volumes, record.clinical, record.site, record.scanner, record.acquisition)


def _parsed(data: bytes) -> Manifest | None:
    try:
        return Manifest.model_validate_json(data)
    except ValidationError:
        return None


def _proved(data: bytes, manifest: Manifest) -> str:
    """The digest of the folder that holds these manifest bytes and the arrays they name by content, and nothing else."""
    named = (_CONTENT_NAME.match(v.file) for case in manifest.cases for v in case.volumes.values() if not v.held_by)
    return digest_json({MANIFEST: digest_bytes(data), **{found[0]: found[1] for found in named if found}})


def content_of(record: VolumeRecord, dataset: str) -> str:
    """What tells the bytes of a stored array from all others: their SHA-256, where the file is named by it, as ingest does.

    Args:
        record: of the volume.
        dataset: digest of the version that the record stands in; with the file's name it stands for the bytes elsewhere.
    """
    named = _CONTENT_NAME.match(record.file)
    return named[1] if named else f"{record.held_by or dataset}/{record.file}"


def stored_volume(folder: Path, record: VolumeRecord) -> Volume:
    """Open a stored volume lazily: as a read-only memory map, or decrypted into memory where it is sealed."""
    name = record.file
    if Path(name).name != name:
        raise IntegrityError("A dataset's manifest names a file outside its folder.", code="NOT_A_DATASET")

    def load() -> Array:
        if is_sealed(name):
            return _array(unsealed(folder / name))
        return np.asarray(np.load(folder / name, mmap_mode="r", allow_pickle=False))

    return Volume(np.asarray(record.affine), record.shape, load)


def _array(data: bytearray) -> Array:
    """The array of an `.npy` file in memory, without another copy."""
    stream = BytesIO(data[:256])  # every header written here ends before
    np.lib.format.read_magic(stream)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    flat.setflags(write=False)
    return flat.reshape(shape, order="F" if fortran_order else "C")


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
