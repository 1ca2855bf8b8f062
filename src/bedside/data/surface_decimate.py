"""Fewer triangles, still closed and still shared: neighbours are thinned as one net, so that no gap opens between them.

Each patch of the net (the faces between one pair of structures) is thinned for itself with its border kept, so that patches still
fit. Which points merge, and where they go, is found by edge collapses on quadrics (M. Garland, P. Heckbert, SIGGRAPH 1997; the
library fast-simplification). It does not promise manifolds, so the result is checked, and around every edge that would not have
exactly two faces of a structure the merges are taken back until none is left. So they are for parts that would vanish.
"""

from dataclasses import dataclass

import fast_simplification
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from bedside.data.surface_net import Indices, Points

_TRIES = 3
_HARDER = 0.6
"""A patch is thinned at most this much harder than its structure asks for, to make up for what cannot be thinned."""


@dataclass(frozen=True, eq=False)
class Shared:
    """Triangles between structures, each once: points (V, 3), triangles (T, 3), what lies behind and in front (T, 2)."""

    points: Points
    triangles: Indices
    sides: Indices

    def structures(self) -> tuple[int, ...]:
        """Training ids that have a surface here."""
        return tuple(int(name) for name in np.unique(self.sides) if name > 0)

    def faces(self, structure: int) -> Indices:
        """The closed surface of one structure, (F, 3), normals outwards."""
        behind, front = self.sides[:, 0] == structure, self.sides[:, 1] == structure
        return np.concatenate([self.triangles[behind], self.triangles[front][:, ::-1]])

    def counts(self) -> NDArray[np.int64]:
        """Number of faces by training id; 0 for the background."""
        found = np.bincount(self.sides.ravel())
        found[0] = 0
        return found


def decimate(shared: Shared, faces: int) -> Shared:
    """Thin every structure to at most `faces` triangles.

    What a structure shares with one that is within the budget is left alone. The budget can be missed where fewer triangles would
    open a surface; the caller sees it in the number of faces.
    """
    counts = shared.counts()
    if counts.max() <= faces:
        return shared
    whole = _apart(shared)
    keep = np.minimum(1.0, faces / np.maximum(counts, 1)) * np.where(counts > faces, 0.98, 1.0)
    keep[0] = 0.0
    least = keep * _HARDER
    best = shared
    for _ in range(_TRIES):
        thinned = _thin(whole, keep)
        now = thinned.counts()
        now = np.pad(now, (0, len(counts) - len(now)))
        if best is shared or np.maximum(now - faces, 0).sum() < np.maximum(best.counts() - faces, 0).sum():
            best = thinned
        if (now <= faces).all():
            break
        keep = np.maximum(least, np.where(now > faces, keep * faces / np.maximum(now, 1) * 0.98, keep))
    return best


def _apart(shared: Shared) -> Shared:
    """Give patches that only meet at a point a point each, so that no patch moves another's points."""
    patch = _patches(shared)
    triangles = shared.triangles.copy()
    points = [shared.points]
    count = len(shared.points)
    users = np.zeros(count, dtype=np.int64)
    for number in range(int(patch.max()) + 1):
        users[np.unique(triangles[patch == number])] += 1
    for number in range(int(patch.max()) + 1):
        rows = np.flatnonzero(patch == number)
        own = triangles[rows]
        inner = np.setdiff1d(np.unique(own), _border(own))
        again = inner[users[inner] > 1]
        if not again.size:
            continue
        into = np.arange(len(shared.points))
        into[again] = count + np.arange(len(again))
        triangles[rows] = into[own]
        points.append(shared.points[again])
        count += len(again)
    return Shared(np.concatenate(points), triangles, shared.sides)


def _patches(shared: Shared) -> Indices:
    """Number of the patch that each triangle belongs to."""
    _, patch = np.unique(np.sort(shared.sides, axis=1), axis=0, return_inverse=True)
    return np.asarray(patch.ravel(), dtype=np.int64)


