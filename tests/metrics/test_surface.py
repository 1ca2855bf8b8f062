"""Surface distances: DeepMind's published values, MONAI as a second opinion, geometry with a known answer, empties."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bedside.core.errors import UsageError
from bedside.metrics import surface

SPACINGS = st.tuples(*[st.floats(0.3, 4.0)] * 3)
MASKS = hnp.arrays(np.bool_, st.just((5, 6, 4)))


def measure(prediction: np.ndarray, reference: np.ndarray, spacing_mm=(1.0, 1.0, 1.0)) -> surface.SurfaceDistances:
    return surface.surface_distances(prediction, reference, spacing_mm=spacing_mm)


def cubes() -> surface.SurfaceDistances:
    """DeepMind's `test_two_cubes`: 100^3 voxels, the reference fills 50 slices, the prediction 51; spacing (2, 1, 1)."""
    reference, prediction = np.zeros((2, 100, 100, 100), dtype=np.uint8)
    reference[0:50] = 1
    prediction[0:51] = 1
    return measure(prediction, reference, (2, 1, 1))


def two_points() -> surface.SurfaceDistances:
    """DeepMind's `test_single_pixels_2mm_away`: 128^3 voxels, spacing (3, 2, 1)."""
    reference, prediction = np.zeros((2, 128, 128, 128), dtype=np.uint8)
    reference[50, 60, 70] = 1
    prediction[50, 60, 72] = 1
    return measure(prediction, reference, (3, 2, 1))


def test_shifted_cubes_give_the_published_values():
    """Origin: google-deepmind/surface-distance, surface_distance_test.py, to the digits given there."""
    distances = cubes()
    assert surface.directed_mean_distances_mm(distances) == pytest.approx((0.322, 0.339), abs=1e-3)
    assert surface.hausdorff_mm(distances) == 2.0
    assert surface.hd95_mm(distances) == 2.0
    assert surface.surface_overlaps(distances, tolerance_mm=1) == pytest.approx((0.842, 0.830), abs=1e-3)
    assert surface.surface_dice(distances, tolerance_mm=1) == pytest.approx(0.836, abs=1e-3)


def test_two_voxels_two_millimetres_apart_give_the_published_values():
    distances = two_points()
    assert surface.directed_mean_distances_mm(distances) == pytest.approx((1.5, 1.5), abs=1e-9)
    assert surface.mean_surface_distance_mm(distances) == pytest.approx(1.5, abs=1e-9)
    assert surface.hausdorff_mm(distances) == surface.hd95_mm(distances) == 2.0
    assert surface.surface_overlaps(distances, tolerance_mm=1) == pytest.approx((0.5, 0.5), abs=1e-9)
    assert surface.surface_dice(distances, tolerance_mm=1) == pytest.approx(0.5, abs=1e-9)


@given(SPACINGS)
@settings(max_examples=10)
def test_every_contour_has_the_area_of_the_published_table(spacing_mm):
    """MONAI ships DeepMind's table of 256 contours; ours is derived, and all 256 areas agree at any spacing."""
    from monai.metrics.utils import create_table_neighbour_code_to_surface_area

    theirs = np.asarray(create_table_neighbour_code_to_surface_area(spacing_mm)[0], dtype=np.float64)
    mirrored = [int(f"{code:08b}"[::-1], 2) for code in range(256)]  # their bits run the other way
    assert surface._element_areas(spacing_mm)[mirrored] == pytest.approx(theirs, rel=1e-6, abs=1e-12)


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@given(MASKS, MASKS, st.sampled_from([(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (0.7, 1.9, 2.5)]))
@settings(max_examples=15)
def test_monai_with_sub_voxels_gives_the_same_surface_dice_and_hausdorff(prediction, reference, spacing_mm):
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    prediction[0, 0, 0] = reference[-1, -1, -1] = True  # MONAI has no value for an empty mask
    distances = measure(prediction, reference, spacing_mm)
    pair = [torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32)) for mask in (prediction, reference)]
    theirs = compute_surface_dice(*pair, class_thresholds=[1.2], spacing=spacing_mm, use_subvoxels=True).item()
    assert surface.surface_dice(distances, tolerance_mm=1.2) == pytest.approx(theirs, abs=1e-5)
    boundary = compute_hausdorff_distance(*pair, spacing=spacing_mm).item()  # of boundary voxels: at most half a voxel away
    assert surface.hausdorff_mm(distances) == pytest.approx(boundary, abs=float(np.linalg.norm(spacing_mm)))


def test_a_box_has_its_area_in_square_millimetres_but_for_the_bevelled_edges():
    box = np.zeros((30, 40, 50), dtype=bool)
    box[5:25, 5:35, 5:45] = True
    found = measure(box, box, (2.0, 1.0, 0.5)).reference_mm2.sum()
    sides_mm = np.array([40.0, 30.0, 20.0])
    exact = 2 * (sides_mm[0] * sides_mm[1] + sides_mm[1] * sides_mm[2] + sides_mm[2] * sides_mm[0])
    assert found == pytest.approx(exact, rel=0.03)
    assert found < exact


def test_a_shift_is_measured_in_millimetres_along_the_axis_it_goes():
    box = np.zeros((20, 20, 20), dtype=bool)
    box[5:10, 5:10, 5:10] = True
    spacing_mm = (3.0, 2.0, 0.5)
    for axis in range(3):
        moved = np.roll(box, 2, axis)
        distances = measure(moved, box, spacing_mm)
        assert surface.hausdorff_mm(distances) == pytest.approx(2 * spacing_mm[axis])


