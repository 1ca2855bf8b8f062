"""Fingerprints of images: a grid of 32 x 32 x 32 numbers by which the same scan is found again (`data.alike`)."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from bedside.core.volume import Volume

Grid = NDArray[np.float32]
Flips = tuple[bool, bool, bool]

SIDE = 32
FLIPS: tuple[Flips, ...] = tuple((i, j, k) for i, j, k in product((False, True), repeat=3))
_PERCENTILES = (0.5, 99.5)
_BEYOND = 0.1


def fingerprint(volume: Volume) -> Grid:
    """Average an image, axes turned to the closest RAS+ and constant borders left out, to (32, 32, 32) numbers near 0..1.

    The first channel counts. One plane of voxels is held at a time, so a memory map of any size will do.
    """
    array = volume.canonical().array[0]
    box = _content(array)
    across = [averages(stop - start, SIDE) for start, stop in box]
    (i0, i1), (j0, j1), (k0, k1) = box
    total = np.zeros((SIDE, SIDE, SIDE), np.float32)
    for place, plane in enumerate(array[i0:i1]):
        rows = np.flatnonzero(across[0][:, place])
        small = across[1] @ np.asarray(plane[j0:j1, k0:k1], dtype=np.float32) @ across[2].T
        total[rows] += across[0][rows, place, None, None] * small
    low, high = np.percentile(total, _PERCENTILES)
    return np.asarray(np.clip((total - low) / max(float(high - low), 1e-9), -_BEYOND, 1 + _BEYOND), dtype=np.float32)


def averages(length: int, cells: int, low: float = 0.0, high: float = 1.0) -> Grid:
    """Weights (cells, length) that average a line over equal cells between two fractions of it, voxels shared exactly."""
    edges = (low + (high - low) * np.linspace(0, 1, cells + 1)) * length
    voxels = np.arange(length)
    overlap = np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels)
    weights = np.clip(overlap, 0, None)
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9), dtype=np.float32)


def flipped(grid: Grid, flips: Sequence[bool]) -> Grid:
    """A view of a grid, mirrored along some of its three axes."""
    return grid[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def halved(grid: Grid) -> Grid:
    """(..., 2N, 2N, 2N) averaged to (..., N, N, N)."""
    half = grid.shape[-1] // 2
    cells = grid.reshape(*grid.shape[:-3], half, 2, half, 2, half, 2)
    return np.asarray(cells.mean(axis=(-5, -3, -1)), dtype=np.float32)


def _content(array: NDArray[np.generic]) -> list[tuple[int, int]]:
    """(start, stop) per axis without the outer planes in which every voxel is the same; padding says nothing."""
    box = []
    for axis, length in enumerate(array.shape):
        planes = np.moveaxis(array, axis, 0)
        start, stop = 0, length
        while start < length - 2 and _constant(planes[start]):
            start += 1
        while stop > start + 2 and _constant(planes[stop - 1]):
            stop -= 1
        box.append((start, stop))
    return box


def _constant(plane: NDArray[np.generic]) -> bool:
    return bool(plane[0, 0] == plane[-1, -1] and np.all(plane == plane[0, 0]))
