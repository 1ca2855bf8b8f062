"""What a dataset is made of: numbers, groups, outliers and leaks, from one pass that holds one case in memory at a time."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedside.core.case import ClinicalValue
from bedside.core.dataset import CaseRecord, Dataset, stored_volume
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Record
from bedside.core.volume import Array, Volume
from bedside.data.fingerprint import Grid, fingerprint
from bedside.data.rank_marks import Marks, rank_marks
from bedside.ingest.leaks import SAME_SCAN, Leak, find_leaks, sides_of

OUTLIER_Z = 5.0
MIN_CASES = 8
_SAMPLE_VOXELS = 1 << 19
BINS = 48
_AGE_BAND = 10


class CaseQuality(Record):
    """What was measured of one case.

    Attributes:
        case: id.
        side: the split its patient stands in.
        numbers: name to value: "spacing_right_left_mm", "extent_head_foot_mm", "p01", "p50", "p99", "noise", "sharpness",
            "volume_femur_ml", ...
        edges: smallest and largest value of the histogram (1st and 99.5th percentile with a margin).
        histogram: share of voxels in each of 48 equal bins between the edges.
    """

    case: str
    side: str
    numbers: dict[str, float]
    edges: tuple[float, float]
    histogram: tuple[float, ...]


class Outlier(Record):
    """A number of a case far from those of the others.

    Attributes:
        z: distance from the median in units of 1.4826 times the median absolute deviation.
        value, median: of the number.
    """

    case: str
    number: str
    value: float
    median: float
    z: float


class Group(Record):
    """How many cases share one value: of the scanner, the site, the kernel, the sex, ..."""

    value: str
    cases: int
    patients: int
    suppressed: bool = False


class QualityReport(Record):
    """Everything the report shows.

    Attributes:
        dataset, study: whose report it is.
        cases, patients: counts; `splits`: side to number of cases.
        outliers: farthest first.
        leaks: those that cross into the test split first.
        groups: fact ("scanner", "sex", "age_years", ...) to counts, most frequent first.
        spacings: spacing in mm (right-left x front-back x head-foot) to number of cases.
        notes: code of a note to number of cases.
        rejected: code to number of files; `reasons`: code to a sentence.
        files: received, accepted, duplicates.
        measured: every case.
        min_count: groups smaller than this are suppressed; 0: none.
        least_similarity: from which a pair was listed.
    """

    dataset: str
    study: str
    cases: int
    patients: int
    splits: dict[str, int]
    outliers: tuple[Outlier, ...]
    leaks: tuple[Leak, ...]
    groups: dict[str, tuple[Group, ...]]
    spacings: dict[str, int]
    notes: dict[str, int]
    rejected: dict[str, int]
    reasons: dict[str, str]
    files: dict[str, int]
    measured: tuple[CaseQuality, ...]
    min_count: int
    least_similarity: float

    @property
    def crossing(self) -> tuple[Leak, ...]:
        """Leaks between the locked test split and the rest."""
        return tuple(leak for leak in self.leaks if leak.crosses == "test")


@dataclass(frozen=True)
class _Pass:
    """What one look at every case gives."""

    measured: tuple[CaseQuality, ...]
    prints: Mapping[str, Grid]
    marks: Mapping[str, Marks]


def measure_quality(
    dataset: Dataset, *, least: float = SAME_SCAN, min_count: int = 0, progress: Progress = SILENT
) -> QualityReport:
    """Measure every case of a dataset, the locked test split included: no model is known here, so none is chosen.

    Args:
        dataset: read one case at a time, each array once.
        least: similarity from which two images are listed as one scan.
        min_count: a group with fewer cases is not counted in the report (small groups can name a patient); 0 counts all.
        progress: advances by one per case, twice.

    Raises:
        IntegrityError: stored bytes are missing or have changed.
    """
    manifest = dataset.manifest
    seen = _pass(dataset, progress)
    leaks = find_leaks(manifest, seen.prints, seen.marks, least=least, progress=progress)
    return QualityReport(
        dataset=dataset.digest,
        study=manifest.study,
        cases=len(manifest.cases),
        patients=len({case.patient for case in manifest.cases}),
        splits=dict(sorted(Counter(case.side for case in seen.measured).items())),
        outliers=outliers(seen.measured),
        leaks=leaks,
        groups=groups(manifest.cases, min_count),
        spacings=dict(Counter(map(_spacing, seen.measured)).most_common()),
        notes=dict(Counter(note.partition(" ")[0] for case in manifest.cases for note in case.notes).most_common()),
        rejected=dict(sorted(manifest.rejected.items(), key=lambda item: -item[1])),
        reasons=dict(manifest.reasons),
        files={"received": manifest.received, "accepted": manifest.accepted, "duplicates": manifest.duplicates},
        measured=seen.measured,
        min_count=min_count,
        least_similarity=least,
    )


def volume_of(dataset: Dataset, case: CaseRecord, role: str) -> Volume | None:
    """A stored volume of a case with its axes turned to the closest RAS+, or None where it has none of that role."""
    record = case.volumes.get(role)
    return None if record is None else stored_volume(dataset.folders[record.held_by], record).canonical()


def _pass(dataset: Dataset, progress: Progress) -> _Pass:
    sides = sides_of(dataset.splits)
    structures = dataset.contract.structures
    measured: list[CaseQuality] = []
    prints: dict[str, Grid] = {}
    marks: dict[str, Marks] = {}
    progress.start("measuring cases", len(dataset.manifest.cases))
    for number, case in enumerate(dataset.manifest.cases, start=1):
        image = volume_of(dataset, case, "image")
        if image is not None:
            label = volume_of(dataset, case, "label")
            measured.append(_measured(case.id, sides[case.patient], image, label, structures))
            prints[case.id], marks[case.id] = fingerprint(image), rank_marks(image)
        progress.advance(number)
    return _Pass(tuple(measured), prints, marks)


def _measured(case: str, side: str, image: Volume, label: Volume | None, structures: Sequence[str]) -> CaseQuality:
    sample = _spread(image.array)
    p01, p50, p99, low, high = (float(value) for value in np.percentile(sample, [1, 50, 99, 0.5, 99.5]))
    counts, _ = np.histogram(sample, bins=BINS, range=(low, high if high > low else low + 1))
    noise, sharpness = _texture(_middle(image.array), p99 - p01)
    names = ("right_left", "front_back", "head_foot")
    numbers = {f"spacing_{name}_mm": value for name, value in zip(names, image.spacing_mm, strict=True)}
    extents = zip(names, image.spacing_mm, image.shape[1:], strict=True)
    numbers |= {f"extent_{name}_mm": spacing * count for name, spacing, count in extents}
    numbers |= {"p01": p01, "p50": p50, "p99": p99, "noise": noise, "sharpness": sharpness}
    if label is not None:
        voxel_ml = abs(float(np.linalg.det(label.affine[:3, :3]))) / 1000
        voxels = np.bincount(np.asarray(label.array, dtype=np.uint8).ravel(), minlength=len(structures))
        numbers |= {
            f"volume_{name}_ml": float(count) * voxel_ml for name, count in list(zip(structures, voxels, strict=False))[1:]
        }
    return CaseQuality(
        case=case,
        side=side,
        numbers={name: float(f"{value:.6g}") for name, value in numbers.items()},
        edges=(low, high if high > low else low + 1),
        histogram=tuple(round(float(count) / max(1, int(counts.sum())), 5) for count in counts),
    )


def _spread(array: Array) -> NDArray[np.float32]:
    """Every n-th voxel of the first channel along each axis, about 2^19 in all."""
    step = max(1, round((array[0].size / _SAMPLE_VOXELS) ** (1 / 3)))
    return np.asarray(array[0, ::step, ::step, ::step], dtype=np.float32)


def _middle(array: Array) -> NDArray[np.float32]:
    """A box of at most 2^19 neighbouring voxels in the middle of the first channel: noise shows between neighbours only."""
    spatial = array[0]
    shrink = min(1.0, (_SAMPLE_VOXELS / spatial.size) ** (1 / 3))
    cut = []
    for length in spatial.shape:
        keep = max(1, math.floor(length * shrink))
        cut.append(slice((length - keep) // 2, (length - keep) // 2 + keep))
    return np.asarray(spatial[tuple(cut)], dtype=np.float32)


def _texture(sample: NDArray[np.float32], width: float) -> tuple[float, float]:
    """Noise (robust spread of second differences, Immerkaer 1996) and sharpness (steepest steps), relative to the value range."""
    if min(sample.shape[:2]) < 3 or width <= 0:
        return 0.0, 0.0
    second = sample[2:, 1:-1] - 2 * sample[1:-1, 1:-1] + sample[:-2, 1:-1]
    noise = 1.4826 * float(np.median(np.abs(second))) / math.sqrt(6)
    steps = np.abs(np.diff(sample, axis=0))
    return noise / width, float(np.percentile(steps, 99)) / width


def outliers(measured: Sequence[CaseQuality]) -> tuple[Outlier, ...]:
    """Every number more than 5 robust standard deviations from the median, farthest first.

    Fewer than 8 cases give no verdict. Where more than half of the cases share one exact value, the spread is taken as 1 % of it.
    """
    found = []
    names = dict.fromkeys(name for case in measured for name in case.numbers)
    for name in names:
        values = np.array([case.numbers[name] for case in measured if name in case.numbers])
        if len(values) < MIN_CASES:
            continue
        median = float(np.median(values))
        spread = max(1.4826 * float(np.median(np.abs(values - median))), 0.01 * abs(median), 1e-9)
        for case in measured:
            value = case.numbers.get(name)
            if value is not None and abs(value - median) > OUTLIER_Z * spread:
                z = round((value - median) / spread, 1)
                found.append(Outlier(case=case.case, number=name, value=value, median=median, z=z))
    return tuple(sorted(found, key=lambda outlier: (-abs(outlier.z), outlier.case, outlier.number)))


def groups(cases: Sequence[CaseRecord], min_count: int) -> dict[str, tuple[Group, ...]]:
    """Cases and patients by scanner, site, and every fact of the acquisition that is known of any case."""
    wanted = ("site", "scanner", "manufacturer", "kernel", "body_part", "plane", "field_strength_t", "kvp", "sex", "age_years")
    return {name: counted for name in (*wanted, "face") if (counted := _counted(cases, name, min_count))}


def _counted(cases: Sequence[CaseRecord], name: str, min_count: int) -> tuple[Group, ...]:
    values = [(_value(case, name), case.patient) for case in cases]
    if not any(value for value, _ in values):
        return ()
    found = []
    for value, count in Counter(value for value, _ in values).most_common():
        patients = len({patient for own, patient in values if own == value})
        small = count < min_count
        shown = 0 if small else count
        found.append(Group(value=value or "not stated", cases=shown, patients=0 if small else patients, suppressed=small))
    return tuple(found)


def _value(case: CaseRecord, name: str) -> str:
    fact: ClinicalValue = {"site": case.site, "scanner": case.scanner}.get(name, case.acquisition.get(name))
    if fact is None and name in case.clinical:
        fact = case.clinical[name]
    if name == "age_years" and isinstance(fact, int | float):
        band = int(fact // _AGE_BAND) * _AGE_BAND
        return "90 and older" if band >= 90 else f"{band} to {band + _AGE_BAND - 1}"
    return "" if fact is None else f"{fact:g}" if isinstance(fact, float) else str(fact)


def _spacing(case: CaseQuality) -> str:
    names = ("right_left", "front_back", "head_foot")
    return " x ".join(f"{case.numbers[f'spacing_{name}_mm']:.3g}" for name in names)
