"""Wrappers around an engine's function: a volume of any size out of windows of one size."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from bedside.core.errors import InputRejected, IntegrityError, UsageError
from bedside.core.task import FloatArray, Forward

Shape = tuple[int, int, int]
Corner = tuple[int, int, int]

SIGMA = 0.125
"""Standard deviation of the window's weight as a fraction of the patch, as in nnU-Net (Isensee et al. 2021)."""
FLOOR = 1e-3
"""Smallest weight, so that a voxel which only corners of windows see keeps a sound average in float32."""


def unchanged(output: FloatArray) -> FloatArray:
    """Activate nothing."""
    return output


@dataclass(frozen=True)
class SlidingWindow:
    """Runs overlapping windows and averages their activated outputs, weighted by a Gaussian about each window's centre.

    A volume smaller than the patch is padded with its edge values, half on each side, exactly as training patches are, and
    cropped back. Windows are spread evenly, first and last flush with the volume. What one window covers is one plain pass.
    Everything is float32. Besides input and output it holds one weight per voxel and one batch of windows: memory is
    4 bytes x (C_in + C_out + 1) x voxels, plus the engine's own.

    Attributes:
        forward: the engine's function, (B, C_in, I, J, K) to (B, C_out, I, J, K).
        patch: (I, J, K) voxels of one window.
        overlap: smallest overlap of neighbouring windows, as a fraction of the patch, 0 to below 1.
        activate: turns one window's raw output (C_out, I, J, K) into what is averaged.
        batch: windows per call of `forward`.
    """

    forward: Forward
    patch: Shape
    overlap: float
    activate: Callable[[FloatArray], FloatArray] = unchanged
    batch: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise UsageError(f"The overlap is {self.overlap:g}; it is a fraction from 0 to below 1.", code="OVERLAP")
        if self.batch < 1 or min(self.patch) < 1:
            raise UsageError("A window has at least one voxel along each axis, and a batch at least one window.", code="PATCH")

    def __call__(self, array: FloatArray) -> FloatArray:
        """Compute (C_out, I, J, K) float32 of (C_in, I, J, K).

        Raises:
            IntegrityError: the engine's output does not have the shape of its windows.
            InputRejected: the engine's output holds NaN or infinity.
        """
        spatial = (array.shape[1], array.shape[2], array.shape[3])
        before = [max(0, wanted - size) // 2 for wanted, size in zip(self.patch, spatial, strict=True)]
        after = [max(0, w - s) - b for w, s, b in zip(self.patch, spatial, before, strict=True)]
        image = np.asarray(array, dtype=np.float32)
        if any(before) or any(after):
            image = np.pad(image, [(0, 0), *zip(before, after, strict=True)], mode="edge")
        output = self._run(image)
        cut = tuple(slice(b, b + size) for b, size in zip(before, spatial, strict=True))
        return np.ascontiguousarray(output[(slice(None), *cut)])

    def _run(self, image: FloatArray) -> FloatArray:
        """Average over windows; every axis of `image` is at least as long as the patch."""
        size = (image.shape[1], image.shape[2], image.shape[3])
        corners = window_corners(size, self.patch, self.overlap)
        if len(corners) == 1:
            return self._compute(image, corners)[0]
        total: FloatArray | None = None
        weight = np.zeros(size, dtype=np.float32)
        for first in range(0, len(corners), self.batch):
            group = corners[first : first + self.batch]
            for corner, output in zip(group, self._compute(image, group), strict=True):
                if total is None:
                    total = np.zeros((output.shape[0], *size), dtype=np.float32)
                at = _slices(corner, self.patch)
                total[(slice(None), *at)] += output * self._importance
                weight[at] += self._importance
        assert total is not None
        total /= weight
        return total

    def _compute(self, image: FloatArray, corners: list[Corner]) -> list[FloatArray]:
        windows = np.stack([image[(slice(None), *_slices(corner, self.patch))] for corner in corners])
        outputs = self.forward(windows)
        if outputs.ndim != 5 or (outputs.shape[0], *outputs.shape[2:]) != (len(corners), *self.patch):
            raise IntegrityError(
                f"The engine made {outputs.shape} of windows {windows.shape}; batch and voxels must stay the same.",
                code="OUTPUT_SHAPE",
            )
        if not np.isfinite(outputs).all():
            raise InputRejected(
                "The model's output for this case holds NaN or infinity; no answer can be made of it.", code="OUTPUT_NOT_FINITE"
            )
        return [np.asarray(self.activate(output), dtype=np.float32) for output in outputs]

    @cached_property
    def _importance(self) -> FloatArray:
        return importance(self.patch)


def importance(patch: Shape) -> FloatArray:
    """Weight of each voxel of a window, (I, J, K): a Gaussian of `SIGMA`, 1 at the centre, never below `FLOOR`."""
    axes = []
    for length in patch:
        offset = (np.arange(length) - (length - 1) / 2) / (SIGMA * length)
        axes.append(np.exp(-0.5 * offset**2))
    weight = axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]
    return np.asarray(np.maximum(weight / weight.max(), FLOOR), dtype=np.float32)


def window_corners(size: Shape, patch: Shape, overlap: float) -> list[Corner]:
    """First voxel of each window: as few as keep the overlap, spread evenly, in a fixed order."""
    starts = []
    for length, window in zip(size, patch, strict=True):
        step = max(1, int(window * (1 - overlap)))
        count = -(-max(0, length - window) // step) + 1
        starts.append([round(start) for start in np.linspace(0, max(0, length - window), count)])
    return [(i, j, k) for i, j, k in product(*starts)]


def _slices(corner: Corner, patch: Shape) -> tuple[slice, slice, slice]:
    i, j, k = (slice(start, start + length) for start, length in zip(corner, patch, strict=True))
    return i, j, k


@dataclass(frozen=True)
class MirrorAverage:
    """Averages what a window says of a volume and of its mirror image, turned back; twice the work.

    Sound where left and right carry the same answer: for models that were trained with flips along the same axis.

    Attributes:
        window: computes (C_out, I, J, K) of (C_in, I, J, K).
        axis: voxel axis that is mirrored, 0 for the first (left-right in the network's axes).
    """

    window: Callable[[FloatArray], FloatArray]
    axis: int = 0

    def __call__(self, array: FloatArray) -> FloatArray:
        """Compute (C_out, I, J, K) float32 of (C_in, I, J, K)."""
        mirrored = np.ascontiguousarray(np.flip(array, self.axis + 1))
        back = np.flip(self.window(mirrored), self.axis + 1)
        return np.asarray((self.window(array) + back) * np.float32(0.5))
