"""What a generated trunk is painted on: a grid in mm, shapes as signed distances, bones as a shell around a sponge."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bedside.data.phantom import AIR_HU

Grid = NDArray[np.float32]
Point = NDArray[np.float64]
Inside = Callable[..., Grid]
"""(x, y, z) in mm, broadcastable, to the depth below a surface in mm; negative outside."""

_EDGE_MM = 14.0


@dataclass(frozen=True)
class Sponge:
    """What a bone is made of.

    Attributes:
        cortex_mm: thickness of compact bone.
        cortex_hu, spongy_hu: of compact bone, and the mean of what is inside it.
        grain_hu: standard deviation of the trabecular pattern inside: fine, and denser and looser parts of some cm.
    """

    cortex_mm: float
    cortex_hu: float
    spongy_hu: float
    grain_hu: float


class Scene:
    """What is painted so far.

    Attributes:
        image: (I, J, K) float32 in HU, air at first.
        bone: (I, J, K) where bone is.
    """

    def __init__(
        self, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], *, chance: np.random.Generator
    ) -> None:
        self.spacing_mm = spacing_mm
        self.image = np.full(shape, AIR_HU, np.float32)
        self.bone = np.zeros(shape, bool)
        self._axes = [
            (sign * step * (np.arange(count) - (count - 1) / 2)).astype(np.float32)
            for sign, step, count in zip((-1.0, -1.0, 1.0), spacing_mm, shape, strict=True)
        ]
        self._lean = chance.uniform(-0.08, 0.08, 2)
        self._grain = _grain(shape, spacing_mm, chance)

    def paint(self, low: Point, high: Point, inside_mm: Inside, hu: float) -> tuple[tuple[slice, ...], Grid] | None:
        """Paint `hu` where a signed distance is positive, in the box from `low` to `high`; return the box and the distance."""
        box = self._box(low, high)
        if box is None:
            return None
        x, y, z = (
            axis[part].reshape([-1 if place == own else 1 for place in range(3)])
            for own, (axis, part) in enumerate(zip(self._axes, box, strict=True))
        )
        x, y = x - float(self._lean[0]) * z, y - float(self._lean[1]) * z
        depth = np.broadcast_to(inside_mm(x, y, z), tuple(part.stop - part.start for part in box))
        share = np.clip(0.5 + depth / self.spacing_mm[0], 0, 1)
        self.image[box] += share * (hu - self.image[box])
        return box, depth

    def paint_bone(self, low: Point, high: Point, inside_mm: Inside, made_of: Sponge) -> None:
        """Paint a bone: compact outside, spongy inside."""
        painted = self.paint(low, high, inside_mm, made_of.cortex_hu)
        if painted is None:
            return
        box, depth = painted
        share = np.clip(0.5 + (depth - made_of.cortex_mm) / self.spacing_mm[0], 0, 1)
        spongy = made_of.spongy_hu + made_of.grain_hu * self._grain[box]
        self.image[box] += share * (spongy - self.image[box])
        self.bone[box] |= depth > 0

    def paint_ellipsoid(self, centre: Point, radii: Point, hu: float) -> None:
        """Paint an organ."""
        self.paint(centre - radii, centre + radii, ellipsoid(centre, radii), hu)

    def paint_tube(self, start: Point, end: Point, radius: float, hu: float) -> None:
        """Paint a vessel or a cable."""
        self.paint(np.minimum(start, end) - radius, np.maximum(start, end) + radius, capsule(start, end, radius), hu)

    def paint_bone_tube(self, start: Point, end: Point, radius: float, made_of: Sponge) -> None:
        """Paint a bone with the shape of a tube with round ends."""
        low, high = np.minimum(start, end) - radius, np.maximum(start, end) + radius
        self.paint_bone(low, high, capsule(start, end, radius), made_of)

    def paint_bone_ellipsoid(self, centre: Point, radii: Point, made_of: Sponge) -> None:
        """Paint a bone with the shape of an egg."""
        self.paint_bone(centre - radii, centre + radii, ellipsoid(centre, radii), made_of)

    def paint_flecks(self, centres: Iterable[Point], *, radius: float, hu: float) -> None:
        """Paint calcifications: small, bright, no bone."""
        for centre in centres:
            self.paint_ellipsoid(np.asarray(centre), np.full(3, radius), hu)

    def _box(self, low: Point, high: Point) -> tuple[slice, ...] | None:
        """The voxels between two corners, with room for a lean and a blurred edge."""
        parts = []
        for axis, first, last in zip(self._axes, low - _EDGE_MM, high + _EDGE_MM, strict=True):
            found = np.flatnonzero((axis >= first) & (axis <= last))
            if not found.size:
                return None
            parts.append(slice(int(found[0]), int(found[-1]) + 1))
        return tuple(parts)


def _grain(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], chance: np.random.Generator) -> Grid:
    """A random pattern of unit variance, half of it fine and half of it coarse."""
    total = np.zeros(shape, np.float32)
    for width_mm in (float(chance.uniform(1.0, 4.0)), float(chance.uniform(6.0, 14.0))):
        part = gaussian_filter(chance.normal(0, 1, shape).astype(np.float32), [width_mm / step for step in spacing_mm])
        total += part / (part.std() * np.sqrt(2))
    return total


def ellipsoid(centre: Point, radii: Point) -> Inside:
    """Depth below the surface of an ellipsoid, first order in the distance."""

    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        ratio = np.sqrt(sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True)))
        return np.asarray((1 - ratio) * float(min(radii)), dtype=np.float32)

    return inside_mm


def capsule(start: Point, end: Point, radius: float) -> Inside:
    """Depth below the surface of a tube with round ends."""
    along = end - start
    length = float(along @ along) or 1.0

    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        offset = (x - start[0], y - start[1], z - start[2])
        share = np.clip(sum(o * a for o, a in zip(offset, along, strict=True)) / length, 0, 1)
        apart = np.sqrt(sum((o - share * a) ** 2 for o, a in zip(offset, along, strict=True)))
        return np.asarray(radius - apart, dtype=np.float32)

    return inside_mm


def shell(surface: Inside, thick_mm: float) -> Inside:
    """The outermost `thick_mm` below a surface."""

    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        depth = surface(x, y, z)
        return np.asarray(np.minimum(depth, thick_mm - depth), dtype=np.float32)

    return inside_mm


def arc(centre: tuple[float, float], radius: float, *, thick_mm: float, half_width: float) -> Inside:
    """A curved plate along z below its centre (x, y): what a patient lies on."""

    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        apart = np.hypot(x - centre[0], y - centre[1])
        depth = np.minimum(radius - apart, apart - radius + thick_mm)
        wide = np.minimum(half_width - np.abs(x - centre[0]), centre[1] - y)
        return np.asarray(np.minimum(depth, wide) + 0 * z, dtype=np.float32)

    return inside_mm
