"""Closed surfaces of the structures of a mask, in patient millimetres, each with what was measured of it.

A surface is closed, its normals point outwards whatever the axes of the image, it encloses the volume of its voxels, and
structures that touch share their interface triangle by triangle. World axes are RAS+ here; `formats.mesh` writes LPS and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from bedside.core.record import Record
from bedside.core.volume import Affine
from bedside.data.surface_check import SurfaceCheck, area, distances_both_ways, is_watertight, signed_volume
from bedside.data.surface_decimate import Shared, decimate
from bedside.data.surface_net import Indices, Mask, Points, check_mask, extract
from bedside.data.surface_smooth import REACH_VOXELS, restore_volumes, smooth, triangulate

_TOUCHING = np.ones((3, 3, 3), dtype=bool)


class SurfaceSettings(Record):
    """How surfaces are made.

    Attributes:
        smoothing: pairs of steps forth and back; 0 keeps the voxels' own faces.
        faces: largest number of triangles of one structure; None: as many as the mask gives.
        island_mm3: parts of a structure smaller than this are reported.
        remove_islands: whether they are left out as well.
    """

    smoothing: Annotated[int, Field(ge=0, le=200)] = 16
    faces: Annotated[int, Field(ge=100)] | None = 200_000
    island_mm3: Annotated[float, Field(ge=0)] = 50.0
    remove_islands: bool = False


DEFAULTS = SurfaceSettings()


@dataclass(frozen=True, eq=False)
class Surface:
    """The closed surface of one structure.

    Attributes:
        structure: its name.
        points_mm: (V, 3) float32, RAS+.
        faces: (F, 3), counter-clockwise from outside.
        check: what was measured of it.
    """

    structure: str
    points_mm: NDArray[np.float32]
    faces: Indices
    check: SurfaceCheck


def surfaces(
    mask: Mask, affine: Affine, *, structures: Mapping[int, str], settings: SurfaceSettings = DEFAULTS
) -> tuple[Surface, ...]:
    """Make the surface of every structure of a mask that is there, in the order of training ids.

    Args:
        mask: training ids, (I, J, K), 0 for the background.
        affine: voxel to RAS+ mm.
        structures: names by training id; ids that are not named have no surface, and count as background.
        settings: smoothing, budget, islands.

    Raises:
        UsageError: the mask has not three axes of whole numbers (SURFACE_MASK), or holds no named structure (SURFACE_EMPTY).
    """
    check_mask(mask)
    named = np.where(np.isin(mask, list(structures)), mask, 0)
    islands = {number: _islands(named == number, affine, settings) for number in structures if (named == number).any()}
    if settings.remove_islands:
        for number, found in islands.items():
            named[np.isin(found.parts, found.small) & (named == number)] = 0
    net = extract(named)
    points = smooth(net, settings.smoothing)
    triangles, sides = triangulate(net, points)
    volumes = np.bincount(named.ravel(), minlength=int(named.max()) + 1).astype(np.float64)
    if settings.smoothing:
        reach = (net.anchors - REACH_VOXELS, net.anchors + REACH_VOXELS)
        points = restore_volumes(points, triangles, sides, volumes, reach=reach)
    mirrored = bool(np.linalg.det(affine[:3, :3]) < 0)
    points_mm = points @ affine[:3, :3].T + affine[:3, 3]
    turned = triangles[:, ::-1] if mirrored else triangles
    voxel_mm3 = float(abs(np.linalg.det(affine[:3, :3])))
    whole = Shared(points_mm, turned, sides)
    thin = _thinned(whole, volumes * voxel_mm3, settings)
    before = whole.counts()
    return tuple(
        _surface(
            thin, number, named == number, affine, _Found(structures[number], int(before[number]), islands[number]), settings
        )
        for number in thin.structures()
    )


@dataclass(frozen=True, eq=False)
class _Islands:
    """Connected parts of a mask: numbers (I, J, K), how many, which are small, and their volume."""

    parts: NDArray[np.int32]
    count: int
    small: Indices
    small_mm3: float


@dataclass(frozen=True, eq=False)
class _Found:
    """What is known of a structure before its surface is measured."""

    name: str
    faces: int
    islands: _Islands


def _islands(inside: NDArray[np.bool_], affine: Affine, settings: SurfaceSettings) -> _Islands:
    parts, count = ndimage.label(inside, structure=_TOUCHING)
    mm3 = np.bincount(parts.ravel()) * float(abs(np.linalg.det(affine[:3, :3])))
    small = np.flatnonzero(mm3 < settings.island_mm3)
    small = small[small > 0]
    if len(small) == count:  # a structure that is small as a whole is no island of itself
        small = small[mm3[small] < mm3[1:].max()]
    return _Islands(parts, int(count), small, float(mm3[small].sum()))


def _thinned(whole: Shared, volumes_mm3: NDArray[np.float64], settings: SurfaceSettings) -> Shared:
    """Bring structures within the budget and give them their volumes back."""
    if settings.faces is None or whole.counts().max() <= settings.faces:
        return whole
    thin = decimate(whole, settings.faces)
    return Shared(restore_volumes(thin.points, thin.triangles, thin.sides, volumes_mm3), thin.triangles, thin.sides)


def _surface(
    shared: Shared, number: int, inside: NDArray[np.bool_], affine: Affine, found: _Found, settings: SurfaceSettings
) -> Surface:
    """Take one structure out of its group, as it will stand in a file, and measure it."""
    faces = shared.faces(number)
    used, again = np.unique(faces, return_inverse=True)
    points_mm, faces = shared.points[used].astype(np.float32), again.reshape(-1, 3)
    return Surface(found.name, points_mm, faces, _check(points_mm, faces, inside, affine, found, settings))


def _check(
    points_mm: NDArray[np.float32],
    faces: Indices,
    inside: NDArray[np.bool_],
    affine: Affine,
    found: _Found,
    settings: SurfaceSettings,
) -> SurfaceCheck:
    inverse = np.linalg.inv(affine)
    points: Points = points_mm.astype(np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
    there, back = distances_both_ways(inside, points, faces, affine)
    volume_mm3 = signed_volume(points_mm, faces)
    mask_mm3 = float(inside.sum()) * float(abs(np.linalg.det(affine[:3, :3])))
    p95, p100 = (tuple(map(max, there.percentile(p), back.percentile(p))) for p in (95.0, 100.0))
    watertight = is_watertight(points_mm, faces)
    within = settings.faces is None or len(faces) <= settings.faces
    return SurfaceCheck(
        structure=found.name,
        faces=len(faces),
        faces_found=found.faces,
        within_budget=within,
        watertight=watertight,
        outward=volume_mm3 > 0,
        volume_ml=volume_mm3 / 1000,
        mask_ml=mask_mm3 / 1000,
        volume_change=volume_mm3 / mask_mm3 - 1,
        area_mm2=area(points_mm, faces),
        p95_voxels=p95[0],
        p100_voxels=p100[0],
        p95_mm=p95[1],
        p100_mm=p100[1],
        within_half_voxel=min(there.share_within(0.5), back.share_within(0.5)),
        islands=found.islands.count,
        small_islands=len(found.islands.small),
        small_islands_mm3=found.islands.small_mm3,
        islands_removed=settings.remove_islands,
        problem="" if within else "Fewer faces would have opened the surface, so it has more than the budget.",
    )
