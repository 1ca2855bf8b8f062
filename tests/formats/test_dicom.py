"""Claims about the geometry of a series, and about what is no volume."""

from itertools import permutations, product

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.core.digest import digest_file, digest_json
from bedside.core.errors import UsageError
from bedside.core.volume import Volume
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_write import write_series

from .reading import IDENTITY, codes, only


def turn(angles):
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[[first, second], [first, second]] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ step
    return matrix


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("signs", list(product((1, -1), repeat=3)))
def test_every_axis_order_and_sign_keeps_every_voxel_in_its_place(tmp_path, order, signs, numbered, place_error_mm):
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign, spacing) in enumerate(zip(order, signs, (0.7, 1.1, 2.5), strict=True)):
        affine[world, axis] = sign * spacing
    affine[:3, 3] = (-31.25, 12.5, 100.125)
    written = numbered(affine)
    write_series(tmp_path / "s", written, identity=IDENTITY)
    read = only(tmp_path / "s").volume
    assert place_error_mm(written, read) < 1e-9
    assert place_error_mm(written, read.canonical()) < 1e-9
    assert (np.diag(read.canonical().affine)[:3] > 0).all()


@settings(max_examples=25)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-900, 900)] * 3),
)
def test_an_oblique_series_keeps_every_voxel_in_its_place(tmp_path_factory, angles, spacing, origin, numbered, place_error_mm):
    affine = np.eye(4)
    affine[:3, :3] = turn(angles) * np.array(spacing)
    affine[:3, 3] = origin
    written, folder = numbered(affine), tmp_path_factory.mktemp("oblique")
    write_series(folder, written, identity=IDENTITY)
    assert place_error_mm(written, only(folder).volume) < 1e-6


def test_values_that_are_coordinates_equal_the_coordinates_of_the_affine(series, plain_affine):
    affine = plain_affine((0.5, 0.75, 2.0))
    places = (np.indices((4, 3, 5)).reshape(3, -1).T * [0.5, 0.75, 2.0] + affine[:3, 3]).reshape(4, 3, 5, 3)
    for axis in range(3):
        folder = series(f"axis{axis}", volume=Volume.of((places[..., axis] * 8).astype(np.int16), affine))
        volume = only(folder).volume
        index = np.stack([*np.indices(volume.shape[1:]).reshape(3, -1), np.ones(60)])
        assert np.array_equal(volume.array.ravel() / 8, (volume.affine @ index)[axis])


def test_pixel_spacing_gives_the_row_distance_first(series):
    def edit(dataset, _):
        dataset.PixelSpacing = [3, 0.5]

    volume = only(series(edit=edit)).volume
    assert volume.spacing_mm == pytest.approx((0.5, 3.0, 2.5))
    assert volume.shape == (1, 4, 3, 5)


@pytest.mark.parametrize("numbers", [[3, 1, 4, 5, 2], [1, 1, 1, 1, 1], [5, 4, 3, 2, 1]])
def test_instance_numbers_and_file_names_do_not_order_the_slices(series, numbers, numbered, place_error_mm, plain_affine):
    def edit(dataset, index):
        dataset.InstanceNumber = numbers[index]

    folder = series(edit=edit)
    for path, name in zip(sorted(folder.iterdir()), "zaymb", strict=True):
        path.rename(folder / name)
    assert place_error_mm(numbered(plain_affine()), only(folder).volume) < 1e-9


def test_a_found_series_says_where_it_came_from(tmp_path, numbered, plain_affine):
    paths = write_series(tmp_path / "s", numbered(plain_affine()), identity=IDENTITY)
    found = only(tmp_path / "s")
    assert found.files == paths
    assert found.source == digest_json({str(n): sha for n, sha in enumerate(sorted(map(digest_file, paths)))})
    assert (found.geometry, found.modality, found.patient_id) == ("dicom", "CT", "P1")
    assert found.scanner == "ACME Imaging Ray 1"
    assert found.decoder.startswith("numpy ")


def test_the_source_digest_does_not_depend_on_file_names(series):
    folder = series()
    before = only(folder).source
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"{9 - number}.bin")
    assert only(folder).source == before


def test_the_same_call_writes_the_same_bytes(tmp_path, numbered, plain_affine):
    first = write_series(tmp_path / "a", numbered(plain_affine()), identity=IDENTITY)
    second = write_series(tmp_path / "b", numbered(plain_affine()), identity=IDENTITY)
    assert list(map(digest_file, first)) == list(map(digest_file, second))


