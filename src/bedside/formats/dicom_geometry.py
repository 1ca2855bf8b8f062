"""When is a pile of slices a volume? Pure rules on positions and directions; nothing here knows a file.

Slices are ordered by their position along the normal, never by their instance numbers. The third column of the affine is taken
from the true positions of the first and last slice, so that the place of every accepted voxel is the place the scanner wrote.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedside.core.contract import CORNER_TOLERANCE_MM, TILT_TOLERANCE_DEGREES
from bedside.core.errors import InputRejected
from bedside.core.volume import Affine

GAP_TOLERANCE = 0.1
"""A slice may be off its place in the regular row by this share of the slice distance, and never by more than
`CORNER_TOLERANCE_MM`. Positions rounded to 0.1 mm pass at distances from 0.5 mm. Within this share, but further off than the
millimetres allow, is jitter."""
MOST_TILT_DEGREES = 35.0
"""No gantry leans further."""
_SAME_PLACE_MM = 1e-3
_MOST_GROWTH = 4
"""Resampling gives at most this many times the received slices: more would be invention."""
_HOLE = 1.75
"""A slice distance of this many usual ones (their median) is a hole: interpolated, it would be invention."""
_RESAMPLED = frozenset({"SERIES_JITTER", "SERIES_TWO_INCREMENTS", "SERIES_IRREGULAR"})
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Vectors = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order.

    Attributes:
        order: positions in the input, (K,), by growing place along the normal.
        affine: (4, 4): voxel (column, row, slice, 1) to RAS+ mm.
        tilted: the third axis leans against the normal.
        blend: of a resampled stack: for each slice of the volume, the received slice before it and the share of the one after.
    """

    order: tuple[int, ...]
    affine: Affine
    tilted: bool = False
    blend: tuple[tuple[int, float], ...] = ()


def stack(positions_mm: Vectors, directions: Vectors, spacing_mm: tuple[float, float], *, resample: bool = False) -> Stack:
    """Put slices of one orientation in order and find their affine.

    Args:
        positions_mm: (K, 3), centre of each slice's first pixel, LPS.
        directions: (2, 3), unit vectors: along which the column index grows, along which the row index grows, LPS.
        spacing_mm: between rows, between columns (the order of DICOM's PixelSpacing).
        resample: bring slices at unequal distances onto the regular row of the smallest distance, instead of refusing them.

    Raises:
        InputRejected: SERIES_ONE_SLICE, SERIES_TWO_SLICES, SERIES_DUPLICATE_POSITION, SERIES_TILT, SERIES_MISSING_SLICE,
            SERIES_JITTER, SERIES_TWO_INCREMENTS or SERIES_IRREGULAR.
    """
    if len(positions_mm) == 1:
        raise InputRejected("The series has one slice, which is no volume.", code="SERIES_ONE_SLICE")
    (a, b, c), (d, e, f) = directions.tolist()
    normal = np.array([b * f - c * e, c * d - a * f, a * e - b * d])
    along_mm = positions_mm @ normal
    order = np.argsort(along_mm, kind="stable")
    tilted = _check_row(positions_mm[order], along_mm[order], normal)
    if len(order) == 2:
        raise InputRejected("The series has two slices; a third is needed to see that none is missing.", code="SERIES_TWO_SLICES")
    problem = _uneven(along_mm[order])
    blend: tuple[tuple[int, float], ...] = ()
    steps: float = len(order) - 1
    if problem is not None:
        if not resample or tilted or problem.code not in _RESAMPLED:
            raise problem
        blend, steps = _blend(along_mm[order], problem)
    matrix = np.eye(4)
    matrix[:3, 0] = directions[0] * spacing_mm[1]
    matrix[:3, 1] = directions[1] * spacing_mm[0]
    matrix[:3, 2] = (positions_mm[order[-1]] - positions_mm[order[0]]) / steps
    matrix[:3, 3] = positions_mm[order[0]]
    return Stack(tuple(int(index) for index in order), np.asarray(_RAS_FROM_LPS @ matrix), tilted, blend)


def all_apart(along_mm: Vectors) -> bool:
    """Whether no two slices share a place along the normal, (K,)."""
    ordered = np.sort(along_mm)
    return bool((ordered[1:] - ordered[:-1] > _SAME_PLACE_MM).all())


def places(positions_mm: Vectors, normal: Vectors) -> NDArray[np.intp]:
    """Number of each slice's place along the normal, (K,), from 0; slices closer than 0.001 mm share one."""
    along_mm = positions_mm @ normal
    order = np.argsort(along_mm, kind="stable")
    numbers = np.zeros(len(order), np.intp)
    numbers[order[1:]] = np.cumsum(np.diff(along_mm[order]) > _SAME_PLACE_MM)
    return numbers


def _blend(along_mm: Vectors, problem: InputRejected) -> tuple[tuple[tuple[int, float], ...], float]:
    """Where the slices of the regular row of the smallest distance lie among the received ones, and how many steps long it is."""
    step_mm = float(np.diff(along_mm).min())
    extent_mm = float(along_mm[-1] - along_mm[0])
    count = int(extent_mm / step_mm + 1e-3) + 1
    if count > _MOST_GROWTH * len(along_mm):
        raise problem
    at_mm = np.minimum(along_mm[0] + step_mm * np.arange(count), along_mm[-1])
    before = np.clip(np.searchsorted(along_mm, at_mm, side="right") - 1, 0, len(along_mm) - 2)
    shares = (at_mm - along_mm[before]) / (along_mm[before + 1] - along_mm[before])
    return tuple((int(index), float(share)) for index, share in zip(before, shares, strict=True)), extent_mm / step_mm


