"""The planes that a report shows lie where they say, the right way round, at the right size."""

from itertools import permutations, product

import numpy as np
import pytest

from bedside.core.volume import Volume
from bedside.evaluate.planes import MARGIN_MM, Picture, load, save, three_planes

ROWS_AND_COLUMNS = {"axial": (1, 0), "coronal": (2, 0), "sagittal": (2, 1)}


def position_volume(order, flips, *, shape=(9, 10, 11), spacing_mm=(1.0, 2.0, 4.0)):
    """A volume in any of the 48 axis orders; `at(world)` gives its voxel, and the mask is one voxel at a known place."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1.0
    for axis, world in enumerate(order):
        affine[world, axis] = -spacing_mm[axis] if flips[axis] else spacing_mm[axis]
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    world = grid @ affine[:3, :3].T
    return affine, world


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product([False, True], repeat=3)))
def test_right_is_on_the_viewers_left_and_front_and_head_are_up_in_all_48_axis_orders(order, flips):
    affine, world = position_volume(order, flips)
    label = np.zeros(world.shape[:3], np.uint8)
    label[2:7, 3:8, 4:9] = 1
    for along in range(3):
        image = Volume.of(world[..., along], affine)
        for plane in three_planes(image, label, label, focus=1):
            row_axis, column_axis = ROWS_AND_COLUMNS[plane.name]
            grey = plane.image.astype(int)
            if along == column_axis:
                assert (grey[:, 0] > grey[:, -1]).all()
            elif along == row_axis:
                assert (grey[0] > grey[-1]).all()
            else:
                assert np.ptp(grey) == 0


def test_letters_name_the_edges():
    label = np.ones((4, 5, 6), np.uint8)
    planes = three_planes(Volume.of(label, np.eye(4)), label, label, focus=1)
    assert {plane.name: plane.letters for plane in planes} == {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}


def test_pixels_have_the_size_of_the_voxels():
    label = np.ones((4, 5, 6), np.uint8)
    planes = three_planes(Volume.of(label, np.diag([1.0, 2.0, 3.0, 1.0])), label, label, focus=1)
    assert [plane.pixel_mm for plane in planes] == [(2.0, 1.0), (3.0, 1.0), (3.0, 2.0)]
    assert [plane.image.shape for plane in planes] == [(5, 4), (6, 4), (6, 5)]


def test_every_plane_cuts_the_structure_even_if_it_is_hollow():
    label = np.zeros((30, 30, 30), np.uint8)
    label[5:25, 5:25, 5:25] = 1
    label[7:23, 7:23, 7:23] = 0
    for plane in three_planes(Volume.of(label, np.eye(4)), label, label, focus=1):
        assert (plane.reference == 1).any()


def test_planes_go_through_the_structure_in_question():
    label = np.zeros((30, 30, 30), np.uint8)
    label[2:5, 2:5, 2:5] = 1
    label[20:25, 20:25, 20:25] = 2
    for focus in (1, 2):
        for plane in three_planes(Volume.of(label, np.eye(4)), label, np.zeros_like(label), focus=focus):
            assert (plane.reference == focus).any()
            assert not (plane.prediction > 0).any()


def test_a_structure_that_was_only_hallucinated_is_shown_where_it_was_imagined():
    empty, imagined = np.zeros((20, 20, 20), np.uint8), np.zeros((20, 20, 20), np.uint8)
    imagined[12:15, 3:6, 9:12] = 2
    for plane in three_planes(Volume.of(empty, np.eye(4)), empty, imagined, focus=2):
        assert (plane.prediction == 2).any()


def test_a_case_with_nothing_in_it_is_shown_whole():
    empty = np.zeros((8, 9, 10), np.uint8)
    planes = three_planes(Volume.of(np.arange(720.0).reshape(8, 9, 10), np.eye(4)), empty, empty, focus=1)
    assert [plane.image.shape for plane in planes] == [(9, 8), (10, 8), (10, 9)]


def test_pictures_are_cropped_with_a_margin():
    label = np.zeros((100, 100, 100), np.uint8)
    label[50:60, 50:60, 50:60] = 1
    axial = three_planes(Volume.of(label, np.diag([1.0, 1.0, 3.0, 1.0])), label, label, focus=1)[0]
    assert axial.image.shape == (10 + 2 * MARGIN_MM, 10 + 2 * MARGIN_MM)


def test_voxels_that_are_no_number_are_black_and_hide_nothing_else():
    values = np.linspace(0, 1, 1000).reshape(10, 10, 10)
    values[0, 0], values[9, 9] = np.nan, np.inf
    label = np.ones((10, 10, 10), np.uint8)
    axial = three_planes(Volume.of(values, np.eye(4)), label, label, focus=1)[0]
    assert axial.image.max() == 255
    assert axial.image[-1, -1] == axial.image[0, 0] == 0


def test_a_picture_survives_the_disk(tmp_path):
    label = np.ones((4, 5, 6), np.uint8)
    planes = three_planes(Volume.of(label.astype(float), np.eye(4)), label, label, focus=1)
    save(tmp_path / "one.npz", Picture("a case", "a patient", "femur", planes))
    again = load(tmp_path / "one.npz")
    assert (again.case, again.patient, again.focus) == ("a case", "a patient", "femur")
    for before, after in zip(planes, again.planes, strict=True):
        assert (before.name, before.letters, before.pixel_mm) == (after.name, after.letters, after.pixel_mm)
        assert np.array_equal(before.image, after.image)
        assert np.array_equal(before.reference, after.reference)


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: data[:-40], lambda data: b"PK" * 50])
def test_a_damaged_picture_is_no_picture(tmp_path, damage):
    label = np.ones((4, 5, 6), np.uint8)
    save(tmp_path / "one.npz", Picture("c", "p", "f", three_planes(Volume.of(label, np.eye(4)), label, label, focus=1)))
    (tmp_path / "one.npz").write_bytes(damage((tmp_path / "one.npz").read_bytes()))
    assert load(tmp_path / "one.npz") is None
    assert load(tmp_path / "absent.npz") is None
