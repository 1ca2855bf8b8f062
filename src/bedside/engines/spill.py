"""Open sums of a sliding window in bounded memory: what is wanted last waits in a temporary file."""

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise, product
from tempfile import TemporaryFile
from types import TracebackType
from typing import Self

import torch

from bedside.core.errors import IntegrityError, ResourceError, disk_errors
from bedside.core.task import FloatArray
from bedside.engines.stream import FLOAT_BYTES, planes_given, room
from bedside.engines.windows import AxisWindows, Box, Corner, WindowGrid

JOINED_BYTES = 64 << 20
"""Largest part of the average that is read at once, where one plane of it is not larger."""
KEPT_SHARE = 15 / 16
"""Of the bound, what is kept when room is made: what goes goes in one sweep, so that not every block has to look for its turn."""
_DOING = "open sums of a prediction are kept in the folder for temporary files (TMPDIR)"


def least_bytes(grid: WindowGrid, channels: int) -> int:
    """The least memory in which sums can be spilled, in bytes: what is read at once, twice."""
    return 2 * _planes_at_once(grid, channels) * _plane_bytes(grid, channels)


class SpilledFrontier:
    """The open part of a volume, as `Frontier` has it to the bit, of which no more than a number of bytes is in memory.

    It is held in blocks, cut wherever a window begins or ends, so that all voxels of a block see the same windows. A block is
    made when the first window touches it. Where room is needed, those go to the disk that are wanted last; the order of the
    windows is known, so no other choice moves fewer bytes. Additions are those of `Frontier`, in the same order.

    What is written, and read again, with windows that overlap by a half: where the bound holds the sums below one row of windows
    (4 bytes x C x window x window x length), each sum goes once, so at most 4 bytes x C x voxels of the volume each way; where
    it holds only those below one window, each goes up to 4 times; with less still, up to 8 times. The file grows to about what
    is open beyond the bound (`WindowGrid.held_voxels`). What the system keeps of it in its cache is not resident here and can be
    dropped once it is written; where the folder for temporary files is itself in memory (tmpfs), the file is too.
    """

    def __init__(self, grid: WindowGrid, channels: int, most_bytes: int) -> None:
        """Open the file.

        Args:
            grid: the windows.
            channels: of the windows' outputs.
            most_bytes: what may be in memory; at least `least_bytes`, else that.

        Raises:
            ResourceError: there is no room for temporary files.
        """
        self._grid, self._channels = grid, channels
        self._most_bytes = max(most_bytes, least_bytes(grid, channels))
        self._at_once = _planes_at_once(grid, channels)
        self._held: dict[Corner, torch.Tensor] = {}
        self._away: dict[Corner, int] = {}
        self._wanted: dict[Corner, Corner] = {}
        self._held_bytes = 0
        self._file = SumsFile()

    def __enter__(self) -> Self:
        """Use it within a block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let the file go."""
        self._file.close()

    @property
    def held_bytes(self) -> int:
        """What is in memory now."""
        return self._held_bytes

    def add(self, numbers: Corner, output: FloatArray) -> None:
        """Weigh a window's output (C, I, J, K), which is overwritten, and add it.

        Raises:
            ResourceError: the disk is full.
        """
        values = torch.from_numpy(output).mul_(torch.from_numpy(self._grid.weight(numbers)))
        box = self._grid.box(numbers)
        slabs, rows, whole = self._grid.order
        columns = self._grid.axes[whole].parts(box[whole].start, box[whole].stop)
        lines = self._grid.axes[rows].parts(box[rows].start, box[rows].stop)
        for cut in product(self._pieces(box[slabs].start, box[slabs].stop), lines, columns):
            part = values
            for axis, (first, end) in zip(self._grid.order, cut, strict=True):
                part = part.narrow(axis + 1, first - box[axis].start, end - first)
            self._add_block((cut[0][0], cut[1][0], cut[2][0]), part, numbers)

    def finished(self, numbers: Corner) -> Iterator[tuple[Box, FloatArray]]:
        """Give away what is complete after the last window of a row, as `Frontier.finished` does.

        Raises:
            ResourceError: the disk is full.
        """
        slabs, rows, whole = (self._grid.axes[axis] for axis in self._grid.order)
        slab, row, last = (numbers[axis] for axis in self._grid.order)
        if last + 1 < len(whole.starts):
            return
        for planes, lines in product(self._pieces(*slabs.finished(slab)), rows.parts(*rows.finished(row))):
            joined = self._joined(planes, lines)
            for first, end in planes_given(self._grid, self._channels, planes):
                given = joined.narrow(self._grid.order[0] + 1, first - planes[0], end - first)
                yield self._grid.placed(slice(first, end), slice(*lines), slice(0, whole.length)), given.numpy()
            del joined, given  # before room is made for the next

    def _add_block(self, corner: Corner, part: torch.Tensor, numbers: Corner) -> None:
        """Add to one block, or begin it."""
        is_new = corner not in self._wanted
        sums = self._block(corner, tuple(part.shape))
        self._wanted[corner] = self._next_use(corner, numbers)
        self._held[corner] = sums
        self._held_bytes += _bytes_of(sums)
        if is_new:
            sums.copy_(part)
        else:
            sums.add_(part)

    def _block(self, corner: Corner, size: tuple[int, ...]) -> torch.Tensor:
        """The sums of a block, which is neither held nor away afterwards; of a new one they are not set yet."""
        sums = self._held.pop(corner, None)
        if sums is not None:
            self._held_bytes -= _bytes_of(sums)
            return sums
        sums = self._make_room(size)
        if corner in self._away:
            self._file.take(self._away.pop(corner), sums)
        return sums

    def _joined(self, planes: tuple[int, int], lines: tuple[int, int]) -> torch.Tensor:
        """The sums of whole rows, (C, I, J, K), of which nothing is kept."""
        whole = self._grid.order[2]
        count, length = (planes[1] - planes[0], lines[1] - lines[0]), self._grid.axes[whole].length
        joined = self._make_room((self._channels, *self._grid.placed(*count, length)))
        self._held_bytes += _bytes_of(joined)
        for first, end in self._grid.axes[whole].parts(0, length):
            corner = (planes[0], lines[0], first)
            del self._wanted[corner]
            size = (self._channels, *self._grid.placed(*count, end - first))
            joined.narrow(whole + 1, first, end - first).copy_(self._block(corner, size))
        self._held_bytes -= _bytes_of(joined)
        return joined

    def _make_room(self, size: tuple[int, ...]) -> torch.Tensor:
        """Memory for an array, after what is wanted last has gone to the disk."""
        wanted_bytes = FLOAT_BYTES * torch.Size(size).numel()
        if self._held_bytes + wanted_bytes > self._most_bytes:
            left_bytes = self._most_bytes * KEPT_SHARE - wanted_bytes
            for corner in sorted(self._held, key=self._wanted.__getitem__, reverse=True):
                if self._held_bytes <= left_bytes:
                    break
                sums = self._held.pop(corner)
                self._held_bytes -= _bytes_of(sums)
                self._away[corner] = self._file.put(sums)
                del sums
        return room(size, own_pages=True)

    def _next_use(self, corner: Corner, numbers: Corner) -> Corner:
        """The next window, in the grid's order, that touches a block or after which it is given away."""
        slab, row, column = (numbers[axis] for axis in self._grid.order)
        ends = [_seen_by(self._grid.axes[axis], at) for axis, at in zip(self._grid.order, corner, strict=True)]
        if column < ends[2][1]:
            return slab, row, column + 1
        if row < ends[1][1]:
            return slab, row + 1, ends[2][0]
        if slab < ends[0][1]:
            return slab + 1, ends[1][0], ends[2][0]
        return slab, row, len(self._grid.axes[self._grid.order[2]].starts) - 1

    def _pieces(self, first: int, end: int) -> list[tuple[int, int]]:
        """Planes that are held and read together, from one cut to another."""
        parts = self._grid.axes[self._grid.order[0]].parts(first, end)
        return [piece for start, stop in parts for piece in pairwise([*range(start, stop, self._at_once), stop])]


