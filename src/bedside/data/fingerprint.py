"""Fingerprints of images: the same scan is found again after a crop, a flip, resampling, another intensity scale or noise.

A fingerprint is a grid of 32 x 32 x 32 numbers. They are compared in two steps. The coarse one lays 729 windows of every image on
every other one, under all eight flips, as products of small matrices. The fine one moves the best windows until both images agree
best (least squares as of Lucas and Kanade 1981, one shift and scale per axis) and measures two correlations there: of the detail
that is left when the smooth anatomy that all patients share is removed, and of the texture of flat regions, which no two scans of
even one patient have in common. Their mean is the similarity.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from bedside.core.progress import SILENT, Progress
from bedside.core.volume import Volume

Grid = NDArray[np.float32]
Flips = tuple[bool, bool, bool]

SIDE = 32
_COARSE = 8
_CUTS = (0.0, 0.1, 0.2)
_FLIPS: tuple[Flips, ...] = tuple((i, j, k) for i, j, k in product((False, True), repeat=3))
_CANDIDATES = 12
_COARSE_LEAST = 0.75
_STEPS = (6, 2)
_STEP_LEAST = 2e-3
_STEP_MOST = 0.06
_PROMISING = 0.65
_FINE_BLUR, _DETAIL_BLUR, _DETAIL_FLOOR = 0.7, 2.0, 0.05
_TEXTURE_BLURS, _TEXTURE_FLOOR = (0.5, 1.5), 3e-3
_LEAST_OVERLAP = 0.4


@dataclass(frozen=True)
class Match:
    """Two images that may be one scan.

    Attributes:
        first, second: their places in the sequence that was searched; first < second.
        similarity: mean of the correlations of detail and of texture where both are, -1..1.
        flips: axes (right-left, front-back, head-foot) along which one is the mirror image of the other.
        window: of the one, what part of it the other shows: (low, high) per axis as fractions.
    """

    first: int
    second: int
    similarity: float
    flips: Flips
    window: tuple[tuple[float, float], ...]


def fingerprint(volume: Volume) -> Grid:
    """Average an image, axes turned to the closest RAS+ and constant borders left out, to (32, 32, 32) equalised numbers.

    The first channel counts. One plane of voxels is held at a time, so a memory map of any size will do.
    """
    array = volume.canonical().array[0]
    box = _content(array)
    across = [_averages(stop - start, SIDE) for start, stop in box]
    (i0, i1), (j0, j1), (k0, k1) = box
    total = np.zeros((SIDE, SIDE, SIDE), np.float32)
    for place, plane in enumerate(array[i0:i1]):
        rows = np.flatnonzero(across[0][:, place])
        small = across[1] @ np.asarray(plane[j0:j1, k0:k1], dtype=np.float32) @ across[2].T
        total[rows] += across[0][rows, place, None, None] * small
    return _equalised(total)


def search(prints: Sequence[Grid], *, least: float, progress: Progress = SILENT) -> tuple[Match, ...]:
    """Find the pairs whose similarity is at least `least`, most similar first.

    Args:
        prints: fingerprints.
        least: see `ingest.leaks.SAME_SCAN` for what separates one scan from two patients.
        progress: advances by one per image.
    """
    if len(prints) < 2:
        return ()
    turned = _normal(np.stack([_block(one[_flip(flips)]) for one in prints for flips in _FLIPS]))
    best: dict[tuple[int, int], Match] = {}
    progress.start("comparing images", len(prints))
    for number, one in enumerate(prints):
        for other, flips, window in _candidates(number, one, turned):
            match = _fine(prints, (number, other), flips, window)
            pair = match.first, match.second
            if match.similarity >= least and (pair not in best or match.similarity > best[pair].similarity):
                best[pair] = match
        progress.advance(number + 1)
    return tuple(sorted(best.values(), key=lambda match: (-match.similarity, match.first, match.second)))


def similarity(first: Grid, second: Grid) -> float:
    """How alike two fingerprints are at best, -1..1 (-1 where nothing resembles at all)."""
    found = search([first, second], least=-1.0)
    return found[0].similarity if found else -1.0


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


def _averages(length: int, cells: int, low: float = 0.0, high: float = 1.0) -> Grid:
    """Weights (cells, length) that average a line over equal cells between two fractions of it, voxels shared exactly."""
    edges = (low + (high - low) * np.linspace(0, 1, cells + 1)) * length
    voxels = np.arange(length)
    overlap = np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels)
    weights = np.clip(overlap, 0, None)
    return np.asarray(weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _equalised(grid: Grid) -> Grid:
    """Half the rank, half the value between the 1st and 99th percentile: neither gamma nor a bright implant moves it far."""
    low, high = np.percentile(grid, [1, 99])
    value = np.clip((grid - low) / max(float(high - low), 1e-9), 0, 1)
    levels, places, counts = np.unique(grid, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts + 1) / 2) / grid.size
    rank = ranks[places.reshape(grid.shape)] if len(levels) > 1 else np.zeros(grid.shape)
    return np.asarray((value + rank) / 2, dtype=np.float32)


def _flip(flips: Sequence[bool]) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1 if flip else 1) for flip in flips)


def _block(grid: Grid) -> Grid:
    """(32, 32, 32) averaged to (8, 8, 8)."""
    step = SIDE // _COARSE
    return np.asarray(grid.reshape(_COARSE, step, _COARSE, step, _COARSE, step).mean(axis=(1, 3, 5)))


def _normal(blocks: Grid) -> Grid:
    """Rows of mean 0 and length 1: (N, 512)."""
    rows = blocks.reshape(len(blocks), -1)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype=np.float32)


_CUT_PAIRS = tuple(product(_CUTS, _CUTS))
_WINDOWS = np.concatenate([_averages(SIDE, _COARSE, low, 1 - high) for low, high in _CUT_PAIRS])


def _windows(grid: Grid) -> Grid:
    """All 9 x 9 x 9 windows of an image, each averaged to (8, 8, 8) and normalised: (729, 512)."""
    count = len(_CUT_PAIRS)
    cut = np.einsum("ai,bj,ck,ijk->abc", _WINDOWS, _WINDOWS, _WINDOWS, grid, optimize=True)
    parts = cut.reshape(count, _COARSE, count, _COARSE, count, _COARSE).transpose(0, 2, 4, 1, 3, 5)
    return _normal(parts.reshape(count**3, -1))


def _candidates(number: int, grid: Grid, turned: Grid) -> Iterator[tuple[int, Flips, tuple[tuple[float, float], ...]]]:
    """The other images that resemble a window of this one most, with the flip and the window."""
    scores = _windows(grid) @ turned.T
    window_of = scores.argmax(axis=0)
    best = scores[window_of, np.arange(scores.shape[1])]
    best[number * len(_FLIPS) : (number + 1) * len(_FLIPS)] = -1
    for place in np.argsort(-best, kind="stable")[:_CANDIDATES]:
        if best[place] < _COARSE_LEAST:
            return
        other, flip = divmod(int(place), len(_FLIPS))
        parts = np.unravel_index(int(window_of[place]), (len(_CUT_PAIRS),) * 3)
        window = tuple((_CUT_PAIRS[int(part)][0], 1 - _CUT_PAIRS[int(part)][1]) for part in parts)
        yield other, _FLIPS[flip], window


def _fine(prints: Sequence[Grid], pair: tuple[int, int], flips: Flips, window: tuple[tuple[float, float], ...]) -> Match:
    """Lay a window of the first image on the second one, and measure."""
    moving, fixed = prints[pair[0]], prints[pair[1]][_flip(flips)]
    edges = np.asarray(window, dtype=np.float64)
    score, edges = _aligned(moving, fixed, edges)
    first, second = sorted(pair)
    parts = tuple((round(float(low), 3), round(float(high), 3)) for low, high in edges)
    return Match(first, second, score, flips, parts)


def _aligned(moving: Grid, fixed: Grid, edges: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Move the window's six edges until both images agree best, first on half the cells; return the similarity there."""
    halves = (_halved(moving), _halved(fixed))
    found, edges = _descended(*halves, edges, _STEPS[0])
    if found < _PROMISING:
        return min(found, _PROMISING), edges
    blurred = [np.asarray(gaussian_filter(grid, _FINE_BLUR)) for grid in (moving, fixed)]
    found, edges = _descended(blurred[0], blurred[1], edges, _STEPS[1])
    return (found + _texture(moving, fixed, edges)) / 2, edges


