"""Is a surface what it should be? Closed, turned outwards, and where the mask says."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from bedside.core.record import Record
from bedside.core.volume import Affine
from bedside.data.surface_net import Indices, Mask, Points

SAMPLES = 60_000
_NEAREST = 12
_CHUNK = 20_000


class SurfaceCheck(Record):
    """What was measured of one structure's surface.

    Attributes:
        structure: its name.
        faces: triangles; `faces_found` before decimation; `within_budget`: whether the wanted number was reached.
        watertight: every edge has exactly two faces, in opposite directions, after points at one place (float32) are merged.
        outward: the enclosed volume is positive.
        volume_ml: enclosed; `mask_ml`: of the mask's voxels; `volume_change`: relative difference.
        area_mm2: of the surface.
        p95_voxels, p100_voxels: distance between the surface and the mask's boundary (the faces of its voxels) that 95 % and all
            of the surface keep, by area, the larger of both directions, in voxels: along each axis in units of its spacing.
        p95_mm, p100_mm: the same displacements in mm.
        within_half_voxel: share of the area, the smaller of both directions, at most half a voxel away.
        islands: connected parts of the mask (faces, edges and corners connect).
        small_islands: how many are smaller than `island_mm3`, and `small_islands_mm3`, their volume together;
            `islands_removed`: whether they were left out of the surface.
        problem: one sentence where something that was asked for could not be had, or "".
    """

    structure: str
    faces: int
    faces_found: int
    within_budget: bool
    watertight: bool
    outward: bool
    volume_ml: float
    mask_ml: float
    volume_change: float
    area_mm2: float
    p95_voxels: float
    p100_voxels: float
    p95_mm: float
    p100_mm: float
    within_half_voxel: float
    islands: int
    small_islands: int
    small_islands_mm3: float
    islands_removed: bool
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances of samples, each standing for the same area, in voxels and in mm, ascending."""

    voxels: NDArray[np.float64]
    millimetres: NDArray[np.float64]

    def percentile(self, percent: float) -> tuple[float, float]:
        """The distance that a share of the surface keeps, in voxels and in mm."""
        at = min(len(self.voxels) - 1, int(np.ceil(percent / 100 * len(self.voxels))) - 1)
        return float(self.voxels[at]), float(self.millimetres[at])

    def share_within(self, voxels: float) -> float:
        """Share of the area at most so many voxels away."""
        return float(np.mean(self.voxels <= voxels + 1e-6))


def is_watertight(points: NDArray[np.floating], faces: Indices) -> bool:
    """Whether every edge has exactly two faces in opposite directions, with points at one place counted as one."""
    if not len(faces):
        return False
    _, same = np.unique(points.astype(np.float32), axis=0, return_inverse=True)
    merged = same.ravel()[faces]
    if (merged == np.roll(merged, 1, axis=1)).any():
        return False
    edges = np.concatenate([merged[:, [0, 1]], merged[:, [1, 2]], merged[:, [2, 0]]])
    _, index, count = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
    turns = np.bincount(index.ravel(), weights=np.where(edges[:, 0] < edges[:, 1], 1, -1), minlength=len(count))
    return bool((count == 2).all() and (turns == 0).all())


