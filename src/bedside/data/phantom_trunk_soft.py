"""What is no bone in a generated trunk: body, organs, contrast agent, gas, couch, blanket, cables, calcifications."""

from dataclasses import dataclass

import numpy as np

from bedside.data.phantom_trunk_scene import Grid, Inside, Point, Scene, Sponge, arc

_FAR = np.array([400.0, 400.0, 400.0])


@dataclass(frozen=True)
class Frame:
    """Sizes of one patient in mm; z runs from the feet to the head, 0 in the middle of the grid.

    Attributes:
        width, depth: half axes of the body.
        spine_y: where the middle of the vertebral bodies lies behind the middle of the body.
        pelvis_z: height of the hip joints; below the grid when only a chest is seen.
        bone: what its bones are made of on average; `sponge` draws one bone's. It spans what is reported from old and porous to
            young bone, and shells from the 0.3 mm of a vertebra, which no scan at 3 mm shows as a line, to 2 mm.
        marrow_hu: fat or blood-forming marrow in shafts.
        contrast: how much contrast agent is in vessels and kidneys, 0..1.
        arms: whether the arms lie beside the body.
    """

    width: float
    depth: float
    spine_y: float
    pelvis_z: float
    bone: Sponge
    marrow_hu: float
    contrast: float
    arms: bool

    @classmethod
    def drawn(cls, chance: np.random.Generator) -> "Frame":
        """Draw a patient."""
        depth = float(chance.uniform(80, 115))
        return cls(
            width=float(chance.uniform(110, 150)),
            depth=depth,
            spine_y=-0.45 * depth,
            pelvis_z=float(chance.uniform(-230, -10)),
            bone=Sponge(
                cortex_mm=float(chance.uniform(0.4, 1.8)),
                cortex_hu=float(chance.uniform(450, 1500)),
                spongy_hu=float(chance.uniform(60, 260)),
                grain_hu=float(chance.uniform(20, 70)),
            ),
            marrow_hu=float(chance.uniform(-90, 80)),
            contrast=float(chance.choice([0.0, chance.uniform(0.3, 1.0)])),
            arms=bool(chance.random() < 0.35),
        )

    def sponge(self, chance: np.random.Generator) -> Sponge:
        """What one bone of this patient is made of: its neighbours differ, so that no brightness marks bone in a patient."""
        return Sponge(
            cortex_mm=self.bone.cortex_mm * float(chance.uniform(0.6, 1.4)),
            cortex_hu=self.bone.cortex_hu * float(chance.uniform(0.7, 1.1)),
            spongy_hu=self.bone.spongy_hu + float(chance.uniform(-70, 70)),
            grain_hu=self.bone.grain_hu * float(chance.uniform(0.5, 1.5)),
        )


def paint_couch(scene: Scene, frame: Frame, chance: np.random.Generator) -> None:
    """A flat or hollow couch with thin bright walls and foam, a blanket, cables; none of them in one patient of six."""
    if chance.random() < 1 / 6:
        return
    top = -frame.depth - float(chance.uniform(0, 25))
    half_width = float(chance.uniform(140, 230))
    wall_mm, wall_hu = float(chance.uniform(0.8, 4)), float(chance.uniform(50, 1200))
    if chance.random() < 0.3:
        for at, hu, thick in ((top, wall_hu, 20.0), (top - wall_mm, float(chance.uniform(-950, -700)), 20 - 2 * wall_mm)):
            scene.paint(-_FAR, _FAR, _plate(at, thick, half_width), hu)
    else:
        radius = float(chance.uniform(250, 900))
        for gap in (0.0, float(chance.uniform(15, 45))):
            centre = (float(chance.uniform(-15, 15)), top - gap + radius)
            plate = arc(centre, radius, thick_mm=wall_mm, half_width=half_width * float(chance.uniform(0.7, 1)))
            scene.paint(-_FAR, _FAR, plate, wall_hu)
    if chance.random() < 0.5:
        blanket = float(chance.uniform(4, 14))
        scene.paint(-_FAR, _FAR, _body(frame, -blanket), float(chance.uniform(-950, -500)))
    for _ in range(int(chance.integers(0, 4))):
        angle = chance.uniform(0, 2 * np.pi)
        start = np.array([1.08 * frame.width * np.cos(angle), 1.08 * frame.depth * np.sin(angle), -300.0])
        end = start + np.array([chance.uniform(-60, 60), chance.uniform(-30, 30), 600.0])
        scene.paint_tube(start, end, float(chance.uniform(1.0, 2.5)), float(chance.uniform(200, 2500)))


