"""Wrappers around an engine's function: a volume of any size out of windows of one size."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from math import inf

import numpy as np
import torch

from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.core.heap import give_back, kept_heap
from bedside.core.progress import SILENT, Progress
from bedside.core.task import FloatArray, Forward
from bedside.engines.memory import MEGABYTE, Ceiling, PeakWatch, resident_bytes
from bedside.engines.spill import SpilledFrontier, least_bytes
from bedside.engines.stream import FLOAT_BYTES, Frontier, Take, writable
from bedside.engines.windows import Box, Corner, Shape, WindowGrid

SPARE_BYTES = 512 << 20
"""What a prediction may keep of the memory of earlier windows beyond what it needs, so that a window is quicker."""
SMALL_BYTES = 1 << 30
"""A prediction that needs no more than this may keep so much; one that needs more gives back all it can after each window."""
HELD_BYTES = 1 << 30
"""Unfinished averages up to here stay in memory. Those below one row of windows of 60 classes fit (96^3 in 384 x 384 x 400:
0.9 GB), so that none goes to the disk more than once, and far fewer classes, which are usual, never need it."""


def unchanged(output: FloatArray) -> FloatArray:
    """Activate nothing."""
    return output


@dataclass(frozen=True)
class SlidingWindow:
    """Runs overlapping windows and averages their activated outputs, weighted by a Gaussian about each window's centre.

    A volume smaller than the patch is padded with its edge values, half on each side, exactly as training patches are, and
    cropped back. Windows are spread evenly, first and last flush with the volume. What one window covers is one plain pass.
    Everything is float32. `stream` gives each part of the average away as soon as no window is to come for it, so open are
    4 bytes x C_out x `WindowGrid.held_voxels`; what of that passes `most_held_bytes` waits on the disk, with the same bits (see
    `SpilledFrontier` for how much is moved). With more classes only the engine's own memory grows further, and its outputs, which
    an engine returns whole: 4 bytes x C_out x batch x voxels of a window. A call holds the whole average.

    Attributes:
        forward: the engine's function, (B, C_in, I, J, K) to (B, C_out, I, J, K).
        patch: (I, J, K) voxels of one window.
        overlap: smallest overlap of neighbouring windows, as a fraction of the patch, 0 to below 1.
        activate: turns one window's raw output (C_out, I, J, K) into what is averaged; may overwrite it.
        batch: windows per call of `forward`.
        most_held_bytes: of unfinished averages that `stream` keeps in memory.
    """

    forward: Forward
    patch: Shape
    overlap: float
    activate: Callable[[FloatArray], FloatArray] = unchanged
    batch: int = 1
    most_held_bytes: int = HELD_BYTES

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise UsageError(f"The overlap is {self.overlap:g}; it is a fraction from 0 to below 1.", code="OVERLAP")
        if self.batch < 1 or min(self.patch) < 1:
            raise UsageError("A window has at least one voxel along each axis, and a batch at least one window.", code="PATCH")

    def grid(self, shape: Shape) -> WindowGrid:
        """The windows of a volume of this shape, after padding."""
        i, j, k = (max(size, window) for size, window in zip(shape, self.patch, strict=True))
        return WindowGrid.of((i, j, k), self.patch, self.overlap)

    def held_bytes(self, shape: Shape, channels: int, *, left_bytes: float = inf) -> int:
        """The most bytes of unfinished averages that `stream` holds in memory for a volume of this shape.

        Args:
            shape: (I, J, K) voxels.
            channels: of the output.
            left_bytes: what a ceiling leaves for them; where that is too little to work with, the answer is more.
        """
        grid = self.grid(shape)
        open_bytes, bound_bytes = _open_bytes(grid, channels), int(min(self.most_held_bytes, left_bytes))
        return min(open_bytes, max(bound_bytes, least_bytes(grid, channels)))

    def __call__(self, array: FloatArray) -> FloatArray:
        """Compute (C_out, I, J, K) float32 of (C_in, I, J, K).

        Raises:
            IntegrityError: the engine's output does not have the shape of its windows.
            InputRejected: the engine's output holds NaN or infinity.
        """
        image, before = self._padded(np.asarray(array, dtype=np.float32))
        grid, total = self.grid((array.shape[1], array.shape[2], array.shape[3])), None
        with kept_heap():
            for group in self._groups(grid):
                for numbers, output in zip(group, self._compute(image, grid, group), strict=True):
                    values = torch.from_numpy(output).mul_(torch.from_numpy(grid.weight(numbers)))
                    if total is None:
                        total = torch.zeros((output.shape[0], *image.shape[1:]), dtype=torch.float32)
                    total[(slice(None), *grid.box(numbers))].add_(values)
        assert total is not None
        cut = tuple(slice(b, b + size) for b, size in zip(before, array.shape[1:], strict=True))
        return np.ascontiguousarray(total.numpy()[(slice(None), *cut)])

    def stream(
        self, array: FloatArray, take: Take, *, progress: Progress = SILENT, ceiling: Ceiling | None = None, later_bytes: int = 0
    ) -> None:
        """Compute (C_out, I, J, K) of (C_in, I, J, K) and give it away box by box, slab by slab.

        Args:
            array: the volume.
            take: receives every voxel of the average once, in boxes.
            progress: told of every window.
            ceiling: asked after the first batch of windows, whose memory is measured, and before the volume is begun.
            later_bytes: what `take` is going to hold.

        Raises:
            IntegrityError: the engine's output does not have the shape of its windows.
            InputRejected: the engine's output holds NaN or infinity.
            ResourceError: more memory would be needed than is allowed, or the disk is full of what memory may not hold.
        """
        spatial = (array.shape[1], array.shape[2], array.shape[3])
        image, before = self._padded(np.asarray(array, dtype=np.float32))
        grid = self.grid(spatial)
        done, begun_bytes = 0, resident_bytes()
        progress.start("windows", float(grid.count))
        with ExitStack() as stack:
            for group in self._groups(grid):
                with PeakWatch(wanted=not done) as watch:
                    outputs = self._compute(image, grid, group)
                if not done:
                    channels, taken_bytes = outputs[0].shape[0], watch.peak_bytes + later_bytes
                    held_bytes = self.held_bytes(spatial, channels, left_bytes=_left_bytes(ceiling, taken_bytes))
                    needed_bytes = taken_bytes + held_bytes
                    if ceiling is not None:
                        ceiling.check(needed_bytes)
                    is_small = _is_small(needed_bytes, begun_bytes, ceiling)
                    limit_bytes = needed_bytes + SPARE_BYTES if is_small else 0
                    if is_small:
                        stack.enter_context(kept_heap())
                    frontier = stack.enter_context(_frontier(grid, channels, held_bytes, own_pages=not is_small))
                for numbers in group:
                    frontier.add(numbers, outputs.pop(0))  # nothing of a window is held while the next is computed
                    for box, values in frontier.finished(numbers):
                        _cropped(take, box, values, spatial=spatial, before=before)
                        del values
                done += len(group)
                if resident_bytes() > limit_bytes:
                    give_back()
                progress.advance(float(done), f"window {done} of {grid.count}")

    def _padded(self, image: FloatArray) -> tuple[FloatArray, list[int]]:
        """The volume with its edge values about it where it is smaller than a window, and how many before it along I, J, K."""
        before = [max(0, wanted - size) // 2 for wanted, size in zip(self.patch, image.shape[1:], strict=True)]
        after = [max(0, w - s) - b for w, s, b in zip(self.patch, image.shape[1:], before, strict=True)]
        if any(before) or any(after):
            image = np.pad(image, [(0, 0), *zip(before, after, strict=True)], mode="edge")
        return image, before

    def _groups(self, grid: WindowGrid) -> Iterator[list[Corner]]:
        """The windows in their order, as many at once as a batch holds."""
        windows = iter(grid)
        while group := list(islice(windows, self.batch)):
            yield group

    def _compute(self, image: FloatArray, grid: WindowGrid, group: list[Corner]) -> list[FloatArray]:
        """The activated outputs of a batch of windows; they may be overwritten."""
        windows = np.stack([image[(slice(None), *grid.box(numbers))] for numbers in group])
        return [writable(self.activate(output)) for output in checked(self.forward, windows)]


def _open_bytes(grid: WindowGrid, channels: int) -> int:
    """The most bytes of unfinished averages at any moment, wherever they are."""
    return FLOAT_BYTES * channels * grid.held_voxels


def _left_bytes(ceiling: Ceiling | None, taken_bytes: int) -> float:
    return inf if ceiling is None else ceiling.left_bytes(taken_bytes)


@contextmanager
def _frontier(grid: WindowGrid, channels: int, held_bytes: int, *, own_pages: bool) -> Iterator[Frontier | SpilledFrontier]:
    """Where the sums are kept: no file is made where all of them may be held."""
    if held_bytes >= _open_bytes(grid, channels):
        yield Frontier(grid, own_pages=own_pages)
    else:
        with SpilledFrontier(grid, channels, held_bytes) as frontier:
            yield frontier


def _is_small(needed_bytes: int, begun_bytes: int, ceiling: Ceiling | None) -> bool:
    """Whether the memory of a window may be kept for the next: little is needed, and what is allowed is far away."""
    if needed_bytes - begun_bytes > SMALL_BYTES:
        return False
    return ceiling is None or (needed_bytes + 2 * SPARE_BYTES) / MEGABYTE < ceiling.allowed_mb


def _cropped(take: Take, box: Box, values: FloatArray, *, spatial: Shape, before: list[int]) -> None:
    """Pass on what lies in the volume itself, without the padding."""
    inside, kept = [], []
    for part, size, pad in zip(box, spatial, before, strict=True):
        first, end = max(part.start - pad, 0), min(part.stop - pad, size)
        if first >= end:
            return
        inside.append(slice(first, end))
        kept.append(slice(first + pad - part.start, end + pad - part.start))
    take((inside[0], inside[1], inside[2]), values[(slice(None), *kept)])


def checked(forward: Forward, windows: FloatArray) -> FloatArray:
    """Run an engine on a batch of windows and check what it made; it is float32 and may be overwritten.

    Raises:
        IntegrityError: the output does not have the shape of its windows.
        InputRejected: it holds NaN or infinity.
    """
    outputs = forward(windows)
    if outputs.ndim != 5 or (outputs.shape[0], *outputs.shape[2:]) != (windows.shape[0], *windows.shape[2:]):
        raise IntegrityError(
            f"The engine made {outputs.shape} of windows {windows.shape}; batch and voxels must stay the same.",
            code="OUTPUT_SHAPE",
        )
    outputs = writable(outputs)
    low, high = torch.aminmax(torch.from_numpy(outputs))  # NaN is carried by both, and no mask as large as the output is made
    if not (low.isfinite() and high.isfinite()):
        raise InputRejected(
            "The model's output for this case holds NaN or infinity; no answer can be made of it.", code="OUTPUT_NOT_FINITE"
        )
    return outputs


@dataclass(frozen=True)
class MirrorAverage:
    """Averages what an engine says of each window and of its mirror image, turned back; twice the work and no more memory held.

    Sound where left and right carry the same answer: for models that were trained with flips along the same axis.

    Attributes:
        forward: the engine's function, (B, C_in, I, J, K) to (B, C_out, I, J, K).
        activate: turns one window's raw output (C_out, I, J, K) into what is averaged; may overwrite it.
        axis: voxel axis that is mirrored, 0 for the first (left-right in the network's axes).
    """

    forward: Forward
    activate: Callable[[FloatArray], FloatArray] = unchanged
    axis: int = 0

    def __call__(self, windows: FloatArray) -> FloatArray:
        """Compute (B, C_out, I, J, K) float32 of (B, C_in, I, J, K)."""
        straight = self._active(windows)
        turned = self._active(np.ascontiguousarray(np.flip(windows, self.axis + 2)))
        straight += np.flip(turned, self.axis + 2)
        straight *= np.float32(0.5)
        return straight

    def _active(self, windows: FloatArray) -> FloatArray:
        outputs = checked(self.forward, windows)
        for number, output in enumerate(outputs):
            outputs[number] = self.activate(output)
        return outputs
