"""Trunks from a seeded generator: spine, ribs, sternum, pelvis, femurs and arms among things that are as bright as bone.

Limbs (`phantom.py`) show a network what cortex looks like; a trunk shows it what is no bone (contrast agent in vessels, kidneys
and bowel, calcified cartilage and vessel walls, couch, cables) and what is bone although it is no brighter than muscle or even
fat (sponge and marrow). Anatomy is analytic and simple on purpose (tubes, ellipsoids and shells in mm); it has the topology and
the values of a trunk, not its likeness.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bedside.core.errors import UsageError
from bedside.core.volume import Volume
from bedside.data.phantom import HU_LIMITS
from bedside.data.phantom_trunk_scene import Grid, Inside, Point, Scene, Sponge, ellipsoid, shell
from bedside.data.phantom_trunk_soft import Frame, paint_couch, paint_flecks, paint_soft

SHAPE = (120, 88, 72)
STRUCTURES = {"background": 0, "bone": 1}
_RIB_PAIRS = 9
_VERTEBRAE = 14


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
    spacing_mm = (float(chance.uniform(2.4, 3.4)),) * 2 + (float(chance.uniform(2.4, 4.0)),)
    scene = Scene(SHAPE, spacing_mm, chance=chance)
    frame = Frame.drawn(chance)
    paint_couch(scene, frame, chance)
    paint_soft(scene, frame, chance)
    cartilage = _paint_bones(scene, frame, chance)
    paint_flecks(scene, frame, cartilage, chance)
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = np.round(chance.uniform(-50, 50, 3) + np.array([150.0, 120.0, -100.0]), 1)
    hu = np.clip(np.rint(_scanned(scene, chance)), *HU_LIMITS).astype(np.int16)
    return Trunk(f"trunk-{index:04d}", Volume.of(hu, affine), Volume.of(scene.bone.astype(np.uint8), affine))


def _scanned(scene: Scene, chance: np.random.Generator) -> Grid:
    """What a scanner makes of it: a kernel from sharp to smooth, and noise that is smoother where the kernel is."""
    kernel_mm = float(chance.uniform(0.4, 1.6))
    image = gaussian_filter(scene.image, [kernel_mm / step for step in scene.spacing_mm])
    noise = chance.normal(0, 1, SHAPE).astype(np.float32)
    if chance.random() < 0.5:
        noise = gaussian_filter(noise, [kernel_mm / step for step in scene.spacing_mm])
    strength: NDArray[np.float32] = noise * np.float32(chance.uniform(6, 50) / float(noise.std()))
    return np.asarray(image + strength, dtype=np.float32)


def _paint_bones(scene: Scene, frame: Frame, chance: np.random.Generator) -> list[Point]:
    """Paint every bone; return where the costal cartilages lie."""
    step = float(chance.uniform(27, 34))
    curve = float(chance.uniform(6, 16))

    def spine(z: float) -> Point:
        return np.array([0.0, frame.spine_y + curve * np.sin((z - frame.pelvis_z) / 90), z])

    for number in range(_VERTEBRAE):
        _paint_vertebra(scene, frame, spine(frame.pelvis_z + 75 + number * step), step, chance)
    chest = spine(frame.pelvis_z + 330)[2]
    front = frame.depth - 22
    breast = np.array([[0.0, front - 6, chest - 50], [0.0, front, chest + 90]])
    cartilage = []
    cartilage_hu = float(chance.uniform(60, 140))
    for pair in range(_RIB_PAIRS):
        at = spine(frame.pelvis_z + 75 + (5 + pair) * step)
        for side in (-1, 1):
            end = _paint_rib(scene, frame, at, side, chance)
            meets = np.array([side * 12.0, front - 3, np.clip(end[2] + 25, breast[0, 2] - 20, breast[1, 2])])
            scene.paint_tube(end, meets, 5.0, cartilage_hu)
            cartilage += [end + share * (meets - end) for share in (0.15, 0.4, 0.65, 0.9)]
    breastbone = frame.sponge(chance)
    for shift in (-9.0, 0.0, 9.0):
        tube = breast + np.array([shift, 0, 0])
        scene.paint_bone_tube(tube[0], tube[1], 5.5, breastbone)
    _paint_pelvis(scene, frame, chance)
    if frame.arms:
        _paint_arms(scene, frame, chance)
    return cartilage


def _paint_vertebra(scene: Scene, frame: Frame, centre: Point, step: float, chance: np.random.Generator) -> None:
    """Disc, body, arch around the canal, joints, three processes; `step` is from disc to disc in mm."""
    made_of = frame.sponge(chance)
    wide, deep, high = chance.uniform([18, 13, 0.37 * step], [25, 18, 0.44 * step])
    size = np.array([wide, deep, high])
    disc = np.array([wide, deep, 0.5 * step])
    scene.paint(centre - disc, centre + disc, _barrel(centre, disc, 0.0), float(chance.uniform(50, 130)))
    scene.paint_bone(centre - size, centre + size, _barrel(centre, size, float(chance.uniform(0, 0.15))), made_of)
    canal = centre + np.array([0.0, -deep - 9.0, 0.0])
    inner, outer = 9.0, float(chance.uniform(12.5, 16))
    compact = replace(made_of, cortex_mm=2.0 * made_of.cortex_mm)

    def arch(x: Grid, y: Grid, z: Grid) -> Grid:
        radius = np.hypot((x - canal[0]) / 1.15, y - canal[1])
        return np.asarray(
            np.minimum(np.minimum(outer - radius, radius - inner), 0.6 * high - np.abs(z - canal[2])), dtype=np.float32
        )

    scene.paint_bone(canal - outer - 2, canal + outer + 2, arch, compact)
    spine = canal + np.array([0.0, -outer, 0.0]), canal + np.array([0.0, -outer - chance.uniform(14, 26), -chance.uniform(4, 14)])
    scene.paint_bone_tube(spine[0], spine[1], float(chance.uniform(2.5, 4.5)), compact)
    for side in (-1, 1):
        root = canal + np.array([side * outer, 2.0, 0.0])
        scene.paint_bone_tube(
            root, root + np.array([side * chance.uniform(10, 24), -4.0, 2.0]), float(chance.uniform(3, 4.5)), compact
        )
        joint = canal + np.array([side * (outer + 2), -6.0, -0.45 * step])
        scene.paint_bone_tube(joint, joint + np.array([0.0, 2.0, 0.8 * high]), float(chance.uniform(4, 6.5)), compact)


def _barrel(centre: Point, size: Point, waist: float) -> Inside:
    """An upright cylinder with half axes `size`, narrower by `waist` in the middle."""

    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        height = (z - centre[2]) / size[2]
        ring = 1 - waist * (1 - np.minimum(height**2, 1)) - np.hypot((x - centre[0]) / size[0], (y - centre[1]) / size[1])
        return np.asarray(np.minimum(ring * size[1], size[2] - np.abs(z - centre[2])), dtype=np.float32)

    return inside_mm


def _paint_rib(scene: Scene, frame: Frame, at: Point, side: int, chance: np.random.Generator) -> Point:
    """An arch from the spine around the chest, falling to the front; return where it ends."""
    radius, made_of = float(chance.uniform(2.8, 5.5)), frame.sponge(chance)
    wide, deep = 0.86 * frame.width, 0.84 * frame.depth
    fall = float(chance.uniform(30, 70))
    angles = np.linspace(-1.25, 0.9 + chance.uniform(-0.3, 0.2), 13)
    points = [np.array([side * wide * np.cos(a), deep * np.sin(a), at[2] - fall * (a + 1.25) / 2.15]) for a in angles]
    points.insert(0, at + np.array([side * 22.0, -18.0, 0.0]))
    for start, end in pairwise(points):
        scene.paint_bone_tube(start, end, radius, made_of)
    return points[-1]


def _paint_pelvis(scene: Scene, frame: Frame, chance: np.random.Generator) -> None:
    """Sacrum, coccyx, two iliac wings, sockets, seat bones, pubic arch and the upper femurs."""
    made_of = frame.sponge(chance)
    sacrum = np.array([0.0, frame.spine_y - 8, frame.pelvis_z + 35])
    scene.paint_bone_ellipsoid(sacrum, np.array([46.0, 16.0, 42.0]), made_of)
    tail = sacrum + np.array([0.0, -8.0, -30.0])
    scene.paint_bone_tube(tail, tail + np.array([0.0, 8.0, -35.0]), 6.0, made_of)
    for side in (-1, 1):
        made_of = frame.sponge(chance)
        wing = np.array([side * 0.30 * frame.width, -5.0, frame.pelvis_z + 70])
        radii = np.array([0.52 * frame.width, 0.62 * frame.depth, 80.0])
        thick = float(chance.uniform(4.5, 13))
        scene.paint_bone(wing - radii, wing + radii, _wing(wing, radii, side, thick), made_of)
        hip = np.array([side * 0.62 * frame.width, -5.0, frame.pelvis_z])
        head = float(chance.uniform(20, 25))
        scene.paint_bone(hip - 40, hip + 40, _socket(hip, head, side), made_of)
        seat = hip + np.array([-side * 14.0, -28.0, -50.0])
        front = np.array([side * 9.0, 0.42 * frame.depth, frame.pelvis_z - 12])
        arches = (
            (hip + np.array([-side * 14, -14, -18.0]), seat),
            (hip + np.array([-side * 18, 12, -8.0]), front),
            (seat, front),
        )
        for (start, end), radius in zip(arches, chance.uniform([11, 6, 5], [15, 10, 8]), strict=True):
            scene.paint_bone_tube(start, end, float(radius), made_of)
        _paint_femur(scene, (frame.sponge(chance), frame.marrow_hu), hip, (side, head))


def _paint_femur(scene: Scene, inside: tuple[Sponge, float], hip: Point, form: tuple[int, float]) -> None:
    """Head, neck, trochanter and a shaft of thick cortex around marrow; `form` is (side, radius of the head in mm)."""
    made_of, marrow_hu = inside
    side, head = form
    knee = hip + np.array([side * 38.0, -4.0, -28.0])
    shaft = replace(made_of, cortex_mm=3.0 * made_of.cortex_mm, spongy_hu=marrow_hu)
    scene.paint_tube(hip, hip, head + 3.0, 60.0)
    scene.paint_bone_tube(knee, knee + np.array([side * 4.0, 0.0, -160.0]), 15.0, shaft)
    scene.paint_bone_tube(hip, knee, 13.0, made_of)
    scene.paint_bone_tube(hip, hip, head, made_of)
    scene.paint_bone_ellipsoid(knee + np.array([side * 5.0, -10.0, 12.0]), np.array([13.0, 18.0, 22.0]), made_of)


def _socket(centre: Point, head: float, side: int) -> Inside:
    """A thick cup around the head of a femur, open to the outside and below."""
    outer = ellipsoid(centre, np.full(3, head + 14.0))

    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        covered = 0.4 * head - ((x - centre[0]) * side - (z - centre[2])) * 0.7
        return np.asarray(np.minimum(outer(x, y, z), covered), dtype=np.float32)

    return inside_mm


def _wing(centre: Point, radii: Point, side: int, thick: float) -> Inside:
    """The outer part of a shell, open to the middle."""
    plate = shell(ellipsoid(centre, radii), thick)

    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        outward = (x - centre[0]) * side - 0.35 * np.abs(y - centre[1])
        return np.asarray(np.minimum(plate(x, y, z), outward), dtype=np.float32)

    return inside_mm


def _paint_arms(scene: Scene, frame: Frame, chance: np.random.Generator) -> None:
    """Arms beside the body: one bone above the elbow, two below it."""
    for side in (-1, 1):
        at = np.array([side * (frame.width + chance.uniform(28, 40)), chance.uniform(-40, 20), 0.0])
        low, high = at + np.array([side * chance.uniform(-5, 15), 0.0, -250.0]), at + np.array([0.0, 0.0, 250.0])
        for radius, hu in ((34.0, -100.0), (float(chance.uniform(22, 30)), 50.0)):
            scene.paint_tube(low, high, radius, hu)
        elbow = low + float(chance.uniform(0.2, 0.8)) * (high - low)
        shaft = Sponge(2.0 * frame.bone.cortex_mm, frame.bone.cortex_hu, frame.marrow_hu, 10.0)
        scene.paint_bone_tube(elbow, high, float(chance.uniform(9, 12)), shaft)
        scene.paint_bone_ellipsoid(elbow, np.array([24.0, 12.0, 14.0]), frame.bone)
        for shift in (-12.0, 12.0):
            start = elbow + np.array([shift, 0.0, -14.0])
            scene.paint_bone_tube(start, low + np.array([shift, 0.0, 0.0]), float(chance.uniform(5, 8)), shaft)
