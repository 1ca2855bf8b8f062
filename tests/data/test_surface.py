"""Surfaces are closed, turned outwards, where the mask is, and shared between neighbours."""

from collections import Counter

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import marching_cubes, mesh_surface_area

from bedside.core.errors import UsageError
from bedside.data.surface import Surface, SurfaceSettings, surfaces
from bedside.data.surface_check import closest_on_triangles, distances_both_ways, is_watertight
from bedside.data.surface_decimate import Shared, decimate
from bedside.data.surface_net import extract
from bedside.data.surface_smooth import enclosed, smooth, triangulate

OBLIQUE = np.array([[0.62, -0.21, 0.35, -90.0], [0.18, 0.7, 0.4, 12.0], [-0.24, -0.2, 1.9, 33.0], [0, 0, 0, 1]])
MIRRORED = OBLIQUE @ np.diag([-1.0, 1, 1, 1])
NAMES = {1: "first", 2: "second", 3: "third"}


def ball(size: int, radius: float) -> np.ndarray:
    place = np.indices((size, size, size)) - (size - 1) / 2
    return (np.linalg.norm(place, axis=0) < radius).astype(np.uint8)


def two_halves() -> np.ndarray:
    mask = ball(30, 11)
    mask[15:] *= 2
    mask[:, :11] *= 3
    mask[mask == 6] = 3
    return mask


def assert_sound(surface: Surface) -> None:
    seen = trimesh.Trimesh(surface.points_mm, surface.faces, process=True)
    assert seen.is_watertight
    assert seen.is_winding_consistent
    assert seen.volume > 0
    assert surface.check.watertight
    assert surface.check.outward


@pytest.mark.parametrize("affine", [np.eye(4), OBLIQUE, MIRRORED], ids=["plain", "oblique", "mirrored"])
def test_a_ball_is_closed_outward_and_keeps_its_volume_in_patient_millimetres(affine: np.ndarray) -> None:
    mask = ball(28, 10.3)
    (made,) = surfaces(mask, affine, structures={1: "ball"})
    assert_sound(made)
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    assert made.check.volume_ml == pytest.approx(mask.sum() * voxel_mm3 / 1000, rel=1e-3)
    assert made.check.within_half_voxel >= 0.95
    assert made.check.p95_voxels <= 0.5
    centre = affine[:3, :3] @ np.full(3, 13.5) + affine[:3, 3]
    assert np.linalg.norm(made.points_mm.mean(axis=0) - centre) < 0.05


def test_smoothing_takes_the_staircase_away_and_not_the_body() -> None:
    mask = ball(40, 15)
    (rough,) = surfaces(mask, np.eye(4), structures={1: "ball"}, settings=SurfaceSettings(smoothing=0))
    (fine,) = surfaces(mask, np.eye(4), structures={1: "ball"})
    true_mm2 = 4 * np.pi * 15**2
    assert rough.check.area_mm2 > 1.4 * true_mm2
    assert fine.check.area_mm2 == pytest.approx(true_mm2, rel=0.035)
    assert abs(fine.check.volume_change) < 1e-3
    radii = np.linalg.norm(fine.points_mm - 19.5, axis=1)
    assert np.abs(radii - 15).max() < 0.6


def test_the_area_agrees_with_marching_cubes_of_the_true_distance() -> None:
    place = np.indices((40, 40, 40)) - 19.5
    depth = 14 - np.linalg.norm(place, axis=0)
    points, faces, _, _ = marching_cubes(depth, 0.0, gradient_direction="ascent")
    (made,) = surfaces((depth > 0).astype(np.uint8), np.eye(4), structures={1: "ball"})
    assert made.check.area_mm2 == pytest.approx(mesh_surface_area(points, faces), rel=0.035)
    assert trimesh.Trimesh(points, faces).volume / 1000 == pytest.approx(made.check.volume_ml, rel=0.01)


def test_without_smoothing_the_surface_is_the_voxels_own_boundary() -> None:
    mask = ball(20, 7)
    (made,) = surfaces(mask, np.diag([2.0, 3.0, 4.0, 1.0]), structures={1: "ball"}, settings=SurfaceSettings(smoothing=0))
    assert made.check.volume_ml == pytest.approx(mask.sum() * 24 / 1000, rel=1e-6)
    assert made.check.p95_voxels < 1e-5
    assert made.check.p100_voxels < 0.1  # the nearest triangle is looked for among twelve


def directed(points: np.ndarray, faces: np.ndarray) -> Counter:
    """Triangles as sets of places that remember their direction."""
    rolled = []
    for face in faces:
        places = [tuple(points[corner]) for corner in face]
        start = places.index(min(places))
        rolled.append((places[start], places[(start + 1) % 3], places[(start + 2) % 3]))
    return Counter(rolled)