@pytest.mark.parametrize(
    "volume",
    [
        Volume.of(np.full((3, 3, 3), 0.5), np.eye(4)),
        Volume.of(np.full((3, 3, 3), 40000), np.eye(4)),
        Volume.of(np.zeros((2, 3, 3, 3)), np.eye(4)),
        Volume.of(np.zeros((3, 3, 3)), np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])),
    ],
)
def test_a_volume_that_dicom_cannot_hold_is_not_written(tmp_path, volume):
    with pytest.raises(UsageError):
        write_series(tmp_path / "s", volume, identity=IDENTITY)


# --- what is no volume


def moved(offsets_mm):
    """Edit that moves slices along x, y, z of the patient by offsets[index]."""

    def edit(dataset, index):
        at = np.array(dataset.ImagePositionPatient, dtype=float) + offsets_mm[index]
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in at]

    return edit


@pytest.mark.parametrize("index", [1, 2, 3])
def test_a_missing_slice_is_named(series, index):
    folder = series()
    sorted(folder.iterdir())[index].unlink()
    assert codes(folder) == {"SERIES_MISSING_SLICE"}


def test_an_irregular_distance_is_named(series):
    assert codes(series(edit=moved([(0, 0, 0), (0, 0, 0), (0, 0, 1.0), (0, 0, 0), (0, 0, 0)]))) == {"SERIES_IRREGULAR"}


def test_a_slice_beside_the_line_is_named(series):
    assert codes(series(edit=moved([(0, 0, 0), (0, 0, 0), (3.0, 0, 0), (0, 0, 0), (0, 0, 0)]))) == {"SERIES_IRREGULAR"}


def test_positions_rounded_by_the_scanner_are_still_a_volume(series, numbered, place_error_mm, plain_affine):
    folder = series(edit=moved([(0, 0, 0), (0, 0, 0.04), (0, 0, -0.04), (0, 0, 0.03), (0, 0, 0)]))
    assert place_error_mm(numbered(plain_affine()), only(folder).volume) <= 0.04 + 1e-6


@pytest.mark.parametrize("degrees", [36, 45, -60])
def test_a_lean_further_than_a_gantry_can_is_named_with_its_angle(series, degrees):
    lean = 2.5 * np.tan(np.radians(degrees))
    folder = series(edit=moved([(0, lean * index, 0) for index in range(5)]))
    (refused,) = read_folder(folder).refused
    assert refused.code == "SERIES_TILT"
    assert f"{abs(degrees):.1f} degrees" in refused.sentence
    assert len(refused.files) == 5


def test_a_lean_below_the_tolerance_is_kept_in_the_affine(series, numbered, plain_affine, place_error_mm):
    volume = only(series(edit=moved([(0, 0.004 * index, 0) for index in range(5)]))).volume
    assert volume.affine[:3, 2] == pytest.approx([0, -0.004, 2.5], abs=1e-6)
    assert place_error_mm(numbered(plain_affine()), volume) == pytest.approx(0.016, abs=1e-5)


def test_two_different_slices_at_one_position_are_named(series, tmp_path):
    folder = series()
    other = pydicom.dcmread(folder / "slice-0002.dcm")
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(folder / "again.dcm")
    assert codes(folder) == {"SERIES_DUPLICATE_POSITION"}


def test_one_instance_uid_on_two_different_files_is_named(series):
    folder = series()
    other = pydicom.dcmread(folder / "slice-0002.dcm")
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(folder / "again.dcm")
    assert codes(folder) == {"SERIES_UID_CONFLICT"}


def test_a_file_received_twice_counts_once(series):
    folder = series()
    (folder / "again.dcm").write_bytes((folder / "slice-0002.dcm").read_bytes())
    reading = read_folder(folder)
    assert len(reading.found[0].files) == 5
    assert len(reading.duplicates) == 1
    assert reading.refused == ()


@pytest.mark.parametrize(("keep", "code"), [(1, "SERIES_ONE_SLICE"), (2, "SERIES_TWO_SLICES")])
def test_too_few_slices_are_named(series, keep, code):
    folder = series()
    for path in sorted(folder.iterdir())[keep:]:
        path.unlink()
    assert codes(folder) == {code}


