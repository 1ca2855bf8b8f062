"""What a received folder looks like, from a sample of its files: the facts from which `bedside init` proposes a contract.

Nothing that names a person leaves this module: folder names, ids, header texts and cells stay here, numbers and words of fixed
lists go on.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bedside.core.clinical import Column
from bedside.core.config import Source
from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.core.hounsfield import check_hounsfield
from bedside.core.progress import SILENT, Progress
from bedside.core.volume import Volume
from bedside.formats.dicom import assemble, look
from bedside.formats.found import Found
from bedside.formats.nifti import nifti_stem, read_nifti
from bedside.ingest.discover import Discovery, discover
from bedside.ingest.propose_columns import typed_columns

LAYOUTS = (
    ("images", "labels"),
    ("imagesTr", "labelsTr"),
    ("images", "masks"),
    ("image", "label"),
    ("image", "mask"),
    ("imgs", "masks"),
    ("img", "seg"),
    ("images", "segmentations"),
    ("scans", "labels"),
    ("scans", "masks"),
    ("volumes", "labels"),
)
"""Folder names that are taken for images and masks, compared as they are; the first pair that is there is used."""
BODY_PARTS = frozenset(
    [
        "ABDOMEN",
        "ABDOMENPELVIS",
        "ANKLE",
        "ARM",
        "BRAIN",
        "BREAST",
        "CHEST",
        "CHESTABDOMEN",
        "CHESTABDPELVIS",
        "CLAVICLE",
        "COCCYX",
        "CSPINE",
        "ELBOW",
        "EXTREMITY",
        "FEMUR",
        "FOOT",
        "FOREARM",
        "HAND",
        "HEAD",
        "HEADNECK",
        "HEART",
        "HIP",
        "HUMERUS",
        "JAW",
        "KNEE",
        "LEG",
        "LSPINE",
        "LUNG",
        "MAXILLA",
        "NECK",
        "ORBIT",
        "PELVIS",
        "PROSTATE",
        "RIB",
        "SACRUM",
        "SCAPULA",
        "SHOULDER",
        "SKULL",
        "SPINE",
        "SSPINE",
        "STERNUM",
        "TSPINE",
        "TLSPINE",
        "WHOLEBODY",
        "WRIST",
    ]
)
"""Values of Body Part Examined (PS3.16 Annex L) that are passed on; a header may hold any text there."""
_CSV_NAME = re.compile(r"[A-Za-z0-9_.-]{1,48}\.(csv|tsv)\Z", re.IGNORECASE)
_MOST_FILES, _MOST_VOLUMES, _MOST_MASKS = 6000, 48, 400
_CT_AIR = -900.0


@dataclass(frozen=True)
class Sight:
    """What a sample of a received folder shows.

    Attributes:
        source: where images, masks and the table lie.
        files: in the folder; `whole`: whether the sample was all of them.
        volumes: sound volumes of the sample; `modalities`: of them, as their headers say ("" for NIfTI).
        patients: whose they are; a NIfTI file counts as one.
        modality, guessed: of most; whether it had to be guessed from the values.
        spacings_mm: (N, 3) with the axes turned to the closest RAS+; `shapes`: (N, 3).
        values: smallest and largest of the volumes that were read, (low, high).
        hounsfield: how many of them were read, and how many hold plausible HU.
        codes: code of a mask to (masks that hold it, median volume in ml there).
        masks: how many were read.
        body_parts: known words of headers to volumes.
        columns: the clinical table's columns that can be named; `rows`: of it; `columns_left`: that were left out.
        refused: code to files of the sample.
    """

    source: Source
    files: int
    whole: bool
    volumes: int
    patients: int
    modalities: Mapping[str, int]
    modality: str
    guessed: bool
    spacings_mm: tuple[tuple[float, float, float], ...]
    shapes: tuple[tuple[int, int, int], ...]
    values: tuple[float, float]
    hounsfield: tuple[int, int]
    codes: Mapping[int, tuple[int, float]]
    masks: int
    body_parts: Mapping[str, int]
    columns: Mapping[str, Column]
    rows: int
    columns_left: int
    refused: Mapping[str, int]


@dataclass
class _Values:
    """What the voxels of the sample hold."""

    low: float = np.inf
    high: float = -np.inf
    looked: int = 0
    plausible: int = 0
    airy: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, volume: Volume) -> None:
        """Look at one volume; one that cannot be decoded is counted and left."""
        try:
            array = volume.array
        except (InputRejected, IntegrityError) as error:
            self.refused[error.code] += 1
            return
        if not np.isfinite(array).all():
            self.refused["NOT_FINITE"] += 1
            return
        self.looked += 1
        self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))
        self.airy += float(np.percentile(np.asarray(array[:, ::2, ::2, ::2], dtype=np.float32), 1)) < _CT_AIR
        try:
            check_hounsfield(array)
            self.plausible += 1
        except InputRejected:
            pass


def look_around(folder: Path, *, progress: Progress = SILENT) -> Sight:
    """Look at a sample of a received folder: at most 6,000 files' headers, 48 volumes' voxels and 400 masks, one at a time.

    Args:
        folder: a hospital's export in any order, or a folder of NIfTI images with masks beside them (see `LAYOUTS`).
        progress: advances with files and volumes.

    Raises:
        UsageError: NO_SOURCE or SOURCE_UNREADABLE.
        InputRejected: NOTHING_SOUND: no file of the sample is a sound image.
    """
    if not folder.is_dir():
        raise UsageError("There is no such folder to look at; check the path.", code="NO_SOURCE")
    source = layout_of(folder)
    discovery = discover(folder, source)
    chosen = _sample(discovery)
    found, refused = _found(chosen, progress)
    if not found:
        why = ", ".join(f"{code} {count}" for code, count in refused.most_common(5)) or "no files"
        raise InputRejected(
            f"No file of the folder is part of a sound CT or MR image ({why}); give the folder that holds the scans.",
            code="NOTHING_SOUND",
        )
    found, modality = _of_one_kind(found)
    values = _values(found, progress)
    codes, masks = _codes(discovery, progress)
    columns, rows, left = _table(folder, source)
    upright = [one.volume.canonical() for one in found]
    guessed = not modality
    return Sight(
        source=source,
        files=discovery.received,
        whole=len(chosen) == len(discovery.images),
        volumes=len(found),
        patients=_patients(found),
        modalities=Counter(one.modality for one in found),
        modality=modality or ("CT" if values.airy * 2 > values.looked else "MR"),
        guessed=guessed,
        spacings_mm=tuple(volume.spacing_mm for volume in upright),
        shapes=tuple((volume.shape[1], volume.shape[2], volume.shape[3]) for volume in upright),
        values=(values.low, values.high) if values.looked else (0.0, 1.0),
        hounsfield=(values.looked, values.plausible),
        codes=codes,
        masks=masks,
        body_parts=_body_parts(found),
        columns=columns,
        rows=rows,
        columns_left=left,
        refused=dict((refused + values.refused).most_common()),
    )


def layout_of(folder: Path) -> Source:
    """Where images, masks and a clinical table lie; all of the folder is images where no known pair of names is there."""
    here = {path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink()}
    images, labels = next(((a, b) for a, b in LAYOUTS if a in here and b in here), ("images" if "images" in here else ".", None))
    tables = sorted(p.name for p in folder.iterdir() if p.is_file() and not p.is_symlink() and _CSV_NAME.match(p.name))
    readable = [name for name in tables if typed_columns(folder / name) is not None]
    return Source(images=images, labels=labels, clinical=readable[0] if readable else None)


def _sample(discovery: Discovery) -> tuple[Path, ...]:
    """Whole folders, evenly chosen, up to 6,000 files: a series with a part of its slices would look unsound."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in discovery.images.values():
        folders[path if nifti_stem(path.name) else path.parent].append(path)
    groups = list(folders.values())
    if len(discovery.images) <= _MOST_FILES:
        return tuple(path for group in groups for path in group)
    chosen: list[Path] = []
    for place in _evenly(len(groups), len(groups)):
        if len(chosen) + len(groups[place]) <= _MOST_FILES:
            chosen += groups[place]
    return tuple(chosen)