def _check_row(positions_mm: Vectors, along_mm: Vectors, normal: Vectors) -> bool:
    """Refuse two slices in one place and slices beside the line of the others; say whether the line leans."""
    if np.diff(along_mm).min() <= _SAME_PLACE_MM:
        raise InputRejected(
            "Two different slices lie at one position; several images of one place are no single volume, so split the series.",
            code="SERIES_DUPLICATE_POSITION",
        )
    offset_mm = positions_mm - positions_mm[0]
    sideways_mm = _beside(offset_mm, normal)
    straight_mm = ((along_mm - along_mm[0]) / (along_mm[-1] - along_mm[0]))[:, np.newaxis] * offset_mm[-1]
    astray_mm = _beside(offset_mm - straight_mm, normal)
    if astray_mm.max() > CORNER_TOLERANCE_MM:
        raise InputRejected(
            f"A slice lies {astray_mm.max():.2f} mm beside the line of the others; the slices are no regular stack.",
            code="SERIES_IRREGULAR",
        )
    angle = float(np.degrees(np.arctan2(sideways_mm[-1], along_mm[-1] - along_mm[0])))
    if angle > MOST_TILT_DEGREES:
        raise InputRejected(
            f"The slices lean by {angle:.1f} degrees against their normal, further than a gantry can; fetch the series again.",
            code="SERIES_TILT",
        )
    return angle > TILT_TOLERANCE_DEGREES and bool(sideways_mm[-1] > CORNER_TOLERANCE_MM)


def _beside(offset_mm: Vectors, normal: Vectors) -> Vectors:
    """Length of the part of each offset, (K, 3), that is not along the normal."""
    part_mm = offset_mm - (offset_mm @ normal)[:, np.newaxis] * normal
    return np.asarray(np.sqrt((part_mm * part_mm).sum(axis=1)))


def _uneven(along_mm: Vectors) -> InputRejected | None:
    """Why slices are not at equal distances, by the most telling name; None when they are."""
    gaps_mm = np.diff(along_mm)
    step_mm = float(gaps_mm.mean())
    astray_mm = float(np.abs(along_mm - along_mm[0] - step_mm * np.arange(len(along_mm))).max())
    if astray_mm <= min(CORNER_TOLERANCE_MM, GAP_TOLERANCE * step_mm):
        return None
    smallest_mm, largest_mm = float(gaps_mm.min()), float(gaps_mm.max())
    turn = _turn(gaps_mm)
    if turn:
        first_mm, second_mm = float(gaps_mm[:turn].mean()), float(gaps_mm[turn:].mean())
        return InputRejected(
            f"The slice distance changes from {first_mm:.3g} to {second_mm:.3g} mm; a volume has one."
            " Set source.resample to interpolate.",
            code="SERIES_TWO_INCREMENTS",
        )
    missing = _missing(gaps_mm)
    if missing:
        return InputRejected(
            f"{missing} slice{'s are' if missing > 1 else ' is'} missing between slices {smallest_mm:.3g} mm apart; fetch the"
            " whole series.",
            code="SERIES_MISSING_SLICE",
        )
    if astray_mm <= GAP_TOLERANCE * step_mm:
        return InputRejected(
            f"The slices lie up to {astray_mm:.2f} mm beside a regular row {step_mm:.3g} mm apart."
            " Set source.resample to interpolate.",
            code="SERIES_JITTER",
        )
    return InputRejected(
        f"The slice distances run from {smallest_mm:.3g} to {largest_mm:.3g} mm; a volume has equal ones."
        " Set source.resample to interpolate.",
        code="SERIES_IRREGULAR",
    )


def _missing(gaps_mm: Vectors) -> int:
    """How many slices are missing: gaps are multiples of the smallest, or, of slices off their places too, some are holes."""
    multiples = np.round(gaps_mm / gaps_mm.min())
    beside = np.abs(gaps_mm / gaps_mm.min() - multiples)
    if multiples.max() >= 2 and (beside <= GAP_TOLERANCE * np.minimum(multiples, 2)).all():
        return int(multiples.sum()) - len(gaps_mm)
    usual_mm = float(np.median(gaps_mm))
    holes_mm = gaps_mm[gaps_mm >= _HOLE * usual_mm]
    return int(np.round(holes_mm / usual_mm).sum()) - len(holes_mm)


def _turn(gaps_mm: Vectors) -> int:
    """After how many gaps a second regular run begins; 0 when there are not two runs of at least two gaps each."""
    turn = int(np.abs(np.diff(gaps_mm)).argmax()) + 1 if len(gaps_mm) > 3 else 0
    runs = gaps_mm[:turn], gaps_mm[turn:]
    even = all(len(run) >= 2 and np.ptp(run) <= min(CORNER_TOLERANCE_MM, GAP_TOLERANCE * float(run.mean())) for run in runs)
    return turn if turn and even and abs(float(runs[0].mean() - runs[1].mean())) > GAP_TOLERANCE * float(gaps_mm.mean()) else 0