def signed_volume(points: NDArray[np.floating], faces: Indices) -> float:
    """Enclosed volume in the cubed unit of the points, positive when the normals point outwards."""
    a, b, c = (points[faces[:, corner]].astype(np.float64) for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def area(points: NDArray[np.floating], faces: Indices) -> float:
    """Area in the squared unit of the points."""
    return float(_areas(points.astype(np.float64), faces).sum())


def distances_both_ways(mask: Mask, points: Points, faces: Indices, affine: Affine) -> tuple[Distances, Distances]:
    """Distances from a surface to the boundary of a mask, and from that boundary to the surface.

    The boundary is the union of the voxel faces between inside and outside, the image's border included. Samples are spread
    evenly by area with a fixed seed. A distance is looked for among the nearest few faces or triangles, so it is never too small.

    Args:
        mask: (I, J, K) of truth values.
        points: (V, 3) in voxel indices.
        faces: (F, 3).
        affine: voxel to mm; gives the displacements their lengths in mm.
    """
    centres, axes = _boundary(mask)
    chance = np.random.default_rng(0)
    on_surface, _ = _sample(points, faces, min(SAMPLES, 20 * len(faces)), chance)
    there = _to_boundary(on_surface, centres, axes)
    chosen = chance.choice(len(centres), min(SAMPLES, len(centres)), replace=False)
    spread = np.insert(chance.uniform(-0.5, 0.5, (len(chosen), 2)), 0, 0.0, axis=1)
    on_boundary = centres[chosen] + np.take_along_axis(spread, _columns(axes[chosen]), axis=1)
    back = _to_surface(on_boundary, points, faces, chance)
    return _distances(there, affine), _distances(back, affine)


def _columns(axes: Indices) -> Indices:
    """Where each world axis finds its share of (normal, first, second)."""
    return np.stack([(axis - axes) % 3 for axis in range(3)], axis=1)


def _distances(displacements: Points, affine: Affine) -> Distances:
    voxels = np.sort(np.linalg.norm(displacements, axis=1))
    return Distances(voxels, np.sort(np.linalg.norm(displacements @ affine[:3, :3].T, axis=1)))


def _boundary(mask: Mask) -> tuple[Points, Indices]:
    """Centres (N, 3), in voxel indices, and normal axes (N,) of the voxel faces between inside and outside."""
    padded = np.pad(mask.astype(bool), 1)
    centres, axes = [], []
    for axis in range(3):
        found = np.argwhere(np.diff(padded, axis=axis)).astype(np.float64) - 1
        found[:, axis] += 0.5
        centres.append(found)
        axes.append(np.full(len(found), axis))
    return np.concatenate(centres), np.concatenate(axes)


def _to_boundary(samples: Points, centres: Points, axes: Indices) -> Points:
    """Displacements from samples to the nearest of the voxel faces near them."""
    tree = KDTree(centres)
    found = np.empty_like(samples)
    for start in range(0, len(samples), _CHUNK):
        block = samples[start : start + _CHUNK]
        nearest = tree.query(block, k=min(_NEAREST, len(centres)))[1].reshape(len(block), -1)
        half = np.where(axes[nearest][..., None] == np.arange(3), 0.0, 0.5)
        apart = block[:, None, :] - centres[nearest]
        gap = apart - np.clip(apart, -half, half)
        best = np.argmin((gap**2).sum(axis=2), axis=1)
        found[start : start + _CHUNK] = gap[np.arange(len(block)), best]
    return found


def _to_surface(samples: Points, points: Points, faces: Indices, chance: np.random.Generator) -> Points:
    """Displacements from samples to the nearest of the triangles near them."""
    dense, owner = _sample(points, faces, max(min(4 * SAMPLES, 16 * len(samples)), 4 * len(faces)), chance)
    dense = np.concatenate([dense, points[faces].mean(axis=1)])
    owner = np.concatenate([owner, np.arange(len(faces))])
    tree = KDTree(dense)
    found = np.empty_like(samples)
    for start in range(0, len(samples), _CHUNK):
        block = samples[start : start + _CHUNK]
        nearest = tree.query(block, k=min(_NEAREST, len(dense)))[1].reshape(len(block), -1)
        corners = points[faces[owner[nearest]]]
        gap = closest_on_triangles(np.repeat(block[:, None, :], nearest.shape[1], axis=1), corners) - block[:, None, :]
        best = np.argmin((gap**2).sum(axis=2), axis=1)
        found[start : start + _CHUNK] = gap[np.arange(len(block)), best]
    return found


def closest_on_triangles(points: Points, corners: NDArray[np.float64]) -> Points:
    """The nearest place on each triangle, (..., 3) for points (..., 3) and corners (..., 3, 3)."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    edge, other, apart = b - a, c - a, points - a
    d00, d01, d11 = _dot(edge, edge), _dot(edge, other), _dot(other, other)
    d20, d21 = _dot(apart, edge), _dot(apart, other)
    scale = d00 * d11 - d01 * d01
    flat = scale <= 1e-18
    safe = np.where(flat, 1.0, scale)
    v, w = (d11 * d20 - d01 * d21) / safe, (d00 * d21 - d01 * d20) / safe
    inside = ~flat & (v >= 0) & (w >= 0) & (v + w <= 1)
    best = a + v[..., None] * edge + w[..., None] * other
    nearest = np.where(inside, _dot(points - best, points - best), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        along = end - start
        share = np.clip(_dot(points - start, along) / np.maximum(_dot(along, along), 1e-18), 0, 1)
        place = start + share[..., None] * along
        distance = _dot(points - place, points - place)
        closer = distance < nearest
        best, nearest = np.where(closer[..., None], place, best), np.where(closer, distance, nearest)
    return np.asarray(best)


def _dot(first: Points, second: Points) -> NDArray[np.float64]:
    return np.asarray((first * second).sum(axis=-1))


def _sample(points: Points, faces: Indices, count: int, chance: np.random.Generator) -> tuple[Points, Indices]:
    """Places spread over a surface, evenly by area, and the triangle that each lies on."""
    shares = np.cumsum(_areas(points, faces))
    owner = np.searchsorted(shares, (np.arange(count) + chance.random()) / count * shares[-1])
    owner = np.minimum(owner, len(faces) - 1)
    u, v = chance.random((2, count))
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    a, b, c = (points[faces[owner, corner]] for corner in range(3))
    return a + u[:, None] * (b - a) + v[:, None] * (c - a), owner


def _areas(points: Points, faces: Indices) -> NDArray[np.float64]:
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    return np.asarray(np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2)
