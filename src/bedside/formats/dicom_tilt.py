"""A tilted gantry sheared back, and the way back into the scanner's own grid. Pure rules on grids; nothing here knows a file.

The planes of a tilted CT series are parallel, but each lies a little beside the one before: the row of positions leans against
the planes' normal. Every voxel of such a series has a true place, so nothing has to be guessed: each plane is moved within itself
by linear interpolation until the axes are perpendicular. The plane distance along the normal stays, and so do the planes.
"""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from bedside.core.volume import Affine, Array, Frame

_ROUNDING = 1e-6
"""Fractions of a voxel below this are none."""
_ROWS = 32
"""Rows of a plane that are moved at a time."""


Plane = NDArray[np.integer] | NDArray[np.floating]


@dataclass(frozen=True)
class Shear:
    """How far each plane moves, in voxels along its first two axes.

    Attributes:
        step: voxels per plane along i and j, (di, dj).
        shape: (I, J, K) as the scanner wrote it.
    """

    step: tuple[float, float]
    shape: tuple[int, int, int]

    @property
    def start(self) -> tuple[int, int]:
        """Index in the first plane, along i and j, of the corrected grid's first voxel; 0 or negative."""
        i, j = (min(0, floor(step * (self.shape[2] - 1) + _ROUNDING)) for step in self.step)
        return i, j

    @property
    def grown(self) -> tuple[int, int, int]:
        """(I, J, K) of the corrected grid: large enough that no voxel is cut off."""
        ends = (max(0, ceil(step * (self.shape[2] - 1) - _ROUNDING)) for step in self.step)
        i, j = (size + end - start for size, end, start in zip(self.shape[:2], ends, self.start, strict=True))
        return i, j, self.shape[2]

    def shift(self, k: int) -> tuple[float, float]:
        """How far plane k lies from the start of the corrected grid, in voxels; never negative."""
        i, j = (max(0.0, step * k - start) for step, start in zip(self.step, self.start, strict=True))
        return i, j

    def inside(self, k: int) -> tuple[slice, slice]:
        """Which part of corrected plane k, along i and j, is covered by the scanner's plane."""
        i, j = (
            slice(ceil(at - _ROUNDING), floor(at + n - 1 + _ROUNDING) + 1)
            for at, n in zip(self.shift(k), self.shape, strict=False)
        )
        return i, j


def correction(affine: Affine, shape: tuple[int, int, int], *, tolerance_mm: float) -> tuple[Shear, Affine]:
    """The shear that makes the third axis of a grid perpendicular to its first two, and the corrected grid's affine.

    Args:
        affine: (4, 4) of the grid as the scanner wrote it; its first two axes are perpendicular.
        shape: (I, J, K) of it.
        tolerance_mm: a lean along one axis by less than this over the whole stack stays in the affine, as rounding.
    """
    first, second, third = affine[:3, 0], affine[:3, 1], affine[:3, 2]
    steps = []
    straight = third.copy()
    for axis in (first, second):
        step = float(third @ axis / (axis @ axis))
        if abs(step) * float(np.linalg.norm(axis)) * (shape[2] - 1) < tolerance_mm:
            step = 0.0
        straight = straight - step * axis
        steps.append(step)
    shear = Shear((steps[0], steps[1]), shape)
    corrected = affine.copy()
    corrected[:3, 2] = straight
    corrected[:3, 3] = affine[:3, 3] + shear.start[0] * first + shear.start[1] * second
    return shear, corrected


def untilt_plane(plane: Plane, shear: Shear, k: int) -> Plane:
    """Plane k moved to its place, by linear interpolation.

    Args:
        plane: (J, I), as decoded: the second voxel axis first.
        shear: how far.
        k: which plane.

    Returns:
        What fills `shear.inside(k)`: (J, I), or one smaller along an axis that is moved by a part of a voxel; in 64-bit numbers
        where anything is moved by a part, else the plane itself.
    """
    for axis, at in ((1, shear.shift(k)[0]), (0, shear.shift(k)[1])):
        part = ceil(at - _ROUNDING) - at
        if part > _ROUNDING:
            plane = _between(plane, part) if axis == 0 else _between(plane.T, part).T
    return plane


def _between(plane: Plane, part: float) -> NDArray[np.float64]:
    """Values at `part` of the way from each row to the next, (J, I) to (J - 1, I); a few rows at a time, which stay at hand."""
    found = np.empty((plane.shape[0] - 1, plane.shape[1]))
    for start in range(0, len(found), _ROWS):
        rows = plane[start : start + _ROWS + 1].astype(np.float64)
        between = found[start : start + _ROWS]
        np.multiply(rows[:-1], 1 - part, out=between)
        rows[1:] *= part
        between += rows[1:]
    return found


def untilt(array: Array, frame: Frame, *, fill: float = 0.0, tolerance_mm: float = 0.0) -> tuple[Array, Affine]:
    """A whole volume sheared back.

    Args:
        array: (I, J, K) in the scanner's grid.
        frame: that grid.
        fill: value where the scanner's planes do not reach.
        tolerance_mm: see `correction`.

    Returns:
        The (I', J', K) array in 32-bit numbers, and its affine.
    """
    shear, affine = correction(frame.affine, frame.shape, tolerance_mm=tolerance_mm)
    corrected = np.full(shear.grown, fill, np.float32)
    for k in range(frame.shape[2]):
        i, j = shear.inside(k)
        corrected[i, j, k] = untilt_plane(array[:, :, k].T.astype(np.float64), shear, k).T
    return corrected, affine


def retilt(mask: Array, affine: Affine, frame: Frame) -> Array:
    """Bring a mask back into the grid in which the scanner wrote the series: each voxel takes its nearest neighbour's label.

    Args:
        mask: (I', J', K'), drawn on the corrected volume; its axes may have been permuted and flipped since.
        affine: of the mask, voxel to RAS+ mm.
        frame: `Found.frame`.

    Returns:
        `frame.shape`; 0 where the mask does not reach.
    """
    there = np.linalg.inv(affine) @ frame.affine
    back = np.zeros(frame.shape, mask.dtype)
    i, j = np.meshgrid(*(np.arange(size) for size in frame.shape[:2]), indexing="ij")
    for k in range(frame.shape[2]):
        places = [np.rint(there[axis, 0] * i + there[axis, 1] * j + there[axis, 2] * k + there[axis, 3]) for axis in range(3)]
        within = np.logical_and.reduce([(at >= 0) & (at < size) for at, size in zip(places, mask.shape, strict=True)])
        inside = tuple(at[within].astype(np.intp) for at in places)
        back[:, :, k][within] = mask[inside]
    return back