def _descended(moving: Grid, fixed: Grid, edges: NDArray[np.float64], steps: int) -> tuple[float, NDArray[np.float64]]:
    """At most `steps` Gauss-Newton steps; the best place on the way and its correlation of detail."""
    best, kept = _likeness(moving, fixed, edges), edges
    for _ in range(steps):
        step = _step(moving, fixed, edges)
        if step is None:
            break
        edges = edges + np.clip(step, -_STEP_MOST, _STEP_MOST)
        score = _likeness(moving, fixed, edges)
        gained = score - best
        if gained > 0:
            best, kept = score, edges
        if gained < _STEP_LEAST:
            break
    return best, kept


def _halved(grid: Grid) -> Grid:
    half = len(grid) // 2
    return np.asarray(grid.reshape(half, 2, half, 2, half, 2).mean(axis=(1, 3, 5)), dtype=np.float32)


def _sampled(grid: Grid, edges: NDArray[np.float64]) -> tuple[Grid, tuple[slice, ...]]:
    """The window on as many cells as the image has per axis by linear interpolation, and the cells that lie inside the image."""
    side = len(grid)
    weights, inside = [], []
    for low, high in edges:
        places = (low + (high - low) * (np.arange(side) + 0.5) / side) * side - 0.5
        near = np.clip(np.floor(places), 0, side - 2).astype(np.int64)
        share = np.clip(places - near, 0, 1)
        line = np.zeros((side, side), np.float32)
        line[np.arange(side), near] = 1 - share
        line[np.arange(side), near + 1] += share
        weights.append(line)
        found = np.flatnonzero((places >= -0.5) & (places <= side - 0.5))
        inside.append(slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0))
    sampled = np.einsum("ai,bj,ck,ijk->abc", *weights, grid, optimize=True)
    return np.asarray(sampled, dtype=np.float32), tuple(inside)