def _evenly(count: int, wanted: int) -> list[int]:
    """Places spread over 0..count-1 so that every beginning of the list is spread too (multiples of the golden ratio)."""
    order = sorted(range(count), key=lambda place: (place * 0.6180339887) % 1)
    return order[:wanted]


def _found(paths: Sequence[Path], progress: Progress) -> tuple[list[Found], Counter[str]]:
    progress.start("reading headers", len(paths))
    refused: Counter[str] = Counter()
    niftis: list[Found] = []
    looks = []
    for number, path in enumerate(paths, start=1):
        if nifti_stem(path.name) is None:
            looks.append(look(path))
        else:
            try:
                niftis.append(read_nifti(path))
            except InputRejected as error:
                refused[error.code] += 1
        progress.advance(number)
    reading = assemble(looks)
    for one in reading.refused:
        refused[one.code] += len(one.files)
    return [*niftis, *reading.found], refused


def _of_one_kind(found: Sequence[Found]) -> tuple[list[Found], str]:
    """The volumes of the modality that most headers name; "" and all volumes where none names any."""
    named = Counter(one.modality for one in found if one.modality)
    if not named:
        return list(found), ""
    modality = named.most_common(1)[0][0]
    return [one for one in found if one.modality in {"", modality}], modality


def _patients(found: Sequence[Found]) -> int:
    named = {(one.issuer, one.patient_id) for one in found if one.patient_id}
    return len(named) + sum(not one.patient_id for one in found)