def set_on(slice_index, **values):
    def edit(dataset, index):
        if slice_index in (None, index):
            for name, value in values.items():
                if value is None:
                    del dataset[name]
                else:
                    setattr(dataset, name, value)

    return edit


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "SERIES_MIXED_ORIENTATION"),
        ({"PixelSpacing": [2, 2]}, "SERIES_MIXED_GRID"),
        ({"Rows": 4, "Columns": 3}, "SERIES_MIXED_GRID"),
        ({"FrameOfReferenceUID": "1.2.3"}, "SERIES_MIXED_FRAME"),
        ({"PatientID": "P2"}, "SERIES_MIXED_SUBJECT"),
    ],
)
def test_slices_that_do_not_belong_together_are_named(series, values, code):
    assert codes(series(edit=set_on(2, **values))) == {code}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"Modality": "PT"}, "DCM_MODALITY"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "DCM_SECONDARY_CAPTURE"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2.1"}, "DCM_MULTIFRAME"),
        ({"NumberOfFrames": 2}, "DCM_MULTIFRAME"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "DCM_LOCALIZER"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}, "DCM_MOSAIC"),
        ({"ImagePositionPatient": None}, "DCM_GEOMETRY"),
        ({"ImageOrientationPatient": None}, "DCM_GEOMETRY"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "DCM_GEOMETRY"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.9, 0]}, "DCM_GEOMETRY"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "DCM_GEOMETRY"),
        ({"PixelSpacing": None}, "DCM_GEOMETRY"),
        ({"PixelSpacing": [0, 1]}, "DCM_GEOMETRY"),
        ({"PixelSpacing": [1, -1]}, "DCM_GEOMETRY"),
        ({"PixelSpacing": [1, 1, 1]}, "DCM_GEOMETRY"),
        ({"Rows": 0}, "DCM_GEOMETRY"),
        ({"Rows": 2}, "DCM_GEOMETRY"),
        ({"Rows": 65535}, "DCM_TRUNCATED"),
        ({"Columns": 5}, "DCM_TRUNCATED"),
        ({"BitsAllocated": 7}, "DCM_GEOMETRY"),
        ({"BitsAllocated": 32}, "DCM_GEOMETRY"),
        ({"BitsStored": 17}, "DCM_GEOMETRY"),
        ({"HighBit": 14}, "DCM_GEOMETRY"),
        ({"SamplesPerPixel": 3}, "DCM_GEOMETRY"),
        ({"PixelRepresentation": 2}, "DCM_GEOMETRY"),
        ({"PhotometricInterpretation": "RGB"}, "DCM_GEOMETRY"),
        ({"RescaleSlope": 0}, "DCM_RESCALE"),
        ({"RescaleSlope": None}, "DCM_RESCALE"),
        ({"RescaleIntercept": None}, "DCM_RESCALE"),
        ({"RescaleType": "Z_EFF"}, "DCM_RESCALE"),
        ({"SeriesInstanceUID": "", "FrameOfReferenceUID": ""}, "DCM_UID"),
        ({"PixelData": None}, "DCM_TRUNCATED"),
    ],
)
def test_a_header_that_is_no_ct_slice_is_refused_by_name_for_every_file(series, values, code):
    reading = read_folder(series(edit=set_on(None, **values)))
    assert reading.found == ()
    assert {refused.code for refused in reading.refused} == {code}
    assert sum(len(refused.files) for refused in reading.refused) == 5


@pytest.mark.parametrize("text", [b"nan", b"inf", b"-1e999", b"1_0", b"one", b""])
@pytest.mark.parametrize("name", ["ImagePositionPatient", "PixelSpacing"])
def test_a_number_that_is_none_is_refused(series, name, text):
    count = {"ImagePositionPatient": 3, "PixelSpacing": 2}[name]
    value = b"\\".join([text] * count)

    folder = series()
    for path in folder.iterdir():
        data, raw = path.read_bytes(), pydicom.dcmread(path).get_item(name)
        padded = value + b" " * (len(value) % 2)
        at = raw.value_tell
        path.write_bytes(data[: at - 2] + len(padded).to_bytes(2, "little") + padded + data[at + raw.length :])
    assert codes(folder) == {"DCM_GEOMETRY"}


def test_a_wiped_series_uid_is_replaced_by_folder_and_frame_of_reference(series, numbered, place_error_mm, plain_affine):
    wiped = {"SeriesInstanceUID": "", "SOPInstanceUID": "", "SOPClassUID": ""}
    folder = series(edit=set_on(None, **wiped))
    assert place_error_mm(numbered(plain_affine()), only(folder).volume) < 1e-9


def test_derived_images_among_originals_are_set_aside(series):
    def edit(dataset, index):
        if index == 4:
            dataset.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]

    reading = read_folder(series(edit=edit))
    assert len(reading.found[0].files) == 4
    assert [(entry.code, len(entry.files)) for entry in reading.refused] == [("DCM_DERIVED", 1)]


def test_a_series_of_derived_images_only_is_a_volume(series):
    assert len(only(series(edit=set_on(None, ImageType=["DERIVED", "PRIMARY", "AXIAL"]))).files) == 5


def test_a_localizer_in_the_series_is_set_aside(series):
    reading = read_folder(series(edit=set_on(4, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])))
    assert len(reading.found[0].files) == 4
    assert [entry.code for entry in reading.refused] == ["DCM_LOCALIZER"]
