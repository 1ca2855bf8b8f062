"""Many pairs of images laid on each other at once, and how alike they are there.

The window of the one that the other shows is moved by Gauss-Newton steps (least squares as of Lucas and Kanade 1981, a shift
and a scale per axis; intensities may differ by a parabola). What is then compared is the detail between about 1.4 and 5.6 of
32 cells, each place weighed alike: finer detail goes with noise and resampling, coarser anatomy is what all patients share.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from bedside.data.alike_index import Edges
from bedside.data.fingerprint import SIDE, Grid

_STEP_MOST = 0.06
_NARROWEST, _WIDEST = 0.4, 2.0
_LEAST_OVERLAP = 0.2
_DETAIL = (1.4, 5.6)
_EVEN, _EVEN_FLOOR = 2.8, 0.02
_POWERS = 3
_TEXTURE, _SLOPE = 1.4, 1.0
_TAILS = (2, 98)


def aligned(moving: Grid, fixed: Grid, edges: Edges, *, steps: int) -> tuple[NDArray[np.float64], Edges]:
    """Move windows until the images agree best.

    Args:
        moving: (N, S, S, S).
        fixed: (N, S, S, S).
        edges: (N, 3, 2) fractions of `moving` that `fixed` shows, to begin with.
        steps: how many at most.

    Returns:
        The correlation of intensities at the best place of each pair, and the place.
    """
    best, kept = np.full(len(moving), -2.0), edges
    for number in range(steps + 1):
        sampled, mask = warped(moving, edges)
        mapped = _fitted(_powers(sampled, 2), fixed, mask)
        score = np.where(mask.mean(axis=(1, 2, 3)) >= _LEAST_OVERLAP, correlation(mapped, fixed, mask), -2.0)
        kept = np.where((score > best).reshape(-1, 1, 1), edges, kept)
        best = np.maximum(score, best)
        if number < steps:
            edges = edges + np.clip(_step(mapped, fixed, mask, edges), -_STEP_MOST, _STEP_MOST)
            width = edges[..., 1] - edges[..., 0]
            odd = np.asarray((width < _NARROWEST) | (width > _WIDEST)).any(axis=1)
            edges = np.where(odd.reshape(-1, 1, 1), kept, edges)
    return best, kept


def detail_likeness(moving: Grid, fixed: Grid, edges: Edges) -> NDArray[np.float64]:
    """Correlation of detail, -1..1, of each pair where both images are; the one may be more blurred than the other."""
    sampled, mask = warped(moving, edges)
    mapped = _fitted(_powers(sampled, _POWERS), fixed, mask)
    curves = [np.gradient(np.gradient(mapped, axis=axis), axis=axis) for axis in (1, 2, 3)]
    mapped = _fitted(np.stack([np.ones_like(mapped), mapped, *curves], axis=-1), fixed, mask)
    scale = moving.shape[-1] / SIDE
    narrow, wide = (sigma * scale for sigma in _DETAIL)
    one, other = (_smoothed(grid, mask, narrow) - _smoothed(grid, mask, wide) for grid in (mapped, fixed))
    strength = np.sqrt(np.maximum(_smoothed(one * one + other * other, mask, _EVEN * scale), 0)) + _EVEN_FLOOR
    return np.where(mask.mean(axis=(1, 2, 3)) >= _LEAST_OVERLAP, correlation(one / strength, other / strength, mask), -1.0)


def texture_likeness(moving: Grid, fixed: Grid, edges: Edges) -> float:
    """Correlation, -1..1, of the finest differences in the flatter half of one pair of images (S, S, S) at a place (3, 2).

    There are no edges there, which anatomy puts in one place; what is left is what no two scans of even one patient share.
    """
    sampled, mask = warped(moving[np.newaxis], edges[np.newaxis])
    wanted = fixed[np.newaxis]
    mapped = _fitted(_powers(sampled, _POWERS), wanted, mask)
    mean = _smoothed((mapped + wanted) / 2, mask, _SLOPE)
    slope = np.sqrt(sum(np.gradient(mean, axis=axis) ** 2 for axis in (1, 2, 3)))
    inside = mask > 0
    if inside.mean() < _LEAST_OVERLAP:
        return -1.0
    flat = (mask * (slope <= np.median(slope[inside]))).astype(np.float32)
    fine = [grid - _smoothed(grid, flat, _TEXTURE) for grid in (mapped, wanted)]
    one, other = (np.clip(grid, *np.percentile(grid[flat > 0], _TAILS)).astype(np.float32) for grid in fine)
    return float(correlation(one, other, flat)[0])


def warped(moving: Grid, edges: Edges) -> tuple[Grid, Grid]:
    """The windows on the images' own number of cells by linear interpolation, and 1 where that lies inside the image."""
    side = moving.shape[-1]
    places = (edges[..., :1] + (edges[..., 1:] - edges[..., :1]) * ((np.arange(side) + 0.5) / side)) * side - 0.5
    near = np.clip(np.floor(places), 0, side - 2).astype(np.int64)
    share = np.clip(places - near, 0, 1).astype(np.float32)
    lines = np.zeros((*places.shape, side), np.float32)
    np.put_along_axis(lines, near[..., None], (1 - share)[..., None], -1)
    np.put_along_axis(lines, near[..., None] + 1, share[..., None], -1)
    inside = ((places >= -0.5) & (places <= side - 0.5)).astype(np.float32)
    mask = inside[:, 0, :, None, None] * inside[:, 1, None, :, None] * inside[:, 2, None, None, :]
    return _along_axes(moving, lines[:, 0], lines[:, 1], lines[:, 2]), mask


