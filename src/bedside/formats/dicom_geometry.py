"""When is a pile of slices a volume? Pure rules on positions and directions; nothing here knows a file.

Slices are ordered by their position along the normal, never by their instance numbers. The third column of the affine is taken
from the true positions of the first and last slice, so that the place of every accepted voxel is the place the scanner wrote.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bedside.core.contract import CORNER_TOLERANCE_MM
from bedside.core.errors import InputRejected
from bedside.core.volume import Affine

GAP_TOLERANCE = 0.1
"""A slice may be off its place in the regular row by this share of the slice distance, and never by more than
`CORNER_TOLERANCE_MM`. Positions rounded to 0.1 mm pass at distances from 0.5 mm."""
TILT_TOLERANCE_DEGREES = 0.1
"""Largest angle between the row of positions and the normal; a smaller one is rounding, and is kept in the affine as it is."""
_RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Vectors = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order.

    Attributes:
        order: positions in the input, (K,), by growing place along the normal.
        affine: (4, 4): voxel (column, row, slice, 1) to RAS+ mm.
    """

    order: tuple[int, ...]
    affine: Affine


def stack(positions_mm: Vectors, directions: Vectors, spacing_mm: tuple[float, float]) -> Stack:
    """Put slices of one orientation in order and find their affine.

    Args:
        positions_mm: (K, 3), centre of each slice's first pixel, LPS.
        directions: (2, 3), unit vectors: along which the column index grows, along which the row index grows, LPS.
        spacing_mm: between rows, between columns (the order of DICOM's PixelSpacing).

    Raises:
        InputRejected: SERIES_ONE_SLICE, SERIES_TWO_SLICES, SERIES_DUPLICATE_POSITION, SERIES_TILT, SERIES_MISSING_SLICE or
            SERIES_IRREGULAR.
    """
    if len(positions_mm) == 1:
        raise InputRejected("The series has one slice, which is no volume.", code="SERIES_ONE_SLICE")
    normal = np.cross(directions[0], directions[1])
    along_mm = positions_mm @ normal
    order = np.argsort(along_mm, kind="stable")
    _check_row(positions_mm[order], along_mm[order], normal)
    if len(order) == 2:
        raise InputRejected("The series has two slices; a third is needed to see that none is missing.", code="SERIES_TWO_SLICES")
    _check_gaps(along_mm[order])
    matrix = np.eye(4)
    matrix[:3, 0] = directions[0] * spacing_mm[1]
    matrix[:3, 1] = directions[1] * spacing_mm[0]
    matrix[:3, 2] = (positions_mm[order[-1]] - positions_mm[order[0]]) / (len(order) - 1)
    matrix[:3, 3] = positions_mm[order[0]]
    return Stack(tuple(int(index) for index in order), np.asarray(_RAS_FROM_LPS @ matrix))


def _check_row(positions_mm: Vectors, along_mm: Vectors, normal: Vectors) -> None:
    """Refuse two slices in one place, and a row of positions that leans."""
    if np.diff(along_mm).min() <= 1e-3:
        raise InputRejected(
            "Two different slices lie at one position; several images of one place are no single volume, so split the series.",
            code="SERIES_DUPLICATE_POSITION",
        )
    offset_mm = positions_mm - positions_mm[0]
    sideways_mm = np.linalg.norm(offset_mm - np.outer(offset_mm @ normal, normal), axis=1)
    angle = float(np.degrees(np.arctan2(sideways_mm[-1], along_mm[-1] - along_mm[0])))
    if angle > TILT_TOLERANCE_DEGREES and sideways_mm[-1] > CORNER_TOLERANCE_MM:
        raise InputRejected(
            f"The slices lean by {angle:.1f} degrees against their normal (a tilted gantry); correct the tilt first.",
            code="SERIES_TILT",
        )
    straight_mm = np.outer((along_mm - along_mm[0]) / (along_mm[-1] - along_mm[0]), offset_mm[-1])
    astray_mm = np.linalg.norm(offset_mm - straight_mm - np.outer((offset_mm - straight_mm) @ normal, normal), axis=1)
    if astray_mm.max() > CORNER_TOLERANCE_MM:
        raise InputRejected(
            f"A slice lies {astray_mm.max():.2f} mm beside the line of the others; the slices are no regular stack.",
            code="SERIES_IRREGULAR",
        )


def _check_gaps(along_mm: Vectors) -> None:
    """Refuse a stack whose slices are not at equal distances, and say so when one is missing."""
    gaps_mm = np.diff(along_mm)
    step_mm = float(gaps_mm.mean())
    regular_mm = along_mm[0] + step_mm * np.arange(len(along_mm))
    if np.abs(along_mm - regular_mm).max() <= min(CORNER_TOLERANCE_MM, GAP_TOLERANCE * step_mm):
        return
    smallest_mm = float(gaps_mm.min())
    multiples = np.round(gaps_mm / smallest_mm)
    if multiples.max() >= 2 and np.abs(gaps_mm / multiples - smallest_mm).max() <= GAP_TOLERANCE * smallest_mm:
        missing = int(multiples.sum()) - len(gaps_mm)
        raise InputRejected(
            f"{missing} slice{'s are' if missing > 1 else ' is'} missing between slices {smallest_mm:.3g} mm apart; fetch the"
            " whole series.",
            code="SERIES_MISSING_SLICE",
        )
    raise InputRejected(
        f"The slice distances run from {smallest_mm:.3g} to {gaps_mm.max():.3g} mm; a volume has equal ones.",
        code="SERIES_IRREGULAR",
    )
