"""One image in space."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bedside.core.errors import InputRejected

Affine = NDArray[np.float64]
Array = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Frame:
    """A voxel grid without voxels: where a scanner wrote an image that was brought to another grid.

    Attributes:
        affine: (4, 4), voxel index to RAS+ mm; its axes need not be perpendicular.
        shape: (I, J, K).
    """

    affine: Affine
    shape: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Volume:
    """An image on a voxel grid, read when first looked at.

    Attributes:
        affine: (4, 4), voxel index (i, j, k, 1) to millimetres in RAS+ (x to the right, y to the front, z to the head).
        shape: (C, I, J, K): channels, then the three voxel axes.
        load: returns the array of that shape; called once, on first use of `array`.
    """

    affine: Affine
    shape: tuple[int, int, int, int]
    load: Callable[[], Array]

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)  # a copy: the caller's stays writable
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], [0, 0, 0, 1]):
            raise InputRejected("The affine is not a finite 4 x 4 matrix that ends in 0 0 0 1.", code="AFFINE")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise InputRejected("The affine is singular: two voxel axes point the same way.", code="AFFINE")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    def loaded_by(self, load: Callable[[], Array]) -> "Volume":
        """The same grid, not loaded yet, with another way to its array."""
        other = object.__new__(Volume)
        other.__dict__.update(affine=self.affine, shape=self.shape, load=load)
        return other

    @classmethod
    def of(cls, array: Array, affine: Affine) -> "Volume":
        """Make a volume of an array in memory: (I, J, K) becomes (1, I, J, K)."""
        full = array[np.newaxis] if array.ndim == 3 else array
        if full.ndim != 4:
            raise InputRejected(f"A volume has 3 voxel axes and an optional channel axis, not {array.ndim} axes.", code="AXES")
        return cls(affine, (full.shape[0], full.shape[1], full.shape[2], full.shape[3]), lambda: full)

    @cached_property
    def array(self) -> Array:
        """The voxel values, (C, I, J, K)."""
        array = self.load()
        if array.shape != self.shape:
            raise InputRejected(f"The volume's bytes have shape {array.shape}, its header says {self.shape}.", code="SHAPE")
        return array

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The distance between neighbours along each voxel axis: the norms of the affine's columns."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    def corners_mm(self) -> NDArray[np.float64]:
        """Centres of the eight corner voxels in RAS+ mm, (8, 3)."""
        last = np.asarray(self.shape[1:], dtype=np.float64) - 1
        voxels = np.array([[*(np.array(bits) * last), 1.0] for bits in product((0, 1), repeat=3)])
        return np.asarray((voxels @ self.affine.T)[:, :3])

    def canonical(self) -> "Volume":
        """Return the same image with its axes permuted and flipped so that each points closest to R, A and S.

        No value is interpolated; `Reorientation.of(volume)` knows the way back.
        """
        turn = Reorientation.of(self)
        return Volume(turn.affine(self), (self.shape[0], *turn.shape(self)), lambda: turn.apply(self.array))


@dataclass(frozen=True)
class Reorientation:
    """A permutation and flips of the voxel axes, applied and undone without interpolation.

    Attributes:
        order: `order[new axis]` is the old axis.
        flips: whether each new axis runs against the old one.
    """

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, volume: Volume) -> "Reorientation":
        """Find the turn that brings the volume's axes closest to RAS+ (the best of the six permutations, oblique included)."""
        cosines = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
        orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
        order = max(orders, key=lambda o: sum(abs(cosines[world, axis]) for world, axis in enumerate(o)))
        flips = tuple(bool(cosines[world, axis] < 0) for world, axis in enumerate(order))
        return cls(order, (flips[0], flips[1], flips[2]))

    def apply(self, array: Array) -> Array:
        """Turn (C, I, J, K) into the new axes."""
        turned = np.transpose(array, (0, *(axis + 1 for axis in self.order)))
        return turned[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in self.flips))]

    def undo(self, array: Array) -> Array:
        """Turn (C, I, J, K) in the new axes back into the old ones."""
        flipped = array[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in self.flips))]
        return np.transpose(flipped, (0, *(int(axis) + 1 for axis in np.argsort(self.order))))

    def shape(self, volume: Volume) -> tuple[int, int, int]:
        """The (I, J, K) of the turned volume."""
        spatial = volume.shape[1:]
        return spatial[self.order[0]], spatial[self.order[1]], spatial[self.order[2]]

    def affine(self, volume: Volume) -> Affine:
        """The affine of the turned volume."""
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1.0
        for new, (old, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            matrix[old, new] = -1.0 if flip else 1.0
            if flip:
                matrix[old, 3] = volume.shape[1 + old] - 1
        return np.asarray(volume.affine @ matrix)


def farthest_corner_mm(first: Volume, second: Volume) -> float:
    """How far apart the two grids are: the largest distance between matching corner voxels, in mm.

    One number with a meaning, where comparing affines element by element refuses 1e-7 noise and passes a turned image.
    """
    return float(np.linalg.norm(first.corners_mm() - second.corners_mm(), axis=1).max())
