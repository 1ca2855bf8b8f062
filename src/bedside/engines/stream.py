"""Sums of overlapping windows, held only where a window is still to come, and let go as soon as none is."""

from collections.abc import Iterator
from itertools import product
from mmap import mmap
from typing import Protocol, TypeVar

import numpy as np
import torch

from bedside.core.task import FloatArray
from bedside.engines.windows import Box, Corner, WindowGrid

Where = TypeVar("Where")

FLOAT_BYTES = 4
OWN_PAGES_BYTES = 1 << 20
"""Pieces of at least this size get pages of their own."""
GIVEN_BYTES = 16 << 20
"""Largest part of the average that is given away at once, where one plane of it is not larger."""


class Take(Protocol):
    """Receives what is finished: a box of the volume and its values, (C, I, J, K) of the box; each voxel comes once."""

    def __call__(self, box: Box, values: FloatArray) -> None:
        """Use the values at once or copy them; they are let go afterwards."""
        ...


class Frontier:
    """The open part of a volume between what is finished and what no window has seen.

    It is held in pieces, cut where a window begins or ends, so that all voxels of a piece see the same windows and lie together
    in memory. A piece is made when the first window touches it and given away after the last window of its last row. Every
    addition is one rounded product and one rounded sum, in the order of the windows, so the bits are those of a sum over the
    whole volume.
    """

    def __init__(self, grid: WindowGrid) -> None:
        self._grid = grid
        self._pieces: dict[Corner, torch.Tensor] = {}

    @property
    def held_voxels(self) -> int:
        """Voxels that are open now, each of them once per channel."""
        return sum(piece[0].numel() for piece in self._pieces.values())

    def add(self, numbers: Corner, output: FloatArray) -> None:
        """Weigh a window's output (C, I, J, K), which is overwritten, and add it."""
        values = torch.from_numpy(output).mul_(torch.from_numpy(self._grid.weight(numbers)))
        box = self._grid.box(numbers)
        cut = (axis.parts(part.start, part.stop) for axis, part in zip(self._grid.axes, box, strict=True))
        for parts in product(*cut):
            corner = (parts[0][0], parts[1][0], parts[2][0])
            within = (slice(first - at.start, end - at.start) for (first, end), at in zip(parts, box, strict=True))
            part = values[(slice(None), *within)]
            if corner in self._pieces:
                self._pieces[corner].add_(part)
            else:
                self._pieces[corner] = _room(part.shape).copy_(part)

    def finished(self, numbers: Corner) -> Iterator[tuple[Box, FloatArray]]:
        """Give away what is complete after the last window of a row, slab by slab and row by row in ascending order.

        A box runs through the whole of the fastest axis; slabs are cut at the same planes in every row.
        """
        slabs, rows, whole = (self._grid.axes[axis] for axis in self._grid.order)
        slab, row, last = (numbers[axis] for axis in self._grid.order)
        if last + 1 < len(whole.starts):
            return
        for planes, lines in product(slabs.parts(*slabs.finished(slab)), rows.parts(*rows.finished(row))):
            pieces = [self._pieces.pop(self._placed(planes[0], lines[0], column[0])) for column in whole.parts(0, whole.length)]
            at_once = max(1, GIVEN_BYTES // (pieces[0].shape[0] * rows.window * whole.length * pieces[0].itemsize))
            for first in range(planes[0], planes[1], at_once):
                end = min(first + at_once, planes[1])
                slab_axis, _, whole_axis = self._grid.order
                parts = [piece.narrow(slab_axis + 1, first - planes[0], end - first) for piece in pieces]
                joined = torch.cat(parts, dim=whole_axis + 1)
                yield self._placed(slice(first, end), slice(*lines), slice(0, whole.length)), joined.numpy()

    def _placed(self, slab: Where, row: Where, column: Where) -> tuple[Where, Where, Where]:
        """What belongs to the slowest, the second and the fastest axis as (I, J, K)."""
        found = dict(zip(self._grid.order, (slab, row, column), strict=True))
        return found[0], found[1], found[2]


def _room(size: torch.Size) -> torch.Tensor:
    """Memory for a piece, with pages of its own where it is large, so that all of it goes back to the system at once.

    From the common heap pieces of this size are not given back as long as anything younger is held: a third more was resident.
    """
    if size.numel() * FLOAT_BYTES < OWN_PAGES_BYTES:
        return torch.empty(size, dtype=torch.float32)
    return torch.frombuffer(mmap(-1, size.numel() * FLOAT_BYTES), dtype=torch.float32).view(size)


def writable(array: FloatArray) -> FloatArray:
    """The same array where it is float32 and may be overwritten, else a copy that is."""
    return np.require(array, np.float32, ["W"])
