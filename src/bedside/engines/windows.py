"""Where the windows of a volume lie, what each of their voxels counts, and how many voxels must be held at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, permutations, product
from typing import TypeVar

import numpy as np

from bedside.core.task import FloatArray

Shape = tuple[int, int, int]
Corner = tuple[int, int, int]
Box = tuple[slice, slice, slice]
Where = TypeVar("Where")

SIGMA = 0.125
"""Standard deviation of the window's weight as a fraction of the patch, as in nnU-Net (Isensee et al. 2021)."""


@dataclass(frozen=True)
class AxisWindows:
    """The windows along one axis: as few as keep the overlap, spread evenly, first and last flush with the volume.

    Attributes:
        length: voxels of the volume, at least `window`.
        window: voxels of one window.
        starts: first voxel of each window, ascending.
    """

    length: int
    window: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, length: int, window: int, overlap: float) -> "AxisWindows":
        """Spread windows with at least this overlap, a fraction of the window."""
        step = max(1, int(window * (1 - overlap)))
        count = -(-max(0, length - window) // step) + 1
        return cls(length, window, tuple(round(start) for start in np.linspace(0, max(0, length - window), count)))

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """Where a window begins or ends, ascending from 0 to `length`: between two cuts all voxels see the same windows."""
        return tuple(sorted({*self.starts, *(start + self.window for start in self.starts)}))

    @cached_property
    def weights(self) -> tuple[FloatArray, ...]:
        """Of every window, (window,): a Gaussian about its centre over the sum of all there, so that they add up to 1."""
        offset = (np.arange(self.window) - (self.window - 1) / 2) / (SIGMA * self.window)
        bell = np.exp(-0.5 * offset**2)
        total = np.zeros(self.length)
        for start in self.starts:
            total[start : start + self.window] += bell
        return tuple((bell / total[start : start + self.window]).astype(np.float32) for start in self.starts)

    def finished(self, number: int) -> tuple[int, int]:
        """The voxels that no window after this one sees, and that all before it left open: from, to."""
        last = number + 1 == len(self.starts)
        return self.starts[number], self.length if last else self.starts[number + 1]

    def parts(self, first: int, end: int) -> list[tuple[int, int]]:
        """What the cuts make of the voxels from `first` to `end`, which are cuts themselves."""
        inner = [cut for cut in self.cuts if first <= cut <= end]
        return list(pairwise(inner))


@dataclass(frozen=True)
class WindowGrid:
    """The windows of a volume and the order in which they are computed.

    Along the first axis of `order` a volume is done slab by slab, within a slab along the second axis row by row, and within a
    row along the third. What is finished can then be let go early: at any moment only the overlap with the slab before, and
    that of the present row, is open.

    Attributes:
        axes: windows along I, J, K.
        order: axes from the slowest to the fastest.
    """

    axes: tuple[AxisWindows, AxisWindows, AxisWindows]
    order: tuple[int, int, int]

    @classmethod
    def of(cls, size: Shape, patch: Shape, overlap: float) -> "WindowGrid":
        """Place the windows and choose the order that holds the fewest voxels; `size` is nowhere below `patch`."""
        i, j, k = (AxisWindows.of(length, window, overlap) for length, window in zip(size, patch, strict=True))
        grids = [cls((i, j, k), (slow, second, fast)) for slow, second, fast in permutations((0, 1, 2))]
        return min(grids, key=lambda grid: grid.held_voxels)

    @property
    def count(self) -> int:
        """Number of windows."""
        i, j, k = (len(axis.starts) for axis in self.axes)
        return i * j * k

    def __iter__(self) -> Iterator[Corner]:
        """The windows in their order, each as the number of its start along I, J, K."""
        for numbers in product(*(range(len(self.axes[axis].starts)) for axis in self.order)):
            yield self.placed(*numbers)

    def placed(self, slab: Where, row: Where, column: Where) -> tuple[Where, Where, Where]:
        """What belongs to the slowest, the second and the fastest axis as (I, J, K)."""
        found = dict(zip(self.order, (slab, row, column), strict=True))
        return found[0], found[1], found[2]

    def box(self, numbers: Corner) -> Box:
        """The voxels of a window."""
        starts = [axis.starts[number] for axis, number in zip(self.axes, numbers, strict=True)]
        i, j, k = (slice(start, start + axis.window) for start, axis in zip(starts, self.axes, strict=True))
        return i, j, k

    def weight(self, numbers: Corner) -> FloatArray:
        """What the voxels of a window count, (I, J, K) float32; over all windows that see a voxel this adds up to 1."""
        i, j, k = (axis.weights[number] for axis, number in zip(self.axes, numbers, strict=True))
        return np.asarray((i[:, None] * j)[:, :, None] * k, dtype=np.float32)

    @cached_property
    def held_voxels(self) -> int:
        """The most voxels that are open at any moment, each of them once per channel."""
        slabs, rows, whole = (self.axes[axis] for axis in self.order)
        starts = np.array(rows.starts)
        most = 0
        for number, start in enumerate(slabs.starts):
            kept = max(0, start + slabs.window - slabs.finished(number)[1])
            earlier = max(0, slabs.starts[number - 1] + slabs.window - start) if number else 0
            held = starts * kept + rows.window * slabs.window + (rows.length - starts - rows.window) * earlier
            most = max(most, int(held.max()))
        return most * whole.length


def window_corners(size: Shape, patch: Shape, overlap: float) -> list[Corner]:
    """First voxel of each window, in the order in which they are computed."""
    grid = WindowGrid.of(size, patch, overlap)
    boxes = [grid.box(numbers) for numbers in grid]
    return [(i.start, j.start, k.start) for i, j, k in boxes]