def paint_soft(scene: Scene, frame: Frame, chance: np.random.Generator) -> None:
    """Body, lungs, organs, vessels, bowel and gas."""
    skin, fat = float(chance.uniform(1.5, 3)), float(chance.uniform(6, 28))
    muscle_hu = float(chance.uniform(30, 65))
    for depth, hu in ((0.0, 30.0), (skin, float(chance.uniform(-115, -85))), (skin + fat, muscle_hu), (skin + fat + 20, -90.0)):
        scene.paint(-_FAR, _FAR, _body(frame, depth), hu)
    back = np.array([0.0, frame.spine_y - 12, 0.0])
    scene.paint_tube(back - _FAR * [0, 0, 1], back + _FAR * [0, 0, 1], 52.0, muscle_hu)
    chest_z = frame.pelvis_z + 330
    for side in (-1, 1):
        _paint_side(scene, frame, side, chance)
    heart = np.array([12.0, 18.0, chest_z])
    scene.paint_ellipsoid(heart, np.array([50.0, 42.0, 52.0]), 40 + frame.contrast * chance.uniform(60, 260))
    for side, size in ((-1, 75.0), (1, 45.0)):
        solid = np.array([side * 0.42 * frame.width, 5.0, frame.pelvis_z + 215])
        scene.paint_ellipsoid(
            solid, np.array([0.85 * size, 0.8 * size, size]), float(chance.uniform(40, 65)) + frame.contrast * 60
        )
    for start, end, radius in _vessels(frame):
        scene.paint_tube(start, end, radius * float(chance.uniform(0.8, 1.3)), 42 + frame.contrast * chance.uniform(0, 380))
    low = [-0.6 * frame.width, -0.2 * frame.depth, frame.pelvis_z - 20]
    high = [0.6 * frame.width, 0.65 * frame.depth, chest_z - 90]
    for _ in range(int(chance.integers(14, 34))):
        filled = chance.choice([-900.0, 20.0, 40.0, 45.0, float(chance.uniform(120, 500))], p=[0.2, 0.2, 0.25, 0.2, 0.15])
        scene.paint_ellipsoid(chance.uniform(low, high), chance.uniform(8, 26, 3), float(filled))


def _paint_side(scene: Scene, frame: Frame, side: int, chance: np.random.Generator) -> None:
    """Lung, kidney, the muscle beside the spine, the muscles around the hip."""
    lung = np.array([side * 0.5 * frame.width, 5.0, frame.pelvis_z + 370])
    scene.paint_ellipsoid(lung, np.array([0.33 * frame.width, 0.62 * frame.depth, 115.0]), float(chance.uniform(-900, -780)))
    kidney = np.array([side * 0.42 * frame.width, frame.spine_y + 18, frame.pelvis_z + 180 + chance.uniform(-15, 15)])
    scene.paint_ellipsoid(kidney, np.array([22.0, 20.0, 45.0]), 35 + frame.contrast * chance.uniform(80, 220))
    psoas = np.array([side * 42.0, frame.spine_y + 5, frame.pelvis_z + 150])
    scene.paint_tube(psoas, np.array([side * 0.55 * frame.width, 20.0, frame.pelvis_z]), 20.0, 55.0)
    seat = np.array([side * 0.5 * frame.width, -0.45 * frame.depth, frame.pelvis_z])
    scene.paint_ellipsoid(seat, np.array([60.0, 45.0, 110.0]), 48.0)


def _vessels(frame: Frame) -> list[tuple[Point, Point, float]]:
    """Start, end and radius of the aorta, the lower vena cava and the vessels of the pelvis."""
    fork = np.array([0.0, frame.spine_y + 34, frame.pelvis_z + 110])
    vessels = [
        (fork + np.array([14.0, 0.0, 0.0]), np.array([8.0, frame.spine_y + 40, 400.0]), 11.0),
        (fork - np.array([14.0, 0.0, 0.0]), np.array([-18.0, frame.spine_y + 40, 400.0]), 11.0),
    ]
    for side in (-1, 1):
        groin = np.array([side * 0.5 * frame.width, 0.45 * frame.depth, frame.pelvis_z])
        vessels += [(fork, groin, 6.0), (groin, groin + np.array([0.0, 5.0, -200.0]), 5.0)]
    return vessels


def paint_flecks(scene: Scene, frame: Frame, cartilage: list[Point], chance: np.random.Generator) -> None:
    """Calcified cartilage, calcified walls of vessels, stones: as bright as bone, and none."""
    for at in cartilage:
        if chance.random() < 0.5:
            scene.paint_flecks(
                [at + chance.uniform(-3, 3, 3)], radius=float(chance.uniform(1, 3.5)), hu=float(chance.uniform(150, 600))
            )
    start, end, radius = _vessels(frame)[0]
    for share in chance.uniform(0, 1, int(chance.integers(0, 14))):
        angle = chance.uniform(0, 2 * np.pi)
        at = start + share * (end - start) + radius * np.array([np.cos(angle), np.sin(angle), 0.0])
        scene.paint_flecks([at], radius=float(chance.uniform(1, 3.5)), hu=float(chance.uniform(300, 1200)))
    low = np.array([-0.5 * frame.width, frame.spine_y + 10, frame.pelvis_z - 20])
    stones = chance.uniform(low, -low * [1, 1, 0] + [0, 0, frame.pelvis_z + 220], (int(chance.integers(0, 8)), 3))
    scene.paint_flecks(stones, radius=float(chance.uniform(1.5, 5)), hu=float(chance.uniform(200, 1200)))


def _body(frame: Frame, depth_mm: float) -> Inside:
    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        ratio = (np.abs(x / frame.width) ** 2.4 + np.abs(y / frame.depth) ** 2.4) ** (1 / 2.4)
        return np.asarray((1 - ratio) * frame.depth - depth_mm + 0 * z, dtype=np.float32)

    return inside_mm


def _plate(top: float, thick_mm: float, half_width: float) -> Inside:
    def inside_mm(x: Grid, y: Grid, z: Grid) -> Grid:
        depth = np.minimum(top - y, y - top + thick_mm)
        return np.asarray(np.minimum(depth, half_width - np.abs(x)) + 0 * z, dtype=np.float32)

    return inside_mm
