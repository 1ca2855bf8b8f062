"""Trunks from a seeded generator: spine, ribs, sternum, pelvis and femurs among organs that are as bright as bone.

Limbs (`phantom.py`) show a network what cortex looks like; a trunk shows it what is no bone: vessels, kidneys and bowel full of
contrast agent, the table. Anatomy is analytic and simple on purpose (tubes, ellipsoids and shells in mm); it has the topology and
the values of a trunk, not its likeness.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bedside.core.errors import UsageError
from bedside.core.volume import Volume
from bedside.data.phantom import AIR_HU, HU_LIMITS

Grid = NDArray[np.float32]
Point = NDArray[np.float64]

SHAPE = (108, 84, 72)
STRUCTURES = {"background": 0, "bone": 1}
_TABLE_HU = (60.0, 300.0)
_RIB_PAIRS = 9


@dataclass(frozen=True, eq=False)
class Trunk:
    """One patient.

    Attributes:
        name: "trunk-0007", unique in its cohort.
        image: (1, I, J, K) int16 in HU.
        label: (1, I, J, K) uint8 with the codes of `STRUCTURES`, on the image's grid.
    """

    name: str
    image: Volume
    label: Volume


def trunks(patients: int, *, seed: int) -> Iterator[Trunk]:
    """Yield trunks one at a time; the first ones of a larger cohort are those of a smaller one.

    Raises:
        UsageError: fewer than one patient is asked for.
    """
    if patients < 1:
        raise UsageError(f"A cohort needs at least one patient, not {patients}.", code="COHORT_SIZE")
    return (trunk(index, seed) for index in range(patients))


def trunk(index: int, seed: int) -> Trunk:
    """Make one trunk; (index, seed) determines every voxel."""
    chance = np.random.default_rng([seed, index, 1])
    spacing_mm = (float(chance.uniform(2.4, 3.2)),) * 2 + (float(chance.uniform(2.4, 4.0)),)
    scene = _Scene(spacing_mm, lean=chance.uniform(-0.08, 0.08, 2))
    frame = _Frame.drawn(chance)
    _paint_soft(scene, frame, chance)
    _paint_bones(scene, frame, chance)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = np.round(chance.uniform(-50, 50, 3) + np.array([150.0, 120.0, -100.0]), 1)
    image = gaussian_filter(scene.image, [float(chance.uniform(0.7, 1.5)) / step for step in spacing_mm])
    image += chance.normal(0, chance.uniform(8, 35), SHAPE).astype(np.float32)
    hu = np.clip(np.rint(image), *HU_LIMITS).astype(np.int16)
    return Trunk(f"trunk-{index:04d}", Volume.of(hu, affine), Volume.of(scene.bone.astype(np.uint8), affine))


@dataclass(frozen=True)
class _Frame:
    """Sizes of one patient in mm; z runs from the feet to the head, 0 in the middle of the grid.

    Attributes:
        width, depth: half axes of the body.
        spine_y: where the middle of the vertebral bodies lies behind the middle of the body.
        pelvis_z: height of the hip joints; below the grid when only a chest is seen.
        cortex_mm: thickness of compact bone.
        cortex_hu, spongy_hu: of compact and of spongy bone.
        contrast: how much contrast agent is in vessels and kidneys, 0..1.
    """

    width: float
    depth: float
    spine_y: float
    pelvis_z: float
    cortex_mm: float
    cortex_hu: float
    spongy_hu: float
    contrast: float

    @classmethod
    def drawn(cls, chance: np.random.Generator) -> "_Frame":
        depth = float(chance.uniform(85, 115))
        return cls(
            width=float(chance.uniform(125, 150)),
            depth=depth,
            spine_y=-0.45 * depth,
            pelvis_z=float(chance.uniform(-230, -40)),
            cortex_mm=float(chance.uniform(1.2, 3.0)),
            cortex_hu=float(chance.uniform(450, 1300)),
            spongy_hu=float(chance.uniform(90, 320)),
            contrast=float(chance.choice([0.0, chance.uniform(0.3, 1.0)])),
        )


class _Scene:
    """What is painted so far: HU values, and where bone is."""

    def __init__(self, spacing_mm: tuple[float, float, float], *, lean: NDArray[np.float64]) -> None:
        self.spacing_mm = spacing_mm
        self.image = np.full(SHAPE, AIR_HU, np.float32)
        self.bone = np.zeros(SHAPE, bool)
        signs = (-1.0, -1.0, 1.0)
        axes = [
            (sign * step * (np.arange(count) - (count - 1) / 2)).astype(np.float32)
            for sign, step, count in zip(signs, spacing_mm, SHAPE, strict=True)
        ]
        self._axes = axes
        self._lean = lean

    def paint(self, low: Point, high: Point, inside_mm: Callable[..., Grid], hu: float) -> tuple[tuple[slice, ...], Grid] | None:
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

    def paint_bone(self, low: Point, high: Point, inside_mm: Callable[..., Grid], frame: _Frame) -> None:
        """Paint a bone: compact outside, spongy inside."""
        painted = self.paint(low, high, inside_mm, frame.cortex_hu)
        if painted is None:
            return
        box, depth = painted
        share = np.clip(0.5 + (depth - frame.cortex_mm) / self.spacing_mm[0], 0, 1)
        self.image[box] += share * (frame.spongy_hu - self.image[box])
        self.bone[box] |= depth > 0

    def paint_ellipsoid(self, centre: Point, radii: Point, hu: float) -> None:
        """Paint an organ."""
        self.paint(centre - radii, centre + radii, _ellipsoid(centre, radii), hu)

    def paint_bone_tube(self, start: Point, end: Point, radius: float, frame: "_Frame") -> None:
        """Paint a bone with the shape of a tube with round ends."""
        low, high = np.minimum(start, end) - radius, np.maximum(start, end) + radius
        self.paint_bone(low, high, _capsule(start, end, radius), frame)

    def _box(self, low: Point, high: Point) -> tuple[slice, ...] | None:
        """The voxels between two corners, with room for a lean and a blurred edge."""
        parts = []
        for axis, (first, last) in enumerate(zip(low - 14, high + 14, strict=True)):
            found = np.flatnonzero((self._axes[axis] >= first) & (self._axes[axis] <= last))
            if not found.size:
                return None
            parts.append(slice(int(found[0]), int(found[-1]) + 1))
        return tuple(parts)


def _ellipsoid(centre: Point, radii: Point) -> Callable[..., Grid]:
    """Depth below the surface of an ellipsoid, first order in the distance."""

    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        ratio = np.sqrt(sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True)))
        return np.asarray((1 - ratio) * float(min(radii)), dtype=np.float32)

    return inside_mm


def _capsule(start: Point, end: Point, radius: float) -> Callable[..., Grid]:
    """Depth below the surface of a tube with round ends."""
    along = end - start
    length = float(along @ along) or 1.0

    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        offset = (x - start[0], y - start[1], z - start[2])
        share = np.clip(sum(o * a for o, a in zip(offset, along, strict=True)) / length, 0, 1)
        apart = np.sqrt(sum((o - share * a) ** 2 for o, a in zip(offset, along, strict=True)))
        return np.asarray(radius - apart, dtype=np.float32)

    return inside_mm


def _paint_soft(scene: _Scene, frame: _Frame, chance: np.random.Generator) -> None:
    """Body, lungs, organs, vessels, gas and the table."""
    far = np.array([400.0, 400.0, 400.0])
    skin, fat = float(chance.uniform(1.5, 3)), float(chance.uniform(6, 28))
    for depth, hu in ((0.0, 30.0), (skin, float(chance.uniform(-115, -85))), (skin + fat, float(chance.uniform(35, 65)))):
        scene.paint(-far, far, _body(frame, depth), hu)
    if chance.random() < 0.7:
        top = -frame.depth - float(chance.uniform(2, 8))
        scene.paint(np.array([-160.0, top - 12, -400]), np.array([160.0, top, 400]), _plate(top), chance.uniform(*_TABLE_HU))
    chest_z = frame.pelvis_z + 330
    for side in (-1, 1):
        lung = np.array([side * 0.5 * frame.width, 5.0, chest_z + 40])
        scene.paint_ellipsoid(lung, np.array([0.33 * frame.width, 0.62 * frame.depth, 115.0]), float(chance.uniform(-880, -780)))
        kidney = np.array([side * 0.42 * frame.width, frame.spine_y + 18, frame.pelvis_z + 180 + chance.uniform(-15, 15)])
        scene.paint_ellipsoid(kidney, np.array([22.0, 20.0, 45.0]), 35 + frame.contrast * chance.uniform(80, 220))
    heart = np.array([12.0, 18.0, chest_z])
    scene.paint_ellipsoid(heart, np.array([50.0, 42.0, 52.0]), 40 + frame.contrast * chance.uniform(60, 260))
    liver = np.array([-0.4 * frame.width, 5.0, frame.pelvis_z + 215])
    scene.paint_ellipsoid(liver, np.array([62.0, 60.0, 75.0]), 55 + frame.contrast * 60)
    aorta = np.array([[12.0, frame.spine_y + 34, -300.0], [6.0, frame.spine_y + 40, 300.0]])
    radius = float(chance.uniform(9, 14))
    tube = _capsule(aorta[0], aorta[1], radius)
    scene.paint(aorta.min(0) - radius, aorta.max(0) + radius, tube, 45 + frame.contrast * chance.uniform(100, 380))
    low = [-0.55 * frame.width, -0.1 * frame.depth, frame.pelvis_z]
    high = [0.55 * frame.width, 0.6 * frame.depth, chest_z - 90]
    for _ in range(int(chance.integers(4, 12))):
        filled = chance.choice([-900.0, -60.0, 20.0, float(chance.uniform(120, 500))])
        scene.paint_ellipsoid(chance.uniform(low, high), chance.uniform(8, 20, 3), float(filled))


def _body(frame: _Frame, depth_mm: float) -> Callable[..., Grid]:
    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        ratio = (np.abs(x / frame.width) ** 2.4 + np.abs(y / frame.depth) ** 2.4) ** (1 / 2.4)
        return np.asarray((1 - ratio) * frame.depth - depth_mm + 0 * z, dtype=np.float32)

    return inside_mm


def _plate(top: float) -> Callable[..., Grid]:
    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        return np.asarray(np.minimum(top - y, y - top + 9) + 0 * x + 0 * z, dtype=np.float32)

    return inside_mm


def _paint_bones(scene: _Scene, frame: _Frame, chance: np.random.Generator) -> None:
    step = float(chance.uniform(27, 34))
    curve = float(chance.uniform(6, 16))

    def spine(z: float) -> Point:
        return np.array([0.0, frame.spine_y + curve * np.sin((z - frame.pelvis_z) / 90), z])

    for number in range(14):
        _paint_vertebra(scene, frame, spine(frame.pelvis_z + 75 + number * step), step, chance)
    for pair in range(_RIB_PAIRS):
        at = spine(frame.pelvis_z + 75 + (5 + pair) * step)
        for side in (-1, 1):
            _paint_rib(scene, frame, at, side, chance)
    chest = spine(frame.pelvis_z + 330)[2]
    front = frame.depth - 22
    breast = np.array([[0.0, front - 6, chest - 50], [0.0, front, chest + 90]])
    for shift in (-9.0, 0.0, 9.0):
        tube = breast + np.array([shift, 0, 0])
        scene.paint_bone_tube(tube[0], tube[1], 5.5, frame)
    _paint_pelvis(scene, frame, chance)


def _paint_vertebra(scene: _Scene, frame: _Frame, centre: Point, step: float, chance: np.random.Generator) -> None:
    """Body, arch around the canal, one spinous and two transverse processes."""
    wide, deep, high = chance.uniform([18, 13, 0.36 * step], [24, 17, 0.42 * step])

    def body(x: Grid, y: Grid, z: Grid) -> Grid:
        ring = 1 - np.hypot((x - centre[0]) / wide, (y - centre[1]) / deep)
        return np.asarray(np.minimum(ring * deep, high - np.abs(z - centre[2])), dtype=np.float32)

    size = np.array([wide, deep, high])
    scene.paint_bone(centre - size, centre + size, body, frame)
    canal = centre + np.array([0.0, -deep - 9.0, 0.0])
    inner, outer = 9.0, float(chance.uniform(13.5, 16))

    def arch(x: Grid, y: Grid, z: Grid) -> Grid:
        radius = np.hypot((x - canal[0]) / 1.15, y - canal[1])
        return np.asarray(
            np.minimum(np.minimum(outer - radius, radius - inner), 0.8 * high - np.abs(z - canal[2])), dtype=np.float32
        )

    scene.paint_bone(canal - outer - 2, canal + outer + 2, arch, frame)
    spine = canal + np.array([0.0, -outer, 0.0]), canal + np.array([0.0, -outer - chance.uniform(14, 26), -chance.uniform(4, 14)])
    scene.paint_bone_tube(spine[0], spine[1], 4.5, frame)
    for side in (-1, 1):
        wing = canal + np.array([side * outer, 2.0, 0.0]), canal + np.array([side * (outer + chance.uniform(14, 24)), -4.0, 2.0])
        scene.paint_bone_tube(wing[0], wing[1], 4.5, frame)


def _paint_rib(scene: _Scene, frame: _Frame, at: Point, side: int, chance: np.random.Generator) -> None:
    """An arch from the spine around the chest, falling to the front."""
    radius = float(chance.uniform(4.0, 6.0))
    wide, deep = 0.86 * frame.width, 0.84 * frame.depth
    fall = float(chance.uniform(30, 70))
    angles = np.linspace(-1.25, 0.9 + chance.uniform(-0.3, 0.2), 13)
    points = [np.array([side * wide * np.cos(a), deep * np.sin(a), at[2] - fall * (a + 1.25) / 2.15]) for a in angles]
    points.insert(0, at + np.array([side * 22.0, -18.0, 0.0]))
    for start, end in pairwise(points):
        scene.paint_bone_tube(start, end, radius, frame)


def _paint_pelvis(scene: _Scene, frame: _Frame, chance: np.random.Generator) -> None:
    """Sacrum, two iliac wings, hip joints and the upper femurs."""
    sacrum = np.array([0.0, frame.spine_y - 8, frame.pelvis_z + 25])
    size = np.array([46.0, 17.0, 45.0])
    scene.paint_bone(sacrum - size, sacrum + size, _ellipsoid(sacrum, size), frame)
    for side in (-1, 1):
        thick = float(chance.uniform(8, 13))
        hip = np.array([side * 0.62 * frame.width, -5.0, frame.pelvis_z])
        wing = np.array([side * 0.30 * frame.width, -5.0, frame.pelvis_z + 70])
        radii = np.array([0.52 * frame.width, 0.62 * frame.depth, 80.0])

        scene.paint_bone(wing - radii, wing + radii, _wing(wing, radii, side, thick), frame)
        joint = hip, hip + np.array([side * 38.0, -4.0, -22.0])
        shaft = joint[1], joint[1] + np.array([side * 4.0, 0.0, -160.0])
        ramus = hip + np.array([-side * 12.0, 6.0, -6.0]), np.array([side * 8.0, 0.45 * frame.depth, frame.pelvis_z - 8])
        scene.paint_bone(hip - 24, hip + 24, _ellipsoid(hip, np.full(3, 23.0)), frame)
        for (start, end), radius in ((joint, 14.0), (shaft, 15.5), (ramus, 8.0)):
            scene.paint_bone(
                np.minimum(start, end) - radius, np.maximum(start, end) + radius, _capsule(start, end, radius), frame
            )


def _wing(centre: Point, radii: Point, side: int, thick: float) -> Callable[..., Grid]:
    """The outer part of a shell, open to the middle."""
    outer = _ellipsoid(centre, radii)

    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        depth = outer(x, y, z)
        outward = (x - centre[0]) * side - 0.35 * np.abs(y - centre[1])
        return np.asarray(np.minimum(np.minimum(depth, thick - depth), outward), dtype=np.float32)

    return inside_mm
