"""A mask written as a DICOM segmentation comes back voxel by voxel, on the grid it was made on, whatever that grid is."""

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import highdicom
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from bedside.core.errors import InputRejected, UsageError
from bedside.core.volume import Frame, Volume
from bedside.formats.dicom import read_folder
from bedside.formats.dicom_write import SeriesIdentity, write_series
from bedside.formats.seg import Kind, from_frame, into_frame, read_seg, write_seg

from .segmented import KINDS, MAKER, NAMES, TERMS, a_mask, affine_of, rotation, series, tilted

ONE = {1: "bone"}
ORIENTATIONS = [
    np.array([[sign if row == axis else 0.0 for axis, sign in zip(order, signs, strict=True)] for row in range(3)])
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]


def named(directions: np.ndarray) -> str:
    return "".join(("RAS" if column.sum() > 0 else "LPI")[int(np.argmax(abs(column)))] for column in directions.T)


@pytest.mark.parametrize("directions", ORIENTATIONS, ids=named)
def test_a_mask_comes_back_voxel_by_voxel_in_all_48_orientations(tmp_path: Path, directions: np.ndarray) -> None:
    found = series(tmp_path / "s", affine_of(directions))
    mask = a_mask(found.volume.shape[1:])
    write_seg(tmp_path / "seg.dcm", mask, found, structures=NAMES, maker=MAKER)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("axis", [(1, 2, 3), (-2, 1, 0.4), (0.1, 1, -5)])
def test_an_oblique_series_gives_its_mask_back(tmp_path: Path, kind: str, axis: tuple) -> None:
    found = series(tmp_path / "s", affine_of(rotation(37.0, np.array(axis))))
    mask = a_mask(found.volume.shape[1:])
    write_seg(tmp_path / "seg.dcm", mask, found, structures=NAMES, maker=MAKER, kind=kind)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [(0, 0, 0), (1, 2, 3), (-2, 1, 0.4)], ids=["straight", "oblique", "oblique too"])
@pytest.mark.parametrize("slices", [slice(None), slice(2, 3)], ids=["all slices", "one slice"])
def test_a_single_structure_comes_back_voxel_by_voxel(tmp_path: Path, kind: Kind, axis: tuple, slices: slice) -> None:
    found = series(tmp_path / "s", affine_of(rotation(37.0, np.array(axis)) if any(axis) else np.eye(3)))
    mask = np.zeros(found.volume.shape[1:], dtype=np.uint8)
    mask[..., slices] = a_mask(mask.shape)[..., slices] > 1
    write_seg(tmp_path / "seg.dcm", mask, found, structures=ONE, maker=MAKER, kind=kind)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degrees", [10.0, -20.0])
def test_a_single_structure_of_a_tilted_series_comes_back_voxel_by_voxel(tmp_path: Path, kind: Kind, degrees: float) -> None:
    found = tilted(tmp_path / "s", degrees)
    mask = from_frame((a_mask() > 1).astype(np.uint8), found.volume.affine, found.frame, found.volume.shape[1:])
    write_seg(tmp_path / "seg.dcm", mask, found, structures=ONE, maker=MAKER, kind=kind)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)


def test_a_structure_that_is_named_but_not_found_leaves_the_one_that_is(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    mask = np.where(a_mask(found.volume.shape[1:]) == 2, np.uint8(2), np.uint8(0))
    write_seg(tmp_path / "seg.dcm", mask, found, structures=NAMES, maker=MAKER)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)


@pytest.mark.parametrize("name", ["SegmentIdentificationSequence", "PlanePositionSequence"])
def test_what_all_frames_have_in_common_may_be_said_once_or_in_every_frame(tmp_path: Path, name: str) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    mask = np.zeros(found.volume.shape[1:], dtype=np.uint8)
    mask[3:8, 2:7, 2] = 1  # one frame, so that both have one value
    write_seg(tmp_path / "seg.dcm", mask, found, structures=ONE, maker=MAKER)
    data = dcmread(tmp_path / "seg.dcm")
    shared, (frame,) = data.SharedFunctionalGroupsSequence[0], data.PerFrameFunctionalGroupsSequence
    here, there = (frame, shared) if name in frame else (shared, frame)
    setattr(there, name, here[name].value)
    del here[name]
    data.save_as(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)


@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("degrees", [10.0, -20.0, 3.3])
def test_a_tilted_series_is_segmented_in_the_scanners_own_planes(tmp_path: Path, degrees: float, along: int) -> None:
    found = tilted(tmp_path / "s", degrees, along=along)
    mask = from_frame(a_mask(), found.volume.affine, found.frame, found.volume.shape[1:])
    assert mask.any()
    write_seg(tmp_path / "seg.dcm", mask, found, structures=NAMES, maker=MAKER)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)
    seen = highdicom.seg.segread(tmp_path / "seg.dcm")
    sources = {float(dcmread(path).ImagePositionPatient[1]) for path in found.files}
    assert {float(g.PlanePositionSequence[0].ImagePositionPatient[1]) for g in seen.PerFrameFunctionalGroupsSequence} <= sources


