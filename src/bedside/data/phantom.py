"""CT-like patients from a seeded generator: limbs with skin, fat, muscle and long bones, seen by two scanners.

Nobody is behind them, so a whole chain can be shown and tested without a scan. Anatomy is analytic (ellipses and oblique tapered
tubes in mm), so the reference masks are exact; the image is what a scanner would make of it: partial volume at every surface,
a blur, noise. Cortical shells are at least two voxels thick, thicker than in life, so that a small network can learn
them at this size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from bedside.core.errors import UsageError
from bedside.core.volume import Affine, Volume

Grid = NDArray[np.float32]

SHAPE = (64, 64, 40)
STRUCTURES = {"background": 0, "cortical_bone": 1, "cancellous_bone": 2}
AIR_HU = -1000.0
HU_LIMITS = (-1024, 3071)


@dataclass(frozen=True)
class Scanner:
    """How anatomy becomes an image.

    Attributes:
        manufacturer, model: as in a DICOM header.
        spacing_mm: of the voxel grid.
        blur_mm: standard deviation of the reconstruction kernel.
        noise_hu: standard deviation of the noise.
        grain_mm: how far noise is correlated.
    """

    manufacturer: str
    model: str
    spacing_mm: tuple[float, float, float]
    blur_mm: float
    noise_hu: float
    grain_mm: float

    @property
    def name(self) -> str:
        """Manufacturer and model."""
        return f"{self.manufacturer} {self.model}"


SCANNERS = (
    Scanner("Phantom Works", "Sharp 64", (3.0, 3.0, 4.0), blur_mm=0.9, noise_hu=35.0, grain_mm=0.0),
    Scanner("Analytic Systems", "Smooth 16", (3.2, 3.2, 4.4), blur_mm=1.6, noise_hu=18.0, grain_mm=2.0),
)


@dataclass(frozen=True)
class Bone:
    """An oblique, tapered tube: a cortical shell around cancellous bone.

    Attributes:
        centre_mm: (x, y) of the axis at z = 0.
        tilt: (dx/dz, dy/dz) of the axis.
        radius_mm: outer radius at z = 0.
        flare: relative growth of the radius per squared half length, towards both ends.
        taper: relative growth of the radius per half length, towards the head.
        oval: how much wider than deep the section is.
        shell_mm: thickness of the cortical shell.
        cortical_hu, cancellous_hu: values of its tissues.
    """

    centre_mm: tuple[float, float]
    tilt: tuple[float, float]
    radius_mm: float
    flare: float
    taper: float
    oval: float
    shell_mm: float
    cortical_hu: float
    cancellous_hu: float


@dataclass(frozen=True)
class Anatomy:
    """A limb in mm and HU, before any scanner has seen it; x to the right, y to the front, z to the head, from the middle."""

    body_mm: tuple[float, float]
    skin_mm: float
    fat_mm: float
    skin_hu: float
    fat_hu: float
    muscle_hu: float
    bones: tuple[Bone, ...]
    table: bool


@dataclass(frozen=True, eq=False)
class Phantom:
    """One patient.

    Attributes:
        name: "phantom-0007", unique in its cohort.
        image: (1, I, J, K) int16 in HU.
        label: (1, I, J, K) uint8 with the codes of `STRUCTURES`, on the image's grid.
        scanner: what took it.
        anatomy: what is really there.
    """

    name: str
    image: Volume
    label: Volume
    scanner: Scanner
    anatomy: Anatomy


def cohort(patients: int, *, seed: int) -> Iterator[Phantom]:
    """Yield `patients` phantoms one at a time; the first ones of a larger cohort are those of a smaller one.

    Raises:
        UsageError: fewer than one patient is asked for.
    """
    if patients < 1:
        raise UsageError(f"A cohort needs at least one patient, not {patients}.", code="COHORT_SIZE")
    return (patient(index, seed) for index in range(patients))


def patient(index: int, seed: int) -> Phantom:
    """Make one patient; (index, seed) determines every voxel. Scanners take turns."""
    chance = np.random.default_rng([seed, index])
    scanner = SCANNERS[index % len(SCANNERS)]
    anatomy = _anatomy(chance)
    affine = _affine(scanner, chance)
    x, y, z = _centred_mm(scanner)
    image, label = _draw(anatomy, scanner, (x, y, z))
    image += _texture(chance) * (image > AIR_HU / 2)
    image = gaussian_filter(image, [scanner.blur_mm / step for step in scanner.spacing_mm])
    image += _noise(scanner, chance)
    hu = np.clip(np.rint(image), *HU_LIMITS).astype(np.int16)
    return Phantom(f"phantom-{index:04d}", Volume.of(hu, affine), Volume.of(label, affine), scanner, anatomy)


def analytic(affine: Affine, shape: tuple[int, int, int], *, per_mm: tuple[float, float, float] = (1.0, 0.0, 0.0)) -> Volume:
    """Return a float64 volume whose every value tells where it lies, for tests of geometry.

    Args:
        affine: (4, 4), voxel to RAS+ mm.
        shape: (I, J, K).
        per_mm: the value grows by this much per mm to the right, front and head; it is 0 at the world's origin.
    """
    voxels = np.indices(shape, dtype=np.float64)
    world = np.einsum("wv,v...->w...", affine[:3, :3], voxels) + affine[:3, 3].reshape(3, 1, 1, 1)
    return Volume.of(np.einsum("w,w...->...", np.asarray(per_mm), world), affine)


def _anatomy(chance: np.random.Generator) -> Anatomy:
    pair = chance.random() < 0.5
    lean = chance.uniform(-0.06, 0.06, 2)
    shift = chance.uniform(-5, 5, 2)
    bones: tuple[Bone, ...]
    if pair:
        apart = chance.uniform(26, 29)
        bones = (_bone(chance, (-apart, 0), shift, lean, (21, 25)), _bone(chance, (apart, 0), shift, lean, (18, 21)))
    else:
        bones = (_bone(chance, (chance.uniform(-15, 15), 0), shift, lean, (22, 30)),)
    return Anatomy(
        body_mm=(float(chance.uniform(78, 90)), float(chance.uniform(66, 84))),
        skin_mm=float(chance.uniform(2, 3.5)),
        fat_mm=float(chance.uniform(5, 16)),
        skin_hu=float(chance.uniform(10, 60)),
        fat_hu=float(chance.uniform(-115, -80)),
        muscle_hu=float(chance.uniform(35, 65)),
        bones=bones,
        table=bool(chance.random() < 0.5),
    )


def _bone(
    chance: np.random.Generator,
    centre_mm: tuple[float, float],
    shift_mm: NDArray[np.float64],
    lean: NDArray[np.float64],
    radii_mm: tuple[float, float],
) -> Bone:
    own_lean = lean + chance.uniform(-0.01, 0.01, 2)
    return Bone(
        centre_mm=(float(centre_mm[0] + shift_mm[0]), float(centre_mm[1] + shift_mm[1] + chance.uniform(-4, 4))),
        tilt=(float(own_lean[0]), float(own_lean[1])),
        radius_mm=float(chance.uniform(*radii_mm)),
        flare=float(chance.uniform(0.0, 0.08)),
        taper=float(chance.uniform(-0.05, 0.05)),
        oval=float(chance.uniform(0.94, 1.06)),
        shell_mm=float(chance.uniform(7.0, 9.0)),
        cortical_hu=float(chance.uniform(900, 1400)),
        cancellous_hu=float(chance.uniform(220, 380)),
    )


def _affine(scanner: Scanner, chance: np.random.Generator) -> Affine:
    """The usual axes of a CT: columns to the patient's left, rows to the back, slices to the head; the origin varies."""
    i, j, k = scanner.spacing_mm
    affine = np.diag([-i, -j, k, 1.0])
    affine[:3, 3] = np.round(np.array([100, 100, -80]) + chance.uniform(-30, 30, 3), 1)
    return affine