@pytest.mark.parametrize("budget", [None, 600])
def test_structures_that_touch_share_their_interface_triangle_by_triangle(budget: int | None) -> None:
    mask = two_halves()
    made = surfaces(mask, OBLIQUE, structures=NAMES, settings=SurfaceSettings(faces=budget))
    assert [one.structure for one in made] == ["first", "second", "third"]
    triangles = {}
    for one in made:
        assert_sound(one)
        triangles[one.structure] = directed(one.points_mm, one.faces)
    for first, second in (("first", "second"), ("first", "third"), ("second", "third")):
        backwards = {(a, c, b) for a, b, c in triangles[second]}
        shared = [face for face in triangles[first] if face in backwards]
        assert len(shared) > 20
    everything = sum(one.check.volume_ml for one in made)
    outer = Counter(face for faces in triangles.values() for face in faces)
    inner = {face for face in outer if (face[0], face[2], face[1]) in outer}
    hull = np.array([np.array(face) for face in outer if face not in inner])
    signed = np.einsum("ij,ij->i", hull[:, 0], np.cross(hull[:, 1], hull[:, 2])).sum() / 6 / 1000
    assert signed == pytest.approx(everything, rel=1e-4)  # no gap and no overlap: the parts fill what their hull encloses


@settings(max_examples=25)
@given(hnp.arrays(np.uint8, (5, 4, 6), elements=st.integers(0, 3)).filter(lambda mask: bool(mask.any())))
def test_any_mask_at_all_gives_closed_outward_surfaces(mask: np.ndarray) -> None:
    names = {number: f"s{number}" for number in np.unique(mask).tolist() if number}
    for one in surfaces(mask, MIRRORED, structures=names):
        assert_sound(one)


@pytest.mark.parametrize(
    "pattern",
    [
        [[1, 0], [0, 1]],
        [[1, 2], [2, 1]],
        [[1, 2], [3, 1]],
        [[1, 0], [2, 1]],
        [[0, 1], [2, 0]],
        [[1, 2], [3, 0]],
    ],
    ids=["touching", "crossing", "parting two", "beside a third", "background between", "all different"],
)
def test_voxels_that_meet_along_an_edge_are_no_hole_and_no_fourfold_edge(pattern: list) -> None:
    mask = np.zeros((6, 6, 5), dtype=np.uint8)
    mask[2:4, 2:4, 1:4] = np.array(pattern, dtype=np.uint8)[:, :, None]
    names = {number: f"s{number}" for number in np.unique(mask).tolist() if number}
    for smoothing in (0, 12):
        for one in surfaces(mask, np.eye(4), structures=names, settings=SurfaceSettings(smoothing=smoothing)):
            assert_sound(one)


def test_a_structure_is_closed_where_the_image_ends() -> None:
    mask = np.ones((5, 6, 7), dtype=np.uint8)
    (made,) = surfaces(mask, np.eye(4), structures={1: "all"})
    assert_sound(made)
    assert made.check.volume_ml == pytest.approx(0.21, rel=1e-3)
    low, high = made.points_mm.min(axis=0), made.points_mm.max(axis=0)
    assert (low >= -1.01).all()
    assert (high <= np.array(mask.shape) + 0.01).all()


def test_decimation_reaches_the_budget_and_stays_closed_near_and_of_one_volume() -> None:
    (made,) = surfaces(ball(60, 26), np.eye(4), structures={1: "ball"}, settings=SurfaceSettings(faces=3000))
    assert_sound(made)
    assert made.check.faces_found > 20_000
    assert 2000 < made.check.faces <= 3000
    assert made.check.within_budget
    assert made.check.problem == ""
    assert abs(made.check.volume_change) < 1e-3
    assert made.check.within_half_voxel >= 0.95


def test_decimation_of_noise_stays_closed_and_says_when_the_budget_is_missed() -> None:
    mask = np.random.default_rng(0).integers(0, 4, (12, 12, 12)).astype(np.uint8)
    made = surfaces(mask, np.eye(4), structures=NAMES, settings=SurfaceSettings(faces=500))
    for one in made:
        assert_sound(one)
        assert one.check.within_budget == (one.check.faces <= 500)
        assert bool(one.check.problem) != one.check.within_budget
    assert any(not one.check.within_budget for one in made)


def test_decimation_loses_no_part_of_a_structure() -> None:
    mask = ball(48, 20)
    mask[1:3, 1:3, 1:3] = mask[44:47, 2:4, 1] = mask[2, 44, 2] = 1
    mask[20:24, 20:24, 20:24] = 2
    mask[30:32, 22:24, 20:22] = 2
    made = surfaces(mask, np.eye(4), structures=NAMES, settings=SurfaceSettings(faces=600))
    for one in made:
        assert_sound(one)
        seen = trimesh.Trimesh(one.points_mm, one.faces)
        shells = len(seen.split(only_watertight=False))
        assert shells == {"first": 4 + 2, "second": 2}[one.structure]  # outer shells, and those around what lies inside
    assert made[0].check.faces < 1000