@given(shift=st.floats(-3, 3), ties=st.booleans(), seed=st.integers(0, 99))
def test_sliding_planes_there_and_back_loses_nothing_inside_also_at_ties(shift: float, ties: bool, seed: int) -> None:
    step = round(shift * 2) / 2 if ties else shift
    lean = np.eye(4)
    lean[0, 2] = step
    wide = np.zeros((40, 9, 5), dtype=np.uint8)
    wide[14:26] = a_mask((12, 9, 5), seed)
    grid = np.eye(4)
    grid[0, 3] = -14.0
    back = from_frame(into_frame(wide, grid, Frame(lean, (60, 9, 5))), grid, Frame(lean, (60, 9, 5)), wide.shape)
    reached = from_frame(np.ones((60, 9, 5), np.uint8), grid, Frame(lean, (60, 9, 5)), wide.shape) > 0
    np.testing.assert_array_equal(back, wide * reached)


def test_another_program_sees_the_same_voxels_in_the_same_places(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(rotation(20.0, np.array([1.0, 0.3, 0.2]))))
    mask = a_mask(found.volume.shape[1:])
    write_seg(tmp_path / "seg.dcm", mask, found, structures=NAMES, terms=TERMS, maker=MAKER)
    seen = highdicom.seg.segread(tmp_path / "seg.dcm")
    volume = seen.get_volume(combine_segments=True)
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    points = np.argwhere(volume.array > 0)
    ours = np.linalg.inv(found.volume.affine) @ to_ras @ np.c_[points, np.ones(len(points))].T
    places = np.rint(ours[:3]).astype(int)
    assert np.abs(ours[:3] - places).max() < 1e-3
    np.testing.assert_array_equal(mask[tuple(places)], volume.array[tuple(points.T)])
    assert len(points) == np.count_nonzero(mask)


def test_frames_whose_bits_do_not_fill_bytes_are_read_right(tmp_path: Path) -> None:
    affine = affine_of(np.eye(3))
    values = np.arange(7 * 5 * 4).reshape(7, 5, 4).astype(np.int16)
    write_series(tmp_path / "s", Volume.of(values, affine), identity=SeriesIdentity.of("P"))
    (found,) = read_folder(tmp_path / "s").found
    mask = a_mask((7, 5, 4), 5)
    write_seg(tmp_path / "seg.dcm", mask, found, structures=NAMES, maker=MAKER)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)


@pytest.mark.parametrize(
    "edit",
    [
        lambda shared, _: setattr(shared.PlaneOrientationSequence[0], "ImageOrientationPatient", [0, -1, 0, -1, 0, 0]),
        lambda shared, _: setattr(shared.PixelMeasuresSequence[0], "PixelSpacing", [1.1, 1.1]),
        lambda _, frame: setattr(
            frame, "PlaneOrientationSequence", highdicom.PlaneOrientationSequence("PATIENT", [1, 0, 0, 0, 1, 0])
        ),
        lambda _, frame: setattr(frame.SegmentIdentificationSequence[0], "ReferencedSegmentNumber", 0),
    ],
    ids=["rows and columns changed places", "another spacing", "one frame turned", "segment 0"],
)
def test_a_segmentation_that_begins_where_the_series_does_but_lies_otherwise_is_refused(tmp_path: Path, edit) -> None:
    affine = np.diag([0.7, 0.7, 2.5, 1.0])
    write_series(
        tmp_path / "s", Volume.of(np.arange(125, dtype=np.int16).reshape(5, 5, 5), affine), identity=SeriesIdentity.of("P")
    )
    (found,) = read_folder(tmp_path / "s").found
    write_seg(tmp_path / "seg.dcm", a_mask((5, 5, 5)), found, structures=NAMES, maker=MAKER)
    data = dcmread(tmp_path / "seg.dcm")
    edit(data.SharedFunctionalGroupsSequence[0], data.PerFrameFunctionalGroupsSequence[3])
    data.save_as(tmp_path / "seg.dcm")
    with pytest.raises(InputRejected) as refused:
        read_seg(tmp_path / "seg.dcm", found)
    assert refused.value.code in {"SEG_FRAME", "SEG_STRUCTURE"}