def _centred_mm(scanner: Scanner) -> tuple[Grid, Grid, Grid]:
    """Positions of voxels relative to the middle of the grid, (I, 1, 1), (1, J, 1), (1, 1, K), along +R, +A, +S."""
    signs = (-1.0, -1.0, 1.0)
    x, y, z = (
        (sign * step * (np.arange(count) - (count - 1) / 2)).astype(np.float32)
        for sign, step, count in zip(signs, scanner.spacing_mm, SHAPE, strict=True)
    )
    return x[:, None, None], y[None, :, None], z[None, None, :]


def _draw(anatomy: Anatomy, scanner: Scanner, position_mm: tuple[Grid, Grid, Grid]) -> tuple[Grid, NDArray[np.uint8]]:
    """Paint tissues over one another; a voxel that a surface runs through takes its share of both sides."""
    step_mm = scanner.spacing_mm[0]
    image = np.full(SHAPE, AIR_HU, np.float32)
    label = np.zeros(SHAPE, np.uint8)
    if anatomy.table:
        top_mm = -anatomy.body_mm[1] - 2
        slab = np.maximum(position_mm[1] - top_mm, top_mm - 8 - position_mm[1])
        image = _over(image, np.broadcast_to(slab, SHAPE), 120.0, step_mm)
    layers = (
        (0.0, anatomy.skin_hu),
        (anatomy.skin_mm, anatomy.fat_hu),
        (anatomy.skin_mm + anatomy.fat_mm, anatomy.muscle_hu),
    )
    for depth_mm, hu in layers:
        image = _over(image, _body_mm(anatomy, position_mm) + depth_mm, hu, step_mm)
    for bone in anatomy.bones:
        outside_mm = _bone_mm(bone, position_mm)
        image = _over(image, outside_mm, bone.cortical_hu, step_mm)
        image = _over(image, outside_mm + bone.shell_mm, bone.cancellous_hu, step_mm)
        label[outside_mm < 0] = STRUCTURES["cortical_bone"]
        label[outside_mm < -bone.shell_mm] = STRUCTURES["cancellous_bone"]
    return image, label


