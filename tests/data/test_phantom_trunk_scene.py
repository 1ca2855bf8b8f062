"""The shapes of a generated trunk have the size they are asked for, and bone is marked only where bone is painted."""

import numpy as np
import pytest

from bedside.data.phantom import AIR_HU
from bedside.data.phantom_trunk_scene import Scene, Sponge, arc, capsule, ellipsoid, shell

ORIGIN = np.zeros(3)
SPONGE = Sponge(cortex_mm=4.0, cortex_hu=1000.0, spongy_hu=100.0, grain_hu=0.0)


@pytest.fixture
def scene():
    return Scene((60, 60, 60), (1.0, 1.0, 1.0), chance=np.random.default_rng(1))


def test_a_bone_ball_has_the_volume_of_a_ball(scene):
    scene.paint_bone_tube(ORIGIN, ORIGIN, 20.0, SPONGE)
    assert scene.bone.sum() == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.02)


def test_a_bone_is_compact_outside_and_spongy_inside(scene):
    scene.paint_bone_tube(ORIGIN, ORIGIN, 20.0, SPONGE)
    along = scene.image[30:, 30, 30]
    assert along[0] == pytest.approx(100.0)
    assert along.max() > 900.0
    assert along[-1] == AIR_HU


def test_an_organ_and_a_calcification_are_no_bone(scene):
    scene.paint_ellipsoid(ORIGIN, np.array([15.0, 10.0, 8.0]), 50.0)
    scene.paint_flecks([ORIGIN], radius=4.0, hu=900.0)
    assert scene.image.max() == pytest.approx(900.0)
    assert not scene.bone.any()


def test_what_lies_outside_the_grid_changes_nothing(scene):
    scene.paint_bone_tube(ORIGIN + 500, ORIGIN + 520, 10.0, SPONGE)
    assert (scene.image == AIR_HU).all()
    assert not scene.bone.any()


def test_the_grain_of_a_sponge_varies_about_the_asked_mean_by_the_asked_deviation():
    scene = Scene((80, 80, 80), (3.0, 3.0, 3.0), chance=np.random.default_rng(1))
    scene.paint_bone_tube(ORIGIN, ORIGIN, 110.0, Sponge(1.0, 800.0, 100.0, 60.0))
    inside = scene.image[20:60, 20:60, 20:60]
    assert inside.mean() == pytest.approx(100.0, abs=10.0)
    assert inside.std() == pytest.approx(60.0, rel=0.1)


@pytest.mark.parametrize(
    ("inside", "point", "depth_mm"),
    [
        (ellipsoid(ORIGIN, np.full(3, 10.0)), (4.0, 0.0, 0.0), 6.0),
        (capsule(ORIGIN, np.array([0.0, 0.0, 9.0]), 5.0), (0.0, 7.0, 4.0), -2.0),
        (shell(ellipsoid(ORIGIN, np.full(3, 10.0)), 3.0), (5.0, 0.0, 0.0), -2.0),
        (arc((0.0, 100.0), 100.0, thick_mm=4.0, half_width=50.0), (0.0, 2.0, 7.0), 2.0),
        (arc((0.0, 100.0), 100.0, thick_mm=4.0, half_width=50.0), (60.0, 20.0, 0.0), -10.0),
    ],
)
def test_depth_is_a_distance_in_mm(inside, point, depth_mm):
    assert float(inside(*(np.float32(value) for value in point))) == pytest.approx(depth_mm, abs=1e-4)
