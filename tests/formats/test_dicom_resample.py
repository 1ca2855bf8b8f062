"""Claims about uneven stacks: each has its own name, and interpolation happens only when asked for."""

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.core.errors import InputRejected
from bedside.core.volume import Volume
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_geometry import stack
from bedside.formats.dicom_write import planes_of, write_planes

from .reading import IDENTITY, codes, only

STEP_MM = 4.0
UNEVEN = {
    "SERIES_JITTER": [0, 4.2, 7.8, 12.2, 15.8, 20],
    "SERIES_TWO_INCREMENTS": [0, 5, 10, 15, 25, 35],
    "SERIES_IRREGULAR": [0, 4, 9.5, 12, 17, 20],
}


def stacked(folder, places_mm, values=None):
    """A CT whose slices lie at these places, each filled with ten times its place."""
    volume = Volume.of(np.zeros((4, 3, len(places_mm)), np.int16), np.diag([1.0, 1.0, STEP_MM, 1.0]))
    paths = write_planes(folder, planes_of(volume), identity=IDENTITY)
    for index, (path, place) in enumerate(zip(paths, places_mm, strict=True)):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = [0, 0, place]
        value = 10 * place if values is None else values[index]
        dataset.PixelData = np.full((3, 4), round(value), "<i2").tobytes()
        dataset.save_as(path)
    return folder


@pytest.mark.parametrize(("code", "places"), UNEVEN.items())
def test_an_uneven_stack_is_refused_by_its_own_name_and_told_how_to_go_on(tmp_path, code, places):
    (refused,) = read_folder(stacked(tmp_path / "s", places)).refused
    assert refused.code == code
    assert "source.resample" in refused.sentence
    assert len(refused.files) == len(places)


@pytest.mark.parametrize("places", UNEVEN.values())
def test_a_resampled_stack_is_even_and_linear_values_stay_where_they_were(tmp_path, places):
    (found,) = read_folder(stacked(tmp_path / "s", places), resample=True).found
    step = float(np.diff(places).min())
    count = int((places[-1] - places[0]) / step + 1e-3) + 1
    assert found.volume.shape == (1, 4, 3, count)
    assert found.volume.affine[:3, 2] == pytest.approx([0, 0, step])
    at = (found.volume.affine @ np.array([[0, 0, k, 1] for k in range(count)], float).T)[2]
    assert np.abs(found.volume.array[0, 0, 0] - 10 * at).max() <= 0.5
    assert (found.notes, found.frame) == (("RESAMPLED",), None)
    assert len(found.files) == len(places)


@pytest.mark.parametrize(
    ("places", "code"),
    [
        ([0, 4, 8, 16, 20], "SERIES_MISSING_SLICE"),
        ([0, 4, 4, 8, 12], "SERIES_DUPLICATE_POSITION"),
        ([0, 4], "SERIES_TWO_SLICES"),
        ([0, 0.5, 7.2, 15, 23], "SERIES_IRREGULAR"),
    ],
)
def test_what_would_be_invented_is_refused_even_when_resampling_is_asked_for(tmp_path, places, code):
    folder = stacked(tmp_path / "s", places)
    for number, path in enumerate(sorted(folder.iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = 7 * number % 5
        dataset.save_as(path)
    assert {one.code for one in read_folder(folder, resample=True).refused} == {code}


def test_an_even_stack_is_not_touched_by_resampling(tmp_path, numbered, plain_affine, place_error_mm):
    volume = numbered(plain_affine())
    write_planes(tmp_path / "s", planes_of(volume), identity=IDENTITY)
    (found,) = read_folder(tmp_path / "s", resample=True).found
    assert place_error_mm(volume, found.volume) < 1e-9
    assert found.notes == ()


# --- padding


def padded(series, *, value, limit=None, stored=None, intercept=0, **more):
    """A series in which one corner of each slice holds the padding."""

    def edit(dataset, _):
        kind = "SS" if dataset.PixelRepresentation else "US"
        dataset.add_new(0x00280120, kind, value)
        if limit is not None:
            dataset.add_new(0x00280121, kind, limit)
        pixels = np.frombuffer(dataset.PixelData, "<i2").copy()
        pixels[:2] = [value if stored is None else stored, value if limit is None else limit]
        dataset.PixelData = pixels.tobytes()
        dataset.RescaleIntercept = intercept

    return only(series(edit=edit, **more))


@pytest.mark.parametrize(
    ("values", "notes"),
    [
        ({"value": -2000}, ("PADDING_MAPPED",)),
        ({"value": -3024, "limit": -1500, "stored": -2222}, ("PADDING_MAPPED",)),
        ({"value": -2000, "intercept": -1024}, ("PADDING_MAPPED",)),
    ],
)
def test_padding_of_a_ct_becomes_air(series, numbered, plain_affine, values, notes):
    found = padded(series, **values)
    array = found.volume.array[0]
    expected = numbered(plain_affine()).array[0] + values.get("intercept", 0)
    expected[:2, 0, :] = -1024
    assert np.array_equal(array, expected)
    assert found.notes == notes


def test_a_padding_value_that_tissue_has_is_not_believed(series, numbered, plain_affine):
    found = padded(series, value=7)
    expected = numbered(plain_affine()).array[0].copy()
    expected[:2, 0, :] = 7
    assert np.array_equal(found.volume.array[0], expected)
    assert found.notes == ("PADDING_KEPT",)


def test_padding_that_is_air_already_and_padding_of_an_mr_are_left_alone(series):
    assert padded(series, value=-1024).notes == ()
    found = padded(series, value=-2000, modality="MR", name="mr")
    assert (found.notes, found.volume.array.min()) == ((), -2000)


def test_padding_of_a_tilted_series_is_air_before_it_is_interpolated(tmp_path):
    affine = np.diag([-0.8, -0.8, 2.5, 1.0])
    affine[1, 2] = 0.3
    paths = write_planes(tmp_path / "s", planes_of(Volume.of(np.full((8, 9, 4), -2000, np.int16), affine)), identity=IDENTITY)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.add_new(0x00280120, "SS", -2000)
        dataset.save_as(path)
    found = only(tmp_path / "s")
    assert set(np.unique(found.volume.array)) == {-1024}
    assert found.notes == ("TILT_CORRECTED", "PADDING_MAPPED")


def test_monochrome1_says_how_to_display_and_changes_no_value(series, numbered, plain_affine):
    found = only(series(edit=lambda dataset, _: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1")))
    assert np.array_equal(found.volume.array, numbered(plain_affine()).array)


def test_jitter_of_a_twentieth_of_the_distance_is_named(series, numbered, plain_affine):
    offsets = [0, 0.05, -0.05, 0.05, 0]

    def edit(dataset, index):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + 4.0 * offsets[index]]

    assert codes(series(volume=numbered(plain_affine((1.0, 1.0, 4.0))), edit=edit)) == {"SERIES_JITTER"}


@given(st.integers(0, 2**32 - 1), st.integers(10, 40), st.integers(1, 12), st.sampled_from([0.0, 0.04, 0.12]))
def test_a_hole_is_never_interpolated_however_far_the_slices_are_off_their_places(seed, count, hole, jitter):
    places = np.arange(count + hole) + np.random.default_rng(seed).uniform(-jitter, jitter, count + hole)
    positions = np.zeros((count, 3))
    positions[:, 2] = STEP_MM * np.delete(places, np.arange(count // 2, count // 2 + hole))
    with pytest.raises(InputRejected) as refusal:
        stack(positions, np.eye(3)[:2], (1.0, 1.0), resample=True)
    assert refusal.value.code == "SERIES_MISSING_SLICE"