def test_concentric_balls_are_as_far_apart_as_their_radii_less_half_a_voxel_at_most():
    grid_mm = np.stack(np.meshgrid(*[np.arange(-30, 31) * s for s in (1.0, 1.0, 0.8)], indexing="ij"))
    radius_mm = np.linalg.norm(grid_mm, axis=0)
    distances = measure(radius_mm < 20, radius_mm < 15, (1.0, 1.0, 0.8))
    assert 4.4 < surface.mean_surface_distance_mm(distances) < 5.0
    assert surface.surface_dice(distances, tolerance_mm=3.0) == 0.0
    assert surface.surface_dice(distances, tolerance_mm=6.0) == 1.0


def test_a_surface_exactly_at_the_tolerance_is_within_it_whatever_rounding_did():
    box = np.zeros((20, 8, 8), dtype=bool)
    box[4:8, 2:6, 2:6] = True
    distances = measure(np.roll(box, 3, 0), box, (0.1, 0.1, 0.1))  # 3 * 0.1 is larger than 0.3
    assert surface.surface_dice(distances, tolerance_mm=0.3) == 1.0


def test_a_mask_at_the_edge_of_the_image_ends_there():
    inside, edge = np.zeros((2, 12, 12, 12), dtype=bool)
    inside[4:8, 4:8, 4:8] = True
    edge[0:4, 0:4, 0:4] = True
    assert measure(edge, edge).reference_mm2.sum() == pytest.approx(measure(inside, inside).reference_mm2.sum())


@given(MASKS, MASKS, SPACINGS)
@settings(max_examples=40)
def test_the_order_of_the_masks_only_swaps_the_directions(prediction, reference, spacing_mm):
    one, other = measure(prediction, reference, spacing_mm), measure(reference, prediction, spacing_mm)
    assert surface.directed_mean_distances_mm(one) == surface.directed_mean_distances_mm(other)[::-1]
    assert surface.hd95_mm(one) == surface.hd95_mm(other)
    assert surface.surface_dice(one, tolerance_mm=1.0) == pytest.approx(surface.surface_dice(other, tolerance_mm=1.0))


@given(MASKS, SPACINGS)
@settings(max_examples=25)
def test_a_mask_is_no_distance_from_itself(mask, spacing_mm):
    distances = measure(mask, mask, spacing_mm)
    assert surface.hausdorff_mm(distances) == surface.mean_surface_distance_mm(distances) == 0.0
    assert surface.surface_dice(distances, tolerance_mm=0.0) == 1.0


@given(MASKS, MASKS, SPACINGS)
@settings(max_examples=40)
def test_percentiles_grow_and_stay_below_what_a_miss_costs(prediction, reference, spacing_mm):
    distances = measure(prediction, reference, spacing_mm)
    ladder = [surface.hausdorff_mm(distances, percent=percent) for percent in (0, 50, 95, 100)]
    assert ladder == sorted(ladder)
    assert ladder[-1] <= distances.charge_mm
    assert surface.mean_surface_distance_mm(distances) <= ladder[-1] + 1e-9


def test_a_missed_structure_is_charged_with_the_diagonal_of_the_image():
    nothing, something = np.zeros((2, 30, 40, 50), dtype=bool)
    something[3:5, 3:5, 3:5] = True
    diagonal_mm = np.linalg.norm([60.0, 40.0, 25.0])
    for pair in [(nothing, something), (something, nothing)]:
        distances = measure(*pair, (2.0, 1.0, 0.5))
        assert surface.hausdorff_mm(distances) == surface.hd95_mm(distances) == pytest.approx(diagonal_mm)
        assert surface.mean_surface_distance_mm(distances) == pytest.approx(diagonal_mm)
        assert surface.surface_dice(distances, tolerance_mm=1e9) == 0.0
        assert surface.surface_overlaps(distances, tolerance_mm=1e9) == (0.0, 0.0)


def test_nothing_found_where_nothing_is_costs_nothing():
    nothing = np.zeros((4, 4, 4), dtype=bool)
    distances = measure(nothing, nothing)
    assert surface.hausdorff_mm(distances) == surface.mean_surface_distance_mm(distances) == 0.0
    assert surface.surface_dice(distances, tolerance_mm=0.0) == 1.0
    assert surface.surface_overlaps(distances, tolerance_mm=0.0) == (1.0, 1.0)


def test_a_mask_that_fills_the_image_still_has_a_surface():
    full = np.ones((4, 5, 6), dtype=bool)
    hole = full.copy()
    hole[2, 2, 2] = False
    distances = measure(full, hole)
    assert distances.prediction_mm2.sum() > 0
    assert surface.hausdorff_mm(distances) > 0


def test_a_whole_volume_is_measured_within_seconds():
    """128^3 with large surfaces takes about 0.3 s of one core."""
    grid = np.indices((128, 128, 128)) - 63.5
    large, small = np.linalg.norm(grid, axis=0) < 55, np.linalg.norm(grid, axis=0) < 52
    start = time.thread_time()
    distances = measure(large, small)
    assert time.thread_time() - start < 5.0
    assert surface.mean_surface_distance_mm(distances) == pytest.approx(2.55, abs=0.01)


def test_what_cannot_be_measured_is_refused_in_a_sentence():
    mask = np.ones((4, 4, 4), dtype=bool)
    with pytest.raises(UsageError, match="3 axes"):
        measure(mask[0], mask[0], (1, 1))
    with pytest.raises(UsageError, match="spacing"):
        measure(mask, mask, (1, 0, 1))
    distances = measure(mask, mask)
    with pytest.raises(UsageError, match="percentile"):
        surface.hausdorff_mm(distances, percent=101)
    for tolerance_mm in (-1.0, float("nan")):
        with pytest.raises(UsageError, match="tolerance"):
            surface.surface_dice(distances, tolerance_mm=tolerance_mm)
