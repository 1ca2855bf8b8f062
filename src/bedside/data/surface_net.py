"""From a mask of several structures to one net of faces that neighbours share.

The net begins as the faces between voxels of different structures, so it is the mask's own boundary: closed around every
structure, and where two structures touch, one face stands for both. At an edge where structures cross (A, B, A, B or A, B, A, C
around it) one net edge becomes two that part a little, so that every structure stays a manifold: A, which occurs twice, is joined
there; where two cross each other, the one with the larger training id is.

The idea is that of surface nets (S. Gibson, MICCAI 1998; S. Frisken, J. Comput. Graph. Tech. 11 (2022) 34). Those make one point
per voxel corner, which is no manifold at such crossings.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from bedside.core.errors import UsageError

Points = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.generic]

PARTING = 0.1
"""How far the two copies of a crossing edge are moved apart at the start, along each of two axes, in voxels."""
_AROUND = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
"""Corners of a face along its two axes: counter-clockwise seen from the end of the third axis."""
_START, _END = np.array([0, 1, 3, 0]), np.array([1, 2, 2, 3])
"""Corners at the lower and upper end of each of a face's four edges."""


@dataclass(frozen=True, eq=False)
class Net:
    """Faces between structures, each once.

    Attributes:
        points: (V, 3) in voxel indices; a voxel's centre lies at its index, so its corners lie half a step away.
        anchors: (V, 3), places on the voxels' own boundary that the points stand for.
        quads: (Q, 4) point numbers; seen from the side of `quad_sides[:, 1]` they run counter-clockwise.
        quad_sides: (Q, 2) training ids: behind and in front.
        triangles: (T, 3) and `triangle_sides` (T, 2): faces at crossings, cut about their middle.
        links: (L, 2) pairs of points that are neighbours.
    """

    points: Points
    anchors: Points
    quads: Indices
    quad_sides: Indices
    triangles: Indices
    triangle_sides: Indices
    links: Indices


@dataclass(frozen=True, eq=False)
class _Faces:
    """Faces between voxels: low voxel (Q, 3), normal axis (Q,), sides (Q, 2), corners (Q, 4, 3) and edge keys (Q, 4)."""

    voxels: Indices
    axes: Indices
    sides: Indices
    corners: Indices
    edges: Indices


def extract(mask: Mask) -> Net:
    """Find the net of a mask.

    Args:
        mask: training ids, (I, J, K), 0 for the background. A structure that touches the border is closed there.

    Raises:
        UsageError: the mask has not three axes of whole numbers (SURFACE_MASK) or holds no structure (SURFACE_EMPTY).
    """
    check_mask(mask)
    padded = np.pad(mask.astype(np.int32), 1)
    faces = _faces(padded)
    copies, crossing, shift = _copies(padded, faces)
    point_of = _points_of(copies)
    return _assemble(faces, point_of, copies, crossing, shift)


def check_mask(mask: Mask) -> None:
    """Refuse what has no surface; see `extract`."""
    if mask.ndim != 3 or mask.dtype.kind not in "biu":
        raise UsageError("A surface is made of a mask with three axes of whole numbers.", code="SURFACE_MASK")
    if not mask.any():
        raise UsageError("The mask holds no structure, so there is no surface.", code="SURFACE_EMPTY")


def _faces(padded: NDArray[np.int32]) -> _Faces:
    """Every face between two voxels that differ, along each axis in turn."""
    lattice = np.array(padded.shape) + 1
    parts: list[tuple[Indices, ...]] = []
    for axis in range(3):
        lower = padded[tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))]
        upper = padded[tuple(slice(1, None) if a == axis else slice(None) for a in range(3))]
        voxels = np.argwhere(lower != upper)
        sides = np.stack([lower[tuple(voxels.T)], upper[tuple(voxels.T)]], axis=1).astype(np.int64)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        corners = np.repeat(voxels[:, None, :], 4, axis=1)
        corners[:, :, axis] += 1
        corners[:, :, first] += _AROUND[:, 0]
        corners[:, :, second] += _AROUND[:, 1]
        ids = np.ravel_multi_index(tuple(np.moveaxis(corners, 2, 0)), tuple(lattice))
        edges = ids[:, _START] * 3 + np.array([first, second, first, second])
        parts.append((voxels, np.full(len(voxels), axis), sides, corners, edges))
    return _Faces(*(np.concatenate([part[n] for part in parts]) for n in range(5)))


