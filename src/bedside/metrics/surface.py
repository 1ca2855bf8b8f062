"""Distances between the surfaces of two masks, in mm, with surface elements weighted by their area.

Conventions: the surface of a mask runs between voxel centres. Every 2 x 2 x 2 neighbourhood that holds both inside and outside
is one surface element, at the neighbourhood's centre; its area is that of the contour which separates the two (marching cubes
with vertices half-way along the edges), in mm2, so anisotropic voxels count right. A mask that touches the image's edge ends
there. The distance of an element is that to the nearest element of the other surface.

Where one mask is empty (missed or hallucinated) there is no distance. The patient is then charged with the largest one the image
could hold, its diagonal, and a surface Dice of 0. Where both are empty the distance is 0 and the surface Dice 1. Never NaN.

The elements of an oblique or curved surface lie on a layer about a voxel thick, and the nearest one counts, so that two such
surfaces come out up to half a voxel closer than they are (balls of radius 55 and 52 voxels: 2.55 and not 3). The published
program does the same; the numbers are comparable with it.

Reference: S. Nikolov et al., J. Med. Internet Res. 23 (2021) e26151, whose program `surface-distance` gives the same numbers to
rounding. MONAI 1.6 agrees with `use_subvoxels=True`; its default counts boundary voxels without their area, which at spacing
(3, 1, 1) moved a surface Dice of 0.94 to 0.84. For an empty mask `surface-distance` gives inf and MONAI NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from bedside.core.errors import UsageError
from bedside.metrics.overlap import Mask, validate, validate_spacing

Floats = NDArray[np.float64]
ROUNDING_MM = 1e-6
_CORNERS = tuple(product((0, 1), repeat=3))


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """What the metrics below are computed from.

    Attributes:
        prediction_mm: distance of every element of the prediction's surface to the reference's surface, ascending, (P,).
        prediction_mm2: areas of those elements, (P,).
        reference_mm: distance of every element of the reference's surface to the prediction's surface, ascending, (R,).
        reference_mm2: areas of those elements, (R,).
        charge_mm: the distance that a missed or hallucinated structure is charged with.
    """

    prediction_mm: Floats
    prediction_mm2: Floats
    reference_mm: Floats
    reference_mm2: Floats
    charge_mm: float

    @property
    def both_empty(self) -> bool:
        """There is nothing, and nothing was found."""
        return not self.prediction_mm2.size and not self.reference_mm2.size

    @property
    def one_empty(self) -> bool:
        """The structure was missed or hallucinated."""
        return bool(self.prediction_mm2.size) != bool(self.reference_mm2.size)


def surface_distances(
    prediction: ArrayLike, reference: ArrayLike, *, spacing_mm: Sequence[float], charge_mm: float | None = None
) -> SurfaceDistances:
    """Measure the distances between two surfaces, both ways.

    Args:
        prediction: mask, (I, J, K).
        reference: mask, (I, J, K).
        spacing_mm: voxel size along each axis.
        charge_mm: what an empty mask costs; default: the diagonal of these arrays. Give the whole image's diagonal for a crop.

    Raises:
        UsageError: the masks are not 3-D or not of one shape, or the spacing is not positive.
    """
    first, second = validate(prediction, reference)
    if first.ndim != 3:
        raise UsageError(f"Surface distances need masks with 3 axes, not {first.ndim}.", code="METRIC_SHAPE")
    spacing = validate_spacing(spacing_mm, 3)
    charge = diagonal_mm(first.shape, spacing_mm) if charge_mm is None else charge_mm
    crop = _bounding_box(first | second)
    codes, codes_reference = _codes(first[crop]), _codes(second[crop])
    on, on_reference = _is_surface(codes), _is_surface(codes_reference)
    areas = _element_areas(tuple(spacing.tolist()))
    mine = _directed(on, areas[codes[on]], on_reference, spacing, charge)
    theirs = _directed(on_reference, areas[codes_reference[on_reference]], on, spacing, charge)
    return SurfaceDistances(*mine, *theirs, charge)


def diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """The longest distance in an image, from outer corner to outer corner: no surface distance is larger."""
    return float(np.linalg.norm(np.asarray(shape) * validate_spacing(spacing_mm, len(shape))))


def surface_dice(distances: SurfaceDistances, *, tolerance_mm: float) -> float:
    """Share of both surfaces, by area, that lies within a tolerance of the other (normalised surface distance, NSD).

    An element exactly at the tolerance counts as within, up to `ROUNDING_MM`, whatever rounding did to it.
    """
    if distances.both_empty or distances.one_empty:
        return float(distances.both_empty)
    limit = _limit(tolerance_mm)
    near = distances.prediction_mm2[distances.prediction_mm <= limit].sum()
    near += distances.reference_mm2[distances.reference_mm <= limit].sum()
    return float(near / (distances.prediction_mm2.sum() + distances.reference_mm2.sum()))


def surface_overlaps(distances: SurfaceDistances, *, tolerance_mm: float) -> tuple[float, float]:
    """Share of the reference's surface within a tolerance of the prediction's, and of the prediction's of the reference's."""
    if distances.both_empty or distances.one_empty:
        return float(distances.both_empty), float(distances.both_empty)
    limit = _limit(tolerance_mm)
    of_reference = distances.reference_mm2[distances.reference_mm <= limit].sum() / distances.reference_mm2.sum()
    of_prediction = distances.prediction_mm2[distances.prediction_mm <= limit].sum() / distances.prediction_mm2.sum()
    return float(of_reference), float(of_prediction)


def hausdorff_mm(distances: SurfaceDistances, *, percent: float = 100.0) -> float:
    """Largest distance, or the one that `percent` of the surface by area keeps; the larger of the two directions.

    Raises:
        UsageError: `percent` is not in 0 to 100.
    """
    if not 0.0 <= percent <= 100.0:
        raise UsageError(f"A percentile lies between 0 and 100, not at {percent:g}.", code="METRIC_PERCENT")
    if distances.both_empty or distances.one_empty:
        return _charge(distances)
    return max(
        _area_percentile(distances.prediction_mm, distances.prediction_mm2, percent),
        _area_percentile(distances.reference_mm, distances.reference_mm2, percent),
    )


def hd95_mm(distances: SurfaceDistances) -> float:
    """The 95th percentile Hausdorff distance: the larger of both directions, by area, not pooled."""
    return hausdorff_mm(distances, percent=95.0)


def directed_mean_distances_mm(distances: SurfaceDistances) -> tuple[float, float]:
    """Mean distance, by area, of the reference's surface to the prediction's, and of the prediction's to the reference's."""
    if distances.both_empty or distances.one_empty:
        return _charge(distances), _charge(distances)
    return (
        float(np.average(distances.reference_mm, weights=distances.reference_mm2)),
        float(np.average(distances.prediction_mm, weights=distances.prediction_mm2)),
    )


def mean_surface_distance_mm(distances: SurfaceDistances) -> float:
    """Mean of the two directed means, so that neither surface counts more because it is larger.

    MONAI's symmetric average pools the elements of both surfaces instead, which favours the larger one.
    """
    return sum(directed_mean_distances_mm(distances)) / 2.0


def _charge(distances: SurfaceDistances) -> float:
    return distances.charge_mm if distances.one_empty else 0.0


def _limit(tolerance_mm: float) -> float:
    if not tolerance_mm >= 0.0:
        raise UsageError(f"The tolerance must be at least 0 mm, not {tolerance_mm:g}.", code="METRIC_TOLERANCE")
    return tolerance_mm + ROUNDING_MM


def _area_percentile(distances_mm: Floats, areas_mm2: Floats, percent: float) -> float:
    share = np.cumsum(areas_mm2) / areas_mm2.sum()
    index = int(np.searchsorted(share, percent / 100.0))
    return float(distances_mm[min(index, distances_mm.size - 1)])


def _directed(on: Mask, areas_mm2: Floats, other: Mask, spacing: Floats, charge_mm: float) -> tuple[Floats, Floats]:
    """Distances of the elements `on` to the nearest of `other`, ascending, with their areas.

    A tree of the other surface costs what the surfaces cost, not what the volume between them does, unlike a distance transform.
    """
    if not areas_mm2.size:
        return np.empty(0), np.empty(0)
    if not other.any():
        return np.full(areas_mm2.size, charge_mm), areas_mm2
    tree = KDTree(np.argwhere(other) * spacing, balanced_tree=False, compact_nodes=False)
    distances = np.asarray(tree.query(np.argwhere(on) * spacing)[0], dtype=np.float64)
    order = np.argsort(distances, kind="stable")
    return distances[order], areas_mm2[order]


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    found = ndimage.find_objects(mask.view(np.uint8), max_label=1)
    return found[0] or (slice(0, 0),) * mask.ndim


def _codes(mask: Mask) -> NDArray[np.uint8]:
    """Which of the eight voxels around each corner point are inside, one bit each: (I, J, K) to (I + 1, J + 1, K + 1)."""
    padded = np.pad(mask.view(np.uint8), 1)
    i, j, k = (length - 1 for length in padded.shape)
    codes = np.zeros((i, j, k), dtype=np.uint8)
    for bit, (di, dj, dk) in enumerate(_CORNERS):
        codes |= padded[di : di + i, dj : dj + j, dk : dk + k] << np.uint8(bit)
    return codes


def _is_surface(codes: NDArray[np.uint8]) -> Mask:
    return np.asarray((codes != 0) & (codes != 255))


@lru_cache(maxsize=64)
def _element_areas(spacing_mm: tuple[float, ...]) -> Floats:
    """Area in mm2 of the contour of each of the 256 neighbourhoods, (256,)."""
    face_mm2 = np.prod(spacing_mm) / np.asarray(spacing_mm)
    return np.array([sum(np.linalg.norm(piece * face_mm2) for piece in _contour(code)) for code in range(256)])


def _contour(code: int) -> list[Floats]:
    """The flat pieces of a neighbourhood's contour: area of each, projected along the three axes, for voxels of side 1.

    The side with fewer voxels is cut off. Groups of its voxels that share a face are cut off together, others one by one.
    """
    inside = [corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1]
    fewer = inside if len(inside) <= 4 else [corner for corner in _CORNERS if corner not in inside]
    return [piece for group in _groups(fewer) for piece in _cut(group)]


def _groups(corners: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    left, groups = list(corners), []
    while left:
        group = [left.pop()]
        for corner in group:
            joined = [other for other in left if _axis(corner, other) is not None]
            left = [other for other in left if other not in joined]
            group.extend(joined)
        groups.append(group)
    return groups


def _axis(corner: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    """The axis along which two corners are neighbours, or None."""
    apart = [axis for axis in range(3) if corner[axis] != other[axis]]
    return apart[0] if len(apart) == 1 else None


def _cut(group: list[tuple[int, ...]]) -> list[Floats]:
    """Pieces of the contour that cuts one connected group of 1 to 4 corners off the rest of the cube."""
    slanted, unit = np.ones(3), np.eye(3)
    links = [(a, b, axis) for n, a in enumerate(group) for b in group[n + 1 :] if (axis := _axis(a, b)) is not None]
    used = {axis for _, _, axis in links}
    if len(group) == 1:  # a triangle
        return [slanted / 8]
    if len(group) == 2:  # a rectangle along the pair
        return [(slanted - unit[links[0][2]]) / 2]
    if len(group) == 3:  # a triangle parallel to the plane of the three, and a slanted trapezium
        (normal,) = {0, 1, 2} - used
        return [unit[normal] / 2, slanted * 3 / 8]
    if len(used) == 2:  # four in a plane: a square
        (normal,) = {0, 1, 2} - used
        return [unit[normal]]
    degree = {corner: sum(corner in link for link in links) for corner in group}
    if max(degree.values()) == 3:  # a corner and its three neighbours: a regular hexagon
        return [slanted * 3 / 4]
    middle = next(axis for a, b, axis in links if degree[a] == degree[b] == 2)
    ends = [unit[axis] for axis in {0, 1, 2} - {middle}]  # a path through three axes: a slanted trapezium and two triangles
    return [slanted / 2, *((unit[middle] + end) / 4 for end in ends)]
