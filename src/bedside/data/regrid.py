"""Linear interpolation of a volume that arrives box by box: what lies between known neighbours is given on at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]
Give = Callable[[Box, FloatArray], None]


@dataclass(frozen=True, eq=False)
class LinearAxis:
    """Along one axis: between which two voxels of the source each target lies (voxel edges kept in place, not centres).

    Attributes:
        low, high: number of the source's voxel below and above each target; `high` never falls.
        share: of the upper one, float32 in 0..1.
        same: the axis is not resampled at all.
    """

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    share: FloatArray
    same: bool

    @classmethod
    def of(cls, source: int, target: int) -> "LinearAxis":
        """Place `target` voxels over the extent of `source` voxels."""
        own = np.arange(target)
        if source == target:
            return cls(own, own, np.zeros(target, dtype=np.float32), same=True)
        place = np.maximum((own + 0.5) * (source / target) - 0.5, 0.0)
        low = np.minimum(place.astype(np.intp), source - 1)
        return cls(low, np.minimum(low + 1, source - 1), (place - low).astype(np.float32), same=False)

    def known(self, first: int, end: int) -> slice:
        """The targets that the source's voxels from `first` to `end` complete."""
        return slice(int(np.searchsorted(self.high, first)), int(np.searchsorted(self.high, end)))

    def mix(self, array: FloatArray, axis: int, wanted: slice, *, first: int) -> FloatArray:
        """Interpolate the wanted targets along one axis of `array`, which begins with the source's voxel number `first`."""
        if self.same:
            return array[(slice(None),) * axis + (slice(wanted.start - first, wanted.stop - first),)]
        below = np.take(array, self.low[wanted] - first, axis=axis)
        above = np.take(array, self.high[wanted] - first, axis=axis)
        share = self.share[wanted].reshape([-1 if at == axis else 1 for at in range(array.ndim)])
        return blend(below, above, share)


def blend(below: FloatArray, above: FloatArray, share: FloatArray) -> FloatArray:
    """Overwrite and return `below` with the mean of both; each product and the sum are rounded by themselves, on any layout."""
    below *= np.float32(1.0) - share
    above *= share
    below += above
    return below


class Regrid:
    """Brings a volume from one grid to another over the same extent while its boxes arrive.

    Boxes run through the whole of the last axis of `order`, and come with ascending places along the first axis for each place
    along the second, and the other way round. Held are one plane of the target and the last line of each box of a slab, so the
    memory does not grow with the number of planes. Values are the same bits however the boxes are cut.
    """

    def __init__(self, source: Shape, target: Shape, order: tuple[int, int, int], give: Give) -> None:
        """Set up the way.

        Args:
            source: (I, J, K) of what arrives.
            target: (I, J, K) of what is given on.
            order: axes from the slowest to the fastest.
            give: receives boxes of the target with their values, (C, I, J, K) of the box.
        """
        self._order, self._give = order, give
        self._source = [source[axis] for axis in order]
        self._target = [target[axis] for axis in order]
        self._planes, self._rows, self._columns = (
            LinearAxis.of(have, want) for have, want in zip(self._source, self._target, strict=True)
        )
        self._unchanged = source == target
        self._edges: dict[int, FloatArray] = {}
        self._last: FloatArray | None = None
        self._used = np.zeros(self._source[0], dtype=bool)
        self._used[self._planes.low] = self._used[self._planes.high] = True

    def held_bytes(self, channels: int) -> int:
        """The most bytes that are held between boxes and while one is worked on; 0 where both grids are the same."""
        plane = 4 * channels * self._target[1] * max(self._source[2], self._target[2])
        return 0 if self._unchanged else 5 * plane

    def __call__(self, box: Box, values: FloatArray) -> None:
        """Take a box of the source with its values, (C, I, J, K) of the box."""
        if self._unchanged:
            self._give(box, values)
            return
        planes, rows = box[self._order[0]], box[self._order[1]]
        lines = self._with_edge(planes, rows, values.transpose(0, *(axis + 1 for axis in self._order)))
        wanted = self._rows.known(rows.start, rows.stop)
        if wanted.start == wanted.stop:
            return
        first_row, whole = max(0, rows.start - 1), slice(0, self._target[2])
        before: FloatArray | None = None if self._last is None or not planes.start else self._last[:, wanted]
        for number in range(planes.start, planes.stop):
            if not self._used[number]:
                continue
            plane = self._rows.mix(lines[:, number - planes.start], 1, wanted, first=first_row)
            plane = self._columns.mix(plane, 2, whole, first=0)
            self._between(number, before, plane, wanted)
            before = plane
        if planes.stop < self._source[0] and before is not None:
            if self._last is None:
                self._last = np.zeros((values.shape[0], *self._target[1:]), dtype=np.float32)
            self._last[:, wanted] = before

    def _with_edge(self, planes: slice, rows: slice, values: FloatArray) -> FloatArray:
        """The box (C, planes, rows, columns) with the last line of the box before it; keeps its own for the next."""
        edge = self._edges.pop(planes.start, None)
        if rows.stop < self._source[1]:
            self._edges[planes.start] = values[:, :, -1:].copy()
        return values if edge is None else np.concatenate([edge, values], axis=2)

    def _between(self, number: int, before: FloatArray | None, plane: FloatArray, rows: slice) -> None:
        """Give the target's planes that this plane of the source completes."""
        known = self._planes.known(number, number + 1)
        for target in range(known.start, known.stop):
            if self._planes.same:
                mixed = plane
            else:
                below = plane if before is None or self._planes.low[target] == number else before
                mixed = blend(below.copy(), plane.copy(), self._planes.share[target : target + 1])
            box = [slice(0, 0)] * 3
            ends = (slice(target, target + 1), rows, slice(0, self._target[2]))
            for axis, part in zip(self._order, ends, strict=True):
                box[axis] = part
            back = (0, *(int(axis) + 1 for axis in np.argsort(self._order)))
            self._give((box[0], box[1], box[2]), mixed[:, np.newaxis].transpose(back))
