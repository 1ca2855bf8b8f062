"""The writer is held to other libraries: pydicom decodes what it wrote, highdicom finds frames where they were put."""

from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian

from bedside.core.errors import UsageError
from bedside.core.volume import Volume
from bedside.formats.dicom_write import Plane, SeriesIdentity, planes_of, write_planes
from bedside.formats.dicom_write_frames import write_frames
from bedside.formats.dicom_write_htj2k import SHAPE

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
LOSSLESS = ("1.2.840.10008.1.2.5", *(f"1.2.840.10008.1.2.4.{number}" for number in (57, 70, 80, 90, 201)))
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
CT, MR = SeriesIdentity.of("P"), SeriesIdentity.of("P", modality="MR")
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def oblique() -> np.ndarray:
    """A turn around a skew axis, three different spacings, an odd origin."""
    x, y, z = np.array([0.6, 0.48, 0.64]), np.array([-0.8, 0.36, 0.48]), np.array([0.0, -0.8, 0.6])
    affine = np.eye(4)
    affine[:3, :3] = np.stack([x * 0.7, y * 1.1, z * 2.5], axis=1)
    affine[:3, 3] = (-31.25, 12.5, 100.125)
    return affine


def volume() -> Volume:
    return Volume.of(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), oblique())


def stored(paths) -> np.ndarray:
    """(I, J, K), as pydicom reads it."""
    return np.stack([pydicom.dcmread(path).pixel_array.T for path in paths], axis=-1)


@pytest.mark.parametrize("syntax", NATIVE + LOSSLESS, ids=lambda syntax: UID(syntax).keyword)
@pytest.mark.parametrize("write", [write_planes, write_frames])
def test_what_is_written_in_a_lossless_syntax_is_read_back_by_pydicom(tmp_path, syntax, write):
    paths = write(tmp_path, planes_of(volume()), identity=CT, syntax=syntax)
    assert {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in paths} == {syntax}
    array = stored(paths) if write is write_planes else pydicom.dcmread(paths[0]).pixel_array.transpose(2, 1, 0)
    assert np.array_equal(array, volume().array[0])


def test_jpeg_baseline_holds_8_bits_within_two_and_says_that_it_is_lossy(tmp_path):
    ramp = np.broadcast_to(np.linspace(0, 250, SHAPE[0]).astype(np.uint8)[:, None, None], SHAPE)
    paths = write_planes(tmp_path, planes_of(Volume.of(ramp, oblique())), identity=CT, syntax=JPEG_BASELINE)
    assert np.abs(stored(paths).astype(int) - ramp).max() <= 2
    assert pydicom.dcmread(paths[0]).LossyImageCompression == "01"


@pytest.mark.parametrize("syntax", [JPEG_BASELINE, "1.2.840.10008.1.2.4.51", "1.2.3"])
def test_a_syntax_that_cannot_hold_the_pixels_is_not_written(tmp_path, syntax):
    with pytest.raises(UsageError) as caught:
        write_planes(tmp_path, planes_of(volume()), identity=CT, syntax=syntax)
    assert caught.value.code == "DICOM_WRITE"


def test_htj2k_of_any_other_frame_is_not_made_up(tmp_path):
    other = Volume.of(volume().array[0] + np.int16(1), oblique())
    with pytest.raises(UsageError, match="nothing here encodes it"):
        write_planes(tmp_path, planes_of(other), identity=CT, syntax="1.2.840.10008.1.2.4.201")


@pytest.mark.parametrize("identity", [CT, MR])
def test_highdicom_finds_the_frames_of_an_enhanced_file_where_they_were_put(tmp_path, identity):
    (path,) = write_frames(tmp_path, planes_of(volume())[::-1], identity=identity)
    geometry = highdicom.imread(path).get_volume_geometry()
    ends = np.array([[0, 0, 0, 1], [SHAPE[2] - 1, SHAPE[1] - 1, SHAPE[0] - 1, 1]], dtype=float).T
    found = (LPS @ geometry.affine @ ends)[:3]
    said = (volume().affine @ ends[[2, 1, 0, 3]])[:3]
    assert min(np.abs(found - said).max(), np.abs(_flipped(geometry, ends) - said).max()) < 1e-9


def _flipped(geometry, ends) -> np.ndarray:
    """The same corners, where highdicom counts the frames the other way."""
    turned = ends.copy()
    turned[0] = geometry.spatial_shape[0] - 1 - ends[0]
    return (LPS @ geometry.affine @ turned)[:3]


def test_highdicom_finds_a_classic_series_where_it_was_put(tmp_path):
    paths = write_planes(tmp_path, planes_of(volume()), identity=CT)
    found = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths])
    corner = (LPS @ found.affine @ [0, 0, 0, 1])[:3]
    ends = [(volume().affine @ [0, 0, k, 1])[:3] for k in (0, SHAPE[2] - 1)]
    assert min(np.abs(corner - end).max() for end in ends) < 1e-9


def test_planes_are_written_in_the_order_and_with_the_numbers_given(tmp_path):
    planes = [replace(plane, number=7, marks={"AcquisitionNumber": 3, "EchoTime": 4.5}) for plane in planes_of(volume())[::-1]]
    first, *_ = (pydicom.dcmread(path) for path in write_planes(tmp_path, planes, identity=MR, tilt_degrees=-12.5))
    assert (first.InstanceNumber, first.AcquisitionNumber, first.EchoTime, first.GantryDetectorTilt) == (7, 3, 4.5, -12.5)
    expected = (LPS @ volume().affine @ [0, 0, SHAPE[2] - 1, 1])[:3]
    assert np.allclose(np.array(first.ImagePositionPatient, float), expected, atol=1e-9)


def test_frames_of_two_directions_are_two_stacks_and_times_are_told_apart(tmp_path):
    turned = planes_of(Volume.of(volume().array, np.eye(4)[[1, 2, 0, 3]]))
    marked = [replace(plane, marks={"TemporalPositionIdentifier": 1 + plane.number % 2}) for plane in planes_of(volume())]
    (path,) = write_frames(
        tmp_path, [*marked, *(replace(p, marks={"TemporalPositionIdentifier": 1}) for p in turned)], identity=MR
    )
    frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    contents = [frame.FrameContentSequence[0] for frame in frames]
    assert [content.StackID for content in contents] == ["1"] * SHAPE[2] + ["2"] * SHAPE[2]
    assert [content.TemporalPositionIndex for content in contents][:4] == [2, 1, 2, 1]
    assert all("PlaneOrientationSequence" in frame for frame in frames)
    assert all(len(content.DimensionIndexValues) == 3 for content in contents)


def test_a_tilted_volume_can_be_cut_into_planes_but_not_written_as_an_upright_series():
    leaning = oblique()
    leaning[:3, 2] += 0.5 * leaning[:3, 1]
    assert len(planes_of(Volume.of(volume().array, leaning))) == SHAPE[2]
    skewed = oblique()
    skewed[:3, 1] += 0.1 * skewed[:3, 0]
    with pytest.raises(UsageError):
        planes_of(Volume.of(volume().array, skewed))


def test_frames_of_different_sizes_are_no_file(tmp_path):
    first, second, *_ = planes_of(volume())
    smaller: Plane = replace(second, pixels=second.pixels[:-1])
    with pytest.raises(UsageError):
        write_frames(tmp_path, [first, smaller], identity=CT, syntax=ExplicitVRLittleEndian)
