"""The geometry proof: a phantom whose values tell their place, written as hospitals write it, read back, and measured in mm.

The proof knows no reader. A reader is a function from a folder to what it found there, so that others can be held to the same
table (`benchmarks/geometry.py`), and one that is wrong on purpose must fail (`tests/ingest/test_prove.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from bedside.core.errors import InputRejected
from bedside.core.progress import SILENT, Progress
from bedside.core.record import Record
from bedside.core.volume import Array, Volume
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_write import Plane
from bedside.formats.dicom_write_htj2k import SHAPE
from bedside.ingest.prove_cases import EXACT, HALF_A_VOXEL, ProofCase, proof_cases

EXACT_MM = 0.0005
"""What prints as 0.000."""
UNREFUSED = "read, though it is no volume"
_RAS_FROM_LPS = np.array([-1.0, -1.0, 1.0])
_PER_MM = 100.0
_PRESENT = {8: 200, 12: 3200, 16: 1000}
"""The one value of the last ramp, by the bits that it is stored in."""
_LEVELS = {8: 250.0, 12: 4000.0}
"""From one end of a ramp to the other, where its bits are too few for hundredths of mm."""
_UNSIGNED = {8: np.uint8, 12: np.uint16}
_LEAST_SEEN = 0.5

Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Readout:
    """What a reader made of a folder.

    Attributes:
        volumes: those it found, with their values.
        refused: codes (or names of errors) with which it refused files.
        decoder: which library made numbers of the bytes.
        remarks: what it warned of.
    """

    volumes: tuple[Volume, ...] = ()
    refused: tuple[str, ...] = ()
    decoder: str = ""
    remarks: tuple[str, ...] = ()


Reader = Callable[[Path], Readout]


class Row(Record):
    """One line of the table.

    Attributes:
        reader: whose reading it is.
        group, case: what was written.
        expected: "exact", "half a voxel", or the code of a refusal.
        error_mm: the largest distance between where a voxel was put and where it is said to be, over all voxels; None if refused.
        verdict: what came of it, in words.
        passed: it is what was expected.
        decoder: which library made numbers of the bytes.
        remarks: what the reader warned of.
    """

    reader: str
    group: str
    case: str
    expected: str
    error_mm: float | None
    verdict: str
    passed: bool
    decoder: str = ""
    remarks: tuple[str, ...] = ()


class Proof(Record):
    """The table.

    Attributes:
        rows: one per reader and case.
        passed: every row is as expected.
        seconds: it took.
    """

    rows: tuple[Row, ...]
    passed: bool
    seconds: float


def ours(folder: Path) -> Readout:
    """Read a folder as `bedside ingest` does."""
    reading = read_folder(folder)
    try:
        volumes = tuple(Volume.of(one.volume.array, one.volume.affine) for one in reading.found)
    except InputRejected as problem:
        return Readout(refused=(problem.code,))
    decoders = sorted({one.decoder for one in reading.found})
    notes = sorted({note for one in reading.found for note in one.notes})
    return Readout(volumes, tuple(sorted({one.code for one in reading.refused})), ", ".join(decoders), tuple(notes))


OURS: Mapping[str, Reader] = {"bedside": ours}


def prove(
    cases: Sequence[ProofCase] | None = None, *, readers: Mapping[str, Reader] = OURS, progress: Progress = SILENT
) -> Proof:
    """Write every case into a folder that is removed again, let every reader read it, and measure.

    Args:
        cases: of the proof; all of them when None.
        readers: by name; none may raise.
        progress: advances by one per case.

    Raises:
        ResourceError: the disk for temporary files is full.
    """
    started = perf_counter()
    chosen = proof_cases() if cases is None else tuple(cases)
    rows: list[Row] = []
    progress.start("proving geometry", len(chosen))
    for number, case in enumerate(chosen, 1):
        with TemporaryDirectory(prefix="bedside-proof-") as name:
            rows.extend(_rows(case, Path(name), readers))
        progress.advance(number, f"{case.group}: {case.name}")
    return Proof(rows=tuple(rows), passed=all(row.passed for row in rows), seconds=perf_counter() - started)


def _rows(case: ProofCase, folder: Path, readers: Mapping[str, Reader]) -> list[Row]:
    """What every reader makes of one case."""
    runs = _ramps(case) if case.expected == HALF_A_VOXEL else (case.planes,)
    for number, planes in enumerate(runs):
        case.write(folder / str(number), planes)
    rows = []
    for name, reader in readers.items():
        readouts = [reader(folder / str(number)) for number in range(len(runs))]
        error_mm, verdict, passed = _judge(case, readouts)
        remarks = tuple(dict.fromkeys(remark for readout in readouts for remark in readout.remarks))
        row = Row(
            reader=name,
            group=case.group,
            case=case.name,
            expected=case.expected,
            error_mm=error_mm,
            verdict=verdict,
            passed=passed,
            decoder=readouts[0].decoder,
            remarks=remarks,
        )
        rows.append(row)
    return rows


def _judge(case: ProofCase, readouts: Sequence[Readout]) -> tuple[float | None, str, bool]:
    """The error in mm, what to say of it, and whether it is as expected."""
    refused = sorted({code for readout in readouts for code in readout.refused})
    if not all(readout.volumes for readout in readouts):
        said = f"refused {', '.join(refused)}" if refused else "nothing found, nothing said"
        return None, said, refused == [case.expected]
    if case.expected == HALF_A_VOXEL:
        error_mm, complaint = _ramp_error_mm(case, [readout.volumes for readout in readouts])
        limit_mm = _half_a_voxel_mm(case)
    else:
        error_mm, complaint = _number_error_mm(case, readouts[0].volumes)
        limit_mm = EXACT_MM
    if refused:
        complaint = f"{', '.join(refused)} beside a volume"
    if case.expected not in {EXACT, HALF_A_VOXEL}:
        return error_mm, "; ".join(filter(None, (UNREFUSED, complaint))), False
    if complaint or error_mm is None:
        return error_mm, complaint, False
    if error_mm >= limit_mm:
        return error_mm, "misplaced", False
    if case.expected == EXACT:
        return error_mm, EXACT, True
    return error_mm, f"under {HALF_A_VOXEL}" + (f", numbers within {case.within}" if case.within is not None else ""), True


def _half_a_voxel_mm(case: ProofCase) -> float:
    return min(case.planes[0].spacing_mm) / 2


def _places_mm(plane: Plane) -> Points:
    """(I, J, 3): where each pixel of a plane was put, RAS."""
    i, j = (np.arange(size)[..., None] for size in plane.pixels.shape)
    along_i = i * plane.spacing_mm[0] * plane.directions[0]
    along_j = j * plane.spacing_mm[1] * plane.directions[1]
    return np.asarray((plane.position_mm + along_i[:, None] + along_j[None, :]) * _RAS_FROM_LPS)


def _said_mm(volume: Volume) -> Points:
    """(I, J, K, 3): where a volume says that its voxels lie, RAS."""
    voxels = np.stack(np.meshgrid(*(np.arange(size) for size in volume.shape[1:]), indexing="ij"), axis=-1)
    return np.asarray(voxels @ volume.affine[:3, :3].T + volume.affine[:3, 3])


def _number_error_mm(case: ProofCase, volumes: Sequence[Volume]) -> tuple[float | None, str]:
    """Find every voxel by its number; also say what is lost, repeated, changed, or of another time than the rest."""
    places = np.full((1 + max(int(plane.pixels.max()) for plane in case.planes), 3), np.nan)
    for plane in case.planes:
        places[plane.pixels] = _places_mm(plane)
    written = np.isfinite(places[:, 0])
    worst, foreign, mixed, seen = 0.0, 0, 0, np.zeros(len(places), np.intp)
    for volume in volumes:
        values = np.asarray(volume.array, np.float64)
        numbers = np.rint(np.clip(np.nan_to_num(values, nan=-1.0), -1.0, len(places))).astype(np.intp)
        sound = (np.abs(values - numbers) < 1e-3) & (numbers >= 0) & (numbers < len(places))
        sound &= written[np.where(sound, numbers, 0)]
        mixed += len(np.unique(numbers[sound] // int(np.prod(SHAPE)))) > 1
        foreign += int((~sound).sum())
        np.add.at(seen, numbers[sound], 1)
        apart = np.linalg.norm(places[numbers[sound]] - np.broadcast_to(_said_mm(volume), (*volume.shape, 3))[sound], axis=-1)
        worst = max(worst, float(apart.max(initial=0.0)))
    complaints = {
        "voxels lost": int((seen[written] == 0).sum()),
        "voxels repeated": int((seen > 1).sum()),
        "values that nobody wrote": foreign,
        "volumes of mixed origin": mixed,
    }
    said = [f"{count} {what}" for what, count in complaints.items() if count]
    if len(volumes) != case.volumes:
        said.append(f"{len(volumes)} volumes instead of {case.volumes}")
    return (worst if seen.any() else None), ", ".join(said)


def _middle_mm(case: ProofCase) -> tuple[Points, float]:
    """The middle of all voxels, and how far the farthest lies from it along any axis."""
    places = np.concatenate([_places_mm(plane).reshape(-1, 3) for plane in case.planes])
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    return middle, float(np.abs(places - middle).max())


def _ramps(case: ProofCase) -> tuple[tuple[Plane, ...], ...]:
    """The case's planes with x, y and z as their values, and once more with one value everywhere but in one dark corner."""
    middle, reach_mm = _middle_mm(case)
    runs = []
    for axis in range(3):
        numbers = [_ramp(case, (_places_mm(plane) - middle)[..., axis], reach_mm) for plane in case.planes]
        runs.append(tuple(replace(plane, pixels=one) for plane, one in zip(case.planes, numbers, strict=True)))
    return (*runs, _present(case))


