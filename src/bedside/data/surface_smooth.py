"""Smoothing a net without shrinking what it encloses.

Steps forth and back (G. Taubin, SIGGRAPH 1995) take the staircase away; every point stays within half a voxel, along each axis,
of the place it began at; then the surfaces are moved along their normals until each structure has the volume of its voxels again.
All of it happens in voxel indices, so that thick slices are smoothed as much as thin ones.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags

from bedside.data.surface_net import Indices, Net, Points

FORTH, BACK = 0.5, -0.53
"""Taubin's lambda and mu; the pass band is 1 / lambda + 1 / mu = 0.11."""
REACH_VOXELS = 0.5
_CORRECTIONS = 4


def smooth(net: Net, steps: int) -> Points:
    """Smooth the points of a net, (V, 3); structures that touch are smoothed as one.

    Args:
        net: from `surface_net.extract`.
        steps: pairs of steps forth and back; 0 leaves the points where they are.
    """
    points = net.points
    if not steps:
        return points
    average = _average(net.links, len(points))
    for _ in range(steps):
        for weight in (FORTH, BACK):
            points = points + weight * (average @ points - points)
        points = np.clip(points, net.anchors - REACH_VOXELS, net.anchors + REACH_VOXELS)
    return np.asarray(points)


def triangulate(net: Net, points: Points) -> tuple[Indices, Indices]:
    """Cut every quad along its shorter diagonal.

    Returns:
        (T, 3) triangles and (T, 2) what lies behind and in front of each.
    """
    a, b, c, d = net.quads.T
    across = np.linalg.norm(points[a] - points[c], axis=1) <= np.linalg.norm(points[b] - points[d], axis=1)
    first = np.where(across[:, None], net.quads[:, [0, 1, 2]], net.quads[:, [0, 1, 3]])
    second = np.where(across[:, None], net.quads[:, [0, 2, 3]], net.quads[:, [1, 2, 3]])
    triangles = np.concatenate([first, second, net.triangles])
    return triangles, np.concatenate([net.quad_sides, net.quad_sides, net.triangle_sides])


def restore_volumes(
    points: Points,
    triangles: Indices,
    sides: Indices,
    volumes: NDArray[np.float64],
    *,
    reach: tuple[Points, Points] | None = None,
) -> Points:
    """Move surfaces along their normals until each structure encloses its volume.

    Args:
        points: (V, 3).
        triangles: (T, 3) point numbers.
        sides: (T, 2), training ids behind and in front.
        volumes: wanted, by training id, in the cubed unit of the points; that of the background does not matter.
        reach: smallest and largest coordinates of every point; None: no limits.
    """
    for _ in range(_CORRECTIONS):
        normals = _area_normals(points, triangles)
        areas = np.linalg.norm(normals, axis=1)
        lack = volumes - enclosed(points, triangles, sides, len(volumes))
        surface = np.bincount(sides.ravel(), weights=np.repeat(areas, 2), minlength=len(volumes))
        offset = np.divide(lack, surface, out=np.zeros_like(lack), where=surface > 0)
        offset[0] = 0.0
        push = normals * (offset[sides[:, 0]] - offset[sides[:, 1]])[:, None]
        moved, weight = np.zeros_like(points), np.zeros(len(points))
        for corner in range(3):
            for axis in range(3):
                moved[:, axis] += np.bincount(triangles[:, corner], weights=push[:, axis], minlength=len(points))
            weight += np.bincount(triangles[:, corner], weights=areas, minlength=len(points))
        points = points + np.divide(moved, weight[:, None], out=np.zeros_like(moved), where=weight[:, None] > 0)
        if reach is not None:
            points = np.clip(points, *reach)
    return points


def enclosed(points: Points, triangles: Indices, sides: Indices, count: int) -> NDArray[np.float64]:
    """Volume that each structure's surface encloses, by training id: the sum of signed tetrahedra (divergence theorem)."""
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    signed = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
    behind = np.bincount(sides[:, 0], weights=signed, minlength=count)
    return np.asarray(behind - np.bincount(sides[:, 1], weights=signed, minlength=count))


def _area_normals(points: Points, triangles: Indices) -> Points:
    """Normals as long as the triangles' areas, (T, 3)."""
    a, b, c = (points[triangles[:, corner]] for corner in range(3))
    return np.asarray(np.cross(b - a, c - a) / 2)


def _average(links: Indices, count: int) -> csr_matrix:
    """The matrix that gives every point the mean of its neighbours."""
    rows, columns = np.concatenate([links[:, 0], links[:, 1]]), np.concatenate([links[:, 1], links[:, 0]])
    near = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count)).tocsr()
    return diags(1.0 / np.asarray(near.sum(axis=1)).ravel()) @ near