@dataclass
class SumsFile:
    """Arrays in a temporary file that has no name: whatever ends the process, nothing of it stays.

    An array is written and read whole (pwrite, preadv). The file is not mapped, because what is mapped counts as resident.
    The place of an array that was taken is used for the next of the same size.

    Attributes:
        size_bytes: how long the file has become.
    """

    size_bytes: int = 0
    _free: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with disk_errors(_DOING):
            try:
                self._file = TemporaryFile(buffering=0)  # noqa: SIM115 - closed with this
            except FileNotFoundError as error:
                raise ResourceError(
                    "No folder for temporary files can be written, and this prediction needs one for its open sums;"
                    " set TMPDIR to a folder with room.",
                    code="DISK_FULL",
                ) from error

    def close(self) -> None:
        """Give the room on the disk back."""
        self._file.close()

    def put(self, sums: torch.Tensor) -> int:
        """Write an array and say where.

        Raises:
            ResourceError: the disk is full.
        """
        view = _bytes_view(sums)
        free = self._free.get(len(view))
        at = free.pop() if free else self.size_bytes
        self.size_bytes = max(self.size_bytes, at + len(view))
        done = 0
        with disk_errors(_DOING):
            while done < len(view):
                done += os.pwrite(self._file.fileno(), view[done:], at + done)
        return at

    def take(self, at: int, into: torch.Tensor) -> None:
        """Read an array of this size, whose place is free afterwards.

        Raises:
            IntegrityError: the file is shorter than it was.
        """
        view, done = _bytes_view(into), 0
        while done < len(view):
            count = os.preadv(self._file.fileno(), [view[done:]], at + done)
            if not count:
                raise IntegrityError(
                    "The temporary file of a prediction's open sums is shorter than what was written; repeat the command.",
                    code="SUMS_LOST",
                )
            done += count
        self._free.setdefault(len(view), []).append(at)


def _bytes_view(sums: torch.Tensor) -> memoryview:
    values: FloatArray = sums.numpy()
    return values.reshape(-1).data.cast("B")


def _bytes_of(sums: torch.Tensor) -> int:
    return FLOAT_BYTES * sums.numel()


def _seen_by(axis: AxisWindows, voxel: int) -> tuple[int, int]:
    """The first and the last window along an axis that see a voxel."""
    return bisect_right(axis.starts, voxel - axis.window), bisect_right(axis.starts, voxel) - 1


def _plane_bytes(grid: WindowGrid, channels: int) -> int:
    """One plane of a row of windows."""
    _, rows, whole = (grid.axes[axis] for axis in grid.order)
    return FLOAT_BYTES * channels * rows.window * whole.length


def _planes_at_once(grid: WindowGrid, channels: int) -> int:
    return max(1, JOINED_BYTES // _plane_bytes(grid, channels))