def _ramp(case: ProofCase, offset_mm: Points, reach_mm: float) -> NDArray[np.int16] | NDArray[np.uint8] | NDArray[np.uint16]:
    """Distances from the middle as the numbers that stand for them."""
    if case.bits == 16:
        return np.rint(offset_mm * _PER_MM).astype(np.int16)
    return np.asarray(np.rint((offset_mm / reach_mm + 1) * _LEVELS[case.bits] / 2).astype(_UNSIGNED[case.bits]))


def _present(case: ProofCase) -> tuple[Plane, ...]:
    value = _PRESENT[case.bits]
    if case.bits != 16:
        kind = _UNSIGNED[case.bits]
        return tuple(replace(plane, pixels=np.full(plane.pixels.shape, value, kind)) for plane in case.planes)
    planes = []
    for number, plane in enumerate(case.planes):
        pixels = np.full(plane.pixels.shape, value, np.int16)
        pixels[0, 0] = value if number else -value
        planes.append(replace(plane, pixels=pixels))
    return tuple(planes)


def _ramp_error_mm(case: ProofCase, readings: Sequence[Sequence[Volume]]) -> tuple[float | None, str]:
    """Compare the places that three ramps tell with those that the affine says, one voxel inside the phantom's edge."""
    if any(len(volumes) != 1 for volumes in readings):
        return None, "one volume was written"
    first = readings[0][0]
    if any(not np.allclose(v.affine, first.affine, atol=1e-6) or v.shape != first.shape for (v,) in readings[1:]):
        return None, "ramps of one geometry were read into different ones"
    x, y, z, presence = (_values(volumes[0].array) for volumes in readings)
    there = binary_erosion(np.abs(presence - _PRESENT[case.bits]) <= (case.within or 0.5), np.ones((3, 3, 1)))
    written = sum(plane.pixels.size for plane in case.planes)
    if there.sum() < _LEAST_SEEN * written:
        return None, f"{int(there.sum())} of {written} voxels are left"
    middle, reach_mm = _middle_mm(case)
    values = np.stack([x[there], y[there], z[there]], axis=-1)
    told = (values / _PER_MM if case.bits == 16 else (values / (_LEVELS[case.bits] / 2) - 1) * reach_mm) + middle
    said = _said_mm(first)[there]
    error_mm = float(np.linalg.norm(told - said, axis=-1).max())
    if case.within is None or error_mm >= _half_a_voxel_mm(case):
        return error_mm, ""
    changed = int(np.abs(values - _ramp(case, said - middle, reach_mm)).max())
    return error_mm, f"numbers changed by {changed}, more than {case.within}" if changed > case.within else ""


def _values(array: Array) -> NDArray[np.float64]:
    """(I, J, K) of the only channel."""
    return np.asarray(array[0], dtype=np.float64)