def _step(moving: Grid, fixed: Grid, edges: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """One Gauss-Newton step of the window's edges, gain and offset of the intensities left free."""
    side = len(moving)
    sampled, inside = _sampled(moving, edges)
    if min(part.stop - part.start for part in inside) < side * _LEAST_OVERLAP:
        return None
    slopes = np.gradient(sampled)
    columns = [np.ones_like(sampled), sampled]
    for axis, slope in enumerate(slopes):
        along = ((np.arange(side) + 0.5) / side).reshape([-1 if a == axis else 1 for a in range(3)])
        width = float(edges[axis, 1] - edges[axis, 0])
        columns += [slope * (1 - along) * side / width, slope * along * side / width]
    table = np.stack([column[inside].ravel() for column in columns], axis=1, dtype=np.float32)
    normal = np.asarray(table.T @ table, dtype=np.float64)
    found = np.linalg.solve(normal + 1e-6 * np.trace(normal) / len(normal) * np.eye(len(normal)), table.T @ fixed[inside].ravel())
    gain = found[1] if abs(found[1]) > 0.1 else 0.1
    return np.asarray(found[2:].reshape(3, 2) / gain, dtype=np.float64)


def _likeness(moving: Grid, fixed: Grid, edges: NDArray[np.float64]) -> float:
    """Normalised correlation of detail where both images are."""
    side = len(moving)
    sampled, inside = _sampled(moving, edges)
    if min(part.stop - part.start for part in inside) < side * _LEAST_OVERLAP:
        return -1.0
    one, other = (_detail(grid[inside]) for grid in (sampled, fixed))
    return _correlation(one, other)


def _texture(moving: Grid, fixed: Grid, edges: NDArray[np.float64]) -> float:
    """Correlation of the finest differences in the flatter half of the image, far from edges, which anatomy puts in one place."""
    sampled, inside = _sampled(moving, edges)
    one, other = sampled[inside], fixed[inside]
    slope = gaussian_gradient_magnitude(one, 1.0) + gaussian_gradient_magnitude(other, 1.0)
    flat = slope <= np.median(slope)
    narrow, wide = _TEXTURE_BLURS
    fine = [gaussian_filter(grid, narrow) - gaussian_filter(grid, wide) for grid in (one, other)]
    return _correlation(*(_evened(grid, _TEXTURE_FLOOR)[flat] for grid in fine))


def _detail(grid: Grid) -> Grid:
    return _evened(grid - gaussian_filter(grid, _DETAIL_BLUR), _DETAIL_FLOOR)


def _evened(grid: Grid, floor: float) -> Grid:
    """Divide by the local strength, so that a bright edge counts no more than a faint one."""
    strength = np.sqrt(gaussian_filter(grid * grid, _DETAIL_BLUR) + floor**2)
    return np.asarray(grid / strength, dtype=np.float32)


def _correlation(one: Grid, other: Grid) -> float:
    return float((_normal(one[None]) @ _normal(other[None]).T)[0, 0])
