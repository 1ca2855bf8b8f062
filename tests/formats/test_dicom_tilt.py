"""Claims about a tilted gantry: landmarks stand where they stood, and a mask finds its way back."""

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.volume import Frame, Volume
from bedside.formats.dicom_tilt import correction, retilt, untilt
from bedside.formats.dicom_write import planes_of, write_planes

from .reading import IDENTITY, only

SPACING = (0.8, 0.8, 2.5)


def leaning(degrees, shape=(40, 48, 12), axis=1):
    """The affine of a stack whose planes each lie a little further along one of their own axes."""
    affine = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    affine[:3, 3] = (20.0, 30.0, -50.0)
    affine[axis, 2] = SPACING[2] * np.tan(np.radians(degrees))
    return affine, shape


def balls(affine, shape, centres_mm, radius_mm=3.0):
    """A CT of air with dense balls at known places in RAS millimetres."""
    places = np.stack([*np.indices(shape).reshape(3, -1), np.ones(int(np.prod(shape)))])
    world = (affine @ places)[:3].T
    values = np.full(len(world), -1000.0)
    for centre in centres_mm:
        distance = np.linalg.norm(world - centre, axis=1)
        values += 2000.0 * np.exp(-((distance / radius_mm) ** 2))
    return np.round(values).astype(np.int16).reshape(shape)


def landmarks(volume, centres_mm, radius_mm=7.0):
    """The centre of mass found near each place, in RAS millimetres."""
    array = volume.array[0].astype(float) + 1000.0
    places = np.stack([*np.indices(array.shape).reshape(3, -1), np.ones(array.size)])
    world = (volume.affine @ places)[:3].T
    found = []
    for centre in centres_mm:
        near = np.linalg.norm(world - centre, axis=1) < radius_mm
        weights = np.clip(array.ravel()[near], 0, None)
        found.append((world[near] * weights[:, None]).sum(0) / weights.sum())
    return np.array(found)


def centres(affine, shape):
    inside = np.array([[0.3, 0.3, 0.35], [0.7, 0.35, 0.5], [0.35, 0.7, 0.6], [0.65, 0.65, 0.4]]) * (np.array(shape) - 1)
    return (affine @ np.c_[inside, np.ones(4)].T)[:3].T


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("degrees", [-20, -10, 2, 10, 20, 30])
def test_landmarks_of_a_tilted_series_are_found_within_half_a_voxel(tmp_path, degrees, axis):
    affine, shape = leaning(degrees, axis=axis)
    points = centres(affine, shape)
    phantom = Volume.of(balls(affine, shape, points), affine)
    write_planes(tmp_path / "s", planes_of(phantom), identity=IDENTITY, tilt_degrees=degrees)
    found = only(tmp_path / "s")
    assert "TILT_CORRECTED" in found.notes
    error_voxels = (landmarks(found.volume, points) - points) / SPACING
    assert np.abs(error_voxels).max() < 0.5
    axes = found.volume.affine[:3, :3]
    assert np.abs(axes.T @ axes - np.diag(np.diag(axes.T @ axes))).max() < 1e-9
    assert found.volume.spacing_mm == pytest.approx(SPACING)
    assert np.allclose(found.frame.affine, affine, atol=1e-6)
    assert found.frame.shape == shape


def test_nothing_is_cut_off_and_what_was_never_seen_is_air(tmp_path):
    affine, shape = leaning(20)
    phantom = Volume.of(np.full(shape, 40, np.int16), affine)
    phantom.array[0, 0, 0, 0] = -700
    write_planes(tmp_path / "s", planes_of(phantom), identity=IDENTITY)
    volume = only(tmp_path / "s").volume
    grown = int(np.ceil(np.tan(np.radians(20)) * SPACING[2] * 11 / SPACING[1]))
    assert volume.shape == (1, 40, 48 + grown, 12)
    assert volume.array.min() == -700
    seen = (volume.array > 0).sum(axis=(1, 2))[0]
    assert (seen >= 40 * 47).all()


def test_a_tilted_header_without_leaning_positions_is_left_alone(series):
    found = only(series(edit=lambda dataset, _: setattr(dataset, "GantryDetectorTilt", "15")))
    assert (found.frame, found.notes) == (None, ())


@given(
    degrees=st.floats(1, 34),
    sign=st.sampled_from([-1, 1]),
    turn=st.permutations([0, 1, 2]),
    flips=st.tuples(*[st.booleans()] * 3),
)
def test_a_mask_comes_back_to_the_scanners_grid_whatever_its_axes_became(degrees, sign, turn, flips):
    affine, shape = leaning(sign * degrees, (20, 24, 6))
    mask = np.zeros(shape, np.uint8)
    mask[5:14, 6:17, 1:5] = 3
    straight, corrected = untilt(mask, Frame(affine, shape))
    labels = np.where(straight > 1.5, 3, 0).astype(np.uint8)
    turned = Volume.of(labels, corrected).canonical() if turn == [0, 1, 2] else Volume.of(labels, corrected)
    array, place = turned.array[0], turned.affine.copy()
    for axis in np.flatnonzero(flips):
        array = np.flip(array, axis)
        place[:3, 3] += place[:3, axis] * (array.shape[axis] - 1)
        place[:3, axis] *= -1
    array, place = np.transpose(array, turn), place[:, [*turn, 3]]
    back = retilt(array, place, Frame(affine, shape))
    inner = np.zeros(shape, bool)
    inner[6:13, 7:16, 1:5] = True
    outer = np.zeros(shape, bool)
    outer[4:15, 5:18, 1:5] = True
    assert (back[inner] == 3).all()
    assert (back[~outer] == 0).all()


def test_a_tilt_of_whole_voxels_comes_back_exactly():
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[1, 2] = 2.0
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 9, (7, 8, 5)).astype(np.int16)
    straight, corrected = untilt(volume, Frame(affine, volume.shape))
    assert np.array_equal(retilt(straight.astype(np.int16), corrected, Frame(affine, volume.shape)), volume)


def test_a_lean_that_is_rounding_stays_in_the_affine():
    affine, shape = leaning(10)
    affine[0, 2] = 0.001
    shear, corrected = correction(affine, shape, tolerance_mm=0.1)
    assert shear.step[0] == 0
    assert corrected[0, 2] == pytest.approx(0.001)


def test_a_tilted_stack_with_a_missing_slice_is_refused_for_that(tmp_path):
    affine, shape = leaning(10)
    planes = planes_of(Volume.of(np.zeros(shape, np.int16), affine))
    write_planes(tmp_path / "s", [*planes[:4], *planes[5:]], identity=IDENTITY)
    from bedside.formats.dicom import read_folder

    assert {one.code for one in read_folder(tmp_path / "s").refused} == {"SERIES_MISSING_SLICE"}


def test_values_of_a_tilted_series_are_rescaled_before_they_are_moved(tmp_path):
    affine, shape = leaning(10)
    paths = write_planes(tmp_path / "s", planes_of(Volume.of(np.full(shape, 1000, np.int16), affine)), identity=IDENTITY)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.RescaleIntercept = -1024
        dataset.save_as(path)
    assert set(np.unique(only(tmp_path / "s").volume.array)) == {-24}
