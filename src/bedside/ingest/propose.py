"""What a received folder looks like, from a sample of its files: the facts from which `bedside init` proposes a contract.

Nothing that names a person leaves this module: folder names, ids, header texts and cells stay here, numbers and words of fixed
lists go on.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bedside.adapters.site import executor_of
from bedside.core.clinical import Column
from bedside.core.config import Source
from bedside.core.contract import lean_degrees
from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.core.hounsfield import check_hounsfield
from bedside.core.ports import Executor, Lost
from bedside.core.progress import SILENT, Progress
from bedside.core.site import Site
from bedside.core.volume import Volume
from bedside.formats.dicom import Look, assemble
from bedside.formats.found import Found, Refused
from bedside.formats.header_pass import header_pass
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
_WORK = ("bedside.formats.header_pass", "bedside.ingest.propose")
"""Where the functions that workers run are."""
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
        sheared: how many volumes have axes that are not perpendicular.
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
    sheared: int = 0


@dataclass(frozen=True)
class _Look:
    """What the voxels of one volume hold.

    Attributes:
        refused: code of why they say nothing; "" when they do.
        low, high: smallest and largest value.
        plausible: whether they are plausible HU.
        airy: whether a hundredth of them is as dark as air.
    """

    refused: str = ""
    low: float = np.inf
    high: float = -np.inf
    plausible: bool = False
    airy: bool = False


def _looked_at(volume: Volume) -> _Look:
    """Decode one volume and look at it; runs in a worker."""
    try:
        array = volume.array
    except (InputRejected, IntegrityError) as error:
        return _Look(error.code)
    if not np.isfinite(array).all():
        return _Look("NOT_FINITE")
    try:
        check_hounsfield(array)
        plausible = True
    except InputRejected:
        plausible = False
    airy = float(np.percentile(np.asarray(array[:, ::2, ::2, ::2], dtype=np.float32), 1)) < _CT_AIR
    return _Look("", float(array.min()), float(array.max()), plausible, airy)


@dataclass(frozen=True)
class _Values:
    """What the voxels of the sample hold."""

    looks: tuple[_Look, ...]

    @property
    def low(self) -> float:
        """Smallest value of all."""
        return min((one.low for one in self.looks), default=np.inf)

    @property
    def high(self) -> float:
        """Largest value of all."""
        return max((one.high for one in self.looks), default=-np.inf)

    @property
    def looked(self) -> int:
        """How many volumes say something."""
        return sum(not one.refused for one in self.looks)

    @property
    def refused(self) -> Counter[str]:
        """Code to volumes that do not."""
        return Counter(one.refused for one in self.looks if one.refused)


def look_around(folder: Path, *, executor: Executor | None = None, progress: Progress = SILENT) -> Sight:
    """Look at a sample of a received folder: at most 6,000 files' headers, 48 volumes' voxels and 400 masks.

    Args:
        folder: a hospital's export in any order, or a folder of NIfTI images with masks beside them (see `LAYOUTS`).
        executor: where files are read and decoded; None: limited processes of this machine, which a file cannot end.
        progress: advances with files and volumes.

    Raises:
        UsageError: NO_SOURCE or SOURCE_UNREADABLE.
        InputRejected: NOTHING_SOUND: no file of the sample is a sound image.
    """
    if not folder.is_dir():
        raise UsageError("There is no such folder to look at; check the path.", code="NO_SOURCE")
    with ExitStack() as stack:
        return _sight(folder, executor or stack.enter_context(executor_of(Site(), modules=_WORK)), progress)


def _sight(folder: Path, executor: Executor, progress: Progress) -> Sight:
    source = layout_of(folder)
    discovery = discover(folder, source)
    chosen = _sample(discovery)
    found, refused = _found(chosen, executor, progress)
    if not found:
        why = ", ".join(f"{code} {count}" for code, count in refused.most_common(5)) or "no files"
        raise InputRejected(
            f"No file of the folder is part of a sound CT or MR image ({why}); give the folder that holds the scans.",
            code="NOTHING_SOUND",
        )
    found, modality = _of_one_kind(found)
    values = _values(found, executor, progress)
    codes, masks = _codes(discovery, executor, progress)
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
        modality=modality or ("CT" if sum(one.airy for one in values.looks) * 2 > values.looked else "MR"),
        guessed=guessed,
        spacings_mm=tuple(volume.spacing_mm for volume in upright),
        shapes=tuple((volume.shape[1], volume.shape[2], volume.shape[3]) for volume in upright),
        values=(values.low, values.high) if values.looked else (0.0, 1.0),
        hounsfield=(values.looked, sum(one.plausible for one in values.looks)),
        codes=codes,
        masks=masks,
        body_parts=_body_parts(found),
        columns=columns,
        rows=rows,
        columns_left=left,
        refused=dict((refused + values.refused).most_common()),
        sheared=sum(lean_degrees(volume) > 0 for volume in upright),
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


def _found(paths: Sequence[Path], executor: Executor, progress: Progress) -> tuple[list[Found], Counter[str]]:
    seen = dict(header_pass(paths, executor, progress=progress))
    contents = [seen[place].content for place in range(len(paths))]
    reading = assemble(one for one in contents if isinstance(one, Look))
    refused: Counter[str] = Counter()
    for one in (*reading.refused, *(one for one in contents if isinstance(one, Refused))):
        refused[one.code] += len(one.files)
    volumes = [volume for one in contents if isinstance(one, Found) for volume in one.volumes]
    return [*volumes, *reading.found], refused


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


def _values(found: Sequence[Found], executor: Executor, progress: Progress) -> _Values:
    chosen = [found[place].volume for place in _evenly(len(found), _MOST_VOLUMES)]
    progress.start("reading voxels", len(chosen))
    looks = []
    fresh = (Volume(one.affine, one.shape, one.load) for one in chosen)  # of its own, so that its voxels are let go
    for number, answer in enumerate(executor.map(_looked_at, fresh), start=1):
        looks.append(_Look(answer.refusal.code) if isinstance(answer, Lost) else answer)
        progress.advance(number)
    return _Values(tuple(looks))


def _codes(discovery: Discovery, executor: Executor, progress: Progress) -> tuple[dict[int, tuple[int, float]], int]:
    """Which whole numbers the masks hold, in how many, and how much of each."""
    paths = [path for paths in discovery.masks.values() for path in paths]
    volumes: dict[int, list[float]] = defaultdict(list)
    chosen = [paths[place] for place in _evenly(len(paths), _MOST_MASKS)]
    read = 0
    progress.start("reading masks", len(chosen))
    for number, answer in enumerate(executor.map(_codes_of, chosen), start=1):
        if answer is not None and not isinstance(answer, Lost):
            read += 1
            for code, ml in answer.items():
                volumes[code].append(ml)
        progress.advance(number)
    return {code: (len(ml), float(np.median(ml))) for code, ml in sorted(volumes.items())}, read


def _codes_of(path: Path) -> dict[int, float] | None:
    """Code to millilitres in one mask, or None where it cannot be read or is none, as ingest will say; runs in a worker."""
    try:
        volume = read_nifti(path).volume
        codes, counts = np.unique(volume.array, return_counts=True)
    except (InputRejected, IntegrityError):
        return None
    if not all(0 <= float(code) <= 65535 and float(code).is_integer() for code in codes):
        return None
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    return {int(code): float(count) * voxel_ml for code, count in zip(codes, counts, strict=True)}


def _body_parts(found: Sequence[Found]) -> dict[str, int]:
    words = ("".join(letter for letter in str(one.acquisition.get("body_part", "")).upper() if letter.isalpha()) for one in found)
    return dict(Counter(word for word in words if word in BODY_PARTS).most_common())


def _table(folder: Path, source: Source) -> tuple[Mapping[str, Column], int, int]:
    typed = None if source.clinical is None else typed_columns(folder / source.clinical)
    return ({}, 0, 0) if typed is None else (typed.columns, typed.rows, typed.left)