def correlation(one: NDArray[np.floating], other: NDArray[np.floating], mask: Grid) -> NDArray[np.float64]:
    """Pearson's, of each pair, where the mask is 1."""
    rows, others, inside = (grid.reshape(len(grid), -1) for grid in (one, other, mask))
    count = inside.sum(axis=1, keepdims=True) + 1e-9
    rows, others = ((grid - (grid * inside).sum(axis=1, keepdims=True) / count) * inside for grid in (rows, others))
    product = (rows * others).sum(axis=1, dtype=np.float64)
    power = (rows * rows).sum(axis=1, dtype=np.float64) * (others * others).sum(axis=1, dtype=np.float64)
    return np.asarray(product / np.maximum(np.sqrt(power), 1e-9))


def _along_axes(grids: Grid, first: Grid, second: Grid, third: Grid) -> Grid:
    """Multiply a matrix (S, S), or one of each grid (N, S, S), along each of the three axes."""
    side = grids.shape[-1]
    done = np.matmul(first, grids.reshape(len(grids), side, -1)).reshape(grids.shape)
    done = np.matmul(second[:, None] if second.ndim == 3 else second, done)
    turned = np.swapaxes(third, -1, -2)
    return np.asarray(np.matmul(done, turned[:, None] if turned.ndim == 3 else turned), dtype=np.float32)


@cache
def _gauss(side: int, sigma: float) -> Grid:
    """Matrix (S, S) that blurs a line."""
    apart = np.arange(side)[:, None] - np.arange(side)[None]
    return np.asarray(np.exp(-0.5 * (apart / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)), dtype=np.float32)


def _smoothed(grids: NDArray[np.floating], mask: Grid, sigma: float) -> Grid:
    """Gaussian averages of what lies inside the mask."""
    blur = _gauss(grids.shape[-1], sigma)
    weight = np.maximum(_along_axes(mask, blur, blur, blur), 1e-3)
    return np.asarray(_along_axes(np.asarray(grids * mask, dtype=np.float32), blur, blur, blur) / weight)


def _powers(grids: Grid, highest: int) -> Grid:
    return np.stack([grids**power for power in range(highest + 1)], axis=-1)


def _solved(columns: Grid, wanted: Grid, mask: Grid, ridge: float) -> NDArray[np.float64]:
    """Least squares (N, C) of columns (N, S, S, S, C) where the mask is 1."""
    count = columns.shape[-1]
    table = columns.reshape(len(columns), -1, count)
    weighed = np.swapaxes(table * mask.reshape(len(mask), -1, 1), 1, 2)
    normal = np.matmul(weighed, table).astype(np.float64)
    right = np.matmul(weighed, wanted.reshape(len(wanted), -1, 1)).astype(np.float64)
    trace = np.trace(normal, axis1=1, axis2=2)[:, None, None] / count
    return np.asarray(np.linalg.solve(normal + (ridge * trace + 1e-9) * np.eye(count), right)[..., 0])


def _fitted(columns: Grid, wanted: Grid, mask: Grid) -> Grid:
    """The combination of columns that comes closest to what is wanted."""
    found = _solved(columns, wanted, mask, 1e-7).astype(np.float32)
    return np.asarray(np.matmul(columns.reshape(len(columns), -1, columns.shape[-1]), found[..., None]).reshape(wanted.shape))


def _step(mapped: Grid, fixed: Grid, mask: Grid, edges: Edges) -> Edges:
    """One Gauss-Newton step of the windows' edges (N, 3, 2), gain and offset of the intensities left free."""
    side = mapped.shape[-1]
    columns = [np.ones_like(mapped), mapped]
    for axis in range(3):
        slope = np.gradient(mapped, axis=axis + 1)
        along = ((np.arange(side, dtype=np.float32) + 0.5) / side).reshape([-1 if a == axis else 1 for a in range(3)])
        width = (edges[:, axis, 1] - edges[:, axis, 0]).astype(np.float32)[:, None, None, None]
        columns += [slope * (1 - along) * side / width, slope * along * side / width]
    return _solved(np.stack(columns, axis=-1), fixed - mapped, mask, 1e-4)[:, 2:].reshape(-1, 3, 2)