def _copies(padded: NDArray[np.int32], faces: _Faces) -> tuple[Indices, NDArray[np.bool_], Points]:
    """Which copy of its edge each face's side lies on.

    Returns:
        (Q, 4) keys, equal for sides on one copy; (Q, 4) whether the edge is a crossing; (Q, 4, 3) how its copy moves, in voxels.
    """
    _, index, count = np.unique(faces.edges, return_inverse=True, return_counts=True)
    index = index.reshape(faces.edges.shape)
    full = np.argwhere(count[index] == 4)
    quad, side = full[:, 0], full[:, 1]
    origin = faces.corners[quad, _START[side]]
    along = faces.edges[quad, side] % 3
    rows = np.arange(len(quad))
    first, second = (along + 1) % 3, (along + 2) % 3

    def label(b: int, c: int) -> NDArray[np.int32]:
        voxel = origin.copy()
        voxel[rows, first] += b - 1
        voxel[rows, second] += c - 1
        return np.asarray(padded[tuple(voxel.T)])

    even, odd = label(0, 0) == label(1, 1), label(1, 0) == label(0, 1)
    parted = np.where(even & odd, label(0, 0) < label(1, 0), odd)  # whether the even diagonal's voxels part, or the odd one's
    low = faces.voxels[quad]
    bits = np.stack([low[rows, axis] - origin[rows, axis] + 1 for axis in (first, second)], axis=1)
    step = np.stack([faces.axes[quad] == first, faces.axes[quad] == second], axis=1)
    own = np.where((((bits.sum(axis=1) % 2) == 0) == parted)[:, None], bits, bits + step)  # the parting voxel beside this face
    copies, crossing = index * 2, np.zeros(faces.edges.shape, dtype=bool)
    shift = np.zeros((*faces.edges.shape, 3))
    at = even | odd
    copies[quad[at], side[at]] += own[at, 0]
    crossing[quad[at], side[at]] = True
    shift[quad[at], side[at], first[at]] = PARTING * (2 * own[at, 0] - 1)
    shift[quad[at], side[at], second[at]] = PARTING * (2 * own[at, 1] - 1)
    return copies, crossing, shift


def _points_of(copies: Indices) -> Indices:
    """Number the points, (Q, 4): corners of faces are one point where the faces hang together along edges from there."""
    keys = copies.ravel()
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    quad, side = order // 4, order % 4
    ends = [quad * 4 + _START[side], quad * 4 + _END[side]]
    rows = np.concatenate([end[:-1][same] for end in ends])
    columns = np.concatenate([end[1:][same] for end in ends])
    nodes = keys.size
    joined = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(nodes, nodes))
    return np.asarray(connected_components(joined, directed=False)[1].reshape(-1, 4), dtype=np.int64)


def _assemble(faces: _Faces, point_of: Indices, copies: Indices, crossing: NDArray[np.bool_], shift: Points) -> Net:
    """Place the points, and cut the faces that touch a crossing about their middle."""
    corners = np.empty((int(point_of.max()) + 1, 3))
    corners[point_of.ravel()] = faces.corners.reshape(-1, 3)
    corners -= 1.5  # the padding, and half a voxel from a centre to its corner
    cut = crossing.any(axis=1)
    middles, first, inverse = np.unique(copies[crossing], return_index=True, return_inverse=True)
    quad, side = (found[first] for found in np.nonzero(crossing))
    middle = (corners[point_of[quad, _START[side]]] + corners[point_of[quad, _END[side]]]) / 2
    centre = corners[point_of[cut]].mean(axis=1)
    anchors = np.concatenate([corners, middle, centre])
    points = anchors.copy()
    points[len(corners) : len(corners) + len(middles)] += shift[quad, side]
    middle_of = np.full(crossing.shape, -1)
    middle_of[crossing] = len(corners) + inverse
    centre_of = len(corners) + len(middles) + np.arange(int(cut.sum()))
    triangles, owner = _fans(point_of[cut], middle_of[cut], centre_of)
    quads, sides = point_of[~cut], faces.sides
    lines = [*(quads[:, [m, (m + 1) % 4]] for m in range(4)), *(triangles[:, [m, (m + 1) % 3]] for m in range(3))]
    links = np.unique(np.sort(np.concatenate(lines), axis=1), axis=0)
    return Net(points, anchors, quads, sides[~cut], triangles, sides[cut][owner], links)


def _fans(corners: Indices, middles: Indices, centres: Indices) -> tuple[Indices, Indices]:
    """Triangles about the centre of each face, (T, 3), and which face each belongs to; a side with a middle becomes two."""
    triangles, owners = [], []
    faces = np.arange(len(corners))
    for m in range(4):
        start, end, middle = corners[:, m], corners[:, (m + 1) % 4], middles[:, m]
        whole = middle < 0
        for chosen, a, b in ((whole, start, end), (~whole, start, middle), (~whole, middle, end)):
            triangles.append(np.stack([centres, a, b], axis=1)[chosen])
            owners.append(faces[chosen])
    return np.concatenate(triangles), np.concatenate(owners)