def test_a_structure_within_the_budget_is_left_as_it_is() -> None:
    mask = ball(30, 12)
    mask[13:17, 13:17, 2:5] = 2
    net = extract(mask)
    points = smooth(net, 5)
    triangles, sides = triangulate(net, points)
    thin = decimate(Shared(points, triangles, sides), 1000)
    before = Shared(points, triangles, sides).faces(2)
    assert directed(points, before) == directed(thin.points, thin.faces(2))
    assert thin.counts()[1] <= 1000


def test_small_parts_are_reported_and_only_left_out_when_asked() -> None:
    mask = ball(24, 7)
    mask[1, 1, 1] = 1
    mask[22, 22, 20:22] = 1
    kept = surfaces(mask, np.eye(4), structures={1: "ball"}, settings=SurfaceSettings(island_mm3=5))[0].check
    left = surfaces(mask, np.eye(4), structures={1: "ball"}, settings=SurfaceSettings(island_mm3=5, remove_islands=True))[0].check
    assert (kept.islands, kept.small_islands, kept.small_islands_mm3, kept.islands_removed) == (3, 2, 3.0, False)
    assert kept.volume_ml == pytest.approx(mask.sum() / 1000, rel=0.01)
    assert left.islands_removed
    assert left.volume_ml == pytest.approx((mask.sum() - 3) / 1000, rel=1e-3)


def test_a_structure_that_is_small_as_a_whole_is_not_an_island_of_itself() -> None:
    mask = np.zeros((8, 8, 8), dtype=np.uint8)
    mask[3:5, 3:5, 3:5] = 1
    (made,) = surfaces(mask, np.eye(4), structures={1: "bit"}, settings=SurfaceSettings(island_mm3=50, remove_islands=True))
    assert made.check.small_islands == 0
    assert_sound(made)


@pytest.mark.parametrize(
    ("mask", "code"),
    [
        (np.zeros((4, 4, 4), dtype=np.uint8), "SURFACE_EMPTY"),
        (np.ones((4, 4), dtype=np.uint8), "SURFACE_MASK"),
        (np.ones((4, 4, 4)), "SURFACE_MASK"),
    ],
)
def test_what_is_no_mask_is_wrong_use(mask: np.ndarray, code: str) -> None:
    with pytest.raises(UsageError) as refused:
        surfaces(mask, np.eye(4), structures={1: "x"})
    assert refused.value.code == code


def test_the_same_mask_gives_the_same_bytes() -> None:
    first, second = (surfaces(two_halves(), OBLIQUE, structures=NAMES, settings=SurfaceSettings(faces=500)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.points_mm.tobytes() == other.points_mm.tobytes()
        assert one.faces.tobytes() == other.faces.tobytes()
        assert one.check == other.check


def test_a_moved_surface_is_found_to_be_as_far_away_as_it_is() -> None:
    mask = np.zeros((20, 20, 20), dtype=np.uint8)
    mask[4:16, 4:16, 4:16] = 1
    net = extract(mask)
    triangles, sides = triangulate(net, net.points)
    faces = Shared(net.points, triangles, sides).faces(1)
    grown = (net.points - 9.5) * (14 / 12) + 9.5  # each side one voxel further out
    there, back = distances_both_ways(mask, grown, faces, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert there.percentile(50) == pytest.approx((1.0, 2.0), abs=1e-6)
    assert back.percentile(100) == pytest.approx((1.0, 2.0), abs=1e-3)
    assert there.percentile(100)[0] == pytest.approx(np.sqrt(3), abs=0.1)
    assert there.share_within(0.5) == 0.0


def test_the_nearest_place_on_a_triangle_agrees_with_trimesh() -> None:
    chance = np.random.default_rng(3)
    corners, points = chance.normal(size=(400, 3, 3)), 2 * chance.normal(size=(400, 3))
    np.testing.assert_allclose(closest_on_triangles(points, corners), trimesh.triangles.closest_point(corners, points), atol=1e-9)


def test_an_open_or_inconsistent_surface_is_not_watertight() -> None:
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    assert is_watertight(points, faces)
    assert not is_watertight(points, faces[:3])
    assert not is_watertight(points, np.concatenate([faces[:3], faces[3:, ::-1]]))
    assert not is_watertight(points, np.concatenate([faces, faces]))
    assert not is_watertight(points, faces[:0])


def test_volumes_by_structure_add_up_to_the_mask() -> None:
    mask = np.random.default_rng(1).integers(0, 4, (8, 9, 7)).astype(np.uint8)
    net = extract(mask)
    triangles, sides = triangulate(net, net.anchors)
    np.testing.assert_allclose(enclosed(net.anchors, triangles, sides, 4)[1:], np.bincount(mask.ravel())[1:], rtol=1e-9)