def _values(found: Sequence[Found], progress: Progress) -> _Values:
    values = _Values()
    chosen = _evenly(len(found), _MOST_VOLUMES)
    progress.start("reading voxels", len(chosen))
    for number, place in enumerate(chosen, start=1):
        one = found[place].volume
        values.add(Volume(one.affine, one.shape, one.load))  # a volume of its own, so that its voxels are let go
        progress.advance(number)
    return values


def _codes(discovery: Discovery, progress: Progress) -> tuple[dict[int, tuple[int, float]], int]:
    """Which whole numbers the masks hold, in how many, and how much of each."""
    paths = [path for paths in discovery.masks.values() for path in paths]
    volumes: dict[int, list[float]] = defaultdict(list)
    chosen = _evenly(len(paths), _MOST_MASKS)
    read = 0
    progress.start("reading masks", len(chosen))
    for number, place in enumerate(chosen, start=1):
        for mask in _mask(paths[place]):
            codes, counts = np.unique(mask.array, return_counts=True)
            if all(0 <= float(code) <= 65535 and float(code).is_integer() for code in codes):
                read += 1
                voxel_ml = abs(float(np.linalg.det(mask.affine[:3, :3]))) / 1000
                for code, count in zip(codes, counts, strict=True):
                    volumes[int(code)].append(float(count) * voxel_ml)
        progress.advance(number)
    return {code: (len(ml), float(np.median(ml))) for code, ml in sorted(volumes.items())}, read


def _mask(path: Path) -> Iterator[Volume]:
    """The mask, or nothing where it cannot be read; ingest will say why."""
    try:
        volume = read_nifti(path).volume
        _ = volume.array
    except (InputRejected, IntegrityError):
        return
    yield volume


def _body_parts(found: Sequence[Found]) -> dict[str, int]:
    words = ("".join(letter for letter in str(one.acquisition.get("body_part", "")).upper() if letter.isalpha()) for one in found)
    return dict(Counter(word for word in words if word in BODY_PARTS).most_common())


def _table(folder: Path, source: Source) -> tuple[Mapping[str, Column], int, int]:
    typed = None if source.clinical is None else typed_columns(folder / source.clinical)
    return ({}, 0, 0) if typed is None else (typed.columns, typed.rows, typed.left)
