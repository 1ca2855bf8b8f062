"""NIfTI files that lie beside the DICOM series of which they may be copies: one scan, and two cases."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bedside.core.contract import CORNER_TOLERANCE_MM
from bedside.formats.found import Found

GRID_OF_A_SERIES = "GRID_OF_A_SERIES"
"""Note of a NIfTI case whose grid is that of a DICOM series of the same folder."""
ADVICE = (
    "NIfTI files lie exactly where DICOM series of the same folder do, and may be copies of them: one scan is then two cases of"
    " two patients, which bedside quality lists as a leak. Where they are copies, take them out of the folder and ingest again,"
    " or leave one of each pair out with bedside datasets --drop FILE."
)


Grids = Mapping[tuple[int, ...], NDArray[np.float64]]


def grids_of(series: Iterable[Found]) -> Grids:
    """Shape of upright axes to the corners in mm, (N, 8, 3), of the series that have it."""
    grids: dict[tuple[int, ...], list[NDArray[np.float64]]] = defaultdict(list)
    for one in series:
        upright = one.volume.canonical()
        grids[upright.shape].append(upright.corners_mm())
    return {shape: np.stack(corners) for shape, corners in grids.items()}


def told(niftis: Iterable[Found], grids: Grids) -> list[Found]:
    """The same NIfTI volumes, those on the grid of a series with a note; no voxel is read."""
    return [replace(one, notes=(*one.notes, GRID_OF_A_SERIES)) if _lies_on(one, grids) else one for one in niftis]


def _lies_on(one: Found, grids: Grids) -> bool:
    upright = one.volume.canonical()
    if upright.shape not in grids:
        return False
    apart_mm = np.linalg.norm(grids[upright.shape] - upright.corners_mm(), axis=2).max(axis=1)
    return bool(apart_mm.min() <= CORNER_TOLERANCE_MM)