def _over(below: Grid, outside_mm: Grid, hu: float, step_mm: float) -> Grid:
    """Paint `hu` where the signed distance is negative, in proportion to how much of the voxel lies inside."""
    share = np.clip(0.5 - outside_mm / step_mm, 0, 1)
    return np.asarray(below + share * (hu - below), dtype=np.float32)


def _body_mm(anatomy: Anatomy, position_mm: tuple[Grid, Grid, Grid]) -> Grid:
    """Signed distance from the skin, (I, J, K), first order in the distance: negative inside."""
    a, b = anatomy.body_mm
    x, y, z = position_mm
    narrowing = 1 - 0.0006 * z
    radius = np.hypot(x / a, y / b) / narrowing
    return np.asarray((radius - 1) * np.hypot(x, y) / np.maximum(radius, 1e-3) * narrowing, dtype=np.float32)


def _bone_mm(bone: Bone, position_mm: tuple[Grid, Grid, Grid]) -> Grid:
    """Signed distance from the bone's surface, (I, J, K), measured in the slice: negative inside."""
    x, y, z = position_mm
    along = z / 80
    radius = bone.radius_mm * (1 + bone.taper * along + bone.flare * along**2)
    across_x = (x - bone.centre_mm[0] - bone.tilt[0] * z) / bone.oval
    across_y = (y - bone.centre_mm[1] - bone.tilt[1] * z) * bone.oval
    return np.asarray(np.hypot(across_x, across_y) - radius, dtype=np.float32)


def _texture(chance: np.random.Generator) -> Grid:
    """Slow variation inside tissues, standard deviation 8 HU."""
    slow = gaussian_filter(chance.standard_normal(SHAPE, dtype=np.float32), 3)
    return np.asarray(8 * slow / slow.std(), dtype=np.float32)


def _noise(scanner: Scanner, chance: np.random.Generator) -> Grid:
    noise = chance.standard_normal(SHAPE, dtype=np.float32)
    if scanner.grain_mm > 0:
        noise = gaussian_filter(noise, [scanner.grain_mm / step for step in scanner.spacing_mm])
    return np.asarray(scanner.noise_hu * noise / noise.std(), dtype=np.float32)