def _border(triangles: Indices) -> Indices:
    """Points on edges with one triangle."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    return np.unique(unique[count == 1])


def _thin(shared: Shared, keep: NDArray[np.float64]) -> Shared:
    """Thin each patch to the larger share that its two structures want kept, then take back what opened a surface."""
    patch = _patches(shared)
    cluster, places = np.arange(len(shared.points)), shared.points.copy()
    for number in range(int(patch.max()) + 1):
        rows = np.flatnonzero(patch == number)
        share = float(keep[shared.sides[rows[0]]].max())
        target = int(len(rows) * share)
        if share < 1.0 and target >= 4:
            _collapse(shared, rows, target, cluster, places)
    parts = _parts(shared)
    while True:
        triangles, sides = _fold(cluster[shared.triangles], shared.sides)
        bad = np.union1d(open_points(triangles, sides), cluster[_vanished(shared, parts, triangles, sides)])
        if not bad.size:
            break
        spread = np.isin(cluster, bad)
        cluster = np.where(spread, np.arange(len(cluster)), cluster)
        places[spread] = shared.points[spread]
    used, again = np.unique(triangles, return_inverse=True)
    return Shared(places[used], again.reshape(-1, 3), sides)


def _parts(shared: Shared) -> dict[int, Indices]:
    """For each structure, the number of the connected part of its surface that each point belongs to, (V,)."""
    found = {}
    for structure in shared.structures():
        own = shared.faces(structure)
        rows, columns = own[:, [0, 1]].ravel(), own[:, [1, 2]].ravel()
        joined = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(len(shared.points),) * 2)
        found[structure] = np.asarray(connected_components(joined, directed=False)[1], dtype=np.int64)
    return found


def _vanished(shared: Shared, parts: dict[int, Indices], triangles: Indices, sides: Indices) -> Indices:
    """Points of those connected parts of a structure of which no triangle is left."""
    gone = []
    thinned = Shared(shared.points, triangles, sides)
    for structure, part in parts.items():
        before, now = shared.faces(structure), thinned.faces(structure)
        lost = np.setdiff1d(part[before], part[now])
        gone.append(np.unique(before[np.isin(part[before[:, 0]], lost)]))
    return np.unique(np.concatenate(gone))


def _collapse(shared: Shared, rows: Indices, target: int, cluster: Indices, places: Points) -> None:
    """Thin one patch; writes into `cluster` what each of its points became, and into `places` where that lies."""
    used, again = np.unique(shared.triangles[rows], return_inverse=True)
    own = again.reshape(-1, 3)
    points, _, collapses = fast_simplification.simplify(
        shared.points[used], own.astype(np.int32), target_count=target, return_collapses=True, preserve_border=True
    )
    into = _clusters(collapses, len(used))
    merged = into[own]
    places[used[np.unique(merged[_distinct(merged)])]] = points
    cluster[used] = used[into]


def _clusters(collapses: NDArray[np.int64], count: int) -> Indices:
    """The point that each point has become, after all collapses (kept, gone) in their order."""
    into = np.arange(count)
    into[collapses[:, 1]] = collapses[:, 0]
    while not np.array_equal(into, into[into]):
        into = into[into]
    return into


def _distinct(triangles: Indices) -> NDArray[np.bool_]:
    a, b, c = triangles.T
    return np.asarray((a != b) & (b != c) & (a != c))


def _fold(triangles: Indices, sides: Indices) -> tuple[Indices, Indices]:
    """Drop triangles without area, and join those that came to lie on one another: what lay between them is gone."""
    keep = _distinct(triangles)
    triangles, sides = triangles[keep], sides[keep]
    order = np.argsort(triangles, axis=1)
    turned = _is_odd(order)
    same = np.take_along_axis(triangles, order, axis=1)
    unified = np.where(turned[:, None], sides[:, ::-1], sides)
    _, index, count = np.unique(same, axis=0, return_inverse=True, return_counts=True)
    index = index.ravel()
    if (count == 1).all():
        return triangles, sides
    gone = np.zeros(len(triangles), dtype=bool)
    for number in np.flatnonzero(count > 1):
        stack = np.flatnonzero(index == number)
        behind, front = list(unified[stack, 0]), list(unified[stack, 1])
        for between in list(behind):
            if between in front and between in behind:
                behind.remove(between)
                front.remove(between)
        gone[stack[len(behind) :]] = True
        for row, left, right in zip(stack, behind, front, strict=False):
            sides[row] = (right, left) if turned[row] else (left, right)
    return triangles[~gone], sides[~gone]


def _is_odd(order: Indices) -> NDArray[np.bool_]:
    """Whether sorting a triangle's points turned it round: an odd permutation."""
    a, b, c = order.T
    return np.asarray(((a > b).astype(int) + (a > c) + (b > c)) % 2 == 1)


def open_points(triangles: Indices, sides: Indices) -> Indices:
    """Points on edges that do not have exactly two faces, in opposite directions, of every structure that is there."""
    found = []
    for structure in np.unique(sides[sides > 0]):
        behind, front = sides[:, 0] == structure, sides[:, 1] == structure
        own = np.concatenate([triangles[behind], triangles[front][:, ::-1]])
        edges = np.concatenate([own[:, [0, 1]], own[:, [1, 2]], own[:, [2, 0]]])
        forth = edges[:, 0] < edges[:, 1]
        _, index, count = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
        index = index.ravel()
        balance = np.bincount(index, weights=np.where(forth, 1, -1), minlength=len(count))
        wrong = (count != 2) | (balance != 0)
        found.append(np.unique(edges[wrong[index]]))
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