def test_what_cannot_be_written_is_wrong_use(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    mask = a_mask(found.volume.shape[1:])
    wrong = {
        "SEG_EMPTY": (np.zeros_like(mask), found, NAMES),
        "SEG_MASK": (mask, found, {1: "femur"}),
        "SEG_SOURCE": (mask, replace(found, geometry="sform"), NAMES),
    }
    for code, (values, source, names) in wrong.items():
        with pytest.raises(UsageError) as refused:
            write_seg(tmp_path / "seg.dcm", values, source, structures=names, maker=MAKER)
        assert refused.value.code == code
    with pytest.raises(UsageError) as other_shape:
        write_seg(tmp_path / "seg.dcm", mask[:-1], found, structures=NAMES, maker=MAKER)
    assert other_shape.value.code == "SEG_MASK"
    assert not (tmp_path / "seg.dcm").exists()


def test_a_series_that_moved_since_it_was_read_is_refused(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    data = dcmread(found.files[2])
    data.ImagePositionPatient = [0, 0, 0]
    data.save_as(found.files[2])
    with pytest.raises(InputRejected) as refused:
        write_seg(tmp_path / "seg.dcm", a_mask(found.volume.shape[1:]), found, structures=NAMES, maker=MAKER)
    assert refused.value.code == "SEG_FRAME"


def test_a_segmentation_of_another_series_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    other = series(tmp_path / "t", affine_of(rotation(5.0, np.array([1.0, 1.0, 0.0]))))
    write_seg(tmp_path / "seg.dcm", a_mask(found.volume.shape[1:]), found, structures=NAMES, maker=MAKER)
    with pytest.raises(InputRejected) as elsewhere:
        read_seg(tmp_path / "seg.dcm", other)
    with pytest.raises(InputRejected) as image:
        read_seg(found.files[0], found)
    whole = (tmp_path / "seg.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputRejected):
        read_seg(tmp_path / "cut.dcm", found)
    assert (elsewhere.value.code, image.value.code) == ("SEG_FRAME", "SEG_STRUCTURE")


@pytest.mark.slow
def test_25_segments_of_100_slices_of_512_by_512_are_written_and_read_within_a_minute(tmp_path: Path) -> None:
    from time import perf_counter

    write_series(
        tmp_path / "s",
        Volume.of(np.zeros((512, 512, 100), np.int16), np.diag([-0.8, -0.8, 1.5, 1.0])),
        identity=SeriesIdentity.of("P"),
    )
    (found,) = read_folder(tmp_path / "s").found
    mask = np.zeros((512, 512, 100), dtype=np.uint8)
    for number in range(25):
        i, j = divmod(number, 5)
        mask[100 * i + 5 : 100 * i + 95, 100 * j + 5 : 100 * j + 95, 3:97] = number + 1
    begun = perf_counter()
    names = {number: f"bone {number}" for number in range(1, 26)}
    write_seg(tmp_path / "seg.dcm", mask, found, structures=names, maker=MAKER)
    back = read_seg(tmp_path / "seg.dcm", found)
    assert perf_counter() - begun < 60
    np.testing.assert_array_equal(back, mask)


@pytest.mark.real
def test_61_labels_of_a_real_series_come_back_voxel_by_voxel(tmp_path: Path, data_root: Path) -> None:
    from bedside.core.volume import farthest_corner_mm
    from bedside.formats.nifti import read_nifti

    (found,) = read_folder(data_root / "ct_bone_totalseg" / "example_ct_dicom").found
    labels = read_nifti(data_root / "ct_bone_totalseg" / "example_seg_dicom.nii.gz").volume
    assert farthest_corner_mm(labels.canonical(), found.volume.canonical()) < 0.01
    from bedside.core.volume import Reorientation

    mask = Reorientation.of(found.volume).undo(labels.canonical().array)[0].astype(np.uint8)
    names = {int(number): f"structure {number}" for number in np.unique(mask) if number}
    assert len(names) > 20
    write_seg(tmp_path / "seg.dcm", mask, found, structures=names, maker=MAKER)
    order = {0: 0, **{number: at for at, number in enumerate(sorted(names), start=1)}}
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), np.vectorize(order.get)(mask))


MAKERS = ("failing", "ge", "generic", "hitachi", "hyperfine", "philips", "philips_enhanced", "siemens", "siemens_multiframe")


@pytest.mark.real
@pytest.mark.parametrize("maker", MAKERS)
def test_real_series_of_every_maker_enhanced_and_tilted_too_give_their_masks_back(
    tmp_path: Path, data_root: Path, maker: str
) -> None:
    series_found = read_folder(data_root / "dicom_conversion_dev" / maker).found
    assert series_found
    for found in series_found[:2]:
        shape = found.volume.shape[1:]
        mask = a_mask(shape)
        if found.frame is not None:  # what the scanner's planes do not reach cannot come back
            mask = from_frame(into_frame(mask, found.volume.affine, found.frame), found.volume.affine, found.frame, shape)
        write_seg(tmp_path / "seg.dcm", mask, found, structures=NAMES, maker=MAKER)
        np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)


def test_a_series_without_a_frame_of_reference_or_a_slice_thickness_is_segmented_all_the_same(tmp_path: Path) -> None:
    found = series(tmp_path / "s", affine_of(np.eye(3)))
    for path in found.files:
        data = dcmread(path)
        data.FrameOfReferenceUID = ""
        data.SpecificCharacterSet = "ISO 2022 IR 100"
        del data.SliceThickness, data.AccessionNumber
        data.save_as(path)
    mask = a_mask(found.volume.shape[1:])
    write_seg(tmp_path / "seg.dcm", mask, found, structures=NAMES, maker=MAKER)
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", found), mask)
    assert dcmread(tmp_path / "seg.dcm").FrameOfReferenceUID.startswith("2.25.")
