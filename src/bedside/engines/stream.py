"""Sums of overlapping windows, held only where a window is still to come, and let go as soon as none is."""

from collections.abc import Iterator
from itertools import pairwise, product
from math import prod
from mmap import mmap
from typing import Protocol

import numpy as np
import torch

from bedside.core.task import FloatArray
from bedside.engines.windows import Box, Corner, WindowGrid

FLOAT_BYTES = 4
OWN_PAGES_BYTES = 1 << 20
"""Rows of at least this size get pages of their own."""
GIVEN_BYTES = 16 << 20
"""Largest part of the average that is given away at once, where one plane of it is not larger."""


class Take(Protocol):
    """Receives what is finished: a box of the volume and its values, (C, I, J, K) of the box; each voxel comes once."""

    def __call__(self, box: Box, values: FloatArray) -> None:
        """Use the values at once or copy them; they are let go afterwards."""
        ...


class Frontier:
    """The open part of a volume between what is finished and what no window has seen.

    It is held in rows that run through the whole of the fastest axis and are cut across where a window begins or ends, so that
    all voxels of a cut see the same windows of the two slower axes. A row is made when the first window touches it and given
    away after the last window that does. Every addition is one rounded product and one rounded sum, in the order of the
    windows, so the bits are those of a sum over the whole volume.

    Attributes:
        own_pages: give large rows pages of their own, which go back to the system at once; a row in the common heap is quicker
            where what is freed is kept for the next.
    """

    def __init__(self, grid: WindowGrid, *, own_pages: bool = True) -> None:
        self.own_pages = own_pages
        self._grid = grid
        self._rows: dict[tuple[int, int], _Row] = {}

    @property
    def held_voxels(self) -> int:
        """Voxels that are open now, each of them once per channel."""
        return sum(row.sums[0].numel() for row in self._rows.values())

    def add(self, numbers: Corner, output: FloatArray) -> None:
        """Weigh a window's output (C, I, J, K), which is overwritten, and add it."""
        values = torch.from_numpy(output).mul_(torch.from_numpy(self._grid.weight(numbers)))
        box = self._grid.box(numbers)
        slabs, rows, whole = self._grid.order
        cut = (self._grid.axes[axis].parts(box[axis].start, box[axis].stop) for axis in (slabs, rows))
        for planes, lines in product(*cut):
            row = self._rows.get((planes[0], lines[0]))
            if row is None:
                size = self._grid.placed(planes[1] - planes[0], lines[1] - lines[0], self._grid.axes[whole].length)
                row = self._rows[planes[0], lines[0]] = _Row(room((output.shape[0], *size), own_pages=self.own_pages), whole + 1)
            part = values.narrow(slabs + 1, planes[0] - box[slabs].start, planes[1] - planes[0])
            row.add(part.narrow(rows + 1, lines[0] - box[rows].start, lines[1] - lines[0]), box[whole].start)

    def finished(self, numbers: Corner) -> Iterator[tuple[Box, FloatArray]]:
        """Give away what is complete after the last window of a row, slab by slab and row by row in ascending order.

        A box runs through the whole of the fastest axis; slabs are cut at the same planes in every row.
        """
        slabs, rows, whole = (self._grid.axes[axis] for axis in self._grid.order)
        slab, row, last = (numbers[axis] for axis in self._grid.order)
        if last + 1 < len(whole.starts):
            return
        slab_axis = self._grid.order[0]
        for planes, lines in product(slabs.parts(*slabs.finished(slab)), rows.parts(*rows.finished(row))):
            sums = self._rows.pop((planes[0], lines[0])).sums
            for first, end in planes_given(self._grid, sums.shape[0], planes):
                given = sums.narrow(slab_axis + 1, first - planes[0], end - first)
                yield self._grid.placed(slice(first, end), slice(*lines), slice(0, whole.length)), given.numpy()


def planes_given(grid: WindowGrid, channels: int, planes: tuple[int, int]) -> list[tuple[int, int]]:
    """The planes from one to another, as many together as are given away at once."""
    _, rows, whole = (grid.axes[axis] for axis in grid.order)
    at_once = max(1, GIVEN_BYTES // (FLOAT_BYTES * channels * rows.window * whole.length))
    return list(pairwise([*range(planes[0], planes[1], at_once), planes[1]]))


class _Row:
    """Sums (C, I, J, K) of one row; what lies beyond the windows so far holds nothing yet."""

    def __init__(self, sums: torch.Tensor, axis: int) -> None:
        self.sums = sums
        self._axis = axis
        self._seen = 0

    def add(self, values: torch.Tensor, start: int) -> None:
        """Add to the voxels from `start` along the row; windows come in ascending order."""
        known = max(0, min(self._seen - start, values.shape[self._axis]))
        new = values.shape[self._axis] - known
        if known:
            self.sums.narrow(self._axis, start, known).add_(values.narrow(self._axis, 0, known))
        if new:
            self.sums.narrow(self._axis, start + known, new).copy_(values.narrow(self._axis, known, new))
            self._seen = start + known + new


def room(size: tuple[int, ...], *, own_pages: bool) -> torch.Tensor:
    """Memory for sums, with pages of its own where it is large, so that all of it goes back to the system at once.

    From the common heap rows of this size are not given back as long as anything younger is held: a third more was resident.
    """
    count = prod(size)
    if not own_pages or count * FLOAT_BYTES < OWN_PAGES_BYTES:
        return torch.empty(size, dtype=torch.float32)
    return torch.frombuffer(mmap(-1, count * FLOAT_BYTES), dtype=torch.float32).view(size)


def writable(array: FloatArray) -> FloatArray:
    """The same array where it is float32 and may be overwritten, else a copy that is."""
    return np.require(array, np.float32, ["W"])
